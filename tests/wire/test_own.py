"""Our own paths: what their bodies ask for, and what is answered."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrank.types import Score, Turn
from prefrank.wire import own
from prefrank.wire.route import About, Answered, Asked, Failed, Outcome, Question, Refused, Route, sigmoid

ROUTES = {route.paths[0]: route for route in own.ROUTES}
ABOUT = About(
    name="m", fingerprint="f" * 64, architecture="A", parameters=3, precision="float32", kernels="torch", device="cpu",
    max_length=512, template="pair", causal=False, temperature=None, label="LABEL_0", version="1", max_rows=8,
    max_waiting_rows=8, max_tokens=8, truncates=True,
)  # fmt: skip
WHY = (Turn("user", "Why?"),)


def score(value: float, **facts: int) -> Score:
    return Score(value, tokens=7, cut_prompt=0, cut_reply=0, model="f" * 64, **facts)


def answer(question: Question, *outcomes: Outcome, about: About = ABOUT) -> Any:
    return question.answer(Answered(outcomes=outcomes, about=about, id="0" * 32, created=0))


def ask(path: str, **body: Any) -> Question:
    route: Route[Any] = ROUTES[path]
    return route.read(body)


def test_scores_of_replies_pairs_and_whole_texts() -> None:
    assert ask("/api/score", prompt="Why?", replies=["So.", "No."]).asked == (Asked(WHY, "So."), Asked(WHY, "No."))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    pairs = [{"prompt": messages, "reply": "So."}]
    assert ask("/api/score", pairs=pairs).asked == (Asked((Turn("system", "Be brief."), *WHY), "So."),)
    assert ask("/api/score", texts="<|im_start|>").asked == (Asked((), "<|im_start|>"),)
    assert ask("/api/score", prompt="Why?", replies="So.", model=None, unknown=1).asked == (Asked(WHY, "So."),)


def test_a_score_has_its_facts_and_a_failed_row_its_reason() -> None:
    question = ask("/api/score", prompt="Why?", replies=["So.", "No."], model="m")
    assert question.model == "m"
    assert question.partial
    assert answer(question, score(-1.25, past_trained=2), Failed("it is bad")) == {
        "model": "m",
        "fingerprint": "f" * 64,
        "scale": "logit",
        "scores": [
            {"index": 0, "score": -1.25, "tokens": 7, "cut_prompt": 0, "cut_reply": 0, "past_trained": 2},
            {"index": 1, "score": None, "error": "it is bad"},
        ],
    }


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ({}, "invalid", "wanted prompt and replies; or pairs"),
        ({"prompt": "Why?"}, "invalid", "wanted prompt and replies"),
        ({"replies": ["So."]}, "invalid", "wanted prompt and replies"),
        ({"prompt": "Why?", "replies": ["So."], "texts": ["a"]}, "invalid", "wanted prompt and replies"),
        ({"prompt": "Why?", "replies": []}, "empty", "nothing to score"),
        ({"prompt": [], "replies": ["So."]}, "invalid", "prompt is []; wanted a string, or a list of messages"),
        ({"prompt": 5, "replies": ["So."]}, "invalid", "prompt is 5; wanted a string, or a list of messages"),
        ({"prompt": "Why?", "replies": ["So.", 3]}, "invalid", "replies[1] is 3; wanted a string"),
        ({"pairs": [{"prompt": "Why?"}]}, "invalid", "pairs[0] is {'prompt': 'Why?'}; wanted an object"),
        ({"pairs": "x"}, "invalid", "pairs is 'x'; wanted a list"),
        ({"prompt": [{"role": "pope", "content": ""}], "replies": ["So."]}, "invalid", "has the role 'pope'"),
        ({"model": 3, "texts": ["a"]}, "invalid", "model is 3; wanted a string"),
    ],
)
def test_a_body_of_another_form_is_refused_with_what_came(body: dict[str, Any], kind: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        ask("/api/score", **body)
    assert refused.value.kind == kind
    assert words in refused.value.message


def test_a_body_that_is_no_object_is_refused() -> None:
    with pytest.raises(Refused, match="the body is \\[\\]; wanted an object"):
        ROUTES["/api/score"].read([])


def test_ranks_begin_at_1_equal_scores_share_one_and_failures_come_last() -> None:
    question = ask("/api/rank", prompt="Why?", replies=["a", "b", "c", "d"])
    ranked = answer(question, score(0.0), Failed("bad"), score(2.0), score(2.0))
    assert [(entry["rank"], entry["index"]) for entry in ranked["ranking"]] == [(1, 2), (1, 3), (3, 0), (None, 1)]
    assert sum(entry["weight"] or 0 for entry in ranked["ranking"]) == pytest.approx(1)
    assert ranked["ranking"][0]["weight"] == pytest.approx(math.exp(2) / (2 * math.exp(2) + 1))
    assert ranked["win_probability"][2] == [sigmoid(2.0), None, 0.5, 0.5]
    assert ranked["win_probability"][1] == [None] * 4
    assert (ranked["temperature"], ranked["calibrated"]) == (1.0, False)


def test_a_stored_temperature_makes_the_probabilities() -> None:
    from dataclasses import replace

    about = replace(ABOUT, temperature=2.0)
    question = ask("/api/compare", prompt="Why?", first="a", second="b")
    said = answer(question, score(3.0), score(1.0), about=about)
    assert (said["winner"], said["margin"], said["temperature"], said["calibrated"]) == ("first", 2.0, 2.0, True)
    assert said["win_probability"] == pytest.approx(1 / (1 + math.exp(-1)))


@pytest.mark.parametrize(("first", "second", "winner"), [(1.0, 2.0, "second"), (2.0, 2.0, "tie"), (3.0, 2.0, "first")])
def test_a_comparison_has_a_winner_or_is_a_tie(first: float, second: float, winner: str) -> None:
    question = ask("/api/compare", prompt="Why?", first="a", second="b")
    assert not question.partial
    assert answer(question, score(first), score(second))["winner"] == winner


def test_the_best_replies_above_a_threshold_and_what_the_group_is_like() -> None:
    question = ask("/api/best_of_n", prompt="Why?", replies=["a", "b", "c", "d"], top_k=3, threshold=1.0)
    best = answer(question, score(1.0), score(-2.0), score(4.0), Failed("bad"))
    assert [(entry["index"], entry["reply"], entry["score"]) for entry in best["best"]] == [
        (2, "c", 4.0),
        (0, "a", 1.0),
    ]
    assert best["failed"] == [{"index": 3, "score": None, "error": "bad"}]
    assert best["group"] == {"n": 3, "mean": 1.0, "std": pytest.approx(math.sqrt(6)), "min": -2.0, "max": 4.0}
    with pytest.raises(Refused, match="top_k is 0"):
        ask("/api/best_of_n", prompt="Why?", replies=["a"], top_k=0)


def test_an_explanation_leaves_each_sentence_out() -> None:
    question = ask("/api/explain", prompt="Why?", reply="One. Two.")
    assert [each.reply for each in question.asked] == ["One. Two.", "Two.", "One. "]
    said = answer(question, score(3.0), score(1.0), Failed("bad"))
    assert said["score"]["score"] == 3.0
    assert said["parts"] == [
        {"text": "One. ", "start": 0, "end": 5, "score_without": 1.0, "difference": 2.0},
        {"text": "Two.", "start": 5, "end": 9, "score_without": None, "difference": None},
    ]


def test_the_models_are_listed_with_what_is_known_of_them() -> None:
    (page,) = own.PAGES
    listed = page.write([ABOUT])
    assert listed["models"][0] | {"name": "m", "calibration": None, "default": True} == listed["models"][0]


@given(st.floats(-800, 800), st.floats(-800, 800))
def test_win_probabilities_of_two_replies_add_up_to_one(first: float, second: float) -> None:
    table = own.win_probabilities([first, second], 1.0)
    assert table[0][1] is not None
    assert table[1][0] is not None
    assert table[0][1] + table[1][0] == pytest.approx(1)


def test_a_ranking_of_many_replies_has_no_table_of_all_pairs() -> None:
    for count in (own.MOST_COMPARED, own.MOST_COMPARED + 1):
        ranked = answer(ask("/api/rank", prompt="Why?", replies=["So."] * count), *([score(1.0)] * count))
        assert len(ranked["ranking"]) == count
        assert (ranked["win_probability"] is None) == (count > own.MOST_COMPARED)


def test_a_reply_that_is_too_long_to_explain_is_refused_before_its_rows_are_made() -> None:
    with pytest.raises(Refused, match="too long to explain"):
        ask("/api/explain", prompt="Why?", reply="So it is. " * 1_000_000)
