"""Charts of evaluations as inline SVG, made by hand: small, the same bytes for the same figures, no script, no font.

Surprising: `dot_whisker_svg` measures across in per cent and down in pixels, so one chart is as wide as its place and
its text is the same size on a phone as on a wall. The other charts have a fixed shape, WIDTH units wide, to be shown at
about that many pixels. A mark without a value is not drawn and its row says "-". Colours are those of the training
pictures, told apart by the colour-blind too (after Okabe & Ito 2008); marks differ in shape as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float64

from prefrank.evaluation.estimates import Estimate
from prefrank.palette import COLORS
from prefrank.reports.numbers import Real

GRID, INK, FAINT, ALERT = "#e3e6ea", "#1f2933", "#5b6673", "#a3211a"
WIDTH = 400

_BLUE, _ORANGE, _GREEN = COLORS[:3]
_PITCH = 10  # pixels from one mark of a row to the next
_FONT = 'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"'


@dataclass(frozen=True, slots=True)
class Mark:
    """A value with its interval; None where there is none.

    Args:
        series: number of the scorer, which sets colour and shape.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    series: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a dot-and-whisker chart.

    Args:
        label: above the marks, on the left.
        marks: top to bottom.
        note: above the marks, on the right, such as the figure in digits.
        alert: whether the note is a warning.
    """

    label: str
    marks: tuple[Mark, ...]
    note: str = ""
    alert: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A named line of marks at places on the x axis."""

    name: str
    places: tuple[float, ...]
    marks: tuple[Mark, ...]
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


# Dots and whiskers


def dot_whisker_svg(
    rows: Sequence[Row],
    *,
    label: str,
    reference: float | None = 0.5,
    reference_name: str = "chance",
    ceiling: float | None = None,
    limits: tuple[float, float] | None = None,
) -> str:
    """Estimates as dots with their intervals, one row under the other.

    Args:
        label: what the chart shows, for those who cannot see it.
        reference: a dashed line across all rows.
        ceiling: another, such as the most that can be reached.
        limits: ends of the x axis; None: what the marks need.
    """
    low, high = limits or limits_of(rows, [one for one in (reference, ceiling) if one is not None])
    ticks = nice_ticks(low, high, 5)
    heights = [24 + _PITCH * max(1, len(row.marks)) for row in rows]
    floor = sum(heights) + 4
    parts = [_upright(_across(tick, low, high), 0, floor, GRID) for tick in ticks]
    parts += [
        _text(_across(tick, low, high), floor + 15, tick_text(tick), anchor=_anchor(tick, low, high)) for tick in ticks
    ]
    lines = [(reference, reference_name, FAINT), (ceiling, "noise ceiling", _GREEN)]
    drawn = [one for one in lines if one[0] is not None]
    for number, (at, name, color) in enumerate(drawn):
        assert at is not None
        x = _across(at, low, high)
        parts.append(_upright(x, 0, floor, color, dashed=True))
        parts.append(_text(x, floor + 30 + 13 * number, name, color=color, anchor=_anchor(at, low, high)))
    top = 0
    for row, height in zip(rows, heights, strict=True):
        parts += _row(row, top, low, high)
        top += height
    height = floor + 22 + 13 * len(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" width="100%"'
        f' height="{height}" overflow="visible" {_FONT} font-size="12" fill="{INK}">{"".join(parts)}</svg>'
    )


def _row(row: Row, top: Real, low: float, high: float) -> list[str]:
    room = 46 if not row.note else max(12, 46 - len(row.note))
    parts = [_text("0%", top + 14, shorten(row.label, room), weight="600", halo=True)]
    missing = bool(row.marks) and all(mark.value is None for mark in row.marks)
    note = row.note or ("-" if missing else "")
    color, weight = (ALERT, "600") if row.alert else (FAINT, "")
    parts += [_text("100%", top + 14, note, color=color, weight=weight, anchor="end", halo=True)] if note else []
    for number, mark in enumerate(row.marks):
        parts += _whisker(mark, top + 24 + _PITCH * number, low, high)
    return parts


