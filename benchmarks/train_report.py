"""What the training benchmark makes of its measurements: figures, tables, the page and the closing JSON line.

A comparison here is one decided pair of replies, so that a group of K ranked replies is K(K - 1)/2 comparisons for
everybody, however often a contender encodes a reply. Every ratio is taken inside a round, where all contenders did the
same steps within minutes of each other; the median over rounds is given, with the least and the largest in brackets.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common import finish, say, show
from score_report import Ratio, markdown, ratio, write_page
from train_worker import CONTENDERS

REFERENCE = "plain"
"""The contender whose gradient and losses the others are held against: one padded batch in transformers."""
GRADIENT = 1e-4
"""Largest relative difference (2-norm, all parameters) of the first step's gradient."""
CURVE = 2e-3
"""Largest difference of any step's loss. Adam divides gradients by their size, so rounding differences grow."""
QUIET = 0.1
"""Share of the machine that others may take."""
BEGIN, END = "<!-- training: begin -->", "<!-- training: end -->"


@dataclass(slots=True)
class Stretch:
    """Some steps of one contender: seconds, and what its forward passes were given."""

    cpu_s: float
    wall_s: float
    losses: list[float]
    encodings: int
    tokens: int
    slots: int
    peak_mb: float

    @property
    def padding(self) -> float:
        """Share of the places in its batches that hold no token."""
        return 1 - self.tokens / self.slots


@dataclass(slots=True)
class HeldOut:
    """Log loss of the final weights on `n` pairs not trained on; the interval is over prompts."""

    log_loss: float
    low: float
    high: float
    n: int


@dataclass(slots=True)
class Measured:
    """One contender on one task.

    Args:
        base_mb: memory before the first step, with weights and data.
        warm_up: the first step.
        stretches: one a round.
        gradient: relative difference of the first step's gradient from the reference's.
    """

    base_mb: float
    warm_up: Stretch | None = None
    stretches: list[Stretch] = field(default_factory=list)
    gradient: float | None = None
    held_out: HeldOut | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def peak_mb(self) -> float:
        return max(stretch.peak_mb for stretch in self.stretches)

    @property
    def losses(self) -> list[float]:
        first = self.warm_up.losses if self.warm_up else []
        return first + [loss for stretch in self.stretches for loss in stretch.losses]


@dataclass(slots=True)
class TaskResult:
    """All contenders on one task.

    Args:
        pairs: decided pairs of every stretch.
        distinct_tokens: tokens of the different rows of every stretch.
        per_step: groups of an optimizer step.
        others: share of the machine that other processes took, looked at before every round.
    """

    name: str
    title: str
    per_step: int
    group_size: int
    lengths: list[int]
    pairs: list[int]
    distinct_tokens: list[int]
    others: list[float]
    measured: dict[str, Measured]
    skipped: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "TaskResult":
        return cls(**raw | {"measured": {name: _measured(measured) for name, measured in raw["measured"].items()}})


def _measured(raw: dict[str, Any]) -> Measured:
    return Measured(
        **raw
        | {
            "warm_up": Stretch(**raw["warm_up"]) if raw["warm_up"] else None,
            "stretches": [Stretch(**stretch) for stretch in raw["stretches"]],
            "held_out": HeldOut(**raw["held_out"]) if raw["held_out"] else None,
        }
    )


def speedup(result: TaskResult, name: str, *, cpu: bool = False) -> Ratio | None:
    """How many times as fast ours is, in the rounds that both ran; None where one of them did not."""
    if name not in result.measured or "ours" not in result.measured:
        return None
    peer, own = (
        [stretch.cpu_s if cpu else stretch.wall_s for stretch in result.measured[who].stretches]
        for who in (name, "ours")
    )
    rounds = min(len(peer), len(own))
    return ratio(peer[:rounds], own[:rounds])


def curve_gap(result: TaskResult, name: str) -> float | None:
    """The largest difference of a step's loss from the reference's; None without one."""
    if REFERENCE not in result.measured:
        return None
    pairs = zip(result.measured[name].losses, result.measured[REFERENCE].losses, strict=False)
    return max(abs(a - b) for a, b in pairs)


HEADINGS = (
    "", "comparisons/s", "per CPU s", "ours, × (wall)", "ours, × (CPU)", "tokens/s", "distinct tokens/s", "padding %",
    "encodings per comparison", "peak MB", "above start, MB", "log loss held out", "gradient diff.", "loss diff.",
)  # fmt: skip
SPEED = 7
"""How many of the columns are about speed; printed tables are cut there."""


