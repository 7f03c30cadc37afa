"""A client of text-embeddings-inference."""

import pytest

from tests.serving.clients.environments import ask, needs
from tests.serving.clients.exchanges import DOCUMENTS, QUERY, ranked
from tests.serving.clients.served import Served


@needs("recent")
@pytest.mark.parametrize("raw", [False, True])
def test_tei_client_reads_rankings_and_what_is_served(encoder: Served, raw: bool) -> None:
    answer = ask("recent", "ask_tei", url=encoder.url, query=QUERY, documents=DOCUMENTS, raw_scores=raw)
    assert (answer["health"], answer["type"], answer["most"]) == (True, "reranker", 4_096)
    assert answer["rerank"] == [[*each, DOCUMENTS[each[0]]] for each in ranked(encoder, raw=raw)]
    assert "reranker" in answer["classify"].lower(), "it asks rerankers for no classes"
