"""The readers on real human comparisons: counts, and agreement between two exports of the same trees."""

import gzip
import json
from pathlib import Path

import pytest

from prefrank.data import describe, load_comparisons, load_splits
from prefrank.data.oasst import DELETED, FAILED_REVIEW, SYNTHETIC, UNRANKED
from prefrank.types import Comparison
from tests.data.files import stated
from tests.data.test_votes_example import run

pytestmark = pytest.mark.shared_data

HH = {
    ("harmless-base", "train"): (1382, {"prompts differ": 4, "empty reply": 3}),
    ("harmless-base", "test"): (466, {"empty reply": 1}),
    ("helpful-base", "train"): (1369, {"prompts differ": 4, "empty reply": 2, "equal replies": 1}),
    ("helpful-base", "test"): (508, {"prompts differ": 4}),
    ("helpful-online", "train"): (683, {"empty reply": 2, "equal replies": 1, "ends in a human turn": 1}),
    ("helpful-online", "test"): (208, {"equal replies": 1, "empty reply": 1}),
    ("helpful-rejection-sampled", "train"): (1652, {"equal replies": 19, "prompts differ": 2}),
    ("helpful-rejection-sampled", "test"): (520, {"equal replies": 6}),
}


@pytest.mark.parametrize(("subset", "split"), HH)
def test_hh_counts_of_each_subset(shared_data: Path, subset: str, split: str) -> None:
    loaded = load_comparisons(shared_data / "hh-rlhf" / subset, split=split)
    rows, dropped = HH[subset, split]
    assert (loaded.report.rows, loaded.report.dropped) == (rows, dropped)
    assert loaded.report.kept == rows - sum(dropped.values())
    assert {c.source for c in loaded.comparisons} == {f"hh/{subset}"}


def test_hh_as_a_whole_keeps_its_subsets_apart(shared_data: Path) -> None:
    loaded = load_comparisons(shared_data / "hh-rlhf", split="test")
    assert (loaded.report.rows, loaded.report.kept) == (1702, 1689)
    assert {c.source for c in loaded.comparisons} == {f"hh/{subset}" for subset, _ in HH}


def test_hh_splits_share_no_opening(shared_data: Path) -> None:
    found = describe(load_splits(shared_data / "hh-rlhf" / "helpful-online"))
    assert [overlap.opening for overlap in found.overlaps] == [0, 0]


def test_every_character_of_an_hh_transcript_is_kept(shared_data: Path) -> None:
    """Blank lines inside messages survive: the turns, joined again, are the published transcript."""
    path = shared_data / "hh-rlhf" / "helpful-base" / "test.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    for comparison in load_comparisons(path).comparisons:
        row = rows[int(comparison.id.rpartition(":")[2]) - 1]
        for side, reply in zip(("chosen", "rejected"), comparison.replies, strict=True):
            texts = [turn.text for turn in comparison.prompt] + [reply]
            published = row[side].replace("\n\nHuman:", "").replace("\n\nAssistant:", "")
            assert "".join("".join(texts).split()) == "".join(published.split())


def test_oasst_messages_give_comparisons_of_ranked_siblings(shared_data: Path) -> None:
    counts = {name: part.report for name, part in load_splits(shared_data / "oasst1-en").items()}
    assert {name: (r.rows, r.candidates, r.kept, r.pairs) for name, r in counts.items()} == {
        "train": (1140, 273, 241, 579), "validation": (513, 122, 99, 241),
    }  # fmt: skip
    assert set(counts["train"].left_out) == {UNRANKED, FAILED_REVIEW, DELETED}


def meanings(comparisons: tuple[Comparison, ...]) -> dict[str, object]:
    return {c.id: (tuple(turn.text for turn in c.prompt), frozenset(stated(c))) for c in comparisons}


def test_oasst_trees_and_messages_agree_where_they_overlap(shared_data: Path) -> None:
    """49 messages stand in both exports; replies may have been reviewed or removed between the two."""
    folder = shared_data / "oasst1-en"
    trees = load_comparisons(folder / "export.trees.jsonl.gz")
    messages = load_comparisons(folder, split="train")
    assert (trees.report.rows, trees.report.candidates, trees.report.kept) == (57, 156, 125)
    assert trees.report.left_out == {UNRANKED: 34, SYNTHETIC: 4}
    ours, theirs = meanings(trees.comparisons), meanings(messages.comparisons)
    shared = ours.keys() & theirs.keys()
    assert shared
    assert {id for id in shared if ours[id] != theirs[id]} == set()


def test_chinese_ranked_lists_give_all_pairs_of_each_list(shared_data: Path) -> None:
    loaded = load_comparisons(shared_data / "oasst-zh")
    report = loaded.report
    assert (report.rows, report.kept, report.dropped) == (775, 772, {"equal replies": 3})
    assert (report.replies, report.pairs, report.ties) == (1984, 1803, 0)
    assert any(len(c.prompt) == 5 for c in loaded.comparisons)


def test_real_pairs_with_several_votes_each_pass_through_our_format(shared_data: Path, tmp_path: Path) -> None:
    """llmfao's pairs and its crowd's votes."""
    folder = shared_data / "llmfao"
    votes = (folder / "crowd-comparisons.csv").read_text(encoding="utf-8")
    loaded = load_comparisons(run(tmp_path, folder / "pairs-crowd.jsonl", votes))
    report = loaded.report
    assert report.kept == report.rows - sum(report.dropped.values())
    assert (report.rows, report.kept, report.dropped) == (1788, 1668, {"empty reply": 120})
    assert (report.pairs, report.ties) == (7723, 2794)  # of 8,931 votes, 3,471 ties; the rest is of empty replies
