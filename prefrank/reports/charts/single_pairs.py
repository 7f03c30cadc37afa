"""Charts of single pairs: histograms of scores, and margins against differences of length."""

import math

import numpy as np
from jaxtyping import Float64

from prefrank.reports.charts.drawing import (
    BLUE,
    FAINT,
    ORANGE,
    WIDTH,
    ChartFrame,
    axes,
    points_of,
    text_at,
    tick_text,
    ticks_of,
    vertical_line,
    whole_svg,
)


def histogram_svg(
    preferred: Float64[np.ndarray, " A"], other: Float64[np.ndarray, " B"], *, label: str, bins: int = 32
) -> str:
    """Scores of preferred and other replies, as shares of each; the outermost bins hold all beyond them."""
    both = np.concatenate([preferred, other])
    low, high = np.quantile(both, [0.005, 0.995]) if len(both) else (0.0, 1.0)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    edges = np.linspace(low, high, bins + 1)
    shares = [np.histogram(np.clip(each, low, high), edges)[0] / max(1, len(each)) for each in (preferred, other)]
    frame = ChartFrame(float(low), float(high), 0.0, float(max(np.max(shares) * 1.08, 1e-9)))
    parts = axes(frame, ticks_of(frame.x_low, frame.x_high), ticks_of(0, frame.y_high), "score", "share of replies")
    for color, share in zip((BLUE, ORANGE), shares, strict=True):
        steps = [(frame.x(edge), frame.y(value)) for i, value in enumerate(share) for edge in edges[i : i + 2]]
        corners = [(frame.x(low), frame.y(0)), *steps, (frame.x(high), frame.y(0))]
        parts.append(f'<polygon points="{points_of(corners)}" fill="{color}" opacity="0.22"/>')
        parts.append(f'<polyline points="{points_of(corners)}" fill="none" stroke="{color}" stroke-width="1.6"/>')
    return whole_svg(parts, frame.height, label)


def margin_by_length_svg(margin: Float64[np.ndarray, " P"], gap: Float64[np.ndarray, " P"], *, label: str) -> str:
    """Margin of the preferred reply against how much longer it is; each circle's area counts the pairs around it.

    Args:
        margin: [P] finite.
        gap: [P] (length of preferred - other) / (both), -1 to 1.
    """
    top = float(np.quantile(np.abs(margin), 0.99)) if len(margin) else 1.0
    top = top if top > 0 else 1.0
    frame = ChartFrame(-1.0, 1.0, -1.08 * top, 1.35 * top, height=290)
    parts = [
        f'<rect x="{frame.x(-1)}" y="{frame.y(0)}" width="{frame.x(1) - frame.x(-1):.1f}"'
        f' height="{frame.y(frame.y_low) - frame.y(0):.1f}" fill="{ORANGE}" opacity="0.07"/>'
    ]
    parts += axes(
        frame,
        [(t, tick_text(t)) for t in (-1.0, -0.5, 0.0, 0.5, 1.0)],
        ticks_of(frame.y_low, frame.y_high),
        "length of preferred - other, over both",
        "margin of the preferred reply",
    )
    parts.append(vertical_line(frame.x(0), frame.top, frame.height - frame.bottom, FAINT, dashed=True))
    parts += _bubbles(frame, margin, gap, top)
    for kept, x, anchor, words in ((gap < 0, 48, "start", "shorter"), (gap > 0, WIDTH - 18, "end", "longer")):
        right = f"{np.mean((margin[kept] > 0) + 0.5 * (margin[kept] == 0)):.2f} right" if kept.any() else "-"
        parts.append(text_at(x, 40, f"{words} preferred: {right}", anchor=anchor, size=11.5))
        parts.append(text_at(x, 54, f"n {kept.sum():,}", anchor=anchor, size=11.5, color=FAINT))
    return whole_svg(parts, frame.height, label)


def _bubbles(
    frame: ChartFrame, margin: Float64[np.ndarray, " P"], gap: Float64[np.ndarray, " P"], top: float
) -> list[str]:
    columns, rows = np.round(gap * 20), np.round(np.clip(margin / top, -1, 1) * 12)
    # Pairs won and lost are counted apart where a bin holds both.
    numbers = ((columns + 20) * 25 + rows + 12) * 3 + np.sign(margin) + 1  # in the order of the three
    bins, counts = np.unique(numbers.astype(np.int64), return_counts=True)
    keys = np.stack([bins // 75 - 20.0, bins // 3 % 25 - 12.0, bins % 3 - 1.0])
    unit = 7.5 / math.sqrt(max(1, counts.max(initial=1)))
    colors = {1.0: BLUE, 0.0: FAINT, -1.0: ORANGE}
    return [
        f'<circle cx="{frame.x(x / 20)}" cy="{frame.y(y * top / 12)}" r="{max(1.3, unit * math.sqrt(n)):.1f}"'
        f' fill="{colors[float(sign)]}" opacity="0.62"/>'
        for (x, y, sign), n in zip(keys.T, counts, strict=True)
    ]
