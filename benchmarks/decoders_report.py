"""What the decoders' benchmark makes of its measurements: tables and the closing JSON line.

A lane is a library with a way to lay out rows. Every ratio is taken inside a round, where both ran within minutes of
each other; the median over rounds is given, with the least and the largest in brackets.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from common import finish, show
from decoders_data import DATA, Chosen, Counted, limit_rate, multiply_adds
from score_report import Ratio, difference, ratio
from train_data import Model
from train_report import HEADINGS, SPEED, TaskResult, about, cells, ordered, speedup

EXACT = 1e-4
"""A lane is exact if no score is further than this from transformers' of one unpadded row at a time, in float32."""


@dataclass(frozen=True, slots=True)
class Lane:
    """What is measured.

    Args:
        variant: the worker that runs it.
        choice: how it lays rows out.
        tuned_by: the lane whose budget it takes; None: its own.
    """

    label: str
    variant: str
    choice: str
    tuned_by: str | None = None


OWN = {"torch": "PyTorch", "float32": "float32", "int16": "int16", "int8": "int8"}
LANES = {
    "card": Lane("transformers, 16 as they come", "transformers", "arrival"),
    "transformers": Lane("transformers, sorted", "transformers", "sorted"),
    "onnxruntime": Lane("ONNX Runtime, sorted", "onnxruntime", "sorted"),
    **{
        f"ours_{name}{'' if choice == 'shared' else '_alone'}": Lane(
            f"ours, {label}, {choice}", f"ours_{name}", choice, "ours_float32"
        )
        for name, label in OWN.items()
        for choice in ("alone", "shared")
    },
}


def is_exact(lane: str) -> bool:
    return "_int" not in lane


@dataclass(slots=True)
class Measured:
    """One lane on some rows: seconds of each round, and the scores of its last pass."""

    budget: int
    versions: dict[str, str]
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    peak_mb: float = 0.0


