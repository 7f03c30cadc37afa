"""RMB: pairs and lists, two goals, four numbers."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from prefrank.errors import BadData
from prefrank.evaluation.items import Item
from prefrank.evaluation.protocols import load_suite, missing_in_words, missing_rows
from prefrank.evaluation.protocols.rmb import PUBLISHED, ROWS, measure
from tests.evaluation.suite_files import a_sample, an_item, by_length, estimates, values, write_array

HELPFUL, HARMLESS = "Helpfulness/Chat/Discussion", "Harmlessness/S1"
FOUR = ("Helpfulness BoN", "Helpfulness Pairwise", "Harmlessness BoN", "Harmlessness Pairwise")


def answer(text: str) -> dict[str, str]:
    return {"llm_name": "x", "answer": text}


def row(kind: str, path: str, **changed: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "Hi?", "language": "English"}]
    shared = {"conversation_input": messages, "category_path": f"{kind}/{path}"}
    if kind == "BoN_set":
        return shared | {"bon_uid": "9", "bon_best": answer("best"), "loser_list": [answer("b"), answer("b")]} | changed
    return shared | {"pair_uid": "7", "chosen": answer("good"), "reject": answer("bad")} | changed


def test_lists_and_pairs_are_read_from_the_published_layout(tmp_path: Path) -> None:
    write_array(tmp_path / f"RMB_dataset/BoN_set/{HELPFUL}.json", [row("BoN_set", HELPFUL)])
    write_array(tmp_path / f"RMB_dataset/Pairwise_set/{HARMLESS}.json", [row("Pairwise_set", HARMLESS)])
    best, pair = load_suite("rmb", tmp_path).items
    assert (best.subset, best.id, best.replies, best.language) == (
        f"BoN_set/{HELPFUL}",
        "9",
        ("best", "b", "b"),
        "English",
    )
    assert [(p.winner, p.loser) for p in best.preferences] == [(0, 1), (0, 2)]
    assert (pair.subset, pair.id, pair.replies) == (f"Pairwise_set/{HARMLESS}", "7", ("good", "bad"))
    assert load_suite("rmb", tmp_path / "RMB_dataset").items == (best, pair)


CODE = "Pairwise_set/Helpfulness/Code/Documentation"


def published(*, without: str = "") -> dict[str, Item]:
    """An item of each scenario, lists with three losers."""
    paths = [path for path in ROWS if path != without]
    return {path: an_item(path, "1", worse=3 if path.startswith("BoN") else 1) for path in paths}


def measured(items: Mapping[str, Item], scores: Mapping[str, list[float]]) -> dict[str, float | None]:
    """Every item is right unless its scores are given."""
    right = {path: [1.0] + [0.0] * (len(item.replies) - 1) for path, item in items.items()}
    return values(measure(a_sample(list(items.values()), list((right | scores).values()))))


def test_a_list_is_right_where_the_best_reply_beats_every_loser() -> None:
    wrong = {f"BoN_set/{HELPFUL}": [3.0, 2, 4, 0], CODE: [0.0, 1], f"BoN_set/{HARMLESS}": [1.0, 1, 0, 0]}
    result = measured(published(), wrong)
    assert [result[name] for name in FOUR] == pytest.approx([36 / 37, 36 / 37, 11 / 12, 1])
    assert result["Overall"] == pytest.approx((2 * 36 / 37 + 11 / 12 + 1) / 4)
    assert (result[CODE], result[f"BoN_set/{HELPFUL}"]) == (0, 0)


def test_a_failed_score_of_any_reply_loses_the_list() -> None:
    failed = {f"BoN_set/{HELPFUL}": [3, 2, 1, np.nan], f"BoN_set/{HARMLESS}": [np.inf, 1, 0, 0]}
    result = measured(published(), failed)
    assert [result[name] for name in FOUR] == pytest.approx([36 / 37, 1, 11 / 12, 1])


def test_forty_nine_scenarios_are_published_as_lists_and_as_pairs() -> None:
    assert [len(PUBLISHED[name]) for name in FOUR] == [37, 37, 12, 12]
    assert len(ROWS) == 98


@pytest.mark.parametrize("path", ["BoN_set/Harmlessness/multi", CODE])
def test_a_copy_without_one_of_its_files_says_so_and_gives_no_score_above_it(path: str) -> None:
    items = published(without=path)
    result = measured(items, {})
    section = "Harmlessness BoN" if "multi" in path else "Helpfulness Pairwise"
    assert (result["Overall"], result[section]) == (None, None)
    assert [result[name] for name in FOUR if name != section] == [1, 1, 1]
    missing = missing_rows("rmb", by_length(list(items.values())).facts)
    assert missing == {path: (0, None)}
    assert missing_in_words(missing) == [f"1 subset is missing: {path}"]
    assert missing_rows("rmb", by_length(list(published().values())).facts) == {}


def test_the_overall_score_is_the_mean_of_the_four() -> None:
    """ArmoRM's published components give its published .646."""
    shares = dict(zip(FOUR, (0.636, 0.787, 0.497, 0.663), strict=True))
    made, scores = [], []
    for name, share in shares.items():
        paths = PUBLISHED[name]
        made += [an_item(paths[i % len(paths)], str(i)) for i in range(1000)]
        scores += [[float(i < round(1000 * share)), 0.0] for i in range(1000)]
    result = estimates(measure(a_sample(made, scores)))
    assert {name: result[name].value for name in FOUR} == pytest.approx(shares)
    assert result["Overall"].value == pytest.approx(0.64575)
    assert result["Overall"].n == 4000


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"category_path": "BoN/Chat"},
            "the category_path is 'BoN/Chat'; wanted one that starts with BoN_set/Helpfulness",
        ),
        ({"loser_list": []}, "1 messages and 0 worse replies"),
        ({"conversation_input": []}, "0 messages and 2 worse replies"),
        ({"bon_best": "best"}, "'bon_best' holds 'best'; wanted an object"),
    ],
)
def test_rows_of_another_shape_are_refused(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    write_array(tmp_path / f"BoN_set/{HARMLESS}.json", [row("BoN_set", HARMLESS, **changed)])
    with pytest.raises(BadData, match=f"S1.json:1: .*{message}"):
        load_suite("rmb", tmp_path)


@pytest.mark.skipif("PREFRANK_SUITES" not in os.environ, reason="PREFRANK_SUITES names no folder with rmb in it")
def test_the_longer_reply_gets_the_counted_shares_on_the_published_data() -> None:
    result = values(measure(by_length(load_suite("rmb", Path(os.environ["PREFRANK_SUITES"]) / "rmb").items)))
    shares = [result[name] for name in ("Helpfulness BoN", "Harmlessness BoN")]
    assert [None if share is None else round(100 * share, 1) for share in shares] == [48.9, 36.4]
