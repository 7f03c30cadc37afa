"""Dots with whiskers, one row under the other.

They measure across in per cent and down in pixels, so a chart is as wide as its place and its text is the same size on
a phone as on a wall.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from prefrank.palette import COLORS
from prefrank.reports.charts.drawing import (
    ALERT,
    FAINT,
    FONT,
    GREEN,
    GRID,
    INK,
    Mark,
    nice_step,
    nice_ticks,
    shape_at,
    shorten,
    text_at,
    tick_text,
    vertical_line,
)
from prefrank.reports.numbers import Real

_PITCH = 10  # pixels from one mark of a row to the next


@dataclass(frozen=True, slots=True)
class DotRow:
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


def dot_whisker_svg(
    rows: Sequence[DotRow],
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
    low, high = limits or limits_of(rows, [line for line in (reference, ceiling) if line is not None])
    ticks = nice_ticks(low, high, 5)
    heights = [24 + _PITCH * max(1, len(row.marks)) for row in rows]
    floor = sum(heights) + 4
    parts = [vertical_line(_across(tick, low, high), 0, floor, GRID) for tick in ticks]
    parts += [
        text_at(_across(tick, low, high), floor + 15, tick_text(tick), anchor=_anchor(tick, low, high))
        for tick in ticks
    ]
    lines = ((reference, reference_name, FAINT), (ceiling, "noise ceiling", GREEN))
    drawn = [(at, name, color) for at, name, color in lines if at is not None]
    for number, (at, name, color) in enumerate(drawn):
        x = _across(at, low, high)
        parts.append(vertical_line(x, 0, floor, color, dashed=True))
        parts.append(text_at(x, floor + 30 + 13 * number, name, color=color, anchor=_anchor(at, low, high)))
    top = 0
    for row, height in zip(rows, heights, strict=True):
        parts += _row(row, top, low, high)
        top += height
    height = floor + 22 + 13 * len(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" width="100%"'
        f' height="{height}" overflow="visible" {FONT} font-size="12" fill="{INK}">{"".join(parts)}</svg>'
    )


def _row(row: DotRow, top: Real, low: float, high: float) -> list[str]:
    room = 46 if not row.note else max(12, 46 - len(row.note))
    parts = [text_at("0%", top + 14, shorten(row.label, room), weight="600", halo=True)]
    missing = bool(row.marks) and all(mark.value is None for mark in row.marks)
    note = row.note or ("-" if missing else "")
    color, weight = (ALERT, "600") if row.alert else (FAINT, "")
    parts += [text_at("100%", top + 14, note, color=color, weight=weight, anchor="end", halo=True)] if note else []
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
    return [*parts, f'<svg x="{x}" y="{y}" overflow="visible">{shape_at(mark.series, 0, 0)}</svg>']


def limits_of(rows: Sequence[DotRow], also: Sequence[float]) -> tuple[float, float]:
    ends = [end for row in rows for mark in row.marks for end in (mark.value, mark.low, mark.high) if end is not None]
    low, high = min([*ends, *also], default=0.0), max([*ends, *also], default=1.0)
    if low >= 0 and high <= 1:  # shares: from a round tenth to 1
        return max(0.0, math.floor(low * 10 - 0.01) / 10), 1.0
    step = nice_step(high - low, 5)
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
    parts += [vertical_line(_across(reference, low, high), 1, 17, FAINT, dashed=True)] if reference is not None else []
    parts += _whisker(mark, 9, low, high)
    return f'<svg aria-hidden="true" width="100%" height="18" overflow="visible">{"".join(parts)}</svg>'