def cells(result: TaskResult, name: str) -> list[str]:
    measured = result.measured[name]
    rounds = range(len(measured.stretches))
    pairs, distinct = result.pairs, result.distinct_tokens
    per_s = statistics.median(pairs[n] / measured.stretches[n].wall_s for n in rounds)
    per_cpu_s = statistics.median(pairs[n] / measured.stretches[n].cpu_s for n in rounds)
    tokens = statistics.median(stretch.tokens / stretch.wall_s for stretch in measured.stretches)
    different = statistics.median(distinct[n] / measured.stretches[n].wall_s for n in rounds)
    total = Stretch(
        cpu_s=0, wall_s=0, losses=[], peak_mb=0,
        encodings=sum(stretch.encodings for stretch in measured.stretches),
        tokens=sum(stretch.tokens for stretch in measured.stretches),
        slots=sum(stretch.slots for stretch in measured.stretches),
    )  # fmt: skip
    held, gap = measured.held_out, curve_gap(result, name)
    return [
        CONTENDERS[name].label,
        f"{per_s:.2f}",
        f"{per_cpu_s:.2f}",
        str(speedup(result, name) or "-"),
        str(speedup(result, name, cpu=True) or "-"),
        f"{tokens:,.0f}",
        f"{different:,.0f}",
        f"{100 * total.padding:.0f}",
        f"{total.encodings / sum(pairs[n] for n in rounds):.2f}",
        f"{measured.peak_mb:,.0f}",
        f"{measured.peak_mb - measured.base_mb:,.0f}",
        f"{held.log_loss:.4f} [{held.low:.4f}, {held.high:.4f}]" if held else "-",
        "-" if measured.gradient is None else f"{measured.gradient:.1e}",
        "-" if gap is None else f"{gap:.1e}",
    ]


def ordered(result: TaskResult) -> list[str]:
    """Peers from the slowest, then ours."""
    first = {name: measured.stretches[0].wall_s for name, measured in result.measured.items()}
    return sorted(first, key=lambda name: (name == "ours", -first[name]))


def about(result: TaskResult) -> str:
    """What a step was, and the rows."""
    held = next((measured.held_out for measured in result.measured.values() if measured.held_out), None)
    count = len(result.lengths)
    return (
        f"{result.per_step} groups of {result.group_size} replies a step, {len(result.pairs)} rounds of"
        f" {sum(result.pairs) / len(result.pairs):.0f} comparisons after a step to warm up; {count} rows, mean"
        f" {sum(result.lengths) / count:.0f} tokens, longest {max(result.lengths)}."
        + (f" Held out: {held.n} comparisons." if held else "")
        + f" Other processes took at most {100 * max(result.others):.0f} % of the machine before a round."
    )


def summary(results: Sequence[TaskResult]) -> dict[str, Any]:
    """The figures by name, from MiniLM's tasks: how many times as fast ours is in wall seconds (`_cpu`: CPU seconds),
    and its peak memory as a share of TRL's; None for what was not measured. `tasks` has the same of every task."""
    by_task = {result.name: task_summary(result) for result in results}
    hh, four, three = (by_task.get(f"minilm-{name}", {}) for name in ("hh", "finegrained", "oasst"))
    return {
        "pairs_x_trl": hh.get("x_trl"),
        "pairs_x_trl_cpu": hh.get("x_trl_cpu"),
        "pairs_x_trl_accumulating": hh.get("x_trl_accumulating"),
        "pairs_x_sentence_transformers": hh.get("x_sentence_transformers"),
        "pairs_x_plain": hh.get("x_plain"),
        "k4_x_trl": four.get("x_trl"),
        "k4_x_trl_cpu": four.get("x_trl_cpu"),
        "k4_x_trl_accumulating": four.get("x_trl_accumulating"),
        "k4_x_sentence_transformers": four.get("x_sentence_transformers"),
        "k4_x_sentence_transformers_cpu": four.get("x_sentence_transformers_cpu"),
        "k4_x_plain": four.get("x_plain"),
        "k3_x_trl": three.get("x_trl"),
        "k3_x_sentence_transformers": three.get("x_sentence_transformers"),
        "peak_memory_x_trl": hh.get("peak_memory_x_trl"),
        "peak_memory_above_start_x_trl": hh.get("peak_memory_above_start_x_trl"),
        "k4_peak_memory_x_trl": four.get("peak_memory_x_trl"),
        "largest_gradient_difference": largest(
            measured.gradient for result in results for measured in result.measured.values()
        ),
        "largest_loss_difference": largest(curve_gap(result, name) for result in results for name in result.measured),
        "tasks": by_task,
    }


