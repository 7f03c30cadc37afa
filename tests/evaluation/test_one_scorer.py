import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from prefrank.errors import BadData, BadInput
from prefrank.evaluation import Bootstrap, data_hash, evaluate, measure, sample_of
from prefrank.types import Prompt, Score, Turn
from tests.evaluation.making import comparison, preference, ranking, scored, table_scorer

FAST = Bootstrap(resamples=50)
COMPARISONS = [
    comparison(["good", "bad"], [preference(0, 1)], prompt="a", source="first", id="0"),
    comparison(["good", "ugly"], [preference(0, 1)], prompt="b", source="second", id="0"),
    comparison(["bad", "ugly", "good"], [preference(0, 1), preference(2, 0)], prompt="b", source="second", id="1"),
]
VALUES = {"good": 2.0, "bad": 0.0, "ugly": 1.0}


def test_results_come_for_each_source_and_overall() -> None:
    result = evaluate(table_scorer(VALUES), COMPARISONS, name="table", bootstrap=FAST)
    assert list(result.subsets) == ["first", "second"]
    assert result.subsets["first"] == measure(sample_of(COMPARISONS[:1], [scored([2, 0])]), bootstrap=FAST)
    assert result.subsets["second"].accuracy.value == 0.75
    assert result.overall.accuracy.value == pytest.approx(2.5 / 3)
    assert result.overall.counts.pairs == 4


def test_every_reply_is_scored_once_in_one_call() -> None:
    calls: list[Sequence[tuple[Prompt, str]]] = []

    def counting(pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        calls.append(pairs)
        return scored([VALUES[reply] for _, reply in pairs])

    evaluate(counting, COMPARISONS, name="table", bootstrap=FAST)
    asked = [(prompt[0].text, reply) for prompt, reply in calls[0]]
    assert len(calls) == 1
    assert asked == [("a", "good"), ("a", "bad"), ("b", "good"), ("b", "ugly"), ("b", "bad")]


def test_scores_reach_the_reply_they_belong_to() -> None:
    result = evaluate(table_scorer(VALUES), COMPARISONS, name="table", bootstrap=FAST)
    assert [[score.value for score in scores] for scores in result.sample.scores] == [[2, 0], [2, 1], [0, 1, 2]]
    assert [(facts.subset, facts.id) for facts in result.sample.facts] == [
        ("first", "0"),
        ("second", "0"),
        ("second", "1"),
    ]


def test_nothing_to_evaluate_is_refused() -> None:
    with pytest.raises(BadData, match="no comparisons to evaluate 'table' on"):
        evaluate(table_scorer({}), [], name="table")


def test_a_scorer_that_loses_replies_is_refused() -> None:
    with pytest.raises(BadInput, match="gave 1 scores for 5 replies"):
        evaluate(lambda pairs: scored([1.0]), COMPARISONS, name="short")


def test_scores_of_two_models_are_refused() -> None:
    def two(pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        return [Score(1.0, 1, 0, 0, f"model {i % 2}") for i in range(len(pairs))]

    with pytest.raises(BadInput, match="2 models"):
        evaluate(two, COMPARISONS, name="two")


def test_the_record_is_strict_json_with_its_origin() -> None:
    result = evaluate(table_scorer(VALUES | {"bad": math.nan}), COMPARISONS, name="table", bootstrap=FAST)
    record = json.loads(json.dumps(result.to_json(items=True), allow_nan=False))
    assert (record["name"], record["model"]) == ("table", "abc")
    assert record["items"][0] == {"subset": "first", "id": "0", "scores": [2.0, None]}
    assert record["overall"]["log_loss"] == {
        "value": None, "low": None, "high": None, "n": 4, "unit": "pairs", "prompts": 2,
    }  # fmt: skip
    assert record["overall"]["counts"]["failures"] == 2
    assert record["intervals"] == {"resamples": 50, "seed": 0, "confidence": 0.95}
    assert {"python", "prefrank", "numpy", "torch"} <= set(record["versions"])
    assert "items" not in result.to_json()


def test_the_data_hash_is_of_the_comparisons_and_not_of_their_order() -> None:
    result = evaluate(table_scorer(VALUES), COMPARISONS, name="table", bootstrap=FAST)
    assert result.data == data_hash(COMPARISONS) == data_hash(COMPARISONS[::-1])
    changed = comparison(["good", "bad"], [preference(1, 0)], prompt="a", source="first", id="0")
    assert data_hash([changed, *COMPARISONS[1:]]) != result.data
    assert data_hash(COMPARISONS[:2]) != result.data


def test_the_data_hash_of_one_pair_is_golden() -> None:
    plain = '["set", "7", [["user", "why?"]], ["a", "b"], [[0, 1, 1.0, 1.0, 0.0]]]'
    inner = hashlib.sha256(plain.encode()).hexdigest()
    expected = hashlib.sha256(inner.encode()).hexdigest()
    assert data_hash([comparison(["a", "b"], [preference(0, 1)], id="7")]) == expected


def test_lone_surrogates_can_be_evaluated_and_hashed() -> None:
    odd = comparison(["\ud800", "b"], [preference(0, 1)])
    result = evaluate(table_scorer({"\ud800": 1.0, "b": 0.0}), [odd], name="table", bootstrap=FAST)
    assert len(result.data) == 64


def test_a_longer_ranking_in_two_sources_is_measured_in_each() -> None:
    both = [ranking(3, source="one", id="x"), ranking(3, source="two", id="y")]
    values = {reply: -float(i) for comparison in both for i, reply in enumerate(comparison.replies)}
    result = evaluate(table_scorer(values), both, name="table", bootstrap=FAST)
    assert result.subsets["one"].kendall_tau.value == result.subsets["two"].kendall_tau.value == 1.0
    assert result.overall.kendall_tau.n == 2


def test_tool_calls_belong_to_the_data() -> None:
    """Two conversations that differ in nothing else are other data; one without any has the hash it always had."""
    plain = replace(ranking(2), prompt=(Turn("user", "add"), Turn("assistant", ""), Turn("tool", "4")))
    calls = [replace(plain, prompt=(plain.prompt[0], Turn("assistant", "", extra), plain.prompt[2]))
             for extra in ('{"tool_calls": [1]}', '{"tool_calls": [2]}')]  # fmt: skip
    assert len({data_hash([one]) for one in (plain, *calls)}) == 3
