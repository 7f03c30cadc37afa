"""What the scoring benchmark makes of its measurements: figures, tables, the plot, the page and the closing JSON line.

Every ratio is taken inside a round, where both variants ran within minutes of each other; the median over rounds is
given, with the least and the largest in brackets.
"""

import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, say, show
from score_models import padding
from score_worker import VARIANTS

from prefrank.stats.correlation import rank_correlation

EXACT = 1e-5
"""A variant is exact if no score is further than this from transformers' in float32."""
LARGEST_ERROR, LARGEST_FLIPS = 1e-2, 0.5
"""What a quantized variant of ours may do: largest error in score spreads, and flipped pairs in percent."""
REFERENCES = ("card", "default", "transformers")
FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
SPEED_PLOT = "images/score_speed.png"


@dataclass(slots=True)
class Measured:
    """One variant on one model: seconds of each round, and the scores of its last pass."""

    choice: str
    budget: int
    versions: dict[str, str]
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    peak_mb: float = 0.0


@dataclass(slots=True)
class ModelResult:
    """All variants on one model. `rates` are GFLOP/s by shape and round, `curve` tokens/s by variant and length."""

    name: str
    title: str
    family: str
    lengths: list[int]
    cut: int
    all_lengths: list[int]
    multiply_adds: int
    rates: list[dict[str, float]]
    measured: dict[str, Measured]
    skipped: dict[str, str]
    curve: dict[str, dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "ModelResult":
        return cls(**raw | {"measured": {name: Measured(**measured) for name, measured in raw["measured"].items()}})

    @property
    def reference(self) -> str | None:
        """The variant whose scores are transformers' in float32."""
        return next((name for name in REFERENCES if name in self.measured), None)

    @property
    def limit_s(self) -> list[float]:
        """Seconds of each round's best matrix product for the model's own multiply-adds."""
        return [2e-9 * self.multiply_adds / max(rates.values()) for rates in self.rates]


@dataclass(frozen=True, slots=True)
class Difference:
    """How scores differ from the reference's.

    Args:
        largest: of the absolute differences.
        rms: their root mean square.
        spread: standard deviation of the reference's scores.
        rank_correlation: Spearman's.
        flips_percent: of all pairs of rows, those in another order, however close; a tie of only one is another order.
    """

    largest: float
    rms: float
    spread: float
    rank_correlation: float
    flips_percent: float


def difference(reference: Sequence[float], scores: Sequence[float]) -> Difference:
    a, b = np.array(reference, np.float64), np.array(scores, np.float64)
    gaps = b - a
    first, second = np.triu_indices(len(a), 1)
    flipped = np.sign(a[first] - a[second]) != np.sign(b[first] - b[second])
    return Difference(
        largest=float(np.abs(gaps).max()),
        rms=float(np.sqrt(np.mean(gaps**2))),
        spread=float(a.std()),
        rank_correlation=rank_correlation(a, b) or 0.0,
        flips_percent=float(100 * flipped.mean()) if len(flipped) else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median over rounds, the least and the largest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f})"


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Round by round."""
    each = [a / b for a, b in zip(above, below, strict=True)]
    return Ratio(statistics.median(each), min(each), max(each))


@dataclass(frozen=True, slots=True)
class Line:
    """What is reported of one variant; None where there was nothing to compare with."""

    name: str
    label: str
    setting: str
    cpu_s: float
    rows_per_s: float
    tokens_per_s: float
    x_card: Ratio | None
    x_default: Ratio | None
    x_peer: Ratio | None
    limit_percent: Ratio
    difference: Difference | None
    peak_mb: float

    @property
    def exact(self) -> bool:
        return self.difference is None or self.difference.largest <= EXACT

    @property
    def peer(self) -> bool:
        return not self.name.startswith("ours")


def lines(result: ModelResult) -> list[Line]:
    """The card's function and other exact variants by speed, then the others; ours after the peers of its kind."""
    reference = result.measured[result.reference].scores if result.reference else None
    differences = {
        name: None if reference is None else difference(reference, variant.scores)
        for name, variant in result.measured.items()
    }
    best = {exact: best_peer(result, differences, exact) for exact in (True, False)}
    reported = [line(result, name, differences[name], best) for name in result.measured]
    return sorted(reported, key=lambda variant: (not variant.exact, not variant.peer, variant.tokens_per_s))


def is_exact(difference: Difference | None) -> bool:
    return difference is None or difference.largest <= EXACT


def best_peer(result: ModelResult, differences: dict[str, Difference | None], exact: bool) -> str | None:
    """The fastest variant that is not ours, among the exact ones or the others."""
    peers = [n for n in result.measured if not n.startswith("ours") and is_exact(differences[n]) == exact]
    return min(peers, key=lambda name: statistics.median(result.measured[name].cpu_s), default=None)


