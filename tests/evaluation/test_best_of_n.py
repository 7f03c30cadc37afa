import json
import lzma
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefrank.errors import BadData, NotFound
from prefrank.evaluation.comparing import compare
from prefrank.evaluation.items import Item
from prefrank.evaluation.protocols.best_of_n import (
    BEST_OF_N,
    OWN_BEST_OF_N,
    _curve,
    _order_weights,
    best_of_n,
    curves_of,
    kl,
    measure,
    rated_item,
)
from prefrank.evaluation.protocols.suite import SuiteData
from prefrank.evaluation.samples import Sample, sample_of
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.correlation import rank_correlations
from prefrank.stats.estimates import Estimate, estimate_all
from prefrank.stats.figures import Figure
from prefrank.types import as_prompt
from tests.data.files import write_lines
from tests.evaluation.making import preference, scored


def item(gold: list[float], *, replies: list[str] | None = None, id: str = "0") -> Item:
    texts = replies or [f"reply {i}" for i in range(len(gold))]
    made = rated_item(as_prompt(f"prompt {id}"), texts, gold, subset="set", id=id)
    assert isinstance(made, Item)
    return made


def sample(*rows: tuple[list[float], list[float]]) -> Sample:
    """Of (gold, scores) rows."""
    items = [item(gold, id=str(i)) for i, (gold, _) in enumerate(rows)]
    return sample_of(items, [scored(scores) for _, scores in rows])


def values(figures: dict[str, Figure]) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in estimate_all(figures, Bootstrap(resamples=1)).items()}


def random_rows(items: int, replies: int, *, noise: float, seed: int = 0) -> list[tuple[list[float], list[float]]]:
    draw = np.random.default_rng(seed)
    gold = draw.random((items, replies))
    return list(zip(gold.tolist(), (gold + noise * draw.normal(size=gold.shape)).tolist(), strict=True))


def by_enumeration(gold: list[float], scores: list[float], n: int) -> float:
    """Mean over all ways to draw n; equal best scores share, and of failures alone the least gold counts."""
    total, ways = 0.0, list(combinations(range(len(gold)), n))
    for drawn in ways:
        best = max((scores[i] for i in drawn if not math.isnan(scores[i])), default=None)
        if best is None:
            total += min(gold[i] for i in range(len(gold)) if math.isnan(scores[i]))
        else:
            total += float(np.mean([gold[i] for i in drawn if scores[i] == best]))
    return total / len(ways)


def test_kl_of_best_of_n_is_that_of_the_paper() -> None:
    assert [round(kl(n), 3) for n in (1, 2, 4, 8, 16)] == [0.0, 0.193, 0.636, 1.204, 1.835]


@pytest.mark.parametrize("scores", [[3, 1, 2, 0, 5], [1, 1, 0, 0, 1], [2, 2, 2, 2, 2], [math.nan, 1, 1, math.nan, 0]])
def test_the_curve_is_the_mean_over_all_draws(scores: list[float]) -> None:
    gold = [0.3, 0.9, 0.1, 0.6, 0.2]
    curve = best_of_n(np.array(gold), np.array(scores, np.float64))
    assert curve[0] == pytest.approx(np.mean(gold))
    assert curve[1:] == pytest.approx([by_enumeration(gold, scores, n) for n in range(2, 6)])


def test_order_in_the_file_changes_nothing() -> None:
    gold, scores = np.array([0.3, 0.9, 0.1, 0.6]), np.array([1.0, 1.0, math.nan, 0.0])
    turned = np.array([3, 1, 0, 2])
    assert best_of_n(gold, scores) == pytest.approx(best_of_n(gold[turned], scores[turned]))


def test_scores_that_say_nothing_pick_at_random() -> None:
    result = values(measure(sample(([0.2, 0.8, 0.5], [1, 1, 1]), ([0.1, 0.3, 0.9], [2, 2, 2]))))
    assert result["Recovery"] == pytest.approx(0)
    assert (result["Gold/3"], result["Random"]) == (pytest.approx(14 / 30), pytest.approx(14 / 30))
    assert (result["Kendall tau"], result["Spearman"], result["Equal scores"]) == (0, 0, 1)


