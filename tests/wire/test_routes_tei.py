"""Text-embeddings-inference: every form of its inputs, its answers, its errors and what it tells of itself."""

from dataclasses import replace
from typing import Any

import pytest

from prefrank.types import Turn
from prefrank.wire import PAGES
from prefrank.wire.route import Asked, Times, sigmoid
from prefrank.wire.tei import ERRORS, PREDICT_ROUTE
from tests.wire.asking import ABOUT, answer, answered, ask, refusal

Q = (Turn("user", "q"),)
FIRST = {"score": -1.25, "label": "LABEL_0"}
SECOND = {"score": 2.0, "label": "LABEL_0"}


@pytest.mark.parametrize(
    ("inputs", "asked", "reply"),
    [
        ("t", (Asked((), "t"),), [FIRST]),
        (["t"], (Asked((), "t"),), [FIRST]),
        (["q", "t"], (Asked(Q, "t"),), [FIRST]),
        ([["t"]], (Asked((), "t"),), [[FIRST]]),
        ([["q", "t"]], (Asked(Q, "t"),), [[FIRST]]),
        ([["q", "t"], ["u"]], (Asked(Q, "t"), Asked((), "u")), [[FIRST], [SECOND]]),
        ("", (Asked((), ""),), [FIRST]),
    ],
)
def test_a_flat_list_of_two_texts_is_a_pair_and_a_nested_one_a_batch(
    inputs: Any, asked: tuple[Asked, ...], reply: Any
) -> None:
    question = ask("/predict", {"inputs": inputs, "raw_scores": True})
    assert question.asked == asked
    assert answer(question, *(-1.25, 2.0)[: len(asked)]) == reply


def test_scores_are_between_0_and_1_unless_raw_ones_are_asked_for() -> None:
    assert answer(ask("/predict", {"inputs": "t"}), -1.25) == [{"score": sigmoid(-1.25), "label": "LABEL_0"}]
    plain = answer(ask("/rerank", {"query": "q", "texts": ["a"], "raw_scores": None}), 3.0)
    assert plain == [{"index": 0, "score": sigmoid(3.0)}]


@pytest.mark.parametrize("path", ["/rerank", "/"])
def test_rankings_are_bare_lists_with_the_best_first_and_texts_only_if_asked_for(path: str) -> None:
    body = {"query": "q", "texts": ["a", "b", "c"], "raw_scores": True, "truncation_direction": "Right"}
    question = ask(path, body)
    assert question.asked == (Asked(Q, "a"), Asked(Q, "b"), Asked(Q, "c"))
    ranked = [{"index": 1, "score": 2.0}, {"index": 0, "score": -1.0}, {"index": 2, "score": -1.0}]
    assert answer(question, -1.0, 2.0, -1.0) == ranked
    with_text = answer(ask(path, body | {"return_text": True}), -1.0, 2.0, -1.0)
    assert [result["text"] for result in with_text] == ["b", "a", "c"]


@pytest.mark.parametrize("truncate", [None, True, False])
def test_whether_texts_may_be_cut_is_as_asked(truncate: bool | None) -> None:
    assert ask("/predict", {"inputs": "t", "truncate": truncate}).may_cut is truncate
    assert ask("/rerank", {"query": "q", "texts": ["t"], "truncate": truncate}).may_cut is truncate


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "message"),
    [
        ("/predict", {}, 422, "Validation", "inputs is missing"),
        ("/predict", {"inputs": None}, 422, "Validation", "inputs is null; wanted a string, a list of one or two"),
        ("/predict", {"inputs": 3}, 422, "Validation", "inputs is 3; wanted a string, a list of one or two strings"),
        ("/predict", {"inputs": ["a", "b", "c"]}, 422, "Validation", "inputs has 3 strings; wanted one or two"),
        ("/predict", {"inputs": ["a", 1]}, 422, "Validation", "wanted a list of one or two strings"),
        ("/predict", {"inputs": [["a"], "b"]}, 422, "Validation", "inputs[1] is 'b'; wanted a list of one or two"),
        ("/predict", {"inputs": [["a"], []]}, 422, "Validation", "inputs[1] has 0 strings; wanted one or two"),
        ("/predict", {"inputs": [["a", None]]}, 422, "Validation", "inputs[0] is ['a', None]; wanted a list"),
        ("/predict", {"inputs": []}, 400, "Empty", "nothing to score"),
        ("/predict", {"inputs": "t", "raw_scores": "yes"}, 422, "Validation", "raw_scores is 'yes'; wanted true or"),
        ("/predict", {"inputs": "t", "truncate": 1}, 422, "Validation", "truncate is 1; wanted true or false"),
        ("/predict", [], 422, "Validation", "the body is []; wanted an object"),
        ("/rerank", {"query": "q", "texts": []}, 400, "Empty", "nothing to score"),
        ("/rerank", {"texts": ["t"]}, 422, "Validation", "query is missing"),
        ("/rerank", {"query": "q", "texts": "t"}, 422, "Validation", "texts is 't'; wanted a list"),
        ("/rerank", {"query": None, "texts": ["t"]}, 422, "Validation", "query is null; wanted a string"),
        ("/rerank", {"query": "q", "texts": ["t", 1]}, 422, "Validation", "texts[1] is 1; wanted a string"),
        (
            "/rerank",
            {"query": "q", "texts": ["t"], "truncation_direction": "up"},
            422,
            "Validation",
            "truncation_direction is 'up'; wanted one of 'left', 'right', 'Left', 'Right'",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_in_their_form(
    path: str, body: Any, status: int, kind: str, message: str
) -> None:
    dialect, found, error = refusal(path, body)
    assert (dialect, found, error["error_type"]) == ("tei", status, kind)
    assert message in error["error"]


def test_statuses_are_theirs() -> None:
    kinds = ("malformed", "too_long", "too_many", "text", "failed", "overloaded", "unavailable", "unauthorized")
    assert [ERRORS.status(kind) for kind in kinds] == [400, 422, 422, 422, 424, 429, 503, 401]


def test_what_is_told_of_the_server_has_every_field_that_clients_read() -> None:
    page = next(page for page in PAGES if page.paths == ("/info",))
    assert page.write([ABOUT]) == {
        "model_id": "m",
        "model_sha": "f" * 64,
        "model_dtype": "float32",
        "served_model_name": "m",
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": 9,
        "max_input_length": 512,
        "max_batch_tokens": 10,
        "max_batch_requests": None,
        "max_client_batch_size": 8,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": "1",
        "sha": None,
        "docker_label": None,
    }


def test_headers_say_how_many_tokens_were_scored_and_where_the_time_went() -> None:
    assert PREDICT_ROUTE.headers is not None
    times = Times(wait_s=0.0126, tokenize_s=0.0004, model_s=1.5)
    assert PREDICT_ROUTE.headers(replace(answered([0.5, 1.0]), times=times)) == {
        "x-compute-type": "cpu",
        "x-compute-tokens": "14",
        "x-queue-time": "13",
        "x-tokenization-time": "0",
        "x-inference-time": "1500",
    }
