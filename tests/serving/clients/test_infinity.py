"""Infinity's own client."""

import pytest

from tests.serving.clients.environments import ask, needs
from tests.serving.clients.exchanges import DOCUMENTS, QUERY, WHOLE, best_first, ranked, scores
from tests.serving.clients.served import Served

pytestmark = needs("recent")


@pytest.mark.parametrize("raw", [False, True])
def test_infinity_reads_rankings_classes_and_models(encoder: Served, raw: bool) -> None:
    """Without a model it sends a name of its own."""
    answers = ask("recent", "ask_infinity", url=encoder.url, query=QUERY, documents=DOCUMENTS, raw_scores=raw)
    texts = [DOCUMENTS[place] for place in best_first(encoder)]
    assert answers["rerank"] == [[*each, text] for each, text in zip(ranked(encoder, raw=raw), texts, strict=True)]
    assert (answers["model"], answers["models"]) == ("m", ["m"])
    assert answers["tokens"] > 0


def test_infinity_reads_classes_of_whole_texts(encoder: Served) -> None:
    answers = ask("recent", "ask_infinity", url=encoder.url, query="", documents=WHOLE, raw_scores=True, model="m")
    assert answers["classify"] == [[["LABEL_0", score]] for score in scores(encoder, raw=True)]


def test_infinity_reads_errors(encoder: Served, locked: Served) -> None:
    asked = {"query": QUERY, "documents": DOCUMENTS}
    empty = ask("recent", "ask_infinity", url=encoder.url, query=QUERY, documents=[])
    assert empty["invalid"] == [[["body"], "there is nothing to score in the request; give at least one text"]]
    unknown = ask("recent", "ask_infinity", url=encoder.url, model="other", **asked)
    assert "Unexpected status code: 400" in unknown["error"]
    assert "there is no model 'other' here" in unknown["error"]
    assert "Unexpected status code: 401" in ask("recent", "ask_infinity", url=locked.url, **asked)["error"]
    assert ask("recent", "ask_infinity", url=locked.url, key="k", **asked)["rerank"] == [
        [*each, DOCUMENTS[each[0]]] for each in ranked(locked)
    ]