@dataclass(slots=True)
class Result:
    """All lanes of one model on one data set.

    Args:
        lengths: of the rows, in arrival order.
        groups: rows of each group.
        counted: tokens of these rows.
        whole: of what was looked at of the data.
        reference: transformers' scores of one unpadded row at a time.
        rates: of each round, GFLOP/s by library and shape.
        others: share of the machine that other processes took, looked at before every round.
    """

    model: str
    title: str
    data: str
    config: dict[str, Any]
    lengths: list[int]
    groups: list[int]
    counted: Counted
    whole: Counted
    measured: dict[str, Measured]
    skipped: dict[str, str]
    reference: list[float] = field(default_factory=list)
    rates: list[dict[str, dict[str, float]]] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, model: Model, data: str, chosen: Chosen, skipped: dict[str, str]) -> "Result":
        return cls(
            model=model.name.removeprefix("decoder-"),
            title=f"{model.title}; {DATA[data].title}",
            data=data,
            config=model.config,
            lengths=[len(row.ids) for row in chosen.rows],
            groups=[len(group) for group in chosen.groups],
            counted=chosen.counted,
            whole=chosen.whole,
            measured={},
            skipped=skipped,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "Result":
        measured = {name: Measured(**lane) for name, lane in raw["measured"].items()}
        return cls(
            **raw | {"measured": measured, "counted": Counted(**raw["counted"]), "whole": Counted(**raw["whole"])}
        )

    def limit_s(self, *, shared: bool) -> list[float]:
        """Seconds that the model's multiply-adds take at the best measured rates, in each round."""
        counted = self.counted
        tokens, pairs = (counted.shared, counted.pairs_shared) if shared else (counted.alone, counted.pairs_alone)
        work = multiply_adds(self.config, tokens, pairs, len(self.lengths), sum(self.lengths))
        return [2e-9 * work / rate for rate in self.limit_rates()]

    def limit_rates(self) -> list[float]:
        return [max(limit_rate(self.config, rates) for rates in each.values() if rates) for each in self.rates]

    def fastest(self, names: Iterable[str]) -> str | None:
        known = [name for name in names if name in self.measured and self.measured[name].cpu_s]
        return min(known, key=lambda name: statistics.median(self.measured[name].cpu_s), default=None)

    @property
    def peer(self) -> str | None:
        """The fastest that is not ours; all of them are exact."""
        return self.fastest(name for name in LANES if not name.startswith("ours"))

    @property
    def own(self) -> str | None:
        """The fastest exact one of ours."""
        return self.fastest(name for name in LANES if name.startswith("ours") and is_exact(name))

    def times(self, lane: str | None, other: str | None) -> Ratio | None:
        """How many times as fast the first is."""
        if lane not in self.measured or other not in self.measured:
            return None
        return ratio(self.measured[other].cpu_s, self.measured[lane].cpu_s)


COLUMNS = (
    "", "budget", "CPU s", "tokens/s", "× card", "× best peer", "× alone", "% of rate",
    "peak MB", "largest diff.", "rms diff.", "flips %",
)  # fmt: skip
ABOUT_SPEED = 8
"""How many of the columns are about speed."""


def row(result: Result, lane: str) -> list[str]:
    measured = result.measured[lane]
    shared = LANES[lane].choice == "shared"
    gap = difference(result.reference, measured.scores)
    limit = result.limit_s(shared=shared)
    share = ratio([100 * seconds for seconds in limit], measured.cpu_s)
    return [
        LANES[lane].label,
        str(measured.budget),
        str(Ratio(statistics.median(measured.cpu_s), min(measured.cpu_s), max(measured.cpu_s))),
        f"{sum(result.lengths) / statistics.median(measured.cpu_s):,.0f}",
        str(result.times(lane, "card") or "-"),
        str(result.times(lane, result.peer) or "-"),
        str(result.times(lane, f"{lane}_alone") or "-") if shared else "-",
        f"{share.median:.0f}",
        f"{measured.peak_mb:,.0f}",
        f"{gap.largest:.1e}",
        f"{gap.rms:.1e}",
        f"{gap.flips_percent:.2f}",
    ]


def about_rows(result: Result) -> str:
    counted, whole = result.counted, result.whole
    rates = {library for each in result.rates for library, known in each.items() if known}
    spoken = ", ".join(
        f"{library} {statistics.median(limit_rate(result.config, each[library]) for each in result.rates):.0f}"
        for library in sorted(rates)
    )
    return (
        f"{len(result.lengths)} rows in {len(result.groups)} groups, longest {max(result.lengths)}; tokens"
        f" {counted.alone:,} alone, {counted.shared:,} with each prompt once: {counted.gain:.2f} times"
        f" ({whole.gain:.2f} of the whole data). Rate of float32 products at the model's shapes, GFLOP/s: {spoken};"
        f" % of rate is of the larger, for the multiply-adds of the tokens that the lane has to compute."
        f" Other processes took at most {100 * max(result.others, default=0.0):.0f} % of the machine before a round."
    )


def summary(results: Sequence[Result], training: Sequence[TaskResult]) -> dict[str, Any]:
    """The figures by name, of SmolLM2 where it was measured; None for what was not. `by_model` has them of each."""
    by_model: dict[str, dict[str, Any]] = {}
    for result in results:
        by_model.setdefault(result.model, {}).update(figures(result))
    names = ("card", "peer")
    wanted = [f"exact_x_{name}_{data}" for data in DATA for name in names]
    wanted += [f"{kind}_{data}" for data in DATA for kind in ("int16_x_peer", "sharing_x", "sharing_promised")]
    first = by_model.get("smollm2") or next(iter(by_model.values()), {})
    times = {task.name.removeprefix("decoders-"): task for task in training}
    trained = {
        f"train_x_{other}_{data}": median(speedup(times[data], other, cpu=True)) if data in times else None
        for data in ("hh", "k4")
        for other in ("trl", "plain")
    }
    return {name: first.get(name) for name in wanted} | trained | {"by_model": by_model}


def figures(result: Result) -> dict[str, Any]:
    own, data = result.own, result.data
    found = {
        f"exact_x_card_{data}": median(result.times(own, "card")),
        f"exact_x_peer_{data}": median(result.times(own, result.peer)),
        f"int16_x_peer_{data}": median(result.times("ours_int16", result.peer)),
        f"int16_x_exact_{data}": median(result.times("ours_int16", own)),
        f"int8_x_peer_{data}": median(result.times("ours_int8", result.peer)),
        f"sharing_x_{data}": median(result.times("ours_float32", "ours_float32_alone"))
        or median(result.times("ours_torch", "ours_torch_alone")),
        f"sharing_promised_{data}": round(result.counted.gain, 3),
        f"exact_lane_{data}": own,
        f"peer_lane_{data}": result.peer,
    }
    if own:
        shared = LANES[own].choice == "shared"
        share = ratio(result.limit_s(shared=shared), result.measured[own].cpu_s)
        found[f"exact_rate_share_{data}"] = round(share.median, 3)
    return found


def median(value: Ratio | None) -> float | None:
    return round(value.median, 3) if value else None


def failures(results: Sequence[Result]) -> list[str]:
    """What makes a comparison void: an exact lane with other scores."""
    return [
        f"{result.title}: {LANES[lane].label} differs by {gap:.1e}"
        for result in results
        for lane, measured in result.measured.items()
        if is_exact(lane) and measured.scores
        and not (gap := difference(result.reference, measured.scores).largest) <= EXACT
    ]  # fmt: skip


def versions(results: Iterable[Any]) -> dict[str, str]:
    """Of every package that was measured; where environments differ, all."""
    known: dict[str, set[str]] = {}
    for result in results:
        for measured in result.measured.values():
            for name, version in measured.versions.items():
                known.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(each)) for name, each in sorted(known.items())}


def show_halves(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], first: int) -> None:
    """A table in two, the second with the first column again."""
    show(title, columns[:first], [cells[:first] for cells in rows])
    show(f"{title}: the rest", [columns[0], *columns[first:]], [[cells[0], *cells[first:]] for cells in rows])


def report(results: Sequence[Result], training: Sequence[TaskResult], machine: dict[str, Any]) -> None:
    """Print the tables; end with the JSON line."""
    for result in results:
        lanes = [lane for lane in LANES if lane in result.measured and result.measured[lane].cpu_s]
        table = [row(result, lane) for lane in lanes]
        show_halves(result.title, COLUMNS, table, ABOUT_SPEED)
        print(about_rows(result))
        for reason in dict.fromkeys(result.skipped.values()):
            names = [LANES[lane].label for lane, known in result.skipped.items() if known == reason]
            print(f"not measured: {'; '.join(names)}: {reason}")
    for task in training:
        table = [cells(task, name) for name in ordered(task)]
        show_halves(f"training: {task.title}", HEADINGS, table, SPEED)
        print(about(task))
        for name, reason in task.skipped.items():
            print(f"not measured: {name}: {reason}")
    void = failures(results)
    for reason in void:
        print(f"VOID: {reason}")
    print(f"{machine['processor']}, family {machine['family']}, {', '.join(machine['flags'])}")
    finish(
        summary(results, training)
        | {
            "benchmark": "decoders",
            "rounds": max((len(result.rates) for result in results), default=0),
            "others": max((share for result in [*results, *training] for share in result.others), default=0.0),
            "void": void,
            "skipped": {f"{result.model}-{result.data}": result.skipped for result in results}
            | {task.name: task.skipped for task in training},
            "machine": machine,
            "versions": versions([*results, *training]),
        }
    )
