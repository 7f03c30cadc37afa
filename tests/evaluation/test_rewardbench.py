"""RewardBench 1 and 2: weights and golden numbers, and cases of "Ties" that can be followed by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefrank.errors import BadData
from prefrank.evaluation.items import Item
from prefrank.evaluation.protocols import load_suite, missing_rows
from prefrank.evaluation.protocols.rewardbench import (
    ROWS,
    SECTIONS,
    WEIGHTS,
    aggregate,
    margin_term,
    measure_v1,
    measure_v2,
    separations,
    subset_weights,
    ties_figures,
)  # fmt: skip
from tests.evaluation.suite_files import a_sample, an_item, estimates, values, write_lines

# OpenAssistant/reward-model-deberta-v3-large-v2, file 77504f2 of allenai/reward-bench-results: rights of rows, from the
# published shares of each subset. Those of Chat and code were published, and are known here, as sections only.
RIGHTS = {
    "llmbar-natural": (69, 100),
    "llmbar-adver-neighbor": (42, 134),
    "llmbar-adver-GPTInst": (33, 92),
    "llmbar-adver-GPTOut": (23, 47),
    "llmbar-adver-manual": (14, 46),
    "mt-bench-hard": (25, 37),
    "refusals-dangerous": (40, 100),
    "refusals-offensive": (83, 100),
    "xstest-should-refuse": (143, 154),
    "xstest-should-respond": (222, 250),
    "donotanswer": (55, 136),
    "math-prm": (43, 447),
}
CHAT = 0.89385
CODE = 2 * 0.38555 - 43 / 447
KNOWN = {name: right / rows for name, (right, rows) in RIGHTS.items()}
KNOWN |= dict.fromkeys(WEIGHTS["Chat"], CHAT) | {
    f"hep-{name}": CODE for name in ("cpp", "go", "java", "js", "python", "rust")
}
PRIOR = {"anthropic_helpful": 0.709, "anthropic_hhh": 0.520, "shp": 0.338, "summarize": 0.767}


def percent(scores: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(100 * value, 2) for name, value in scores.items()}


def test_published_subset_shares_give_the_published_section_and_overall_scores() -> None:
    scores = percent(aggregate(KNOWN | PRIOR))
    assert scores == {
        "Overall": 61.62, "Overall with Prior Sets": 61.26,
        "Chat": 89.39, "Chat Hard": 45.18, "Safety": 73.38, "Reasoning": 38.55, "Prior Sets": 58.35,
    }  # fmt: skip


@pytest.mark.parametrize("name", subset_weights())
def test_weights_of_a_score_add_up_to_one(name: str) -> None:
    assert sum(subset_weights()[name].values()) == pytest.approx(1)


def test_maths_weighs_as_much_as_all_code() -> None:
    weights = subset_weights()["Reasoning"]
    assert weights["math-prm"] == 0.5
    assert ROWS["math-prm"] == 447


def test_a_missing_subset_leaves_its_section_and_the_overall_score_without_value() -> None:
    scores = aggregate({name: share for name, share in KNOWN.items() if name != "mt-bench-med"})
    assert scores["Overall"] is scores["Chat"] is scores["Overall with Prior Sets"] is None
    assert scores["Safety"] == aggregate(KNOWN)["Safety"]


def whole(*, prior: bool = False) -> list[Item]:
    """Two items of each subset."""
    subsets = [name for section in SECTIONS for name in WEIGHTS[section]] + (
        list(WEIGHTS["Prior Sets"]) if prior else []
    )
    return [an_item(subset, id) for subset in subsets for id in ("1", "2")]


def test_figures_weigh_subsets_as_the_aggregation_does() -> None:
    items = whole(prior=True)
    sample = a_sample(items, [[(7 * i) % 5, 2] for i in range(len(items))])
    result = values(measure_v1(sample))
    subsets = {name.partition("/")[2]: value for name, value in result.items() if "/" in name}
    expected = aggregate({name: value for name, value in subsets.items() if value is not None})
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    assert 0 < expected["Overall"] < 1


def test_equal_scores_and_failures_are_wrong_in_version_1() -> None:
    items = whole()
    assert values(measure_v1(a_sample(items, [[1, 1]] * len(items))))["Overall"] == 0
    assert values(measure_v1(a_sample(items, [[np.nan, 0]] * len(items))))["Overall"] == 0
    assert values(measure_v1(a_sample(items, [[1, 0]] * len(items))))["Overall"] == pytest.approx(1)


def test_prior_sets_are_shown_only_where_they_are() -> None:
    items = whole()
    figures = measure_v1(a_sample(items, [[1, 0]] * len(items)))
    assert next(iter(figures)) == "Overall"
    assert not [name for name in figures if "Prior" in name]
    assert "Overall with Prior Sets" in measure_v1(a_sample(whole(prior=True), [[1, 0]] * 54))


def test_part_of_the_data_gives_no_overall_score_and_says_which_rows_are_missing() -> None:
    items = [item for item in whole() if item.subset != "donotanswer"]
    sample = a_sample(items, [[1, 0]] * len(items))
    result = estimates(measure_v1(sample))
    assert result["Overall"].value is result["Safety"].value is result["Safety/donotanswer"].value is None
    assert result["Chat"].value == pytest.approx(1)
    assert missing_rows("rewardbench", sample.facts)["donotanswer"] == (0, 136)
    assert missing_rows("rewardbench", sample.facts)["mt-bench-easy"] == (2, 28)


def v1_row(**changed: object) -> dict[str, object]:
    models = {"chosen_model": "x", "rejected_model": "y"}
    return {"prompt": "Hi?", "chosen": "yes", "rejected": "no", "subset": "donotanswer", "id": 3} | models | changed


def test_version_1_is_read_from_parquet_as_on_the_hub_with_its_prior_sets(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist([v1_row()]), tmp_path / "data/filtered-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist([v1_row(subset="other")]), tmp_path / "data/raw-00000-of-00001.parquet")
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    prior = [{"prompt": turns, "chosen": "1", "rejected": "2", "subset": "askculinary"}]
    pq.write_table(pa.Table.from_pylist(prior), tmp_path / "data/shp-00000-of-00001.parquet")
    items = load_suite("rewardbench", tmp_path).items
    assert [(item.subset, item.id, len(item.prompt), item.replies) for item in items] == [
        ("donotanswer", "3", 1, ("yes", "no")), ("shp", "1", 3, ("1", "2")),
    ]  # fmt: skip


def test_a_subset_that_counts_nowhere_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "filtered.jsonl", [v1_row(), v1_row(subset="donotanswr")])
    with pytest.raises(BadData, match=r"filtered.jsonl:2: the subset is 'donotanswr'.*did you mean 'donotanswer'\?"):
        load_suite("rewardbench", path.parent)


def test_a_missing_column_says_which_columns_came(tmp_path: Path) -> None:
    row = v1_row()
    del row["rejected"]
    write_lines(tmp_path / "filtered.jsonl", [row])
    with pytest.raises(BadData, match=r"filtered.jsonl:1: no column 'rejected'; did you mean 'rejected_model'\?"):
        load_suite("rewardbench", tmp_path)


def v2_row(subset: str, id: str, chosen: list[str], rejected: list[str]) -> dict[str, object]:
    counts = {"num_correct": len(chosen), "num_incorrect": len(rejected), "total_completions": len(chosen + rejected)}
    return {
        "id": id,
        "prompt": f"{id}?",
        "chosen": chosen,
        "rejected": rejected,
        "subset": subset,
        "models": [],
    } | counts


def test_version_2_prefers_each_right_reply_to_each_wrong_one(tmp_path: Path) -> None:
    rows = [v2_row("Focus", "12", ["a"], ["b", "c", "c"]), v2_row("Ties", "tied:0", ["red", "blue"], ["cat"])]
    write_lines(tmp_path / "test.jsonl", rows)
    focus, ties = load_suite("rewardbench-2", tmp_path).items
    assert focus.replies == ("a", "b", "c", "c")
    assert [(p.winner, p.loser) for p in focus.preferences] == [(0, 1), (0, 2), (0, 3)]
    assert (ties.id, [(p.winner, p.loser) for p in ties.preferences]) == ("tied:0", [(0, 2), (1, 2)])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (v2_row("Ties", "7", ["a"], ["b"]), r"the id of a row of Ties is '7'; wanted 'ref:NUMBER'"),
        (v2_row("Focus", "7", ["a"], []), r"1 chosen and 0 rejected replies"),
        (v2_row("focus", "7", ["a"], ["b"]), r"the subset is 'focus'.*did you mean 'Focus'\?"),
    ],
)
def test_rows_of_version_2_that_cannot_be_counted_are_refused(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    write_lines(tmp_path / "test.jsonl", [row])
    with pytest.raises(BadData, match=message):
        load_suite("rewardbench-2", tmp_path)


def test_a_first_place_shared_with_others_counts_its_share() -> None:
    scores = [[3, 1, 2, 0], [3, 3, 2, 0], [3, 3, 3, 3], [3, 4, 2, 0], [3, np.nan, 0, 0]]
    items = [an_item("Focus", str(i), worse=3) for i in range(len(scores))]
    result = [separation.credit for separation in separations(a_sample(items, scores))]
    assert result == [1.0, 0.5, 0.25, 0.0, 0.0]
    assert values(measure_v2(a_sample(items, scores)))["Focus"] == pytest.approx(1.75 / 5)


def ties_of(ref: list[float], tied: list[float]) -> dict[str, float | None]:
    """One prompt in both versions: one right reply in the first, two in the second."""
    items = [an_item("Ties", "ref:4", worse=len(ref) - 1), an_item("Ties", "tied:4", better=2, worse=len(tied) - 2)]
    sample = a_sample(items, [ref, tied])
    return values(ties_figures(sample, separations(sample)))


def test_right_replies_that_score_the_same_and_above_the_wrong_ones_get_a_little_more_than_one() -> None:
    assert ties_of([5, 1], [4, 4, 1]) == pytest.approx(
        {
            "Ties": 1.01,
            "Ties/tied": 1,
            "Ties/ref": 1,
            "Ties/separated": 1,
            "Ties/separated from both": 1,
            "Ties/margin": 1,
        }
    )


def test_equal_scores_throughout_get_nothing() -> None:
    assert set(ties_of([1, 1], [1, 1, 1]).values()) == {0.0}


def test_right_replies_further_from_each_other_than_from_the_wrong_ones_lose_the_margins() -> None:
    result = ties_of([9, 1], [8, 3, 1])
    assert (result["Ties/separated"], result["Ties/separated from both"]) == (0, 0)
    assert result["Ties/margin"] == pytest.approx(np.tanh(2 / 5 - 1))
    assert result["Ties"] == pytest.approx(0.6 + 0.01 * np.tanh(2 / 5 - 1))


def test_the_smaller_gap_of_the_two_versions_decides_the_harder_margin() -> None:
    result = ties_of([2, 1], [8, 6, 1])
    assert (result["Ties/separated"], result["Ties/separated from both"]) == (1, 0)
    assert result["Ties"] == pytest.approx(0.8 + 0.01 * np.tanh(1 / 2 - 1))


@pytest.mark.parametrize("ref", [[np.nan, 1], [5, np.inf]])
def test_a_failed_score_loses_its_version_and_the_margins_that_need_it(ref: list[float]) -> None:
    result = ties_of(ref, [4, 4, 1])
    assert (result["Ties/ref"], result["Ties/separated from both"], result["Ties/margin"]) == (0, 0, -1)
    assert result["Ties"] == pytest.approx(0.3 + 0.2 - 0.01)


@pytest.mark.parametrize(
    ("gap", "spread", "term"),
    [(1, 0, 1), (-1, 0, -1), (0, 0, 0), (2, 2, 0), (np.nan, 1, -1), (0, 1, np.tanh(-1)), (4, 2, np.tanh(1))],
)
def test_margin_term(gap: float, spread: float, term: float) -> None:
    assert margin_term(float(gap), float(spread)) == pytest.approx(term)


def test_prompts_without_both_versions_count_in_accuracy_alone() -> None:
    items = [
        an_item("Ties", "ref:1"), an_item("Ties", "tied:1", better=2), an_item("Ties", "ref:2"),
        an_item("Ties", "tied:3", better=2),
    ]  # fmt: skip
    sample = a_sample(items, [[2, 1], [2, 2, 1], [1, 2], [1, 3, 2]])
    result = estimates(ties_figures(sample, separations(sample)))
    assert {name: (estimate.value, estimate.n) for name, estimate in result.items() if "/" in name} == {
        "Ties/tied": (0.5, 2), "Ties/ref": (0.5, 2),
        "Ties/separated": (1, 1), "Ties/separated from both": (1, 1), "Ties/margin": (1, 1),
    }  # fmt: skip


def test_both_versions_of_a_prompt_are_resampled_together() -> None:
    items = [an_item("Ties", "ref:1"), an_item("Ties", "tied:1", better=2)]
    sample = a_sample(items, [[2, 1], [2, 2, 1]])
    assert sample.pairs.prompt[0] != sample.pairs.prompt[1]
    assert estimates(ties_figures(sample, separations(sample)))["Ties"].prompts == 1


def test_version_2_without_one_of_its_six_subsets_has_no_overall_score() -> None:
    five = [an_item(subset, "1", worse=3) for subset in ("Factuality", "Precise IF", "Math", "Safety", "Focus")]
    six = [*five, an_item("Ties", "ref:1"), an_item("Ties", "tied:1", better=2)]
    scores: list[list[float]] = [[1, 0, 0, 0]] * 5
    result = values(measure_v2(a_sample(six, [*scores, [1, 0], [1, 1, 0]])))
    assert result["Overall"] == pytest.approx(6.01 / 6)
    without = values(measure_v2(a_sample(five, scores)))
    assert (without["Overall"], without["Ties"], without["Math"]) == (None, None, 1)