def line(result: ModelResult, name: str, difference: Difference | None, best: dict[bool, str | None]) -> Line:
    measured = result.measured[name]
    median = statistics.median(measured.cpu_s)

    def against(other: str | None) -> Ratio | None:
        return ratio(result.measured[other].cpu_s, measured.cpu_s) if other in result.measured else None

    return Line(
        name=name,
        label=VARIANTS[name].label,
        setting=" ".join(filter(None, ("" if measured.choice.isdigit() else measured.choice, str(measured.budget)))),
        cpu_s=median,
        rows_per_s=len(result.lengths) / median,
        tokens_per_s=sum(result.lengths) / median,
        x_card=against("card"),
        x_default=against("default"),
        x_peer=against(best[is_exact(difference)]),
        limit_percent=ratio([100 * limit for limit in result.limit_s], measured.cpu_s),
        difference=difference,
        peak_mb=measured.peak_mb,
    )


HEADINGS = (
    "", "batch", "rows/s", "tokens/s", "× card", "× best peer", "% of limit", "peak MB", "largest diff.", "rms diff.",
    "rms, % of spread", "rank corr.", "flips %",
)  # fmt: skip
SPEED = len(HEADINGS) - 5
"""How many of the columns are about speed; the others compare scores."""


def cells(variant: Line) -> list[str]:
    d = variant.difference
    speed = [
        variant.label, variant.setting, f"{variant.rows_per_s:.2f}", f"{variant.tokens_per_s:,.0f}",
        str(variant.x_card or "-"), str(variant.x_peer or "-"), f"{variant.limit_percent.median:.0f}",
        f"{variant.peak_mb:,.0f}",
    ]  # fmt: skip
    if d is None:
        return [*speed, *"-----"]
    share = f"{100 * d.rms / d.spread:.2g}"
    return [*speed, f"{d.largest:.1e}", f"{d.rms:.1e}", share, f"{d.rank_correlation:.5f}", f"{d.flips_percent:.2f}"]


def about_rows(result: ModelResult) -> str:
    """Lengths of the rows beside those of all the data, and what padding batches of 16 as they come would add."""
    return (
        f"{len(result.lengths)} rows, {sum(result.lengths):,} tokens ({statistic(result.lengths)}; {result.cut} cut to"
        f" 512): padded in 16s as they come, {padding(result.lengths):.2f} times as many tokens. All"
        f" {len(result.all_lengths):,} rows of the data: {statistic(result.all_lengths)};"
        f" {padding(result.all_lengths):.2f} times."
    )


def statistic(lengths: Sequence[int]) -> str:
    median, high = np.percentile(lengths, [50, 95])
    return f"mean {np.mean(lengths):.0f}, median {median:.0f}, 95 % under {high:.0f}"


def about_limit(result: ModelResult) -> str:
    rates = [max(each.values()) for each in result.rates]
    shape = max(result.rates[0], key=lambda name: result.rates[0][name])
    return (
        f"The limit: {2e-9 * result.multiply_adds:,.0f} GFLOP at {statistics.median(rates):.1f} GFLOP/s (median of the"
        f" rounds' best, such as {shape}), {statistics.median(result.limit_s):.2f} s or"
        f" {sum(result.lengths) / statistics.median(result.limit_s):,.0f} tokens/s."
    )


def summary(results: Sequence[ModelResult]) -> dict[str, float | str | None]:
    """The figures by name; None for what was not measured."""
    of = {result.name: {variant.name: variant for variant in lines(result)} for result in results}
    base, minilm = of.get("v3-base", {}), of.get("minilm", {})
    exact, torch, quantised = base.get("ours_float32"), base.get("ours_torch"), best_quantised(base.values())
    small, small_quantised = minilm.get("ours_float32"), best_quantised(minilm.values())
    gap = quantised.difference if quantised else None
    return {
        "exact_x_card": median(exact, lambda variant: variant.x_card),
        "exact_x_peer": median(exact, lambda variant: variant.x_peer),
        "exact_limit_percent": median(exact, lambda variant: variant.limit_percent),
        "torch_x_card": median(torch, lambda variant: variant.x_card),
        "torch_x_peer": median(torch, lambda variant: variant.x_peer),
        "quantised_precision": quantised.name.removeprefix("ours_") if quantised else None,
        "quantised_x_card": median(quantised, lambda variant: variant.x_card),
        "quantised_x_peer": median(quantised, lambda variant: variant.x_peer),
        "quantised_flips_percent": round(gap.flips_percent, 3) if gap else None,
        "quantised_error_of_spread": float(f"{gap.largest / gap.spread:.3g}") if gap else None,
        "quantised_rms_of_spread": float(f"{gap.rms / gap.spread:.3g}") if gap else None,
        "minilm_exact_x_peer": median(small, lambda variant: variant.x_peer),
        "minilm_exact_x_default": median(small, lambda variant: variant.x_default),
        "minilm_quantised_x_default": median(small_quantised, lambda variant: variant.x_default),
        "minilm_quantised_x_peer": median(small_quantised, lambda variant: variant.x_peer),
    }