def _whisker(mark: Mark, y: Real, low: float, high: float) -> list[str]:
    if mark.value is None:
        return []
    color, parts = COLORS[mark.series % len(COLORS)], []
    if mark.low is not None and mark.high is not None:
        left, right = _across(mark.low, low, high), _across(mark.high, low, high)
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" stroke="{color}" stroke-width="2"/>')
    # A nested <svg> at a percentage lets a shape of fixed size sit at a place that stretches.
    x = _across(mark.value, low, high)
    return [*parts, f'<svg x="{x}" y="{y}" overflow="visible">{_shape(mark.series, 0, 0)}</svg>']


def limits_of(rows: Sequence[Row], also: Sequence[float]) -> tuple[float, float]:
    ends = [end for row in rows for mark in row.marks for end in (mark.value, mark.low, mark.high) if end is not None]
    low, high = min([*ends, *also], default=0.0), max([*ends, *also], default=1.0)
    if low >= 0 and high <= 1:  # shares: from a round tenth to 1
        return max(0.0, math.floor(low * 10 - 0.01) / 10), 1.0
    step = _nice_step(high - low, 5)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _across(value: Real, low: Real, high: Real) -> str:
    """Place of a value on an axis that ends at `low` and `high`; beyond them, the end."""
    return f"{100 * (min(max(value, low), high) - low) / (high - low):.2f}%"


def _anchor(value: Real, low: Real, high: Real) -> str:
    share = (value - low) / (high - low)
    return "start" if share < 0.04 else "end" if share > 0.96 else "middle"


def track_svg(mark: Mark, *, low: float, high: float, reference: float | None = None) -> str:
    """One dot and its whisker for a table's cell, with a line at `reference`."""
    parts = [f'<line x1="0%" x2="100%" y1="9" y2="9" stroke="{GRID}"/>']
    parts += [_upright(_across(reference, low, high), 1, 17, FAINT, dashed=True)] if reference is not None else []
    parts += _whisker(mark, 9, low, high)
    return f'<svg aria-hidden="true" width="100%" height="18" overflow="visible">{"".join(parts)}</svg>'


def marker_svg(series: int) -> str:
    """The mark of a series, for a legend."""
    return f'<svg aria-hidden="true" width="14" height="14" viewBox="-7 -7 14 14">{_shape(series, 0, 0)}</svg>'


# Charts of a fixed shape


@dataclass(frozen=True, slots=True)
class _Frame:
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


def matrix_svg(rows: Sequence[str], columns: Sequence[str], cells: Sequence[Mark], *, label: str) -> str:
    """Shares as coloured cells: orange below one half, blue above.

    Args:
        cells: row by row.
    """
    left, top, tall = 104, 24, 44
    wide = (WIDTH - left) / max(1, len(columns))
    parts = []
    for j, name in enumerate(columns):
        text = shorten(str(name), max(4, int(wide / 6.6)))
        parts.append(_text(left + (j + 0.5) * wide, 15, text, anchor="middle", color=FAINT))
    for i, name in enumerate(rows):
        parts.append(_text(left - 8, top + (i + 0.5) * tall + 4, shorten(name, 15), anchor="end", color=FAINT))
        for j, mark in enumerate(cells[i * len(columns) : (i + 1) * len(columns)]):
            parts += _cell(mark, left + j * wide, top + i * tall, wide, tall)
    return _drawing(parts, top + tall * len(rows) + 2, label)


