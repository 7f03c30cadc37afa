"""What the client packages are asked to send, and what they must read."""

from collections.abc import Sequence
from typing import Any

import pytest

from prefrank.wire.route import sigmoid
from tests.serving.clients.served import Served

QUERY = "how do I bake bread"
DOCUMENTS = ["mix flour and water", "the capital of france", "yeast needs an hour"]
WHOLE = [f"{QUERY}[SEP]{document}" for document in DOCUMENTS]
"""Each pair as one text."""


def scores(served: Served, *, raw: bool = False) -> list[Any]:
    """Of the documents, as a client reads them."""
    values = served.raw(QUERY, DOCUMENTS)
    return [pytest.approx(value if raw else sigmoid(value), rel=1e-5) for value in values]


def best_first(served: Served) -> list[int]:
    """The documents' places."""
    values = served.raw(QUERY, DOCUMENTS)
    return sorted(range(len(values)), key=lambda place: -values[place])


def ranked(served: Served, *, raw: bool = False) -> list[Sequence[Any]]:
    """[place, score] of the documents, the best first."""
    values = scores(served, raw=raw)
    return [[place, values[place]] for place in best_first(served)]