def test_equal_scores_are_counted_inside_each_prompt() -> None:
    rows = sample(([0.2, 0.8, 0.5], [1, 1, 0]), ([0.1, 0.9], [0, 0]))
    assert values(measure(rows))["Equal scores"] == pytest.approx((1 / 3 + 1) / 2)


def test_gold_itself_recovers_everything_and_its_reverse_picks_the_worst() -> None:
    rows = random_rows(6, 5, noise=0)
    result = values(measure(sample(*rows)))
    assert (result["Recovery"], result["Gold/5"], result["Kendall tau"]) == (pytest.approx(1), result["Oracle/5"], 1)
    upside_down = values(measure(sample(*((gold, [-value for value in gold]) for gold, _ in rows))))
    assert upside_down["Gold/5"] == pytest.approx(upside_down["Worst"])
    assert upside_down["Accuracy"] == 0


def test_recovery_is_a_ratio_of_means() -> None:
    # Gains over random: model 0.3 and -0.1, oracle 0.3 and 0.5.
    result = values(measure(sample(([0.2, 0.8], [0, 1]), ([0.0, 1.0], [1, 0]), ([0.5, 0.5], [1, 0]))))
    assert result["Recovery"] == pytest.approx((0.3 - 0.5) / (0.3 + 0.5))
    assert (result["Random"], result["Oracle/2"], result["Worst"]) == (
        0.5,
        pytest.approx(2.3 / 3),
        pytest.approx(0.7 / 3),
    )
    assert result["Accuracy"] == 0.5  # equal gold decides nothing


def test_the_score_gain_is_above_the_mean_score_of_each_prompt() -> None:
    result = values(measure(sample(([0.0, 1.0], [1000, 1004]), ([0.0, 1.0], [-7, -5]))))
    assert (result["Score gain/1"], result["Score gain/2"]) == (0, pytest.approx(1.5))


def test_failures_are_lost() -> None:
    all_failed = values(measure(sample(([0.2, 0.8, 0.5], [math.nan] * 3), ([0.1, 0.3, 0.9], [math.inf] * 3))))
    assert all_failed["Gold/3"] == all_failed["Worst"] == pytest.approx(0.15)
    assert (all_failed["Accuracy"], all_failed["Kendall tau"], all_failed["Spearman"]) == (0, -1, -1)
    assert all_failed["Score gain/3"] is None
    best_failed = values(measure(sample(([0.2, 0.8, 0.5], [0, math.nan, 1]))))
    assert best_failed["Gold/3"] == 0.5


def test_every_point_of_a_curve_is_of_the_same_items() -> None:
    rows = [([0.1, 0.9, 0.5, 0.3], [1, 2, 3, 4]), ([0.1, 0.9, 0.5], [1, 2, 3]), ([0.1, 0.9], [1, 2])]
    result = measure(sample(*rows))
    assert [name for name in result if name.startswith("Gold/")] == ["Gold/1", "Gold/2", "Gold/3"]
    assert {result[name].n for name in result if name.startswith(("Gold/", "Random", "Recovery"))} == {2}


def test_replies_without_gold_are_left_out_of_the_curve() -> None:
    items = [Item(as_prompt("p"), ("a", "b", "c"), (preference(0, 2),), "set", "0", gold=(0.8, None, 0.2))]
    curves = curves_of(sample_of(items, [scored([1, 99, 0])]))
    assert curves.model.tolist() == [[0.5, 0.8]]


@pytest.mark.parametrize("gold", [(), (0.5, None)])
def test_data_without_gold_are_refused(gold: tuple[float | None, ...]) -> None:
    items = [Item(as_prompt("p"), ("a", "b"), (preference(0, 1),), "set", "0", gold=gold)]
    with pytest.raises(BadData, match="none of the 1 items has gold for two replies"):
        measure(sample_of(items, [scored([1, 0])]))


def test_equal_gold_throughout_leaves_no_recovery_and_no_order() -> None:
    result = values(measure(sample(([0.5, 0.5], [0, 1]), ([0.5, 0.5], [1, 0]))))
    assert [result[name] for name in ("Recovery", "Accuracy", "Kendall tau", "Equal scores")] == [None] * 4