def _cell(mark: Mark, x: Real, y: Real, wide: Real, tall: Real) -> list[str]:
    fill, ink = _diverging(mark.value)
    box = f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{wide - 2:.1f}" height="{tall - 2:.1f}" rx="3" fill="{fill}"/>'
    middle = x + wide / 2
    number = "-" if mark.value is None else f"{mark.value:.2f}"
    if mark.low is None or mark.high is None or wide < 60:
        return [box, _text(middle, y + tall / 2 + 5, number, anchor="middle", color=ink, size=14)]
    interval = f"{mark.low:.2f} to {mark.high:.2f}"
    return [
        box,
        _text(middle, y + tall / 2, number, anchor="middle", color=ink, size=15, weight="600"),
        _text(middle, y + tall / 2 + 14, interval, anchor="middle", color=ink, size=10.5),
    ]


def _diverging(share: float | None) -> tuple[str, str]:
    """White at one half, the house's orange at 0, its blue at 1, grey for nothing; and the ink to be read on it."""
    if share is None:
        return "#eceff2", INK
    end = np.array([0x0B, 0x3D, 0x66] if share >= 0.5 else [0xD9, 0x73, 0x0D])
    mixed = 255 + (end - 255) * min(1.0, abs(share - 0.5) * 2) ** 0.9
    # Relative luminance (WCAG 2, gamma taken as 2.2): above 0.18 black has more contrast than white.
    bright = float((mixed / 255) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722])) > 0.18
    return "#" + "".join(f"{round(float(one)):02x}" for one in mixed), "#000000" if bright else "#ffffff"


def curves_svg(
    lines: Sequence[Line],
    *,
    label: str,
    x_label: str,
    y_label: str,
    doubling: bool = False,
) -> str:
    """Lines with bands for their intervals.

    Args:
        doubling: the x axis is logarithmic, with a tick at each place.
    """
    move = (lambda place: math.log2(place)) if doubling else float
    marks = [mark for line in lines for mark in line.marks if mark.value is not None]
    places = [move(place) for line in lines for place in line.places]
    ends = [end for mark in marks for end in (mark.value, mark.low, mark.high) if end is not None]
    frame = _Frame(*_roomy(places, 0.0), *_roomy(ends, 0.06))
    seen = sorted({place for line in lines for place in line.places})
    x_ticks = [(move(p), tick_text(p)) for p in seen] if doubling else _ticks(frame.x_low, frame.x_high)
    parts = _axes(frame, x_ticks, _ticks(frame.y_low, frame.y_high), x_label, y_label)
    for line in lines:
        parts += _curve(frame, line, [move(place) for place in line.places])
    return _drawing(parts, frame.height, label)


def _curve(frame: _Frame, line: Line, places: Sequence[float]) -> list[str]:
    color, dots = COLORS[line.series % len(COLORS)], len(places) <= 12
    points = [(frame.x(place), mark) for place, mark in zip(places, line.marks, strict=True) if mark.value is not None]
    banded = [(x, frame.y(m.low), frame.y(m.high)) for x, m in points if m.low is not None and m.high is not None]
    corners = [(x, high) for x, _, high in banded] + [(x, low) for x, low, _ in reversed(banded)]
    path = [(x, frame.y(mark.value)) for x, mark in points if mark.value is not None]
    parts = [f'<polygon points="{_points(corners)}" fill="{color}" opacity="0.13"/>'] if len(banded) > 1 else []
    parts.append(f'<polyline points="{_points(path)}" fill="none" stroke="{color}" stroke-width="2"/>')
    return parts + ([_shape(line.series, x, y) for x, y in path] if dots else [])


def reliability_svg(lines: Sequence[Line], *, label: str) -> str:
    """How often right against how sure, with the diagonal where both agree."""
    frame = _Frame(0.5, 1.0, 0.0, 1.0)
    parts = _axes(
        frame, [(t, tick_text(t)) for t in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)], _ticks(0, 1), "confidence", "share right"
    )
    ends = f'x1="{frame.x(0.5)}" y1="{frame.y(0.5)}" x2="{frame.x(1)}" y2="{frame.y(1)}"'
    parts.append(f'<line {ends} stroke="{FAINT}" stroke-dasharray="4 3"/>')
    for line in lines:
        color, path = COLORS[line.series % len(COLORS)], []
        for place, mark in zip(line.places, line.marks, strict=True):
            if mark.value is None:
                continue
            x, y = frame.x(place), frame.y(mark.value)
            path.append((x, y))
            if mark.low is not None and mark.high is not None:
                ends = f'x1="{x}" x2="{x}" y1="{frame.y(mark.low)}" y2="{frame.y(mark.high)}"'
                parts.append(f'<line {ends} stroke="{color}" opacity="0.45" stroke-width="1.5"/>')
            parts.append(_shape(line.series, x, y))
        parts.append(f'<polyline points="{_points(path)}" fill="none" stroke="{color}" opacity="0.55"/>')
    return _drawing(parts, frame.height, label)