def best_quantised(reported: Iterable[Line]) -> Line | None:
    """The fastest of our integer variants that keeps the promised error, or the most accurate if none does."""
    candidates = [variant for variant in reported if variant.name in ("ours_int16", "ours_int8") and variant.difference]
    good = [variant for variant in candidates if keeps_promise(variant.difference)]
    if good:
        return max(good, key=lambda variant: variant.tokens_per_s)
    return min(candidates, key=lambda variant: variant.difference.rms if variant.difference else 0.0, default=None)


def keeps_promise(gap: Difference | None) -> bool:
    return gap is not None and gap.largest <= LARGEST_ERROR * gap.spread and gap.flips_percent <= LARGEST_FLIPS


def median(variant: Line | None, of: Callable[[Line], Ratio | None]) -> float | None:
    value = of(variant) if variant else None
    return round(value.median, 3) if value else None


def machine() -> dict[str, Any]:
    """The processor and what it can do, memory, system and interpreter."""
    fields = dict(
        (part.strip() for part in text.split(":", 1))
        for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines()
        if ":" in text
    )
    flags = fields.get("flags", "").split()
    memory = Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]
    return {
        "processor": fields.get("model name", platform.processor()),
        "family": f"{fields.get('cpu family', '?')}.{fields.get('model', '?')}",
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def all_versions(results: Sequence[ModelResult]) -> dict[str, str]:
    """Of every package that a variant ran on; where environments differ, both."""
    by_package: dict[str, set[str]] = {}
    for result in results:
        for measured in result.measured.values():
            for name, version in measured.versions.items():
                by_package.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(each)) for name, each in sorted(by_package.items())}


def quietness(results: Sequence[ModelResult]) -> float:
    """Wall seconds for each CPU second, the median over all passes: 1 on a quiet core."""
    each = [
        wall / cpu
        for result in results
        for measured in result.measured.values()
        for wall, cpu in zip(measured.wall_s, measured.cpu_s, strict=True)
    ]
    return statistics.median(each) if each else float("nan")


def report(results: Sequence[ModelResult], machine: dict[str, Any], command: str, output: Path | None) -> None:
    """Print the tables; with `output`, the docs folder, draw the plot and rewrite the page; end with the JSON line."""
    for result in results:
        rows = [cells(variant) for variant in lines(result)]
        show(result.title, HEADINGS[:SPEED], [row[:SPEED] for row in rows])
        show(f"{result.title}: scores", HEADINGS[:1] + HEADINGS[SPEED:], [row[:1] + row[SPEED:] for row in rows])
        print(about_rows(result))
        print(about_limit(result))
        for name, reason in result.skipped.items():
            print(f"not measured: {VARIANTS[name].label}: {reason}")
    curves(results)
    if output:
        plot([result for result in results if result.curve], output / SPEED_PLOT)
        write_page(output / "performance.md", page(results, machine, command))
        say(f"wrote {output / 'performance.md'}")
    else:
        say("docs/performance.md was left alone: this was not a whole run")
    finish(
        summary(results)
        | {
            "benchmark": "score",
            "rounds": max((len(result.rates) for result in results), default=0),
            "wall_per_cpu": round(quietness(results), 3),
            "cpu_s": {
                result.name: {name: round(statistics.median(each.cpu_s), 3) for name, each in result.measured.items()}
                for result in results
            },
            "skipped": {result.name: result.skipped for result in results},
            "machine": machine,
            "versions": all_versions(results),
        }
    )


def curves(results: Sequence[ModelResult]) -> None:
    for result in results:
        if result.curve:
            keys = list(next(iter(result.curve.values())))
            rows = [
                [VARIANTS[name].label, *(f"{points.get(key, float('nan')):,.0f}" for key in keys)]
                for name, points in result.curve.items()
            ]
            show(f"{result.title}: tokens/s against row length", ["tokens a row", *keys], rows)