def test_duplicates_stay_and_are_never_set_against_each_other() -> None:
    made = item([0.5, 0.4, 0.9], replies=["a", "a", "b"])
    assert [(p.winner, p.loser) for p in made.preferences] == [(2, 0), (2, 1)]
    assert [p.tie for p in item([0.5, 0.5], replies=["a", "a"]).preferences] == [True]


def exact_curves(d_of_gain: dict[int, float]) -> Sample:
    """Two items whose mean gain in gold at n = 1, 2, ... is as given, by gold chosen in the scores' order."""
    size = max(d_of_gain)
    weights = np.array([[math.comb(i, n - 1) / math.comb(size, n) for i in range(size)] for n in range(1, size + 1)])
    gold = np.linalg.solve(weights, [d_of_gain.get(n, 0.0) for n in range(1, size + 1)])
    return sample(*((list(gold * scale), list(range(size))) for scale in (0.5, 1.5)))


def test_the_fit_finds_the_curve_it_was_made_from() -> None:
    d = {n: math.sqrt(kl(n)) for n in range(1, 9)}
    result = values(measure(exact_curves({n: x * (0.9 - 0.6 * x) for n, x in d.items()})))
    wanted = {"alpha": 0.9, "beta": 0.6, "R2": 1.0, "sqrt KL at the top": 0.75}
    assert {name: result[f"Over-optimisation/{name}"] for name in wanted} == pytest.approx(wanted)


@pytest.mark.parametrize("beta", [0.1, -0.1])
def test_a_top_beyond_the_measured_n_is_not_given(beta: float) -> None:
    d = {n: math.sqrt(kl(n)) for n in range(1, 9)}
    result = values(measure(exact_curves({n: x * (0.9 - beta * x) for n, x in d.items()})))
    assert result["Over-optimisation/beta"] == pytest.approx(beta)
    assert result["Over-optimisation/sqrt KL at the top"] is None


def test_scorers_with_and_without_a_figure_can_be_compared() -> None:
    rows = random_rows(6, 5, noise=0.5)
    mine, theirs = measure(sample(*rows)), measure(sample(*((gold, [0.0] * 5) for gold, _ in rows)))
    result = compare(mine, theirs, Bootstrap(resamples=10))
    assert result["Recovery"].difference.value == pytest.approx(values(mine)["Recovery"])
    assert result["Over-optimisation/alpha"].difference.value is None


def test_a_curve_that_does_not_fit_has_no_top() -> None:
    d = {n: math.sqrt(kl(n)) for n in range(1, 9)}
    result = values(measure(exact_curves({n: x * (0.9 - 0.6 * x) + 0.05 * (-1) ** n for n, x in d.items() if n > 1})))
    alpha, beta, r2, top = (
        result[f"Over-optimisation/{name}"] for name in ("alpha", "beta", "R2", "sqrt KL at the top")
    )
    assert alpha / (2 * beta) < d[8]
    assert r2 < 0.95
    assert top is None


def test_two_coefficients_want_three_points_and_two_items() -> None:
    few = values(measure(sample(([0.1, 0.5, 0.9], [0, 1, 2]), ([0.1, 0.5, 0.7], [0, 1, 2]))))
    single = values(measure(sample(([0.1, 0.5, 0.9, 0.3, 0.2], [0, 1, 2, 3, 4]))))
    assert few["Over-optimisation/alpha"] is single["Over-optimisation/alpha"] is None


def test_the_intervals_are_those_of_resampling_prompts() -> None:
    """Recovery and the fit's top are not means: their linearised intervals against a bootstrap that does them anew."""
    rows = random_rows(300, 8, noise=0.7)
    scored_rows = sample(*rows)
    result = estimate_all(measure(scored_rows), Bootstrap(resamples=4000))
    curves = curves_of(scored_rows)
    draw, ratios, alphas = np.random.default_rng(1), [], []
    d = np.sqrt([kl(n) for n in range(2, 9)])
    for _ in range(2000):
        chosen = draw.integers(0, 300, 300)
        model, oracle = curves.model[chosen].mean(0), curves.oracle[chosen].mean(0)
        ratios.append((model[-1] - model[0]) / (oracle[-1] - oracle[0]))
        variance = (curves.model[chosen, 1:] - curves.model[chosen, :1]).var(0)
        terms = np.stack([d, -d * d], 1) / np.sqrt(variance)[:, None]
        alphas.append(np.linalg.lstsq(terms, (model[1:] - model[0]) / np.sqrt(variance), rcond=None)[0][0])
    for name, drawn in (("Recovery", ratios), ("Over-optimisation/alpha", alphas)):
        estimate = result[name]
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert [estimate.low, estimate.high] == pytest.approx([low, high], abs=0.12 * (high - low))


