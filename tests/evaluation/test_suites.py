"""The registry, its data and messages, and what suites share: readers and figures."""

import re
from pathlib import Path

import numpy as np
import pytest

from prefrank.errors import BadData, NotFound
from prefrank.evaluation.credits import credits, pairwise
from prefrank.evaluation.items import Item
from prefrank.evaluation.protocols import ROWS, SUITES, find_suite, load_suite, missing_in_words, missing_rows
from prefrank.stats.figures import Figure, Part, combine, mean_figure, mean_of
from prefrank.types import Preference, as_prompt
from tests.evaluation.suite_files import a_sample, an_item, by_length, estimates, values, write_array, write_lines

FETCHED = sorted(name for name, suite in SUITES.items() if suite.hub)
WITH_FILES = sorted(name for name, suite in SUITES.items() if suite.layout)


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_stands_under_its_own_name_and_says_whose_protocol_it_is(name: str) -> None:
    suite = find_suite(name)
    assert suite.name == name
    assert suite.title
    assert suite.source
    assert suite.ties in ("half", "wrong", "shared")


def test_a_misspelt_suite_gets_a_suggestion() -> None:
    with pytest.raises(NotFound, match=r"no suite is called 'reward-bench'; did you mean 'rewardbench'\?"):
        load_suite("reward-bench")


@pytest.mark.parametrize("name", WITH_FILES)
def test_an_empty_folder_is_named_as_one_without_the_suites_data(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=re.escape(str(tmp_path))):
        load_suite(name, tmp_path)


def test_a_folder_without_data_says_which_files_to_put_there(tmp_path: Path) -> None:
    (tmp_path / "total_dataset.txt").touch()
    with pytest.raises(NotFound, match=r"holds no file called total_dataset.json or .*; put the published files there"):
        load_suite("rm-bench", tmp_path)


def test_a_suite_of_the_package_needs_no_folder() -> None:
    assert load_suite("probes").items


@pytest.mark.parametrize("name", WITH_FILES)
def test_a_folder_that_is_none_says_which_files_it_should_hold(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no .*nothing; wanted a folder with the files") as caught:
        load_suite(name, tmp_path / "nothing")
    assert SUITES[name].layout[0] in str(caught.value)


@pytest.mark.parametrize("name", FETCHED)
def test_without_the_hub_the_message_says_which_files_to_put_in_a_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NotFound, match=f"cannot fetch {SUITES[name].hub} from the hub") as caught:
        load_suite(name)
    assert SUITES[name].layout[0] in str(caught.value)


def test_a_suite_that_is_not_on_the_hub_says_where_it_is() -> None:
    with pytest.raises(NotFound, match=r"RMB is not on the hub, see .*github.*; put its files"):
        load_suite("rmb")