def plot(results: Sequence[ModelResult], path: Path) -> None:
    """Tokens a second against row length, one panel a model, the variants' names at the line ends."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullLocator

    if not results:
        return
    figure, axes = plt.subplots(1, len(results), figsize=(7.6 * len(results), 6.4), squeeze=False)
    for axis, result in zip(axes[0], results, strict=True):
        exact = {variant.name: variant.exact for variant in lines(result)}
        ends: dict[str, float] = {}
        for name, points in result.curve.items():
            lengths, speeds = [int(length) for length in points], list(points.values())
            axis.plot(lengths, speeds, **style(name, exact[name]))
            ends[name] = speeds[-1]
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(lengths, [str(length) for length in lengths])
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        low, high = axis.get_ylim()
        axis.set_yticks([tick for tick in nice_ticks() if low <= tick <= high])
        axis.yaxis.set_minor_locator(NullLocator())
        axis.set_title(result.title, loc="left", fontsize=11)
        axis.set_xlabel("tokens in a row")
        axis.set_ylabel("tokens per CPU second, one core")
        axis.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
        pointer = {"arrowstyle": "-", "color": "#c8c8c8", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 2}
        for name, height in spaced(ends, low, high).items():
            axis.annotate(
                VARIANTS[name].label, (lengths[-1], ends[name]), (lengths[-1] * 1.22, height), va="center",
                fontsize=8.5, color=style(name, exact[name])["color"], annotation_clip=False,
                arrowprops=pointer | {"relpos": (0, 0.5)},
            )  # fmt: skip
    figure.text(0.01, 0.01, "Full lines: exact (within 1e-5 of transformers). Dashed: reduced precision.", fontsize=9)
    figure.tight_layout(rect=(0, 0.03, 1, 1), w_pad=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def nice_ticks() -> list[int]:
    return [digit * 10**power for power in range(1, 7) for digit in (1, 2, 3, 5, 7)]


OURS = {
    "ours_autograd": "#7aa6c2",
    "ours_torch": "#2f7fb5",
    "ours_float32": "#0b3d66",
    "ours_int16": "#d9730d",
    "ours_int8": "#b3261e",
}
PEERS = {"card": "#111111", "onnxruntime": "#8f74b8", "openvino": "#5f9e74", "cross": "#b39355", "infinity": "#b39355"}
"""By the beginning of the name; the others, which are torch's, are gray."""


def style(name: str, exact: bool) -> dict[str, Any]:
    if name in OURS:
        return {"color": OURS[name], "linewidth": 2.2, "linestyle": "-" if exact else "--", "zorder": 3}
    color = next((color for start, color in PEERS.items() if name.startswith(start)), "#8a8a8a")
    return {"color": color, "linewidth": 1.2, "linestyle": "-" if exact else "--", "zorder": 2}


def spaced(ends: dict[str, float], low: float, high: float) -> dict[str, float]:
    """Heights for the names on a logarithmic axis, near the line ends and far enough from each other."""
    gap = (np.log(high) - np.log(low)) / 30
    names = sorted(ends, key=lambda name: ends[name])
    heights = [float(np.log(ends[name])) for name in names]
    for _ in range(200):
        for i in range(1, len(heights)):
            short = gap - (heights[i] - heights[i - 1])
            if short > 1e-9:
                heights[i] += short / 2
                heights[i - 1] -= short / 2
    return {name: float(np.exp(height)) for name, height in zip(names, heights, strict=True)}


def page(results: Sequence[ModelResult], machine: dict[str, Any], command: str) -> str:
    """The measured part of docs/performance.md."""
    rounds = max(len(result.rates) for result in results)
    parts = [
        f"Measured with `{command}`, {rounds} rounds, on one core of {machine['processor']} (family"
        f" {machine['family']}; {', '.join(machine['flags'])}; {machine['cores']} cores,"
        f" {machine['memory_gib']} GiB), {machine['system']}, Python {machine['python']};"
        f" {quietness(results):.2f} wall seconds for each CPU second. Versions: "
        + ", ".join(f"{name} {version}" for name, version in all_versions(results).items())
        + "."
    ]
    for result in results:
        parts.append(f"### {result.title[0].upper()}{result.title[1:]}")
        parts.append(f"{about_rows(result)} {about_limit(result)}")
        for exact, name in ((True, "exact"), (False, "reduced precision")):
            body = [cells(variant) for variant in lines(result) if variant.exact == exact]
            if body:
                parts.append(markdown([name, *HEADINGS[1:]], body))
        if result.skipped:
            reasons = (f"- {VARIANTS[name].label}: {reason}" for name, reason in result.skipped.items())
            parts.append("Not measured:\n\n" + "\n".join(reasons))
    if any(result.curve for result in results):
        parts.append("### Against row length")
        parts.append(f"![Tokens per second against row length for every variant]({SPEED_PLOT})")
    return "\n\n".join(parts)


def markdown(headings: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = "|" + "---|" * len(headings)
    bold = [
        [f"**{cell}**" if n == 0 and cell.startswith("ours") else cell for n, cell in enumerate(row)] for row in body
    ]
    return "\n".join([f"| {' | '.join(headings)} |", rule, *(f"| {' | '.join(row)} |" for row in bold)])


def write_page(path: Path, measured: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace what stands between the two marks."""
    before, rest = path.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    path.write_text(f"{before}{begin}\n\n{measured}\n\n{end}{after}", encoding="utf-8")
