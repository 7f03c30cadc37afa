"""Shares as colored cells."""

from collections.abc import Sequence

import numpy as np

from prefrank.reports.charts.drawing import FAINT, INK, WIDTH, Mark, shorten, text_at, whole_svg
from prefrank.reports.numbers import Real


def matrix_svg(rows: Sequence[str], columns: Sequence[str], cells: Sequence[Mark], *, label: str) -> str:
    """Shares as colored cells: orange below one half, blue above.

    Args:
        cells: row by row.
    """
    left, top, tall = 104, 24, 44
    wide = (WIDTH - left) / max(1, len(columns))
    parts = []
    for j, name in enumerate(columns):
        text = shorten(str(name), max(4, int(wide / 6.6)))
        parts.append(text_at(left + (j + 0.5) * wide, 15, text, anchor="middle", color=FAINT))
    for i, name in enumerate(rows):
        parts.append(text_at(left - 8, top + (i + 0.5) * tall + 4, shorten(name, 15), anchor="end", color=FAINT))
        for j, mark in enumerate(cells[i * len(columns) : (i + 1) * len(columns)]):
            parts += _cell(mark, left + j * wide, top + i * tall, wide, tall)
    return whole_svg(parts, top + tall * len(rows) + 2, label)


def _cell(mark: Mark, x: Real, y: Real, wide: Real, tall: Real) -> list[str]:
    fill, ink = diverging(mark.value)
    box = f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{wide - 2:.1f}" height="{tall - 2:.1f}" rx="3" fill="{fill}"/>'
    middle = x + wide / 2
    number = "-" if mark.value is None else f"{mark.value:.2f}"
    if mark.low is None or mark.high is None or wide < 60:
        return [box, text_at(middle, y + tall / 2 + 5, number, anchor="middle", color=ink, size=14)]
    interval = f"{mark.low:.2f} to {mark.high:.2f}"
    return [
        box,
        text_at(middle, y + tall / 2, number, anchor="middle", color=ink, size=15, weight="600"),
        text_at(middle, y + tall / 2 + 14, interval, anchor="middle", color=ink, size=10.5),
    ]


def diverging(share: float | None) -> tuple[str, str]:
    """White at one half, the house's orange at 0, its blue at 1, gray for nothing; and the ink to be read on it."""
    if share is None:
        return "#eceff2", INK
    end = np.array([0x0B, 0x3D, 0x66] if share >= 0.5 else [0xD9, 0x73, 0x0D])
    mixed = 255 + (end - 255) * min(1.0, abs(share - 0.5) * 2) ** 0.9
    # Relative luminance (WCAG 2, gamma taken as 2.2): above 0.18 black has more contrast than white.
    bright = float((mixed / 255) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722])) > 0.18
    return "#" + "".join(f"{round(float(part)):02x}" for part in mixed), "#000000" if bright else "#ffffff"
