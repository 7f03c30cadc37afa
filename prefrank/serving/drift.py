"""How the scores that a model serves lie, whether longer replies score higher, and whether the scores have moved.

Scores are gathered in blocks of a thousand, of which the last ten are "recent". Each block is sums and counts, so that
memory does not grow and nothing of a text is kept. Correlations are Pearson's: a rank correlation needs all values at
once. A restart, and a model that is loaded again, begin anew.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.serving.moments import Moments
from prefrank.serving.reference import FIRST, LEAST, Reference, histogram_of, of_first, of_training
from prefrank.serving.tally import Number, Spread
from prefrank.stats.intervals import wilson

BLOCK, BLOCKS = 1_000, 10
CUTS = ("cut_prompt", "cut_reply", "past_trained")
_POSITIVE = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0)
EDGES = (*(-edge for edge in reversed(_POSITIVE)), 0.0, *_POSITIVE)
"""Of the histogram of scores, for models whose training record has none."""
SMALL, LARGE = 0.1, 0.25
"""Of the population stability index, beyond chance: what is usually called a little and much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Scores that a request got, one value for each row.

    Args:
        scores: raw.
        lengths: tokens of the reply.
        groups: a number for each row; rows of one prompt have the same, and no others.
        cuts: how many of the rows lost something of the prompt, of the reply, and were longer than the model was
            trained on.
    """

    scores: Sequence[float]
    lengths: Sequence[int]
    groups: Sequence[int]
    cuts: tuple[int, int, int] = (0, 0, 0)


@dataclass(slots=True, eq=False)
class _Block:
    """Sums over a stretch of rows.

    Args:
        cuts: [3] rows, as in `Answers`.
        bins: [E + 1] of the rows that are compared with the reference.
        compared, compared_sum: how many these are, and the sum of their scores.
    """

    moments: Moments
    cuts: Int64[np.ndarray, " 3"]
    bins: Int64[np.ndarray, " E1"] | None = None
    compared: int = 0
    compared_sum: float = 0.0

    def join(self, other: "_Block") -> None:
        self.moments.join(other.moments)
        self.cuts += other.cuts
        if other.bins is not None:
            self.bins = other.bins.copy() if self.bins is None else self.bins + other.bins
        self.compared += other.compared
        self.compared_sum += other.compared_sum


class Drift:
    """The scores of one model since it was loaded. Any thread may add and ask.

    Args:
        training: the training record of the model, if it has one.
        head: whose scores are served.
    """

    def __init__(self, training: Mapping[str, Any] | None, head: str) -> None:
        histogram, self.why_first = histogram_of(training, head)
        self.reference: Reference | None = of_training(histogram) if histogram else None
        self.spread = Spread(histogram.edges.tolist() if histogram else EDGES)
        self._lock = Lock()
        self._new: list[Answers] = []
        self._rows = 0  # of the new ones
        self._first: list[float] = []
        self._center: tuple[float, float] | None = None
        self._blocks: deque[_Block] = deque(maxlen=BLOCKS)
        self._open: _Block | None = None
        self._since_start: _Block | None = None

    def add(self, answers: Answers) -> None:
        """Take what a request got. It is only set aside; every thousand rows it is counted, in less than a ms."""
        if not answers.scores:
            return
        with self._lock:
            self._new.append(answers)
            self._rows += len(answers.scores)
            if self._rows >= BLOCK:
                self._fold()

    def look(self) -> "Look":
        """All figures, as of now."""
        with self._lock:
            self._fold()
            recent = self._block()
            for block in (*self._blocks, *([self._open] if self._open else [])):
                recent.join(block)
            whole = self._block()
            if self._since_start:
                whole.join(self._since_start)
            reference = self.reference
            kept = len(self._first)
            buckets, total = self.spread.buckets(), self.spread.total
        return Look(
            recent=_figures(recent, reference),
            since_start=_figures(whole, reference),
            reference=_described(reference, kept, self.why_first),
            buckets=buckets,
            total=total,
        )

    def _block(self) -> _Block:
        return _Block(Moments(self._center or (0.0, 0.0)), np.zeros(len(CUTS), np.int64))

    def _fold(self) -> None:
        """Count what was set aside. The lock is held."""
        if not self._new:
            return
        scores = np.array([score for each in self._new for score in each.scores], np.float64)
        lengths = np.array([length for each in self._new for length in each.lengths], np.float64)
        starts = np.cumsum([0, *(max(each.groups) + 1 for each in self._new)])
        groups = np.concatenate(
            [np.asarray(each.groups, np.int64) + start for each, start in zip(self._new, starts, strict=False)]
        )
        cuts = np.array([each.cuts for each in self._new], np.int64).sum(0)
        self._new, self._rows = [], 0
        self.spread.add(scores.tolist())
        if self._center is None:
            self._center = float(lengths.mean()), float(scores.mean())
        block = self._block()
        block.moments.add(lengths, scores, np.unique(groups, return_inverse=True)[1])
        block.cuts += cuts
        self._compare(block, scores)
        self._open = self._open or self._block()
        self._open.join(block)
        if self._open.moments.rows >= BLOCK:
            self._blocks.append(self._open)
            self._open = None
        self._since_start = self._since_start or self._block()
        self._since_start.join(block)

    def _compare(self, block: _Block, scores: Float64[np.ndarray, " N"]) -> None:
        """Count scores in the reference's bins; where training left none, the first are the reference."""
        if self.reference is None:
            taken = FIRST - len(self._first)
            self._first += scores[:taken].tolist()
            scores = scores[taken:]
            if len(self._first) < FIRST:
                return
            self.reference = of_first(np.array(self._first))
        block.bins = self.reference.bins(scores)
        block.compared, block.compared_sum = len(scores), float(scores.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The figures of a moment, as plain values.

    Args:
        recent: of the last ten to eleven thousand rows.
        since_start: of all.
        reference: what they are compared with.
        buckets, total: each edge with the scores up to it, and the sum of all scores, since the start.
    """

    recent: dict[str, Any]
    since_start: dict[str, Any]
    reference: dict[str, Any]
    buckets: list[tuple[str, int]]
    total: Number

    def to_json(self) -> dict[str, Any]:
        return {
            "sentence": self.sentence,
            "reference": self.reference,
            "recent": self.recent,
            "since_start": self.since_start,
        }

    @property
    def sentence(self) -> str:
        """What the recent figures say."""
        return f"{_moved(self.recent, self.reference)}; {_length(self.recent['length_correlation'])}."


def _figures(block: _Block, reference: Reference | None) -> dict[str, Any]:
    moments = block.moments
    return {
        "rows": moments.rows,
        "mean": moments.mean_figure(),
        "std": moments.std,
        "length_correlation": {
            "within_prompt": moments.within_correlation(),
            "overall": moments.overall_correlation(),
        },
        **{name: _share(count, moments.rows) for name, count in zip(CUTS, block.cuts.tolist(), strict=True)},
        "drift": _drift(block, reference),
    }


def _share(count: int, rows: int) -> dict[str, Any]:
    low, high = wilson(float(count), rows) if rows else (None, None)
    return {"value": count / rows if rows else None, "low": low, "high": high}


def _drift(block: _Block, reference: Reference | None) -> dict[str, Any]:
    """The index and the shift, of enough scores."""
    if reference is None or block.bins is None or block.compared < LEAST:
        return {"rows": block.compared, "stability_index": None, "by_chance": None, "mean_shift": None}
    shift = block.compared_sum / block.compared - reference.mean
    return {
        "rows": block.compared,
        "stability_index": reference.stability_index(block.bins),
        "by_chance": reference.by_chance(block.compared),
        "mean_shift": shift / reference.std if reference.std else None,
    }


def _described(reference: Reference | None, kept: int, why: str) -> dict[str, Any]:
    known: dict[str, Any] = {"rows": kept, "mean": None, "std": None}
    if reference is not None:
        known = {"rows": reference.n, "mean": reference.mean, "std": reference.std}
    kind = "first_1000" if reference is None else reference.kind
    return {"kind": kind, "complete": reference is not None, **known, "why": why}


def _moved(figures: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    drift = figures["drift"]
    what = "held-out replies in training" if reference["kind"] == "training" else "the first 1,000 that were served"
    because = f" ({reference['why']})" if reference["why"] else ""
    if not reference["complete"]:
        return f"Drift will be against {what}{because}; {reference['rows']:,} are there so far"
    if drift["stability_index"] is None:
        return f"{drift['rows']:,} scores are too few to compare with those of {what}{because}; {LEAST} are needed"
    beyond = drift["stability_index"] - drift["by_chance"]
    verb = "lie as" if beyond < SMALL else "have moved a little from" if beyond < LARGE else "have moved far from"
    shift = drift["mean_shift"]
    mean = "" if shift is None else f", the mean is {shift:+.2f} of their standard deviations off"
    return (
        f"The last {drift['rows']:,} scores {verb} those of {what}{because}: the population stability index is"
        f" {drift['stability_index']:.3f}{mean}"
    )


def _length(correlations: Mapping[str, Any]) -> str:
    figure, of = correlations["within_prompt"], "among replies to one prompt"
    if figure["value"] is None:
        figure, of = correlations["overall"], "over all prompts"
    if figure["low"] is None:
        return "there are too few different replies to say whether longer ones score higher"
    low, high = figure["low"], figure["high"]
    verb = "score higher" if low > 0 else "score lower" if high < 0 else "score neither higher nor lower for certain"
    return f"{of} longer ones {verb} (correlation {figure['value']:+.2f}, {low:+.2f} to {high:+.2f})"
