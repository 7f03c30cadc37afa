"""Runs made up of random numbers, for tests of what reads them: reports, cards, leaderboards, comparisons.

`fake_run` is a run file of format 1, and `as_run` the run that it holds.
Everything derived is computed from the made-up scores, with the normal approximation in place of the bootstrap, so the
parts of a file agree with each other as a real one's do. One score of the first model failed, on purpose.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.evaluation.results import Run
from prefrank.evaluation.run_file import _from_format_1
from prefrank.io.schema import read

SUITES = ("helpful", "rm-bench", "bon-alpacaeval", "probes")
SCORERS = ("good", "long", "longer reply", "random")
STYLES = ("concise", "detailed", "markdown")

_SUBSETS = ("chat", "chat-hard", "code", "safety-refuse", "reasoning")
_DOMAINS = ("chat", "code", "math", "safety")
_KINDS = ("empty reply", "prompt repeated", "control tokens", "filler", "flattery", "rude", "sycophancy", "refusal")
_STEPS = (1, 2, 4, 8)
_NAMES = {"good": "acme/minilm-hh", "long": "OpenAssistant/reward-model-deberta-v3-large-v2"}
_KIND = {"good": "model", "long": "transformers", "longer reply": "baseline", "random": "baseline"}
_WEIGHTS = {
    "good": (1.5, 0.1, 1.0),
    "long": (0.6, 0.9, 1.0),
    "longer reply": (0.0, 1.0, 0.0),
    "random": (0.0, 0.0, 1.0),
}
"""Of quality, length and noise in a scorer's scores."""


@dataclass(frozen=True, slots=True)
class _Made:
    """One suite's items as arrays: N replies, P pairs."""

    items: list[dict[str, Any]]
    quality: Float64[np.ndarray, " N"]
    length: Float64[np.ndarray, " N"]
    ahead: Int64[np.ndarray, " P"]
    behind: Int64[np.ndarray, " P"]
    place: Int64[np.ndarray, " P"]
    first: Int64[np.ndarray, " C+1"]


