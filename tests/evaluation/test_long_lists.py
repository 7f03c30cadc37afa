"""Long ranked lists: every figure is the one of their pairs, and no pair is made as an object."""

import json
import random
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prefrank.errors import BadData, BadInput
from prefrank.evaluation import calibration
from prefrank.evaluation import items as item_module
from prefrank.evaluation.audit import audit
from prefrank.evaluation.baselines import longer_wins, random_scorer
from prefrank.evaluation.compare_runs import check_runs, compare_runs
from prefrank.evaluation.items import Item
from prefrank.evaluation.one_scorer import data_hash
from prefrank.evaluation.protocols.suite import SuiteData
from prefrank.evaluation.results import Run, sample_of_run
from prefrank.evaluation.run_file import read_run, write_run
from prefrank.evaluation.running import Entrant, Task, comparisons_suite, run_all
from prefrank.evaluation.samples import flatten
from prefrank.io.schema import plain
from prefrank.stats import arrays
from prefrank.stats.arrays import in_groups
from prefrank.stats.bootstrap import Bootstrap
from prefrank.training.feed.examples import _written
from prefrank.training.feed.pools import side_of
from prefrank.training.losses.labels import number_rows, rank_replies
from prefrank.types import Comparison, Preference, RankedPairs, as_prompt

FEW = Bootstrap(resamples=50)


def lists(seed: int, *, count: int = 8, size: int = 9) -> list[Comparison]:
    """Ranked lists with ties and replies without a rank, and a few votes on pairs between them."""
    draw = random.Random(seed)
    comparisons = []
    for number in range(count):
        replies = tuple(f"{'x' * draw.randint(0, 9)} reply {i}" for i in range(size))
        ranks = tuple(draw.choice([None, 0, 1, 2.5, 3, 2**60, 2**60 + 1]) for _ in replies)
        preferences: Any = RankedPairs((0, 1, *ranks[2:]), draw.choice(["overall", "style"]))
        if number % 3 == 2:
            preferences = (Preference(0, 1), Preference(1, 0, 0.7, 2.0), Preference(0, 1, 0.2))
        comparisons.append(Comparison(as_prompt(f"question {number}"), replies, preferences, "s", str(number)))
    return comparisons


def in_pairs(comparisons: list[Comparison]) -> list[Comparison]:
    return [replace(comparison, preferences=tuple(comparison.preferences)) for comparison in comparisons]


def as_items(comparisons: list[Comparison]) -> list[Item]:
    return [Item(c.prompt, c.replies, c.preferences, f"part {int(c.id) % 2}", c.id) for c in comparisons]


def a_run(comparisons: list[Comparison]) -> Run:
    task = Task(comparisons_suite("mine"), SuiteData(tuple(as_items(comparisons)), len(comparisons), {}), "here")
    entrants = [Entrant("long", "python", longer_wins), Entrant("chance", "python", random_scorer())]
    return run_all(entrants, [task], bootstrap=FEW)


def test_a_run_on_ranked_lists_is_the_run_on_their_pairs() -> None:
    listed, paired = a_run(lists(1)), a_run(in_pairs(lists(1)))
    results = [[(scorer.name, scorer.results["mine"]) for scorer in run.scorers] for run in (listed, paired)]
    assert results[0] == results[1]
    assert listed.suites["mine"].data == paired.suites["mine"].data
    compared = compare_runs({"a": listed}, {}, bootstrap=FEW)
    assert compared == compare_runs({"a": paired}, {}, bootstrap=FEW)