def histogram_svg(
    preferred: Float64[np.ndarray, " A"], other: Float64[np.ndarray, " B"], *, label: str, bins: int = 32
) -> str:
    """Scores of preferred and other replies, as shares of each; the outermost bins hold all beyond them."""
    both = np.concatenate([preferred, other])
    low, high = np.quantile(both, [0.005, 0.995]) if len(both) else (0.0, 1.0)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    edges = np.linspace(low, high, bins + 1)
    shares = [np.histogram(np.clip(each, low, high), edges)[0] / max(1, len(each)) for each in (preferred, other)]
    frame = _Frame(float(low), float(high), 0.0, float(max(np.max(shares) * 1.08, 1e-9)))
    parts = _axes(frame, _ticks(frame.x_low, frame.x_high), _ticks(0, frame.y_high), "score", "share of replies")
    for color, share in zip((_BLUE, _ORANGE), shares, strict=True):
        steps = [(frame.x(edge), frame.y(value)) for i, value in enumerate(share) for edge in edges[i : i + 2]]
        corners = [(frame.x(low), frame.y(0)), *steps, (frame.x(high), frame.y(0))]
        parts.append(f'<polygon points="{_points(corners)}" fill="{color}" opacity="0.22"/>')
        parts.append(f'<polyline points="{_points(corners)}" fill="none" stroke="{color}" stroke-width="1.6"/>')
    return _drawing(parts, frame.height, label)


def lead_by_length_svg(lead: Float64[np.ndarray, " P"], gap: Float64[np.ndarray, " P"], *, label: str) -> str:
    """Lead of the preferred reply against how much longer it is; each circle's area counts the pairs around it.

    Args:
        lead: [P] finite.
        gap: [P] (length of preferred - other) / (both), -1 to 1.
    """
    top = float(np.quantile(np.abs(lead), 0.99)) if len(lead) else 1.0
    top = top if top > 0 else 1.0
    frame = _Frame(-1.0, 1.0, -1.08 * top, 1.35 * top, height=290)
    parts = [
        f'<rect x="{frame.x(-1)}" y="{frame.y(0)}" width="{frame.x(1) - frame.x(-1):.1f}"'
        f' height="{frame.y(frame.y_low) - frame.y(0):.1f}" fill="{_ORANGE}" opacity="0.07"/>'
    ]
    parts += _axes(
        frame,
        [(t, tick_text(t)) for t in (-1.0, -0.5, 0.0, 0.5, 1.0)],
        _ticks(frame.y_low, frame.y_high),
        "length of preferred - other, over both",
        "lead of the preferred reply",
    )
    parts.append(_upright(frame.x(0), frame.top, frame.height - frame.bottom, FAINT, dashed=True))
    parts += _bubbles(frame, lead, gap, top)
    for kept, x, anchor, words in ((gap < 0, 48, "start", "shorter"), (gap > 0, WIDTH - 18, "end", "longer")):
        right = f"{np.mean((lead[kept] > 0) + 0.5 * (lead[kept] == 0)):.2f} right" if kept.any() else "-"
        parts.append(_text(x, 40, f"{words} preferred: {right}", anchor=anchor, size=11.5))
        parts.append(_text(x, 54, f"n {kept.sum():,}", anchor=anchor, size=11.5, color=FAINT))
    return _drawing(parts, frame.height, label)


