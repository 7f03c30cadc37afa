"""What all charts are drawn with: marks, a frame with axes, text and shapes as parts of an SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from prefrank.palette import COLORS
from prefrank.reports.numbers import Real
from prefrank.stats.estimates import Estimate

GRID, INK, FAINT, ALERT = "#e3e6ea", "#1f2933", "#5b6673", "#a3211a"
BLUE, ORANGE, GREEN = COLORS[:3]
WIDTH = 400
FONT = 'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"'


@dataclass(frozen=True, slots=True)
class Mark:
    """A value with its interval; None where there is none.

    Args:
        series: number of the scorer, which sets color and shape.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    series: int = 0


def mark_of(estimate: Estimate, series: int = 0) -> Mark:
    return Mark(estimate.value, estimate.low, estimate.high, series)


def shorten(text: str, length: int) -> str:
    """Cut in the middle, where names of models differ least.

    >>> shorten("OpenAssistant/reward-model-deberta", 15)
    'OpenAss…deberta'
    """
    head = (length - 1) // 2
    return text if len(text) <= length else f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def marker_svg(series: int) -> str:
    """The mark of a series, for a legend."""
    return f'<svg aria-hidden="true" width="14" height="14" viewBox="-7 -7 14 14">{shape_at(series, 0, 0)}</svg>'


@dataclass(frozen=True, slots=True)
class ChartFrame:
    """From values to places inside WIDTH x `height`."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    height: int = 270
    left: int = 42
    right: int = 14
    top: int = 26
    bottom: int = 42

    def x(self, value: Real) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return round(self.left + min(max(share, 0.0), 1.0) * (WIDTH - self.left - self.right), 1)

    def y(self, value: Real) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(self.height - self.bottom - min(max(share, 0.0), 1.0) * (self.height - self.bottom - self.top), 1)


def nice_ticks(low: Real, high: Real, count: int) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them.

    >>> nice_ticks(0.4, 1.0, 5)
    [0.4, 0.6, 0.8, 1.0]
    """
    step = nice_step(high - low, count)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{step * i:.10g}") for i in range(first, math.floor(high / step + 1e-9) + 1)]


def nice_step(span: Real, count: int) -> float:
    raw = max(span, 1e-12) / count
    base = 10.0 ** math.floor(math.log10(raw))
    return base * next(m for m in (1, 2, 5, 10) if m * base >= raw * 0.999)


def tick_text(value: Real) -> str:
    return f"{value:.4g}".replace("-", "−")


def ticks_of(low: Real, high: Real) -> list[tuple[float, str]]:
    return [(tick, tick_text(tick)) for tick in nice_ticks(low, high, 5)]


def roomy(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = (high - low) * share if high > low else 0.5
    return low - pad, high + pad


def axes(
    frame: ChartFrame,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    x_label: str,
    y_label: str,
) -> list[str]:
    left, right, floor = frame.x(frame.x_low), frame.x(frame.x_high), frame.y(frame.y_low)
    parts = []
    for at, text in y_ticks:
        y = frame.y(at)
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" stroke="{GRID}"/>')
        parts.append(text_at(left - 6, y + 4, text, anchor="end", color=FAINT))
    parts += [text_at(frame.x(at), floor + 16, text, anchor="middle", color=FAINT) for at, text in x_ticks]
    parts.append(f'<line x1="{left}" x2="{right}" y1="{floor}" y2="{floor}" stroke="{FAINT}"/>')
    parts.append(text_at((left + right) / 2, frame.height - 6, x_label, anchor="middle"))
    return [*parts, text_at(0, 13, y_label)]


def whole_svg(parts: Sequence[str], height: Real, label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}"'
        f' viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" {FONT} font-size="12"'
        f' fill="{INK}">{"".join(parts)}</svg>'
    )


def text_at(
    x: Real | str,
    y: Real,
    text: str,
    *,
    anchor: str = "start",
    color: str = "",
    size: Real = 0,
    weight: str = "",
    halo: bool = False,
) -> str:
    place = x if isinstance(x, str) else f"{x:.1f}"
    extra = f' text-anchor="{anchor}"' if anchor != "start" else ""
    extra += f' fill="{color}"' if color else ""
    extra += f' font-size="{size:g}"' if size else ""
    extra += f' font-weight="{weight}"' if weight else ""
    extra += ' stroke="#fff" stroke-width="4" paint-order="stroke"' if halo else ""  # readable across lines
    return f'<text x="{place}" y="{y:.1f}"{extra}>{escape(text)}</text>'


def vertical_line(x: Real | str, top: Real, floor: Real, color: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x}" x2="{x}" y1="{top}" y2="{floor}" stroke="{color}"{dash}/>'


def points_of(corners: Sequence[tuple[Real, Real]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)


def shape_at(series: int, x: Real, y: Real) -> str:
    color = COLORS[series % len(COLORS)]
    look = f'fill="{color}" stroke="#ffffff" stroke-width="1"'
    match (series + series // len(COLORS)) % 4:  # colors come again after eight, in other shapes
        case 0:
            return f'<circle cx="{x:g}" cy="{y:g}" r="4.5" {look}/>'
        case 1:
            return f'<rect x="{x - 4:g}" y="{y - 4:g}" width="8" height="8" {look}/>'
        case 2:
            return f'<polygon points="{points_of([(x, y - 5.5), (x + 5.5, y), (x, y + 5.5), (x - 5.5, y)])}" {look}/>'
        case _:
            return f'<polygon points="{points_of([(x, y - 5), (x + 5, y + 4), (x - 5, y + 4)])}" {look}/>'
