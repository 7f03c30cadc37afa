"""RM-Bench: the matrix of styles, and the length scorer's published-data figures where the data are."""

import os
from pathlib import Path

import numpy as np
import pytest

from prefrank.errors import BadData, BadInput
from prefrank.evaluation.protocols import load_suite, missing_rows
from prefrank.evaluation.protocols.rm_bench import CELLS, RM_BENCH, matrix, measure
from tests.evaluation.suite_files import a_sample, an_item, by_length, values, write_array

SUBSETS = ("chat", "code", "math", "safety-refuse", "safety-response")
# (right concise, detailed, markdown), (wrong concise, detailed, markdown) and which of the nine the right ones win.
MARKDOWN_WINS = [1, 2, 3, 1, 2, 3]
SCORES = [4, 6, 2, 3, 5, 1]
WON = [[1, 0, 1], [1, 1, 1], [0, 0, 1]]


def rows(**changed: object) -> list[dict[str, object]]:
    row = {
        "id": "chat/1",
        "prompt": "Hi?",
        "chosen": ["a", "bb", "ccc"],
        "rejected": ["d", "ee", "ff"],
        "domain": "chat",
    }
    return [row | changed]


def test_the_matrix_is_right_style_by_wrong_style() -> None:
    sample = a_sample([an_item("chat", "1", better=3, worse=3)], [SCORES])
    assert matrix(sample).tolist() == [WON]
    result = values(measure(sample))
    assert (result["chat/Hard"], result["chat/Normal"], result["chat/Easy"]) == pytest.approx((2 / 3, 1, 1 / 3))
    assert result["chat"] == pytest.approx(6 / 9)


def test_a_scorer_of_style_alone_is_always_right_when_easy_and_never_when_hard() -> None:
    items = [an_item(subset, "1", better=3, worse=3) for subset in SUBSETS]
    result = values(measure(a_sample(items, [MARKDOWN_WINS] * 5)))
    assert [result[name] for name in ("Overall", "Hard", "Normal", "Easy", "Style gap")] == pytest.approx(
        [1 / 3, 0, 0, 1, 1]
    )
    assert result["markdown over concise"] == pytest.approx(1)
    assert result["concise over markdown"] == 0


def test_safety_pools_refusals_and_responses_and_domains_count_the_same() -> None:
    right, wrong = [1.0] * 3 + [0.0] * 3, [0.0] * 6
    items = [an_item(subset, "1", better=3, worse=3) for subset in (*SUBSETS, "safety-refuse", "chat")]
    result = values(measure(a_sample(items, [right, right, right, wrong, right, wrong, right])))
    assert result["safety"] == pytest.approx(1 / 3)
    assert (result["safety/refuse"], result["safety/response"]) == (0, 1)
    assert result["Overall"] == pytest.approx((1 + 1 + 1 + 1 / 3) / 4)
    assert result["Hard"] == pytest.approx((1 + 1 + 1 + 1 / 3) / 4)


def test_equal_scores_and_failures_are_wrong() -> None:
    item = an_item("chat", "1", better=3, worse=3)
    assert values(measure(a_sample([item], [[0.0] * 6])))["chat"] == 0
    assert values(measure(a_sample([item], [[np.nan, 1, 1, 0, 0, 0]])))["chat"] == pytest.approx(6 / 9)


def test_without_a_domain_there_is_no_overall_score() -> None:
    sample = a_sample([an_item("chat", "1", better=3, worse=3)], [SCORES])
    result = values(measure(sample))
    assert result["Overall"] is result["Hard"] is result["Style gap"] is result["safety"] is None
    assert missing_rows("rm-bench", sample.facts)["code"] == (0, 228)


def test_safety_without_one_of_its_two_files_has_no_score() -> None:
    items = [an_item(subset, "1", better=3, worse=3) for subset in SUBSETS if subset != "safety-response"]
    result = values(measure(a_sample(items, [SCORES] * 4)))
    assert result["safety"] is result["safety/Hard"] is result["safety/response"] is result["Overall"] is None
    assert (result["safety/refuse"], result["chat"]) == pytest.approx((6 / 9, 6 / 9))


def test_items_of_another_shape_are_refused() -> None:
    with pytest.raises(BadInput, match="other than 9 preferences"):
        measure(a_sample([an_item("chat", "1")], [[1, 0]]))


def test_charts_name_figures_that_there_are() -> None:
    figures = measure(a_sample([an_item("chat", "1", better=3, worse=3)], [SCORES]))
    for chart in RM_BENCH.charts:
        assert set(chart.figures) <= figures.keys()
        assert len(chart.figures) == len(chart.rows) * len(chart.columns)
    assert list(CELLS)[1] == "concise over detailed"


