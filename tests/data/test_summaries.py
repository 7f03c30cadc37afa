"""summarize_from_feedback: one comparison for each row of `comparisons`, ratings within one post for `axis`."""

from pathlib import Path

import pytest

from prefrank.data import load_comparisons
from prefrank.data.candidates import Drop
from prefrank.data.summaries import NOTHING_TO_SUMMARIZE, TWO_TO_SUMMARIZE, UNRATED, summary_pair
from prefrank.errors import BadData
from prefrank.types import Preference
from tests.data.files import POST, axis_row, stated, summary_info, summary_row, write_lines, write_parquet


def test_a_post_becomes_a_prompt_that_ends_with_the_cue() -> None:
    (turn,) = summary_pair(summary_row("Cat naps.", "Cat types.", 1)).prompt
    assert turn.text == (
        "Summarize this post from r/pets.\n\nTitle: Cat trouble\n\nMy cat sleeps on my keyboard.\n\nTL;DR:"
    )


def test_a_post_without_title_and_subreddit_leaves_no_empty_heading() -> None:
    (turn,) = summary_pair(summary_row("A.", "B.", 0, summary_info(post="Rain again."))).prompt
    assert turn.text == "Summarize this post.\n\nRain again.\n\nTL;DR:"


def test_an_article_has_its_own_prompt() -> None:
    (turn,) = summary_pair(summary_row("A.", "B.", 0, summary_info(article="A bridge opened."))).prompt
    assert turn.text == "Summarize this news article.\n\nA bridge opened.\n\nTL;DR:"


def test_without_post_and_article_the_row_is_dropped_and_takes_no_context_of_another_row(tmp_path: Path) -> None:
    nothing = summary_row("A.", "B.", 0, summary_info(title="Only a title"))
    assert summary_pair(nothing) == Drop(NOTHING_TO_SUMMARIZE)
    loaded = load_comparisons(write_lines(tmp_path / "rows.jsonl", [summary_row("A.", "B.", 0), nothing]))
    assert loaded.report.dropped == {NOTHING_TO_SUMMARIZE: 1}


def test_a_row_with_a_post_and_an_article_is_not_read_as_one_of_them() -> None:
    assert summary_pair(summary_row("A.", "B.", 0, summary_info(post="Rain.", article="A bridge."))) == Drop(
        TWO_TO_SUMMARIZE
    )


@pytest.mark.parametrize("choice", [0, 1])
def test_the_choice_wins_with_weight_one_whatever_the_confidence(choice: int) -> None:
    found = summary_pair(summary_row("A.", "B.", choice, extra={"confidence": 9}))
    assert found.preferences == (Preference(choice, 1 - choice),)


@pytest.mark.parametrize(("choice", "summaries"), [(2, 2), ("left", 2), (0, 1)])
def test_a_wrong_choice_or_number_of_summaries_is_an_error(choice: object, summaries: int) -> None:
    row = summary_row("A.", "B.", 0)
    with pytest.raises(BadData, match="wanted"):
        summary_pair({**row, "choice": choice, "summaries": row["summaries"][:summaries]})


def test_comparisons_of_one_post_are_never_pooled_into_a_ranking(tmp_path: Path) -> None:
    rows = [summary_row("A.", "B.", 0), summary_row("B.", "C.", 0)]
    loaded = load_comparisons(write_lines(tmp_path / "rows.jsonl", rows))
    assert [stated(c) for c in loaded.comparisons] == [{("A.", "B.", 1.0)}, {("B.", "C.", 1.0)}]
    assert loaded.comparisons[0].prompt is loaded.comparisons[1].prompt