def largest(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(f"{max(known):.2e}") if known else None


def task_summary(result: TaskResult) -> dict[str, Any]:
    own, figures = result.measured.get("ours"), {}
    for name, measured in result.measured.items():
        if name == "ours" or own is None:
            continue
        for key, cpu in ((f"x_{name}", False), (f"x_{name}_cpu", True)):
            value = speedup(result, name, cpu=cpu)
            figures[key] = round(value.median, 3) if value else None
        figures[f"peak_memory_x_{name}"] = round(own.peak_mb / measured.peak_mb, 3)
        above = (own.peak_mb - own.base_mb) / (measured.peak_mb - measured.base_mb)
        figures[f"peak_memory_above_start_x_{name}"] = round(above, 3)
    figures["held_out_log_loss"] = {
        name: round(measured.held_out.log_loss, 5) for name, measured in result.measured.items() if measured.held_out
    }
    return figures


def failures(results: Sequence[TaskResult]) -> list[str]:
    """What makes a comparison void: another gradient, or another course of the loss."""
    reasons = []
    for result in results:
        for name, measured in result.measured.items():
            gap = curve_gap(result, name)
            if measured.gradient is not None and measured.gradient > GRADIENT:
                reasons.append(f"{result.title}, {CONTENDERS[name].label}: gradient differs by {measured.gradient:.1e}")
            if gap is not None and gap > CURVE:
                reasons.append(f"{result.title}, {CONTENDERS[name].label}: a step's loss differs by {gap:.1e}")
    return reasons


def page(results: Sequence[TaskResult], machine: dict[str, Any], command: str, cores: Sequence[int]) -> str:
    """The measured part of the page's section on training."""
    versions: dict[str, set[str]] = {}
    for result in results:
        for measured in result.measured.values():
            for name, version in measured.versions.items():
                versions.setdefault(name, set()).add(version)
    parts = [
        f"Measured with `{command}`, on {len(cores)} cores of {machine['processor']} (family {machine['family']};"
        f" {', '.join(machine['flags'])}; {machine['cores']} cores, {machine['memory_gib']} GiB), {machine['system']},"
        f" Python {machine['python']}. Versions: "
        + ", ".join(f"{name} {', '.join(sorted(each))}" for name, each in sorted(versions.items()))
        + "."
    ]
    for result in results:
        parts.append(f"#### {result.title}")
        parts.append(about(result))
        parts.append(markdown(HEADINGS, [cells(result, name) for name in ordered(result)]))
        if result.skipped:
            reasons = (f"- {CONTENDERS[name].label}: {reason}" for name, reason in result.skipped.items())
            parts.append("Not measured:\n\n" + "\n".join(reasons))
    return "\n\n".join(parts)


def report(
    results: Sequence[TaskResult], machine: dict[str, Any], command: str, cores: Sequence[int], output: Path | None
) -> None:
    """Print the tables; with `output`, the docs folder, rewrite the page's section; end with the JSON line."""
    for result in results:
        rows = [cells(result, name) for name in ordered(result)]
        show(result.title, HEADINGS[:SPEED], [row[:SPEED] for row in rows])
        show(
            f"{result.title}: work, memory, agreement",
            HEADINGS[:1] + HEADINGS[SPEED:],
            [r[:1] + r[SPEED:] for r in rows],
        )
        print(about(result))
        for name, reason in result.skipped.items():
            print(f"not measured: {CONTENDERS[name].label}: {reason}")
    text = page(results, machine, command, cores)
    if output:
        write_page(output / "performance.md", text, BEGIN, END)
        say(f"wrote {output / 'performance.md'}")
    else:
        print(f"\n{text}\n")
        say("docs/performance.md was left alone: this was not a whole run")
    void = failures(results)
    for reason in void:
        print(f"VOID: {reason}")
    finish(summary(results) | {"benchmark": "train", "cores": len(cores), "void": void, "machine": machine})