def test_replies_keep_the_order_of_styles_and_may_repeat(tmp_path: Path) -> None:
    write_array(tmp_path / "total_dataset.json", rows(chosen=["a", "a", "ccc"]))
    (item,) = load_suite("rm-bench", tmp_path).items
    assert item.replies == ("a", "a", "ccc", "d", "ee", "ff")
    assert [(p.winner, p.loser) for p in item.preferences] == [(i, 3 + j) for i in range(3) for j in range(3)]


def test_the_file_of_everything_is_read_once_beside_files_of_domains(tmp_path: Path) -> None:
    write_array(tmp_path / "data/chat_filtered.json", rows())
    assert load_suite("rm-bench", tmp_path).read == 1
    write_array(tmp_path / "data/code_filtered.json", rows(domain="code"))
    assert load_suite("rm-bench", tmp_path).read == 2
    write_array(tmp_path / "data/total_dataset.json", [*rows(), *rows(domain="code"), *rows(domain="math")])
    assert load_suite("rm-bench", tmp_path).read == 3


def domain_rows(subset: str) -> list[dict[str, object]]:
    """As published: the fields differ by file, and none has a domain."""
    (row,) = rows(id=f"{subset}/1", subset="alpacaeval")
    del row["domain"]
    more: dict[str, dict[str, object]] = {
        "chat": {"error": ["The date is wrong."], "error_key": "date"},
        "code": {"language": "python", "task_id": "Python/0"},
    }
    return [row | more.get(subset, {})]


def test_the_files_of_domains_as_published_tell_their_domain_by_name(tmp_path: Path) -> None:
    for subset in SUBSETS:
        write_array(tmp_path / f"data/{subset}_filtered.json", domain_rows(subset))
    data = load_suite("rm-bench", tmp_path)
    assert sorted((item.subset, item.id) for item in data.items) == [(subset, f"{subset}/1") for subset in SUBSETS]
    assert load_suite("rm-bench", tmp_path / "data").items == data.items
    for item in data.items:
        assert load_suite("rm-bench", tmp_path / f"data/{item.subset}_filtered.json").items == (item,)


def test_a_row_whose_domain_nothing_tells_is_refused(tmp_path: Path) -> None:
    for name in ("total_dataset.json", "safety_filtered.json"):
        write_array(tmp_path / name, domain_rows("chat"))
        with pytest.raises(BadData, match=rf"{name}:1: the row has no 'domain'.*name tells none.*chat_filtered\.json"):
            load_suite("rm-bench", tmp_path / name)


def test_a_domain_that_its_files_name_contradicts_is_refused(tmp_path: Path) -> None:
    write_array(tmp_path / "chat_filtered.json", rows(domain="code"))
    with pytest.raises(BadData, match=r"the domain is 'code' in the file of 'chat'; correct one of them"):
        load_suite("rm-bench", tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"chosen": ["a", "b"]}, "2 chosen and 3 rejected replies; wanted one for each of 3 styles"),
        ({"domain": "safety"}, "the domain is 'safety'; wanted one of chat"),
        ({"chosen": "a"}, "'chosen' holds 'a'; wanted a list"),
    ],
)
def test_rows_of_another_shape_are_refused(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    write_array(tmp_path / "total_dataset.json", rows(**changed))
    with pytest.raises(BadData, match=f"total_dataset.json:1: .*{message}"):
        load_suite("rm-bench", tmp_path)


def test_a_right_reply_that_is_also_a_wrong_one_drops_the_item_with_a_count(tmp_path: Path) -> None:
    write_array(tmp_path / "total_dataset.json", [*rows(), *rows(chosen=["d", "bb", "ccc"])])
    assert load_suite("rm-bench", tmp_path).dropped == {"equal replies": 1}


# Percent right of "the longer reply", in characters: Hard, Normal, Easy. Counted from the published files.
LENGTH = {
    "chat": (2.6, 28.4, 81.1),
    "code": (25.4, 51.9, 77.5),
    "safety-refuse": (2.3, 15.8, 89.0),
    "safety-response": (23.8, 77.7, 98.7),
}


@pytest.mark.skipif("PREFRANK_SUITES" not in os.environ, reason="PREFRANK_SUITES names no folder with rm-bench in it")
@pytest.mark.parametrize("subset", LENGTH)
def test_the_longer_reply_gets_the_counted_shares_on_the_published_data(subset: str) -> None:
    items = load_suite("rm-bench", Path(os.environ["PREFRANK_SUITES"]) / "rm-bench").items
    won = matrix(by_length([item for item in items if item.subset == subset])).mean(0)
    result = won[np.triu_indices(3, 1)].mean(), np.diag(won).mean(), won[np.tril_indices(3, -1)].mean()
    assert np.round(100 * np.array(result), 1).tolist() == pytest.approx(LENGTH[subset])
