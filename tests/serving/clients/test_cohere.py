"""Cohere's own clients, versions 5 and 7, and those that are built on them."""

import pytest

from prefrank.wire.route import sigmoid
from tests.serving.clients.environments import ask, needs
from tests.serving.clients.served import Served

QUERY = "how do I bake bread"
DOCUMENTS = ["mix flour and water", "the capital of france", "yeast needs an hour"]


def ranked(served: Served) -> list[list[float]]:
    """(place, score) of all documents, the best first."""
    raw = served.raw(QUERY, DOCUMENTS)
    return [[place, pytest.approx(sigmoid(raw[place]))] for place in sorted(range(3), key=lambda place: -raw[place])]


@pytest.mark.parametrize("environment", [pytest.param(each, marks=needs(each)) for each in ("recent", "cohere5")])
@pytest.mark.parametrize("version", [1, 2])
def test_cohere_reads_scores_and_errors(encoder: Served, environment: str, version: int) -> None:
    question = {"url": encoder.url, "version": version, "model": "m", "query": QUERY}
    answer = ask(environment, "cohere_client", documents=DOCUMENTS, **question)
    assert answer["scores"] == ranked(encoder)