ROW = {
    "idx": 7,
    "instruction": "Name a fruit.",
    "candidates": [
        {"k": 0, "output": "Pear.", "win_prob": 0.4},
        {"k": 1, "output": "A brick.", "win_prob": 0.1},
        {"k": 2, "output": "Plum."},
        {"k": 3, "output": "Fig.", "win_prob": None},
    ],
}


@pytest.mark.parametrize("name", ["candidates.jsonl", "candidates.jsonl.gz", "candidates.jsonl.xz"])
def test_published_rows_give_the_judged_candidates(tmp_path: Path, name: str) -> None:
    if name.endswith(".xz"):
        (tmp_path / name).write_bytes(lzma.compress(json.dumps(ROW).encode()))
    else:
        write_lines(tmp_path / name, [ROW])
    (made,) = BEST_OF_N.read(tmp_path).items
    assert (made.replies, made.gold, made.id) == (("Pear.", "A brick."), (0.4, 0.1), "7")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": [{"output": "a", "win_prob": 1.5}]}, "jsonl:2: 'win_prob' holds 1.5; wanted a probability"),
        ({"candidates": [{"win_prob": 0.5}]}, "jsonl:2: no column 'output'"),
        ({"candidates": 3}, "jsonl:2: 'candidates' holds 3; wanted a list"),
        ({"instruction": None}, "jsonl:2: 'instruction' holds null"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_lines(tmp_path / "candidates.jsonl", [ROW, ROW | change])
    with pytest.raises(BadData, match=message):
        BEST_OF_N.read(tmp_path)


def test_too_few_judged_candidates_are_counted_and_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"candidates\.jsonl"):
        BEST_OF_N.read(tmp_path)
    write_lines(tmp_path / "candidates.jsonl", [ROW, ROW | {"candidates": ROW["candidates"][1:]}])  # type: ignore[index]
    assert BEST_OF_N.read(tmp_path).dropped == {"fewer than two replies": 1}


def test_own_rated_rows_keep_repeated_replies(tmp_path: Path) -> None:
    row: dict[str, Any] = {"id": "x", "prompt": "Name a fruit.", "replies": ["Pear.", "Pear.", "Fig.", "?"]}
    row["ratings"] = {"overall": [3, 3, 5, None], "accuracy": [1, 1, 1, 0]}
    data = OWN_BEST_OF_N.read(write_lines(tmp_path / "own.jsonl", [row]))
    assert [(item.replies, item.gold, item.id) for item in data.items] == [(("Pear.", "Pear.", "Fig."), (3, 3, 5), "x")]
    assert data.items == OWN_BEST_OF_N.read(tmp_path).items
    write_lines(tmp_path / "own.jsonl", [{"prompt": "p", "replies": ["a", "b"], "ranks": [0, 1]}])
    with pytest.raises(BadData, match="no 'ratings' of 'overall'"):
        OWN_BEST_OF_N.read(tmp_path)


def test_every_chart_cell_is_a_figure() -> None:
    figures = BEST_OF_N.measure(sample(*random_rows(3, 11, noise=1)))
    for chart in BEST_OF_N.charts:
        assert len(chart.figures) == len(chart.rows) * len(chart.columns)
        assert set(chart.figures) <= figures.keys()


@pytest.fixture(scope="module")
def alpaca(shared_data: Path) -> SuiteData:
    return BEST_OF_N.read(shared_data / "bon-alpacaeval")