def test_no_pair_of_a_long_list_is_made_as_an_object(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(RankedPairs, "__iter__", lambda pairs: pytest.fail("all pairs were made"))
    ranking = RankedPairs(tuple(place % 40 for place in range(300)))
    replies = tuple(f"reply {place}" for place in range(300))
    run = a_run([Comparison(as_prompt(f"p{n}"), replies, ranking, "s", str(n)) for n in range(2)])
    write_run(tmp_path / "run.json", run)
    assert plain(run)["suites"]["mine"]["items"][0]["preferences"] == {"ranks": list(ranking.levels)}
    assert read_run(tmp_path / "run.json") == run
    assert len(sample_of_run(run, "long", "mine").margin) == 2 * 300 * 299 // 2


def test_adding_up_in_blocks_changes_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = a_run(lists(3, count=24)).scorers
    monkeypatch.setattr(arrays, "_BLOCK", 7)
    monkeypatch.setattr(calibration, "_FEW", 0)
    blocks = a_run(lists(3, count=24)).scorers
    for expected, scorer in zip(whole, blocks, strict=True):
        figures, wanted = numbers(plain(scorer.results)), numbers(plain(expected.results))
        assert figures.keys() == wanted.keys()
        assert figures == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def numbers(value: Any, path: str = "") -> dict[str, float]:
    """Every number of nested lists and dicts by where it is."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return {where: number for key, part in parts for where, number in numbers(part, f"{path}/{key}").items()}
    return {path: value} if isinstance(value, int | float) else {}


def test_pairs_come_in_groups_in_their_order() -> None:
    number, weight = np.array([2, 0, 2, 40_000, 0, 1]), np.array([1.0, 2.0, 3.0, 4.0, 5.0, 0.0])
    groups = [(group, kept.tolist()) for group, kept in in_groups(number, weight)]
    assert groups == [(0, [1, 4]), (2, [0, 2]), (40_000, [3])]
    assert list(in_groups(number[:0], weight[:0])) == []


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_a_ranked_list_are_those_of_its_pairs(seed: int) -> None:
    comparisons = lists(seed)
    heads = ("overall", "style")
    first, weights = list(range(0, 9 * len(comparisons), 9)), [1.0 + place for place in range(len(comparisons))]
    levels = [np.array([rank_replies(c.preferences, 9, places=9) or [-1] * 9] * 2, np.int32).T for c in comparisons]
    for weigh in ("pair", "comparison"):
        some: Any = {"weigh": weigh, "weights": weights, "heads": heads, "levels": levels}
        labels = number_rows([c.preferences for c in comparisons], first, **some)
        wanted = number_rows([c.preferences for c in in_pairs(comparisons)], first, **some)
        for name in [field.name for field in fields(labels) if isinstance(getattr(labels, field.name), torch.Tensor)]:
            assert torch.equal(getattr(labels, name), getattr(wanted, name)), name
    for comparison, pairs in zip(comparisons, in_pairs(comparisons), strict=True):
        assert rank_replies(comparison.preferences, 9, places=9) == rank_replies(pairs.preferences, 9, places=9)
        assert side_of(comparison) == side_of(pairs)
    groups = tuple(c.preferences for c in comparisons)
    assert "".join(_written(groups, (1.0,))) == repr((tuple(map(tuple, groups)), (1.0,)))
    assert data_hash(comparisons) == data_hash(in_pairs(comparisons))


def test_more_pairs_than_the_bound_are_refused_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRANK_MAX_PAIRS", "10")
    ranking = RankedPairs((0, 1, 2, 3))
    assert len(flatten([ranking], [0.0], [4]).weight) == 6
    with pytest.raises(BadInput, match="2 long ranked lists have more than 10 pairs, which PREFRANK_MAX_PAIRS may"):
        flatten([ranking, ranking], [0.0, 0.0], [4, 4])


@pytest.mark.parametrize("ranks", [[0], [0, None, None], [0, 1, 2, 3], [0, -1, 2], [0, 1.5, 2], "012", [0, True, 2]])
def test_a_run_file_with_ranks_that_are_none_is_refused(ranks: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "run.json", a_run(lists(2, size=3)))
    run = json.loads((tmp_path / "run.json").read_text())
    run["suites"]["mine"]["items"][0]["preferences"] = {"ranks": ranks}
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(BadData, match=r"suites.mine.items\[0\].preferences"):
        read_run(tmp_path / "run.json")


def test_an_item_has_a_rank_for_each_reply() -> None:
    with pytest.raises(BadInput, match="item i has 2 ranks for 3 replies"):
        item_module.Item(as_prompt("p"), ("a", "b", "c"), RankedPairs((0, 1)), "s", "i")


@pytest.mark.parametrize(
    "given", [{"engines": "prefrank"}, {"formats": []}, {"batch_sizes": [True]}, {"num_comparisons": True}]
)
def test_an_audit_checks_what_it_is_given(given: dict[str, Any]) -> None:
    some: dict[str, Any] = {"items": lists(1)} | given
    with pytest.raises(BadInput, match=r"wanted|there is no"):
        audit("no such folder", **some)


@pytest.mark.parametrize("runs", [{"a": {}}, {"a": {"scorers": 1, "suites": {}}}, {"a": {"scorers": [{}]}}])
def test_runs_that_are_none_are_not_compared(runs: Any) -> None:
    with pytest.raises(BadInput, match=r"the run 'a' is \{.*\}; give one of read_run or run_all"):
        check_runs(runs)
