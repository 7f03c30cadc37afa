"""Cohere's and Jina's rerank, whose paths vLLM's clients use too."""

from typing import Any

import pytest

from prefrank.types import Turn
from prefrank.wire.cohere import ERRORS
from prefrank.wire.route import Asked, Refused, sigmoid
from tests.wire.asking import answer, ask, refusal

Q = (Turn("user", "q"),)
BODY = {"query": "q", "documents": ["a", "b", "c"]}
PATHS = ["/v1/rerank", "/v2/rerank"]
LOW, MIDDLE, HIGH = sigmoid(-1.0), sigmoid(0.0), sigmoid(2.0)


@pytest.mark.parametrize("path", PATHS)
def test_one_answer_serves_the_clients_of_all_three(path: str) -> None:
    """Langchain's, for one, sends null for what is not set."""
    nulls = dict.fromkeys(("top_n", "return_documents", "rank_fields", "max_chunks_per_doc", "max_tokens_per_doc"))
    question = ask(path, BODY | {"model": "m"} | nulls)
    assert (question.asked, question.model) == ((Asked(Q, "a"), Asked(Q, "b"), Asked(Q, "c")), "m")
    assert answer(question, -1.0, 2.0, 0.0) == {
        "id": "0" * 32,
        "model": "m",
        "results": [
            {"index": 1, "relevance_score": HIGH, "document": {"text": "b"}},
            {"index": 2, "relevance_score": MIDDLE, "document": {"text": "c"}},
            {"index": 0, "relevance_score": LOW, "document": {"text": "a"}},
        ],
        "meta": {"api_version": {"version": path[2]}, "billed_units": {"search_units": 1}},
        "usage": {"prompt_tokens": 21, "total_tokens": 21},
    }


@pytest.mark.parametrize(("top_n", "places"), [(1, [1]), (2, [1, 2]), (9, [1, 2, 0]), (0, [1, 2, 0])])
def test_only_the_best_are_given_and_documents_unless_they_are_not_wanted(top_n: int, places: list[int]) -> None:
    question = ask("/v1/rerank", BODY | {"top_n": top_n, "return_documents": False})
    results = answer(question, -1.0, 2.0, 0.0)["results"]
    assert [result["index"] for result in results] == places
    assert all("document" not in result for result in results)


@pytest.mark.parametrize(
    "flags", [{"use_activation": False}, {"activation": False}, {"softmax": False, "use_activation": None}]
)
def test_raw_scores_are_given_to_those_who_ask_as_of_vllm(flags: dict[str, Any]) -> None:
    question = ask("/v1/rerank", BODY | flags)
    assert [result["relevance_score"] for result in answer(question, -1.0, 2.0, 0.0)["results"]] == [2.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("fields", "text"),
    [(None, "t"), ([], "t"), (["text"], "t"), (["title"], "T"), (["title", "text"], "title: T\ntext: t")],
)
def test_of_documents_that_are_objects_the_named_fields_are_ranked(fields: list[str] | None, text: str) -> None:
    documents = [{"title": "T", "text": "t", "year": 3}, "plain"]
    question = ask("/v1/rerank", {"query": "q", "documents": documents, "rank_fields": fields})
    assert question.asked == (Asked(Q, text), Asked(Q, "plain"))
    given = [result["document"] for result in answer(question, 2.0, 1.0)["results"]]
    assert given == [documents[0], {"text": "plain"}]


def test_a_document_without_a_text_field_comes_back_with_what_was_ranked() -> None:
    """Their client wants `text` in it."""
    question = ask("/v1/rerank", {"query": "q", "documents": [{"title": "T"}], "rank_fields": ["title"]})
    assert answer(question, 2.0)["results"][0]["document"] == {"text": "T", "title": "T"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "place", "message"),
    [
        ({}, "query", "query is missing"),
        ([], None, "the body is []; wanted an object"),
        (BODY | {"query": None}, "query", "query is null; wanted a string"),
        (BODY | {"documents": None}, "documents", "documents is null; wanted a list of strings, or of objects"),
        (BODY | {"documents": []}, None, "there is nothing to score"),
        (BODY | {"documents": ["a", 1]}, "documents[1]", "documents[1] is 1; wanted a string, or an object with text"),
        (BODY | {"documents": ["a", None]}, "documents[1]", "documents[1] is null; wanted a string, or an object"),
        (BODY | {"documents": [{"title": "T"}]}, "documents[0].text", "documents[0].text is missing"),
        (BODY | {"documents": [{"text": 1}]}, "documents[0].text", "documents[0].text is 1; wanted a string"),
        (BODY | {"top_n": -1}, "top_n", "top_n is -1; wanted a whole number"),
        (BODY | {"top_n": "2"}, "top_n", "top_n is '2'; wanted a whole number"),
        (BODY | {"rank_fields": "text"}, "rank_fields", "rank_fields is 'text'; wanted a list"),
        (BODY | {"model": 3}, "model", "model is 3; wanted a string"),
    ],
)
def test_one_error_serves_the_clients_of_all_three(path: str, body: Any, place: str | None, message: str) -> None:
    dialect, status, error = refusal(path, body)
    assert (dialect, status) == ("cohere", 400)
    assert error["message"] == error["detail"] == error["error"]["message"]
    assert message in error["message"]
    assert (error["error"]["param"], error["error"]["code"]) == (place, 400)


def test_only_what_may_pass_is_sent_again_by_their_client() -> None:
    """It tries 408, 429, and 500 and above, three times."""
    kinds = ("malformed", "too_long", "too_many", "text", "unknown_model", "unauthorized", "too_large")
    assert [ERRORS.status(kind) for kind in kinds] == [400, 400, 400, 400, 404, 401, 413]
    assert [ERRORS.status(kind) for kind in ("overloaded", "failed", "unavailable")] == [429, 500, 503]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("unauthorized", "AuthenticationError"),
        ("unknown_model", "NotFoundError"),
        ("unavailable", "ServiceUnavailableError"),
    ],
)
def test_an_error_has_the_name_that_vllms_clients_know(kind: Any, name: str) -> None:
    assert ERRORS.write(Refused(kind, "no"), ERRORS.status(kind))["error"]["type"] == name