def percent(items: Sequence[Item], scores: list[list[float]]) -> dict[str, float]:
    """Mean gold of the best of n, of the oracle and at worst, in percent."""
    curves = curves_of(sample_of(items, list(map(scored, scores))))
    result = {f"Gold/{n}": curves.model[:, n - 1] for n in (2, 4, 8, 11)}
    result |= {f"Oracle/{n}": curves.oracle[:, n - 1] for n in (1, 2, 4, 8, 11)} | {"Worst": curves.worst}
    return {name: round(100 * float(each.mean()), 2) for name, each in result.items()}


@pytest.mark.shared_data
def test_golden_curves_of_length_on_alpacaeval(alpaca: SuiteData) -> None:
    """The reference gives an equal length to the last reply in its curve, and to the first at full n; we share it."""
    assert (len(alpaca.items), alpaca.read, alpaca.dropped) == (805, 805, {})
    last = percent(alpaca.items, [[len(text) + k / 99 for k, text in enumerate(item.replies)] for item in alpaca.items])
    assert [last[f"Gold/{n}"] for n in (2, 4, 8, 11)] == [33.87, 35.23, 36.31, 36.91]
    assert [last[f"Oracle/{n}"] for n in (1, 2, 4, 8, 11)] == [32.03, 40.61, 48.71, 56.09, 59.18]
    assert last["Worst"] == 11.32
    shared = percent(alpaca.items, [[len(text) for text in item.replies] for item in alpaca.items])
    assert [shared[f"Gold/{n}"] for n in (2, 4, 8, 11)] == [33.87, 35.22, 36.30, 36.89]


@pytest.mark.shared_data
@pytest.mark.parametrize(("sign", "golden"), [(1, 36.88), (-1, 26.57)])
def test_golden_longest_and_shortest_on_alpacaeval(alpaca: SuiteData, sign: int, golden: float) -> None:
    picked = [[sign * len(text) - k / 99 for k, text in enumerate(item.replies)] for item in alpaca.items]
    assert percent(alpaca.items, picked)["Gold/11"] == golden


@pytest.mark.shared_data
def test_golden_means_of_the_columns_on_alpacaeval(alpaca: SuiteData) -> None:
    result = 100 * np.array([item.gold for item in alpaca.items], np.float64).mean(0)
    wanted = [27.31, 28.68, 30.55, 31.25, 30.91, 32.57, 33.77, 33.01, 34.34, 34.44, 35.45]
    assert result.round(2).tolist() == wanted


@pytest.mark.shared_data
def test_published_picks_get_the_gold_of_what_they_picked(alpaca: SuiteData, shared_data: Path) -> None:
    rows = (shared_data / "bon-alpacaeval" / "published_picks.jsonl").read_text().splitlines()
    picks = next(row["picked_k"] for row in map(json.loads, rows) if "deberta" in row["reward_model"])
    judged = [(item, k) for item, k in zip(alpaca.items, picks, strict=True) if k < 11]
    assert len(judged) == 491
    result = percent([item for item, _ in judged], [[float(j == k) for j in range(11)] for _, k in judged])
    assert result["Gold/11"] == 30.12  # what the picks' own win_prob average to


def test_estimates_say_how_many_items() -> None:
    result = estimate_all(measure(sample(*random_rows(5, 4, noise=1))), Bootstrap(resamples=1))["Recovery"]
    assert isinstance(result, Estimate)
    assert (result.n, result.unit, result.prompts) == (5, "items", 5)


@pytest.mark.parametrize("seed", range(20))
def test_rank_correlations_by_sorting_are_those_of_all_pairs_to_the_bit(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = int(random.integers(2, 40))
    x, y = (random.integers(0, random.integers(1, 12), size).astype(np.float64) for _ in range(2))
    signs = [np.sign(z[:, None] - z[None]) for z in (x, y)]

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        scale = np.sqrt((a * a).sum() * (b * b).sum())
        return float((a * b).sum() / scale) if scale > 0 else 0.0

    assert rank_correlations(x, y) == (cosine(*signs), cosine(*(each.sum(1) for each in signs)))


def test_best_of_thousands_is_that_of_whole_numbers_but_for_rounding() -> None:
    ascending = np.sort(np.random.default_rng(0).normal(size=300))
    assert _curve(ascending) == pytest.approx(_order_weights(300) @ ascending, abs=1e-12)