def test_grouping_unites_stated_preferences_and_infers_none(tmp_path: Path) -> None:
    cycle = [summary_row("A.", "B.", 0), summary_row("B.", "C.", 0), summary_row("C.", "A.", 0)]
    other = summary_row("X.", "Y.", 1, summary_info(post="Rain again."))
    loaded = load_comparisons(write_lines(tmp_path / "rows.jsonl", [*cycle, other]), group=True)
    first, second = loaded.comparisons
    assert sorted(first.replies) == ["A.", "B.", "C."]
    assert stated(first) == {("A.", "B.", 1.0), ("B.", "C.", 1.0), ("C.", "A.", 1.0)}
    assert stated(second) == {("Y.", "X.", 1.0)}
    report = loaded.report
    assert (report.candidates, report.kept, sum(report.dropped.values())) == (4, 2, 2)


def test_two_workers_votes_on_one_pair_are_kept_and_a_repeated_row_is_not(tmp_path: Path) -> None:
    row = summary_row("A.", "B.", 0)
    loaded = load_comparisons(write_lines(tmp_path / "rows.jsonl", [row, {**row, "worker": "w2"}, row]))
    assert (loaded.report.kept, loaded.report.duplicates) == (2, 1)
    assert len({c.id for c in loaded.comparisons}) == 2


def test_the_validation_halves_are_chosen_by_the_rows_own_split(tmp_path: Path) -> None:
    rows = [summary_row(f"A{i}.", "B.", 0, split=split) for i, split in enumerate(["valid1", "valid1", "valid2"])]
    write_parquet(tmp_path / "comparisons/train/0000.parquet", [summary_row("A.", "B.", 0)])
    write_parquet(tmp_path / "comparisons/validation/0000.parquet", rows)
    kept = {s: load_comparisons(tmp_path, split=s).report.kept for s in ("train", "validation", "valid1", "valid2")}
    assert kept == {"train": 1, "validation": 3, "valid1": 2, "valid2": 1}
    assert load_comparisons(tmp_path, split="valid1").report.dropped == {"another split": 1}


def test_axis_ratings_compare_summaries_of_one_post_only(tmp_path: Path) -> None:
    other = {**POST, "id": "t3_b", "post": "Rain again."}
    rows = [
        axis_row("Good.", 7), axis_row("Wet.", 2, other), axis_row("Bad.", 2), axis_row("Also good.", 7),
        axis_row("Nobody rated me.", None), axis_row("Rain.", 6, other),
    ]  # fmt: skip
    loaded = load_comparisons(write_lines(tmp_path / "test.jsonl", rows))
    first, second = loaded.comparisons
    assert (first.id, second.id) == ("t3_a", "t3_b")
    assert stated(first) == {("Good.", "Bad.", 1.0), ("Also good.", "Bad.", 1.0), ("Good.", "Also good.", 0.5)}
    assert stated(second) == {("Rain.", "Wet.", 1.0)}
    assert loaded.report.left_out == {UNRATED: 1}
    assert (loaded.report.rows, loaded.report.candidates, loaded.report.ties) == (6, 2, 1)


def test_every_axis_is_a_head_with_ratings_and_overall_alone_gives_preferences(tmp_path: Path) -> None:
    rows = [axis_row("A.", 7), axis_row("B.", 5)]
    (comparison,) = load_comparisons(write_lines(tmp_path / "test.jsonl", rows)).comparisons
    assert {one.head: one.values for one in comparison.ratings} == {
        "overall": (7, 5),
        "accuracy": (7, 7),
        "coherence": (6, 6),
    }
    assert {one.head for one in comparison.preferences} == {"overall"}


def test_a_summary_rated_twice_takes_its_mean(tmp_path: Path) -> None:
    rows = [axis_row("A.", 7), axis_row("A.", 1), axis_row("B.", 5)]
    (comparison,) = load_comparisons(write_lines(tmp_path / "test.jsonl", rows)).comparisons
    assert stated(comparison) == {("B.", "A.", 1.0)}


def test_a_post_with_one_rated_summary_is_dropped(tmp_path: Path) -> None:
    rows = [axis_row("A.", 7), axis_row("B.", 5), axis_row("C.", 3, {**POST, "id": "t3_b"})]
    assert load_comparisons(write_lines(tmp_path / "a.jsonl", rows)).report.dropped == {"fewer than two replies": 1}