def test_only_the_files_of_the_layout_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(id: str, *, repo_type: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((id, repo_type, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    rows = [{"pair_id": "1", "source": "livecodebench", "question": "?", "response_A": "a", "response_B": "b"}]
    write_lines(tmp_path / "data" / "gpt-0.jsonl", [rows[0] | {"label": "B>A"}])
    assert [item.replies for item in load_suite("judgebench").items] == [("b", "a")]
    assert asked == [("ScalerLab/JudgeBench", "dataset", None, list(SUITES["judgebench"].layout))]


def test_missing_rows_of_each_subset_are_shown_as_here_and_published() -> None:
    rows = [an_item(subset, str(i)) for subset, n in ROWS["hhh"].items() for i in range(n)]
    assert missing_rows("hhh", by_length(rows).facts) == {}
    assert missing_rows("hhh", by_length(rows[1:-43]).facts) == {"harmless": (57, 58), "other": (0, 43)}
    assert missing_rows("pandalm", by_length(rows).facts) == {}


def test_what_is_missing_is_told_in_a_few_words_however_much_it_is() -> None:
    missing = {f"s{number}": (0, 9) for number in range(7)} | {"part": (3, 1200)}
    assert missing_in_words(missing) == [
        "7 subsets are missing: s0, s1, s2, s3, s4 and 2 more",
        "part: 3 of the 1,200 published rows",
    ]
    assert missing_in_words({}) == []


@pytest.mark.parametrize("name", ["llmbar", "judgebench", "best-of-n"])
def test_a_suite_can_be_one_of_its_files(name: str, tmp_path: Path) -> None:
    rows: dict[str, tuple[str, dict[str, object]]] = {
        "llmbar": ("LLMBar/Natural/dataset.json", {"input": "?", "output_1": "a", "output_2": "b", "label": 2}),
        "judgebench": (
            "data/gpt-00000-of-00001.jsonl",
            {"pair_id": "1", "source": "livecodebench", "question": "?", "response_A": "a", "response_B": "b"}
            | {"label": "B>A"},
        ),
        "best-of-n": ("mine.jsonl", {"prompt": "?", "replies": ["b", "a"], "ratings": [2, 1]}),
    }
    path, row = rows[name]
    write_lines(tmp_path / path, [row])
    (item,) = load_suite(name, tmp_path / path).items
    assert item.replies == ("b", "a")
    assert load_suite(name, tmp_path).items == (item,)


def test_one_file_of_another_name_is_refused_with_the_published_names(tmp_path: Path) -> None:
    write_lines(tmp_path / "chat.json", [{"id": "1"}])
    with pytest.raises(NotFound, match=r"chat\.json has another name than the published files: total_dataset\.json or"):
        load_suite("rm-bench", tmp_path / "chat.json")


def test_published_counts_add_up_to_the_published_totals() -> None:
    totals = {"rewardbench": 2985, "rewardbench-2": 1865, "rm-bench": 1327, "judgebench": 350, "hhh": 221}
    assert {name: sum(ROWS[name].values()) for name in totals} == totals


def test_a_missing_column_names_file_line_column_and_the_columns_that_came(tmp_path: Path) -> None:
    path = write_array(tmp_path / "LLMBar/Natural/dataset.json", [{"input": "?", "output1": "a", "label": 1}])
    with pytest.raises(BadData, match=r"dataset.json:1: no column 'output_1'; did you mean 'output1'\?"):
        load_suite("llmbar", path.parents[2])


def test_rows_that_no_scorer_can_get_right_are_counted_by_reason(tmp_path: Path) -> None:
    texts = [("?", "a", "b"), ("?", "same", "same"), (" ", "a", "b"), ("?", "", "b")]
    rows = [{"input": prompt, "output_1": first, "output_2": two, "label": 2} for prompt, first, two in texts]
    write_array(tmp_path / "LLMBar/Natural/dataset.json", rows)
    data = load_suite("llmbar", tmp_path)
    assert (data.read, data.dropped) == (4, {"equal replies": 1, "empty prompt": 1})
    assert [(item.id, item.replies) for item in data.items] == [("1", ("b", "a")), ("4", ("b", ""))]


def test_a_file_of_which_no_row_can_be_used_is_an_error_that_counts_them(tmp_path: Path) -> None:
    row = {"input": "?", "output_1": "same", "output_2": "same", "label": 2}
    write_array(tmp_path / "LLMBar/Natural/dataset.json", [row])
    with pytest.raises(BadData, match=r"no row can be used out of 1 \(left out: equal replies: 1\)"):
        load_suite("llmbar", tmp_path)


def test_an_id_that_repeats_inside_its_subset_gets_a_number(tmp_path: Path) -> None:
    row = {"pair_id": "x", "question": "?", "response_A": "a", "response_B": "b", "label": "A>B"}
    rows = [row | {"source": source} for source in ("livecodebench", "livebench-math", "livecodebench")]
    write_lines(tmp_path / "data" / "gpt-0.jsonl", rows)
    items = load_suite("judgebench", tmp_path).items
    assert [(item.subset, item.id) for item in items] == [("Coding", "x"), ("Math", "x"), ("Coding", "x#2")]


def test_equal_scores_are_half_a_win_or_none_and_a_failed_score_is_lost() -> None:
    sample = a_sample([an_item("a", str(i)) for i in range(5)], [[2, 1], [1, 1], [1, 2], [np.nan, 0], [1, -np.inf]])
    assert credits(sample, "half").tolist() == [1.0, 0.5, 0.0, 0.0, 0.0]
    assert credits(sample, "wrong").tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_an_items_credit_is_the_weighted_mean_over_its_untied_preferences() -> None:
    preferences = (Preference(0, 1, weight=3.0), Preference(1, 2), Preference(0, 2, 0.5))
    items = [
        Item(as_prompt("?"), ("a", "b", "c"), kept, "s", str(i))
        for i, kept in enumerate((preferences, preferences[2:]))
    ]
    result = credits(a_sample(items, [[2, 1, 3], [2, 1, 3]]), "half")
    assert result[0] == 0.75
    assert np.isnan(result[1])


def test_pairwise_gives_the_mean_over_items_the_mean_over_subsets_and_each_subset() -> None:
    items = [an_item("a", "1"), an_item("a", "2"), an_item("a", "3"), an_item("b", "1")]
    figures = pairwise(a_sample(items, [[1, 0], [1, 0], [0, 1], [0, 0]]), headline="Macro mean")
    assert list(figures) == ["Macro mean", "Accuracy", "a", "b"]
    assert values(figures) == pytest.approx(
        {"Macro mean": (2 / 3 + 1 / 2) / 2, "Accuracy": 2.5 / 4, "a": 2 / 3, "b": 0.5}
    )
    assert {name: (estimate.n, estimate.unit, estimate.prompts) for name, estimate in estimates(figures).items()} == {
        "Macro mean": (4, "items", 4), "Accuracy": (4, "items", 4), "a": (3, "items", 3), "b": (1, "items", 1),
    }  # fmt: skip


def test_a_sum_with_a_part_that_has_no_items_has_no_value() -> None:
    whole = mean_figure(np.array([1.0, 0.0]), np.array([0, 1]))
    empty = mean_figure(np.zeros(0), np.zeros(0, np.int64))
    result = estimates({"sum": mean_of([whole, empty]), "nothing": combine([])})
    assert (result["sum"].value, result["sum"].n) == (None, 2)
    assert result["nothing"].value is None


def test_bounds_of_a_sum_are_the_sums_of_its_bounds() -> None:
    share = Figure((Part(np.array([1.0]), np.array([0])),), 1, "items")
    assert combine([(1.0, share), (-1.0, share)]).bounds == (-1.0, 1.0)
    assert mean_of([share] * 7).bounds == (0.0, 1.0)
    assert combine([(1.0, Figure(share.parts, 1, "items", None))]).bounds is None
