"""Sets with strengths, ratings and several heads: HelpSteer 2 and 3, UltraFeedback, finegrained-rlhf."""

from pathlib import Path
from typing import Any

import pytest

from prefrank.data import load_comparisons
from prefrank.data.candidates import LABEL_AGAINST_SCORES, labelled, preferences_of
from prefrank.data.rated import AGAINST_OVERALL, finegrained, helpsteer3, helpsteer_pair, ultrafeedback
from prefrank.errors import BadData
from prefrank.types import Comparison, Preference, Ratings, Turn
from tests.data.files import stated, write_lines, write_parquet


def rated_row(response: str, helpfulness: int, prompt: str = "Name a colour.", **fields: Any) -> dict[str, Any]:
    others = {"correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 1}
    return {"prompt": prompt, "response": response, "helpfulness": helpfulness, **others, **fields}


def by_head(comparison: Comparison) -> dict[str, tuple[float | None, ...]]:
    return {one.head: one.values for one in comparison.ratings}


@pytest.mark.parametrize("write", [write_lines, write_parquet])
def test_helpsteer_compares_the_responses_of_one_prompt_and_keeps_every_attribute(tmp_path: Path, write: Any) -> None:
    rows = [rated_row("Blue.", 4), rated_row("Tuesday.", 0, correctness=0), rated_row("Cold.", 1, prompt="And now?")]
    loaded = load_comparisons(write(tmp_path / f"a.{'jsonl' if write is write_lines else 'parquet'}", rows))
    (comparison,) = loaded.comparisons
    assert stated(comparison) == {("Blue.", "Tuesday.", 1.0)}
    assert by_head(comparison)["overall"] == (4, 0)
    assert by_head(comparison)["correctness"] == (4, 0)
    assert loaded.report.dropped == {"fewer than two replies": 1}
    others = preferences_of(comparison, ("correctness", "coherence"))
    assert [(p.head, p.winner, p.probability) for p in others] == [("correctness", 0, 1.0), ("coherence", 0, 0.5)]


def test_a_helpsteer_conversation_is_split_into_turns() -> None:
    prompt = "Hi.\n\n<extra_id_1>Assistant\nHello!\n\n<extra_id_1>User\nA colour?"
    row = {"prompt": prompt, "response_1": "Blue.", "response_2": "Red.", "preference_strength": 0}
    assert helpsteer_pair(row).prompt == (Turn("user", "Hi."), Turn("assistant", "Hello!"), Turn("user", "A colour?"))


@pytest.mark.parametrize(
    ("strength", "expected"),
    [
        (-3, Preference(0, 1, strength=3)),
        (0, Preference(0, 1, probability=0.5, strength=0)),
        (1, Preference(1, 0, strength=1)),
    ],
)
def test_a_negative_strength_prefers_the_first_response(strength: int, expected: Preference) -> None:
    old = {"prompt": "A colour?", "response_1": "Blue.", "response_2": "Red.", "preference_strength": strength}
    new = {"context": [{"role": "user", "content": "A colour?"}], "response1": "Blue.", "response2": "Red."}
    assert helpsteer_pair(old).preferences == (expected,)
    assert helpsteer3({**new, "overall_preference": strength}).preferences == (expected,)


@pytest.mark.parametrize("strength", [4, 1.5, None, "2"])
def test_another_strength_is_an_error(strength: Any) -> None:
    row = {"prompt": "A colour?", "response_1": "Blue.", "response_2": "Red.", "preference_strength": strength}
    with pytest.raises(BadData, match="'preference_strength' holds"):
        helpsteer_pair(row)


def completion(response: str, overall: float | str | None, **aspects: Any) -> dict[str, Any]:
    return {
        "response": response,
        "overall_score": overall,
        "annotations": {name: {"Rating": rating, "Rationale": "So."} for name, rating in aspects.items()},
    }


def read_ultrafeedback(*completions: dict[str, Any]) -> Any:
    return ultrafeedback({"instruction": "Name a colour.", "completions": list(completions)})


def test_ultrafeedback_is_ordered_by_the_mean_of_its_aspects_which_are_ratings_too() -> None:
    good = completion("Blue.", 7, honesty="5", helpfulness="4")
    candidate = read_ultrafeedback(good, completion("Tuesday.", 6, honesty="N/A", helpfulness="2"))
    assert candidate.preferences == (Preference(0, 1),)
    assert candidate.ratings == (
        Ratings((4.5, 2.0)),
        Ratings((5.0, None), "honesty"),
        Ratings((4.0, 2.0), "helpfulness"),
    )
    good["annotations"]["honesty"]["Rating"] = "good"
    with pytest.raises(BadData, match=r"'annotations\.honesty\.Rating' holds 'good'; wanted a number"):
        read_ultrafeedback(good)


def test_a_wrong_overall_score_of_ten_beats_nothing_and_is_counted(tmp_path: Path) -> None:
    wrong = completion("Tuesday.", 10, honesty="1", helpfulness="1", truthfulness="1", instruction_following="1")
    right = completion("Blue.", 8, honesty="4", helpfulness="5", truthfulness="5", instruction_following="4")
    worst = completion("No.", 1, honesty="1", helpfulness="1", truthfulness="1", instruction_following="1")
    rows = [
        {"instruction": "Name a colour.", "completions": [wrong, right, worst]},
        {"instruction": "Name another.", "completions": [wrong, right]},
    ]
    loaded = load_comparisons(write_lines(tmp_path / "a.jsonl", rows))
    assert [stated(comparison) for comparison in loaded.comparisons] == [
        {("Blue.", "No.", 1.0), ("Tuesday.", "No.", 0.5)}
    ]
    assert loaded.report.dropped == {AGAINST_OVERALL: 1}
    assert loaded.report.left_out == {AGAINST_OVERALL: 2}


def test_equal_means_tie_and_without_aspects_the_published_scores_order() -> None:
    one, two = completion("Blue.", 8, honesty="4"), completion("Red.", 7, honesty="4")
    assert read_ultrafeedback(one, two).preferences == (Preference(0, 1, probability=0.5),)
    assert read_ultrafeedback(completion("Blue.", 8), completion("Red.", "9.5")).preferences == (Preference(1, 0),)
    fine = [{**completion(text, 8), "fine-grained_score": score} for text, score in (("Blue.", 4.5), ("Red.", 4.75))]
    assert read_ultrafeedback(*fine).preferences == (Preference(1, 0),)


@pytest.mark.parametrize("names", [("score_chosen", "score_rejected"), ("chosen-rating", "rejected-rating")])
def test_equal_scores_of_a_binarised_pair_are_a_tie_and_a_better_rejected_one_contradicts(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    turns = [{"role": "user", "content": "A colour?"}]
    rows = []
    for number, scores in enumerate([(8.0, 6.0), (7.0, 7.0), (5.0, 6.5), (None, None)]):
        sides = [[*turns, {"role": "assistant", "content": text}] for text in (f"Blue {number}.", "Tuesday.")]
        rows.append(
            {"prompt": "A colour?", "chosen": sides[0], "rejected": sides[1], **dict(zip(names, scores, strict=True))}
        )
    for path in (write_lines(tmp_path / "a.jsonl", rows), write_parquet(tmp_path / "a.parquet", rows)):
        loaded = load_comparisons(path)
        assert [comparison.preferences[0].probability for comparison in loaded.comparisons] == [1.0, 0.5, 1.0]
        assert loaded.report.dropped == {LABEL_AGAINST_SCORES: 1}


def finegrained_row(**fields: Any) -> dict[str, Any]:
    answers = {f"prediction {n}": f"Answer {n}." for n in range(1, 5)}
    passages = [["Title", "One.", "Two."]]
    return {"question": "Who?", "passages": passages, **answers, "preference": [0, 1, 2, 1, 0, 2], **fields}


def test_finegrained_answers_are_compared_two_by_two_after_their_passages() -> None:
    candidate = finegrained(finegrained_row())
    assert candidate.prompt == (Turn("user", "Title One. Two.\n\nWho?"),)
    said = [(p.winner, p.loser, p.probability) for p in candidate.preferences]
    assert said == [(0, 1, 0.5), (0, 2, 1.0), (3, 0, 1.0), (1, 2, 1.0), (1, 3, 0.5), (3, 2, 1.0)]
    with pytest.raises(BadData, match=r"'preference' holds .*; wanted six numbers"):
        finegrained(finegrained_row(preference=[0, 1]))


def test_a_reply_rated_twice_takes_its_mean_also_where_prompts_are_grouped(tmp_path: Path) -> None:
    rows = [
        {"prompt": "A colour?", "replies": ["Blue.", "Red.", "Blue."], "ratings": [4, 1, 2]},
        {"prompt": "A colour?", "replies": ["Red.", "Green."], "ratings": {"overall": [2, 5], "honesty": [None, 1]}},
    ]
    path = write_lines(tmp_path / "mine.jsonl", rows)
    first, _ = load_comparisons(path).comparisons
    assert by_head(first) == {"overall": (3.0, 1.0)}
    (merged,) = load_comparisons(path, group=True).comparisons
    assert merged.replies == ("Blue.", "Red.", "Green.")
    assert by_head(merged) == {"overall": (3.0, 1.5, 5.0), "honesty": (None, None, 1.0)}


def test_the_same_pair_called_better_by_another_strength_or_head_is_no_duplicate(tmp_path: Path) -> None:
    row = {"prompt": "A colour?", "chosen": "Blue.", "rejected": "Tuesday."}
    rows = [row, row, {**row, "strength": 2}, {**row, "head": "honesty"}]
    assert load_comparisons(write_lines(tmp_path / "mine.jsonl", rows)).report.duplicates == 1


def test_labels_of_one_head_are_its_own_or_where_there_are_none_the_main_ones(tmp_path: Path) -> None:
    rows = [
        {"prompt": "A colour?", "replies": ["Blue.", "Red."], "ratings": {"overall": [4, 1], "honesty": [1, 2]}},
        {"prompt": "A day?", "chosen": "Monday.", "rejected": "Blue.", "head": "wit"},
    ]
    parts = [load_comparisons(write_lines(tmp_path / f"{i}.jsonl", [row])).comparisons for i, row in enumerate(rows)]
    comparisons = (*parts[0], *parts[1])
    said = {
        head: [comparison.preferences for comparison in labelled(comparisons, head)]
        for head in (None, "honesty", "wit", "beauty")
    }
    assert said[None] == said["beauty"] == [(Preference(0, 1),)]
    assert said["honesty"] == [(Preference(1, 0, head="honesty"),)]
    assert said["wit"] == [(Preference(0, 1, head="wit"),)]
    with pytest.raises(BadData, match="no comparison has labels of overall; the data have wit"):
        labelled(parts[1])


@pytest.mark.shared_data
def test_real_finegrained_feedback_is_read_whole(shared_data: Path) -> None:
    loaded = load_comparisons(shared_data / "finegrained-rlhf")
    assert loaded.report.rows == 500
    assert sum(loaded.report.dropped.values()) + loaded.report.kept == 500
    assert {len(comparison.replies) for comparison in loaded.comparisons} <= {2, 3, 4}
    assert loaded.report.ties > 0
