"""Text classification of Hugging Face's Inference Endpoints."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrank.types import Turn
from prefrank.wire.huggingface import ERRORS
from prefrank.wire.route import Asked, sigmoid
from tests.wire.asking import answer, ask, refusal

Q = (Turn("user", "q"),)
RAW = {"parameters": {"function_to_apply": "none"}}
PATHS = ["/", "/predict"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("inputs", "asked"),
    [
        ("t", (Asked((), "t"),)),
        ({"text": "t"}, (Asked((), "t"),)),
        ({"text": "t", "text_pair": None}, (Asked((), "t"),)),
        ({"text": "q", "text_pair": "t"}, (Asked(Q, "t"),)),
        (["a", {"text": "q", "text_pair": "t"}], (Asked((), "a"), Asked(Q, "t"))),
        (["q", "t"], (Asked((), "q"), Asked((), "t"))),
    ],
)
def test_answers_are_nested_also_for_one_text(path: str, inputs: Any, asked: tuple[Asked, ...]) -> None:
    question = ask(path, {"inputs": inputs} | RAW)
    assert question.asked == asked
    wanted = [[{"label": "LABEL_0", "score": value}] for value in (-1.25, 2.0)]
    assert answer(question, *(-1.25, 2.0)[: len(asked)]) == wanted[: len(asked)]


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5), st.floats(-1e6, 1e6)), min_size=1, max_size=4))
def test_pairs_come_back_raw_in_their_order(pairs: list[tuple[str, str, float]]) -> None:
    question = ask("/", {"inputs": [{"text": prompt, "text_pair": reply} for prompt, reply, _ in pairs]} | RAW)
    assert question.asked == tuple(Asked((Turn("user", prompt),), reply) for prompt, reply, _ in pairs)
    labels = answer(question, *(value for *_, value in pairs))
    assert [label["score"] for (label,) in labels] == [value for *_, value in pairs]


@pytest.mark.parametrize(
    "parameters",
    [{}, None, {"function_to_apply": None}, {"function_to_apply": "sigmoid", "top_k": 1}, {"top_k": None, "other": 1}],
)
def test_scores_are_between_0_and_1_unless_no_function_is_applied(parameters: Any) -> None:
    question = ask("/", {"inputs": "t", "parameters": parameters})
    assert answer(question, -1.25) == [[{"label": "LABEL_0", "score": sigmoid(-1.25)}]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "inputs is missing"),
        (None, "the body is null; wanted an object"),
        ({"inputs": None}, "inputs is null; wanted a string, or an object with text and text_pair"),
        ({"inputs": []}, "there is nothing to score"),
        ({"inputs": [["q", "t"]]}, "inputs[0] is ['q', 't']; wanted a string, or an object with text"),
        ({"inputs": ["t", 3]}, "inputs[1] is 3; wanted a string, or an object"),
        ({"inputs": {"text_pair": "t"}}, "inputs.text is missing"),
        ({"inputs": {"text": None, "text_pair": "t"}}, "inputs.text is null; wanted a string"),
        ({"inputs": [{"text": "q", "text_pair": 1}]}, "inputs[0].text_pair is 1; wanted a string"),
        ({"inputs": "t", "parameters": []}, "parameters is []; wanted an object"),
        (
            {"inputs": "t", "parameters": {"function_to_apply": "tanh"}},
            "parameters.function_to_apply is 'tanh'",
        ),
        ({"inputs": "t", "parameters": {"function_to_apply": "softmax"}}, "softmax makes 1 for every text"),
        ({"inputs": "t", "parameters": {"top_k": 0}}, "parameters.top_k is 0; wanted at least 1"),
        ({"inputs": "t", "parameters": {"top_k": -1}}, "parameters.top_k is -1; wanted a whole number"),
        ({"inputs": "t", "raw_scores": True}, "raw_scores is of text-embeddings-inference"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_their_form(body: Any, message: str) -> None:
    dialect, status, error = refusal("/", body)
    assert (dialect, status) == ("huggingface", 400)
    assert message in error["error"]


def test_statuses_are_theirs() -> None:
    kinds = ("malformed", "too_long", "too_many", "unknown_model", "failed", "overloaded", "unavailable")
    assert [ERRORS.status(kind) for kind in kinds] == [400, 400, 400, 400, 500, 429, 503]
