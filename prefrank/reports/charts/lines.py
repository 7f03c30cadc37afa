"""Lines of marks: curves with bands for their intervals, and reliability diagrams."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prefrank.palette import COLORS
from prefrank.reports.charts.drawing import (
    FAINT,
    ChartFrame,
    Mark,
    axes,
    points_of,
    roomy,
    shape_at,
    tick_text,
    ticks_of,
    whole_svg,
)


@dataclass(frozen=True, slots=True)
class Line:
    """A named line of marks at places on the x axis."""

    name: str
    places: tuple[float, ...]
    marks: tuple[Mark, ...]
    series: int = 0


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
    frame = ChartFrame(*roomy(places, 0.0), *roomy(ends, 0.06))
    seen = sorted({place for line in lines for place in line.places})
    x_ticks = [(move(p), tick_text(p)) for p in seen] if doubling else ticks_of(frame.x_low, frame.x_high)
    parts = axes(frame, x_ticks, ticks_of(frame.y_low, frame.y_high), x_label, y_label)
    for line in lines:
        parts += _curve(frame, line, [move(place) for place in line.places])
    return whole_svg(parts, frame.height, label)


def _curve(frame: ChartFrame, line: Line, places: Sequence[float]) -> list[str]:
    color, dots = COLORS[line.series % len(COLORS)], len(places) <= 12
    points = [(frame.x(place), mark) for place, mark in zip(places, line.marks, strict=True) if mark.value is not None]
    banded = [(x, frame.y(m.low), frame.y(m.high)) for x, m in points if m.low is not None and m.high is not None]
    corners = [(x, high) for x, _, high in banded] + [(x, low) for x, low, _ in reversed(banded)]
    path = [(x, frame.y(mark.value)) for x, mark in points if mark.value is not None]
    parts = [f'<polygon points="{points_of(corners)}" fill="{color}" opacity="0.13"/>'] if len(banded) > 1 else []
    parts.append(f'<polyline points="{points_of(path)}" fill="none" stroke="{color}" stroke-width="2"/>')
    return parts + ([shape_at(line.series, x, y) for x, y in path] if dots else [])


def reliability_svg(lines: Sequence[Line], *, label: str) -> str:
    """How often right against how sure, with the diagonal where both agree."""
    frame = ChartFrame(0.5, 1.0, 0.0, 1.0)
    parts = axes(
        frame, [(t, tick_text(t)) for t in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)], ticks_of(0, 1), "confidence", "share right"
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
            parts.append(shape_at(line.series, x, y))
        parts.append(f'<polyline points="{points_of(path)}" fill="none" stroke="{color}" opacity="0.55"/>')
    return whole_svg(parts, frame.height, label)
