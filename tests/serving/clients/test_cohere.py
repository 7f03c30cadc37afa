"""Cohere's own clients, versions 5 and 7, and the rerankers that are built on them."""

import pytest

from tests.serving.clients.environments import ask, needs
from tests.serving.clients.exchanges import DOCUMENTS, QUERY, best_first, ranked, scores
from tests.serving.clients.served import Served

REQUEST = {"model": "m", "query": QUERY, "documents": DOCUMENTS}
EACH = [pytest.param(each, marks=needs(each)) for each in ("recent", "cohere5")]


@pytest.mark.parametrize("environment", EACH)
@pytest.mark.parametrize("version", [1, 2])
def test_cohere_reads_scores_and_errors(encoder: Served, environment: str, version: int) -> None:
    requests = [
        REQUEST,
        REQUEST | {"top_n": 1},
        REQUEST | {"model": "rerank-v3.5"},
        REQUEST | {"documents": []},
    ]
    whole, best, unknown, empty = ask(environment, "ask_cohere", url=encoder.url, version=version, requests=requests)
    assert whole["scores"] == ranked(encoder)
    assert whole["texts"] == [DOCUMENTS[place] for place in best_first(encoder)]
    assert best["scores"] == ranked(encoder)[:1]
    assert (unknown["error"], unknown["status"]) == ("NotFoundError", 404)
    assert unknown["message"].startswith("there is no model 'rerank-v3.5' here")
    assert (empty["error"], empty["status"]) == ("BadRequestError", 400)


@pytest.mark.parametrize("environment", EACH)
def test_cohere_ranks_objects_by_the_fields_that_are_named(encoder: Served, environment: str) -> None:
    documents = [{"title": "none", "body": text} for text in DOCUMENTS]
    request = REQUEST | {"documents": documents, "rank_fields": ["body"], "return_documents": True}
    (answer,) = ask(environment, "ask_cohere", url=encoder.url, version=1, requests=[request])
    assert answer["scores"] == ranked(encoder)
    assert answer["texts"] == [DOCUMENTS[place] for place in best_first(encoder)]


@pytest.mark.parametrize("environment", EACH)
def test_cohere_sends_its_key(locked: Served, environment: str) -> None:
    question = {"url": locked.url, "version": 2, "requests": [REQUEST]}
    (right,) = ask(environment, "ask_cohere", key="k", **question)
    (wrong,) = ask(environment, "ask_cohere", key="another", **question)
    assert right["scores"] == ranked(locked)
    assert (wrong["error"], wrong["status"]) == ("UnauthorizedError", 401)


@needs("cohere5")
def test_langchain_reads_scores_from_cohere(encoder: Served) -> None:
    asked = {"url": encoder.url, "model": "m", "query": QUERY, "documents": DOCUMENTS, "top_n": 2}
    values = scores(encoder)
    best = best_first(encoder)[:2]
    assert ask("cohere5", "ask_langchain_cohere", **asked) == [[DOCUMENTS[n], values[n]] for n in best]


@needs("cohere5")
@pytest.mark.parametrize("kind", ["cohere", "jina", "tei"])
def test_llama_index_reads_scores(encoder: Served, kind: str) -> None:
    asked = {"kind": kind, "url": encoder.url, "model": "m", "query": QUERY, "documents": DOCUMENTS}
    values = scores(encoder)
    found = ask("cohere5", "ask_llama_index", **asked)
    assert found == [[DOCUMENTS[place], values[place]] for place in best_first(encoder)]


@needs("cohere5")
def test_llama_index_reads_what_jina_says_is_wrong(encoder: Served) -> None:
    asked = {"kind": "jina", "url": encoder.url, "model": "jina", "query": QUERY, "documents": DOCUMENTS}
    error = ask("cohere5", "ask_llama_index", **asked)
    assert error["error"] == "RuntimeError"
    assert error["message"].startswith("there is no model 'jina' here")
