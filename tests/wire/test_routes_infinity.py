"""Infinity's /rerank, /classify and /models."""

from typing import Any

import pytest

from prefrank.types import Turn
from prefrank.wire.infinity import ERRORS, PAGES, ROUTES
from prefrank.wire.route import Asked, Refused, sigmoid
from tests.wire.asking import ABOUT, answer, ask, refusal

Q = (Turn("user", "q"),)
RERANK = {"query": "q", "documents": ["a", "b"], "return_documents": False, "raw_scores": False}
FRAME = {
    "model": "m",
    "usage": {"prompt_tokens": 14, "total_tokens": 14},
    "id": "infinity-" + "0" * 32,
    "created": 1,
}


def test_rankings_have_the_best_first_between_0_and_1() -> None:
    question = ask("/rerank", RERANK | {"model": "default/not-specified", "top_n": None})
    assert (question.asked, question.model) == ((Asked(Q, "a"), Asked(Q, "b")), None)
    results = [{"relevance_score": sigmoid(2.0), "index": 1}, {"relevance_score": sigmoid(-1.0), "index": 0}]
    assert answer(question, -1.0, 2.0) == FRAME | {"object": "rerank", "results": results}


def test_raw_scores_documents_and_the_best_few_are_given_if_asked_for() -> None:
    body = RERANK | {"raw_scores": True, "return_documents": True, "top_n": 1, "model": "m"}
    question = ask("/rerank", body)
    assert question.model == "m"
    assert answer(question, -1.0, 2.0)["results"] == [{"relevance_score": 2.0, "index": 1, "document": "b"}]


@pytest.mark.parametrize(("raw", "scores"), [(False, [sigmoid(-1.0), sigmoid(2.0)]), (True, [-1.0, 2.0])])
def test_classes_of_whole_texts(raw: bool, scores: list[float]) -> None:
    question = ask("/classify", {"input": ["a", "b"], "raw_scores": raw, "model": "m"})
    assert question.asked == (Asked((), "a"), Asked((), "b"))
    data = [[{"score": score, "label": "LABEL_0"}] for score in scores]
    assert answer(question, -1.0, 2.0) == FRAME | {"object": "classify", "data": data}


@pytest.mark.parametrize(
    ("path", "body", "place", "message"),
    [
        ("/rerank", RERANK | {"query": None}, ["query"], "query is null; wanted a string"),
        ("/rerank", RERANK | {"documents": ["a", 1]}, ["documents", 1], "documents[1] is 1; wanted a string"),
        ("/rerank", RERANK | {"documents": None}, ["documents"], "documents is null; wanted a list"),
        ("/rerank", RERANK | {"documents": []}, [], "there is nothing to score"),
        ("/rerank", RERANK | {"top_n": -1}, ["top_n"], "top_n is -1; wanted a whole number"),
        ("/rerank", RERANK | {"raw_scores": "no"}, ["raw_scores"], "raw_scores is 'no'; wanted true or false"),
        ("/classify", {"raw_scores": False}, ["input"], "input is missing"),
        ("/classify", {"raw_scores": False, "input": [None]}, ["input", 0], "input[0] is null; wanted a string"),
        ("/classify", {"raw_scores": False, "input": []}, [], "there is nothing to score"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_their_form(path: str, body: Any, place: list[Any], message: str) -> None:
    dialect, status, error = refusal(path, body)
    assert (dialect, status) == ("infinity", 422)
    (detail,) = error["detail"]
    assert (detail["loc"], detail["type"]) == (["body", *place], "value_error")
    assert message in detail["msg"]


def test_other_errors_are_in_the_form_of_openai() -> None:
    error = ERRORS.write(Refused("unknown_model", "no such model", place="model"), ERRORS.status("unknown_model"))
    assert error == {"error": {"message": "no such model", "type": None, "param": "model", "code": 400}}
    assert ERRORS.write(Refused("unauthorized", "no key"), 401) == {"detail": "no key"}
    kinds = ("malformed", "overloaded", "failed", "unavailable")
    assert [ERRORS.status(kind) for kind in kinds] == [422, 429, 500, 503]


@pytest.mark.parametrize(
    ("body", "is_theirs"),
    [
        (RERANK, True),
        ({"query": "q", "documents": [], "return_documents": None}, True),
        ({"query": "q", "documents": [], "raw_scores": None}, True),
        ({"query": "q", "documents": []}, False),
        ({"query": "q", "raw_scores": True}, False),
        ([], False),
    ],
)
def test_rankings_are_told_from_those_of_vllm_by_what_their_client_always_sends(body: Any, is_theirs: bool) -> None:
    assert ROUTES[0].meant is not None
    assert ROUTES[0].meant(body) is is_theirs


@pytest.mark.parametrize(
    ("body", "is_theirs"),
    [({"input": [], "raw_scores": False}, True), ({"input": []}, False), ({"text": [], "raw_scores": False}, False)],
)
def test_classes_are_told_from_those_of_vllm_and_sglang(body: Any, is_theirs: bool) -> None:
    assert ROUTES[1].meant is not None
    assert ROUTES[1].meant(body) is is_theirs


def test_models_are_listed_with_what_their_client_needs() -> None:
    (model,) = PAGES[0].write([ABOUT])["data"]
    assert (model["id"], model["stats"], model["owned_by"]) == ("m", {}, "infinity")