def fake_run(
    *, scorers: Sequence[str] = SCORERS, suites: Sequence[str] = SUITES, items: int = 300, seed: int = 0
) -> dict[str, Any]:
    """A run file of format 1.

    Args:
        scorers: of SCORERS.
        suites: of SUITES.
        items: about so many in all.
    """
    random = np.random.default_rng(seed)
    made = {suite: _make(suite, max(8, items // max(1, len(suites))), random) for suite in suites}
    records = [_scorer(scorer, made, random) for scorer in scorers]
    return {
        "format": 1,
        "prefrank": "0.1.0",
        "created": "2026-11-28T12:00:00+00:00",
        "command": "prefrank evaluate --model acme/minilm-hh --suite " + " --suite ".join(suites),
        "versions": {"python": "3.12.3", "prefrank": "0.1.0", "numpy": "2.4.6", "torch": "2.9.1"},
        "hardware": {
            "cpu": "A processor", "cores": 8, "usable_cores": 2, "memory_bytes": 16 << 30, "gpus": [], "system": "Linux"
        },
        "intervals": {"resamples": 10000, "seed": 0, "confidence": 0.95},
        "suites": {suite: _suite(suite, made[suite]) for suite in suites},
        "scorers": records,
        "comparison": {"pairs": _comparisons(records, made), "refused": []},
    }  # fmt: skip


def as_run(parsed: dict[str, Any]) -> Run:
    """The run of a file of format 1; whether its parts agree with each other is not looked at."""
    return read(Run, _from_format_1(json.loads(json.dumps(parsed))), strict=False)


def made_run(
    *, scorers: Sequence[str] = SCORERS, suites: Sequence[str] = SUITES, items: int = 300, seed: int = 0
) -> Run:
    """The run of `fake_run`."""
    return as_run(fake_run(scorers=scorers, suites=suites, items=items, seed=seed))


def estimate(
    values: Sequence[float] | np.ndarray, *, unit: str = "items", prompts: int | None = None
) -> dict[str, Any]:
    """The mean with the normal approximation's interval; no value for no values."""
    n = len(values)
    if not n:
        return {"value": None, "low": None, "high": None, "n": 0, "unit": unit, "prompts": 0}
    value, half = float(np.mean(values)), 1.96 * float(np.std(values)) / math.sqrt(n) + 1 / (4 * n)
    counts = {"n": n, "unit": unit, "prompts": n if prompts is None else prompts}
    return {"value": value, "low": value - half, "high": value + half} | counts


def share(values: Sequence[float] | np.ndarray, *, unit: str = "items", prompts: int | None = None) -> dict[str, Any]:
    """The same, between 0 and 1."""
    mean = estimate(values, unit=unit, prompts=prompts)
    return mean if not len(values) else mean | {"low": max(0.0, mean["low"]), "high": min(1.0, mean["high"])}


def signed(values: Sequence[float] | np.ndarray, *, unit: str = "items", prompts: int | None = None) -> dict[str, Any]:
    """The same, between -1 and 1."""
    mean = estimate(values, unit=unit, prompts=prompts)
    return mean if not len(values) else mean | {"low": max(-1.0, mean["low"]), "high": min(1.0, mean["high"])}


def _make(suite: str, count: int, random: np.random.Generator) -> _Made:
    shape = {"rm-bench": 6, "bon-alpacaeval": 8}.get(suite, 2)
    items, quality, lengths, pairs = [], [], [], []
    for number in range(count):
        good = random.normal(size=shape)
        length = np.exp(random.normal(5.6, 0.6, shape) + 0.15 * good)
        if suite == "rm-bench":
            good = np.where(np.arange(6) < 3, good / 3 + 1.4, good / 3)
            length = np.exp(np.tile([4.8, 6.2, 6.4], 2) + random.normal(0, 0.2, 6))
            of_item = [(i, 3 + j) for i in range(3) for j in range(3)]
        elif suite == "bon-alpacaeval":
            of_item = [(i, j) for i in range(8) for j in range(8) if good[i] > good[j]]
        else:
            good = np.sort(good)[::-1] + (1.0 if suite == "probes" else 0.3) * np.array([1, 0])
            of_item = [(0, 1)]
        items.append(_item(suite, number, good, length, of_item, random))
        pairs += [(number, number * shape + i, number * shape + j) for i, j in of_item]
        quality.append(good)
        lengths.append(np.round(length))
    place, ahead, behind = np.array(pairs, np.int64).T
    first = np.arange(count + 1, dtype=np.int64) * shape
    return _Made(items, np.concatenate(quality), np.concatenate(lengths), ahead, behind, place, first)


def _item(
    suite: str, number: int, good: np.ndarray, length: np.ndarray, pairs: Sequence[tuple[int, int]],
    random: np.random.Generator,
) -> dict[str, Any]:  # fmt: skip
    subsets = {"rm-bench": _DOMAINS, "bon-alpacaeval": ("alpaca",), "probes": _KINDS}.get(suite, _SUBSETS)
    item = {
        "subset": subsets[number % len(subsets)],
        "id": f"{suite}-{number}",
        "prompt": (number // 2 * 2 if number % 10 == 1 else number) / 1e4 + 0.1,  # one in ten shares a prompt
        "preferences": [[i, j, 1.0, 1 / len(pairs)] for i, j in pairs],
        "turns": int(random.choice([1, 1, 1, 3, 5])),
        "prompt_length": int(random.integers(20, 900)),
        "language": str(random.choice(["en", "en", "en", "de", ""])),
        "lengths": [int(characters) for characters in np.round(length)],
        "styles": [[int(size > 500), int(size // 150), int(size // 200)] for size in length],
    }
    return item | (
        {"gold": [float(1 / (1 + np.exp(-quality))) for quality in good]} if suite == "bon-alpacaeval" else {}
    )


def _suite(suite: str, made: _Made) -> dict[str, Any]:
    rows, charts = {"read": len(made.items) + 3, "dropped": {"equal replies": 2, "empty reply": 1}, "missing": {}}, []
    if suite == "rm-bench":
        cells = [f"Cells/{row} over {column}" for row in STYLES for column in STYLES]
        charts = [_chart("Style of the right reply against the wrong one", STYLES, STYLES, cells, "matrix")]
    if suite == "bon-alpacaeval":
        lines = ("model", "oracle", "random")
        names = [f"Curve/{line} at {n}" for line in lines for n in _STEPS]
        charts = [_chart("Best of n", lines, _STEPS, names, "curves", "replies to choose from")]
    titles = {"helpful": "Helpful and harmless", "rm-bench": "RM-Bench", "bon-alpacaeval": "Best of n, AlpacaEval"}
    return {
        "title": titles.get(suite, "Probes"),
        "source": f"the protocol of {suite}",
        "data": hashlib.sha256(repr(sorted(map(repr, made.items))).encode()).hexdigest(),
        "ties": "half" if suite == "helpful" else "wrong",
        "from": f"data/{suite}",
        "rows": rows,
        "charts": charts,
        "noise_ceiling": share(np.repeat([1.0, 0.5], [80, 20]), unit="pairs") if suite == "helpful" else None,
        "contamination": _contamination(made) if suite == "helpful" else None,
        "items": made.items,
    }


def _chart(
    title: str, rows: Sequence[str], columns: Sequence[Any], figures: Sequence[str], kind: str, x_label: str = ""
) -> dict[str, Any]:
    chart = {"title": title, "rows": list(rows), "columns": list(columns), "figures": list(figures)}
    return chart | {"kind": kind, "x_label": x_label}


def _contamination(made: _Made) -> dict[str, Any]:
    dirty = [
        {"subset": made.items[place]["subset"], "id": made.items[place]["id"], "ways": [way], "example": f"set/{place}"}
        for place, way in ((0, "same prompt"), (7, "near prompt"))
    ]
    return {
        "train": 4000,
        "train_prompts": 3900,
        "items": len(made.items),
        "prompts": len({item["prompt"] for item in made.items}),
        "found": {"same prompt": 1, "near prompt": 1, "any": 2},
        "ways": {"same prompt": "the same words", "near prompt": "nearly the same words"},
        "dirty": dirty,
        "leaks": ["set/0", "set/7"],
    }


def _scorer(scorer: str, made: dict[str, _Made], random: np.random.Generator) -> dict[str, Any]:
    quality, length, noise = _WEIGHTS[scorer]
    results = {}
    for suite, data in made.items():
        size = len(data.quality)
        scores = quality * data.quality + length * (np.log(data.length) - 5.6) + noise * random.normal(size=size)
        if scorer == "good":
            scores[data.first[5]] = np.nan  # a failure
            scores[data.first[3] : data.first[4]] = scores[data.first[3]]  # equal scores
        results[suite] = _result(suite, data, scores, scorer)
    return {
        "name": _NAMES.get(scorer, scorer),
        "kind": _KIND[scorer],
        "model": hashlib.sha256(scorer.encode()).hexdigest()[:16],
        "format": {"max_length": 512, "precision": "float32", "device": "cpu"} if _KIND[scorer] != "baseline" else {},
        "replies": sum(len(data.quality) for data in made.values()),
        "scoring_s": 12.5 if _KIND[scorer] != "baseline" else 0.01,
        "tokens": sum(int(data.length.sum()) // 4 for data in made.values()),
        "evaluating_s": 1.5,
        "results": results,
        "audit": _AUDIT if scorer == "good" else None,
    }


_AUDIT: dict[str, Any] = {
    "rows": 64,
    "pairs": 32,
    "reference": "own format, float32, one at a time",
    "spread": 1.5,
    "combinations": [
        {"engine": engine, "format": form, "padding_side": side, "dtype": dtype, "batch_size": 8}
        | {"max_difference": gap, "rms_difference": gap and gap / 3, "max_spreads": gap and gap / 1.5}
        | {"rms_spreads": gap and gap / 4.5, "batch_difference": gap and gap / 9, "flips": flips, "gained": 0}
        | {"lost": flips, "pairs": flips if flips is None else 32, "cut": flips if flips is None else 0.1}
        | {"failures": flips if flips is None else 0, "reason": reason}
        for engine, form, side, dtype, gap, flips, reason in (
            ("prefrank", "own", None, "float32", 2e-6, 0, ""),
            ("prefrank", "own", None, "bfloat16", 0.02, 1, ""),
            ("transformers", "joined text", "right", "float32", 0.9, 7, ""),
            ("transformers", "chat template", "right", "float32", None, None, "the tokenizer has no chat template"),
        )
    ],
    "summary": [
        "64 rows and 32 decided pairs; differences are from own format, float32, one at a time.",
        "transformers, joined text format: 7 of 32 decisions change.",
    ],
}


def _result(suite: str, made: _Made, scores: Float64[np.ndarray, " N"], scorer: str) -> dict[str, Any]:
    margin = scores[made.ahead] - scores[made.behind]
    wins = (margin > 0) + 0.5 * (margin == 0)
    by_item = np.bincount(made.place, wins) / np.bincount(made.place)
    subsets = list(dict.fromkeys(item["subset"] for item in made.items))
    of_item = np.array([subsets.index(item["subset"]) for item in made.items])
    figures = _figures(suite, made, by_item, wins, margin, scores)
    failed = ~np.isfinite(scores)
    return {
        "headline": next(iter(figures)),
        "figures": figures,
        "overall": _metrics(made, margin, scores, np.ones(len(made.items), bool)),
        "subsets": {name: _metrics(made, margin, scores, of_item == place) for place, name in enumerate(subsets)},
        "calibration": _calibration(margin, wins),
        "abstention": _abstention(margin, wins),
        "style": _style(made, margin, wins, by_item),
        "slices": _slices(made, by_item),
        "contamination": _clean_and_dirty(by_item) if suite == "helpful" else None,
        "errors": _errors(made, margin, scores) if scorer != "random" else [],
        "scores": [
            [None if failed[row] else float(scores[row]) for row in range(a, b)]
            for a, b in zip(made.first[:-1], made.first[1:], strict=True)
        ],
        "tokens": [[length // 4 + 8 for length in item["lengths"]] for item in made.items],
        "cut_prompt": [[int(item["prompt_length"] > 850)] * len(item["lengths"]) for item in made.items],
        "cut_reply": [[int(length > 1500) for length in item["lengths"]] for item in made.items],
    }


def _figures(
    suite: str, made: _Made, by_item: np.ndarray, wins: np.ndarray, margin: np.ndarray, scores: np.ndarray
) -> dict[str, Any]:
    names = [item["subset"] for item in made.items]
    parts = {name: share(by_item[[name == other for other in names]]) for name in dict.fromkeys(names)}
    if suite == "rm-bench":
        cells = wins.reshape(-1, 3, 3)
        named = {f"Cells/{STYLES[i]} over {STYLES[j]}": share(cells[:, i, j]) for i in range(3) for j in range(3)}
        up, down = np.triu_indices(3, 1), np.tril_indices(3, -1)
        hard, easy = cells[:, *up].mean(1), cells[:, *down].mean(1)
        levels = {"Hard": share(hard), "Normal": share(cells.diagonal(axis1=1, axis2=2).mean(1)), "Easy": share(easy)}
        gap = {"Style gap": estimate(easy - hard)}
        return {"Overall": share(by_item)} | levels | gap | {f"Domain/{k}": v for k, v in parts.items()} | named
    if suite == "bon-alpacaeval":
        return _curve(made, scores)
    if suite == "probes":
        return {"Mean of kinds": share(by_item)} | parts
    return {"Accuracy": share(by_item), "Kendall tau": estimate(2 * by_item - 1)} | parts


def _curve(made: _Made, scores: np.ndarray) -> dict[str, Any]:
    gold = np.array([item["gold"] for item in made.items])
    by_score = np.take_along_axis(gold, np.argsort(np.nan_to_num(scores.reshape(gold.shape), nan=-9), 1), 1)
    lines = {"model": by_score, "oracle": np.sort(gold, 1), "random": np.repeat(gold.mean(1, keepdims=True), 8, 1)}
    figures = {}
    for line, ordered in lines.items():
        for n in _STEPS:
            chances = np.array([math.comb(i, n - 1) / math.comb(8, n) for i in range(8)])
            figures[f"Curve/{line} at {n}"] = share(ordered @ chances, unit="prompts")
    return {"Best of 8": figures["Curve/model at 8"]} | figures


def _clean_and_dirty(by_item: np.ndarray) -> dict[str, Any]:
    dirty = np.isin(np.arange(len(by_item)), (0, 7))
    gap = by_item[dirty].mean() - by_item[~dirty].mean()
    ends = {"value": gap, "low": max(-1.0, gap - 0.3), "high": min(1.0, gap + 0.3)}
    ends |= {"n": len(by_item), "unit": "items", "prompts": 2}
    return {"clean": share(by_item[~dirty]), "dirty": share(by_item[dirty]), "difference": ends}


def _metrics(made: _Made, margin: np.ndarray, scores: np.ndarray, kept: np.ndarray) -> dict[str, Any]:
    pairs, prompts = (
        kept[made.place],
        len({item["prompt"] for item, keep in zip(made.items, kept, strict=True) if keep}),
    )
    wins, failed = (margin > 0) + 0.5 * (margin == 0), np.isnan(margin)
    of_item = np.bincount(made.place, wins)[kept] / np.bincount(made.place)[kept]
    lost = np.bincount(made.place, margin > 0)[kept] / np.bincount(made.place)[kept]
    longer = (made.length[made.ahead] > made.length[made.behind])[pairs]
    whole = not failed[pairs].any()
    rows = np.repeat(kept, np.diff(made.first))
    many = np.diff(made.first).max() > 2
    ends = {"unit": "comparisons", "prompts": prompts}
    return {
        "accuracy": share(of_item, unit="pairs", prompts=prompts) | {"n": int(pairs.sum())},
        "accuracy_ties_lost": share(lost, unit="pairs", prompts=prompts) | {"n": int(pairs.sum())},
        "accuracy_by_pair": share(wins[pairs], unit="pairs", prompts=prompts),
        "log_loss": _or_nothing(np.logaddexp(0, -np.nan_to_num(margin[pairs])), whole),
        "margin": _or_nothing(margin[pairs], whole),
        "best_worst": share(of_item, **ends),
        "best_worst_published": share(of_item, **ends),
        "kendall_tau": signed(2 * of_item - 1 if many else [], **ends),
        "length_accuracy": share(longer, unit="pairs", prompts=prompts),
        "counts": {
            "comparisons": int(kept.sum()),
            "prompts": prompts,
            "replies": int(rows.sum()),
            "pairs": int(pairs.sum()),
            "ties": 0,
            "score_ties": int((margin[pairs] == 0).sum()),
            "failures": int(np.isnan(scores[rows]).sum()),
            "failed_pairs": int(failed[pairs].sum()),
            "cut_prompts": 2 * sum(item["prompt_length"] > 850 for item in made.items),
            "cut_replies": int((made.length[rows] > 1500).sum()),
        },
    }


def _or_nothing(values: np.ndarray, whole: bool) -> dict[str, Any]:
    nothing = {"value": None, "low": None, "high": None}
    return estimate(np.nan_to_num(values), unit="pairs") | ({} if whole else nothing)


def _calibration(margin: np.ndarray, wins: np.ndarray) -> dict[str, Any]:
    usable = margin[np.isfinite(margin)]
    grid = [0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0]
    best = min(grid, key=lambda temperature: float(np.logaddexp(0, -usable / temperature).mean()))
    scaled, raw = (
        _reliability(usable / best, wins[np.isfinite(margin)]),
        _reliability(usable, wins[np.isfinite(margin)]),
    )
    fitted = {"temperature": best, "fitted_on": "cross-fitted, each of these prompts by others"}
    return fitted | {"raw": raw, "scaled": scaled, "note": None}


def _reliability(margin: np.ndarray, wins: np.ndarray) -> dict[str, Any]:
    confidence = 1 / (1 + np.exp(-np.abs(margin)))
    by_width = np.minimum(((confidence - 0.5) * 30).astype(int), 14)
    by_mass = np.argsort(np.argsort(confidence)) * 15 // len(confidence)
    bins, by_mass_bins = (_bins(confidence, wins, place) for place in (by_width, by_mass))
    gaps = [(abs(each["confidence"] - each["accuracy"]), each["n"]) for each in bins]

    def about(value: float) -> dict[str, Any]:
        counts = {"n": len(margin), "unit": "pairs", "prompts": len(margin)}
        return {"value": value, "low": max(0.0, value - 0.03), "high": value + 0.03} | counts

    return {
        "ece": about(sum(gap * n for gap, n in gaps) / len(margin)),
        "ece_equal_mass": about(sum(abs(b["confidence"] - b["accuracy"]) * b["n"] for b in by_mass_bins) / len(margin)),
        "mce": about(max(gap for gap, _ in gaps)),
        "log_loss": estimate(np.logaddexp(0, -margin), unit="pairs"),
        "brier": share((1 / (1 + np.exp(margin))) ** 2, unit="pairs"),
        "auroc": about(float(np.mean(np.abs(margin[wins == 1])[:, None] > np.abs(margin[wins < 1])[None]))),
        "n": len(margin),
        "bins": bins,
        "bins_equal_mass": by_mass_bins,
    }


def _bins(confidence: np.ndarray, wins: np.ndarray, place: np.ndarray) -> list[dict[str, Any]]:
    bins = []
    for each in np.unique(place):
        kept, accuracy = place == each, share(wins[place == each])
        bins.append({"confidence": float(confidence[kept].mean()), "accuracy": accuracy["value"], "n": int(kept.sum())})
        bins[-1] |= {"low": accuracy["low"], "high": accuracy["high"]}
    return bins


def _abstention(margin: np.ndarray, wins: np.ndarray) -> list[dict[str, Any]]:
    size = np.nan_to_num(np.abs(margin))
    order, points = np.argsort(-size, kind="stable"), []
    for percent in range(100, 0, -5):
        kept = order[: max(1, len(order) * percent // 100)]
        accuracy = share(wins[kept])
        points.append({"coverage": len(kept) / len(order), "threshold": float(size[kept[-1]]), "n": len(kept)})
        points[-1] |= {"accuracy": accuracy["value"], "low": accuracy["low"], "high": accuracy["high"]}
    return points


def _style(made: _Made, margin: np.ndarray, wins: np.ndarray, by_item: np.ndarray) -> dict[str, Any]:
    usable = np.isfinite(margin)
    gap = made.length[made.ahead] - made.length[made.behind]
    relative = gap / (made.length[made.ahead] + made.length[made.behind])
    constant = np.ptp(margin[usable]) == 0
    r = 0.0 if constant else float(np.corrcoef(margin[usable], gap[usable])[0, 1])
    n = int(usable.sum())
    ends = {"value": r, "low": max(-1.0, r - 0.1), "high": min(1.0, r + 0.1)}
    correlation = ends | {"n": n, "unit": "pairs", "prompts": min(9, n)}
    longer, shorter = share(wins[gap > 0], unit="pairs"), share(wins[gap < 0], unit="pairs")
    edges = [-1.0, -0.6, -0.3, -0.1, 0.1, 0.3, 0.6, 1.0]
    terms = (("score", 0.9), ("length", 0.4), ("headers", 0.05), ("list items", 0.02), ("bold", -0.03))
    return {
        "pearson": correlation,
        "spearman": correlation,
        "within_prompt": correlation | {"unit": "items"},
        "longer": longer,
        "shorter": shorter,
        "balanced": share(by_item, unit="pairs"),
        "buckets": [
            {"from": a, "to": b, "accuracy": share(wins[(relative >= a) & (relative < b)], unit="pairs")}
            for a, b in pairwise(edges)
        ],
        "regression": {
            "terms": [{"name": k, "coefficient": v, "low": v - 0.1, "high": v + 0.1} for k, v in terms],
            "gain": {"statistic": 25.0, "p": 5.7e-7},
            "at_equal_style": share(by_item, unit="pairs"),
            "n": len(margin),
        },
        "note": None,
    }


def _slices(made: _Made, by_item: np.ndarray) -> list[dict[str, Any]]:
    slices = []
    for name, of in (
        ("turns", lambda item: f"{min(item['turns'], 3)}" + ("+" if item["turns"] > 2 else "")),
        ("language", lambda item: item["language"] or "unknown"),
        ("length", lambda item: "short" if sum(item["lengths"]) < 800 else "long"),
    ):
        values = [of(item) for item in made.items]
        for value in sorted(set(values)):
            accuracy = share(by_item[[value == other for other in values]])
            slices.append({"slice": name, "value": value, "accuracy": accuracy, "worst": False})
    if slices:
        min(slices, key=lambda part: part["accuracy"]["value"])["worst"] = True
    return slices


def _errors(made: _Made, margins: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    errors = []
    for pair in np.argsort(np.nan_to_num(margins))[:5]:
        item, margin = made.items[made.place[pair]], margins[pair]
        if not margin < 0:
            break
        both = [float(scores[made.ahead[pair]]), float(scores[made.behind[pair]])]
        texts = {
            "prompt": f"Question {item['id']}: how is bread made?",
            "preferred": "Mix flour, water, salt and yeast; wait; bake.",
            "other": "It is made in an oven. " * 12,
        }
        errors.append({"subset": item["subset"], "id": item["id"], "margin": float(margin), "scores": both} | texts)
    return errors


def _comparisons(scorers: Sequence[dict[str, Any]], made: dict[str, _Made]) -> list[dict[str, Any]]:
    pairs = []
    for other in scorers[1:]:
        for suite in made:
            a, b = (scorer["results"][suite] for scorer in (scorers[0], other))
            figure, n = a["headline"], len(made[suite].items)
            gap = a["figures"][figure]["value"] - b["figures"][figure]["value"]
            error = 0.55 / math.sqrt(n)
            p = math.erfc(abs(gap) / error / math.sqrt(2))
            verdict = "cannot be told apart" if p * 3 > 0.05 else "better" if gap > 0 else "worse"
            difference = {"value": gap, "low": gap - 1.96 * error, "high": gap + 1.96 * error}
            difference |= {"n": n, "unit": "items", "prompts": n}
            pairs.append({"a": scorers[0]["name"], "b": other["name"], "suite": suite, "figure": figure})
            pairs[-1]["headline"] = True
            pairs[-1] |= {"difference": difference, "p": p, "p_holm": min(1.0, 3 * p), "verdict": verdict}
            test = {"n": n, "b": 20, "c": 9, "discordant": 29, "exact": 0.061, "mid_p": 0.043, "clustered": False}
            pairs[-1] |= {"detectable": 2.8 * error, "mcnemar": test}
    return pairs