def _bubbles(frame: _Frame, lead: Float64[np.ndarray, " P"], gap: Float64[np.ndarray, " P"], top: float) -> list[str]:
    columns, rows = np.round(gap * 20), np.round(np.clip(lead / top, -1, 1) * 12)
    # Pairs won and lost are counted apart where a bin holds both.
    numbers = ((columns + 20) * 25 + rows + 12) * 3 + np.sign(lead) + 1  # in the order of the three
    found, counts = np.unique(numbers.astype(np.int64), return_counts=True)
    keys = np.stack([found // 75 - 20.0, found // 3 % 25 - 12.0, found % 3 - 1.0])
    unit = 7.5 / math.sqrt(max(1, counts.max(initial=1)))
    colors = {1.0: _BLUE, 0.0: FAINT, -1.0: _ORANGE}
    return [
        f'<circle cx="{frame.x(x / 20)}" cy="{frame.y(y * top / 12)}" r="{max(1.3, unit * math.sqrt(n)):.1f}"'
        f' fill="{colors[float(sign)]}" opacity="0.62"/>'
        for (x, y, sign), n in zip(keys.T, counts, strict=True)
    ]


# Pieces


def nice_ticks(low: Real, high: Real, count: int) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them.

    >>> nice_ticks(0.4, 1.0, 5)
    [0.4, 0.6, 0.8, 1.0]
    """
    step = _nice_step(high - low, count)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{step * i:.10g}") for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _nice_step(span: Real, count: int) -> float:
    raw = max(span, 1e-12) / count
    base = 10.0 ** math.floor(math.log10(raw))
    return base * next(m for m in (1, 2, 5, 10) if m * base >= raw * 0.999)


def tick_text(value: Real) -> str:
    return f"{value:.4g}".replace("-", "−")


def _ticks(low: Real, high: Real) -> list[tuple[float, str]]:
    return [(tick, tick_text(tick)) for tick in nice_ticks(low, high, 5)]


def _roomy(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = (high - low) * share if high > low else 0.5
    return low - pad, high + pad


def _axes(
    frame: _Frame,
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
        parts.append(_text(left - 6, y + 4, text, anchor="end", color=FAINT))
    parts += [_text(frame.x(at), floor + 16, text, anchor="middle", color=FAINT) for at, text in x_ticks]
    parts.append(f'<line x1="{left}" x2="{right}" y1="{floor}" y2="{floor}" stroke="{FAINT}"/>')
    parts.append(_text((left + right) / 2, frame.height - 6, x_label, anchor="middle"))
    return [*parts, _text(0, 13, y_label)]


def _drawing(parts: Sequence[str], height: Real, label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}"'
        f' viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" {_FONT} font-size="12"'
        f' fill="{INK}">{"".join(parts)}</svg>'
    )


def _text(
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


def _upright(x: Real | str, top: Real, floor: Real, color: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x}" x2="{x}" y1="{top}" y2="{floor}" stroke="{color}"{dash}/>'


def _points(corners: Sequence[tuple[Real, Real]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)


def _shape(series: int, x: Real, y: Real) -> str:
    color = COLORS[series % len(COLORS)]
    look = f'fill="{color}" stroke="#ffffff" stroke-width="1"'
    match (series + series // len(COLORS)) % 4:  # colours come again after eight, in other shapes
        case 0:
            return f'<circle cx="{x:g}" cy="{y:g}" r="4.5" {look}/>'
        case 1:
            return f'<rect x="{x - 4:g}" y="{y - 4:g}" width="8" height="8" {look}/>'
        case 2:
            return f'<polygon points="{_points([(x, y - 5.5), (x + 5.5, y), (x, y + 5.5), (x - 5.5, y)])}" {look}/>'
        case _:
            return f'<polygon points="{_points([(x, y - 5), (x + 5, y + 4), (x - 5, y + 4)])}" {look}/>'
