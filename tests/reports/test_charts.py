"""Charts: what stands where, in colours that can be read, and nothing drawn of nothing."""

import re

import numpy as np
import pytest

from prefrank.palette import COLORS
from prefrank.reports import charts
from prefrank.reports.charts import DotRow, Line, Mark
from prefrank.reports.charts.drawing import nice_ticks
from prefrank.reports.charts.matrix import diverging
from tests.reports.test_html import parsed


def test_a_dot_stands_where_its_value_is() -> None:
    svg = charts.dot_whisker_svg([DotRow("a", (Mark(0.75, 0.6, 0.9, 1),))], label="a chart of one", limits=(0.5, 1.0))
    assert '<svg x="50.00%"' in svg
    assert 'x1="20.00%" x2="80.00%"' in svg
    assert COLORS[1] in svg


def test_whiskers_end_at_the_axis() -> None:
    svg = charts.dot_whisker_svg([DotRow("a", (Mark(0.9, 0.2, 1.4),))], label="a chart of one", limits=(0.5, 1.0))
    assert 'x1="0.00%" x2="100.00%" y1="24"' in svg


def test_a_row_without_values_says_so() -> None:
    svg = charts.dot_whisker_svg([DotRow("a", (Mark(None), Mark(None)))], label="a chart of nothing")
    assert ">-</text>" in svg
    assert "<circle" not in svg


def test_long_names_keep_both_ends() -> None:
    short = charts.shorten("OpenAssistant/reward-model-deberta-v3-large-v2", 20)
    assert len(short) == 20
    assert (short[:4], short[-4:]) == ("Open", "e-v2")
    assert charts.shorten("short", 20) == "short"


def test_a_cell_shows_its_share_or_a_dash() -> None:
    cells = [Mark(0.0, 0.0, 0.2), Mark(1.0), Mark(0.5), Mark(None)]
    svg = charts.matrix_svg(["a", "b"], ["c", "d"], cells, label="a matrix of four")
    assert "0.00" in svg
    assert "0.00 to 0.20" in svg
    fills = re.findall(r'rx="3" fill="(#\w+)"', svg)
    assert fills == ["#d9730d", "#0b3d66", "#ffffff", "#eceff2"]
    assert ">-</text>" in svg


@pytest.mark.parametrize("share", np.linspace(0, 1, 41).tolist())
def test_figures_in_cells_can_be_read(share: float) -> None:
    fill, ink = diverging(share)
    assert contrast(fill, ink) >= 4.4


@pytest.mark.parametrize("ink", [charts.INK, charts.FAINT, charts.ALERT])
def test_text_on_white_has_contrast(ink: str) -> None:
    assert contrast("#ffffff", ink) >= 4.5


def contrast(color: str, other: str) -> float:
    """WCAG 2.1, relative luminance."""

    def luminance(code: str) -> float:
        parts = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(color), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 5.1), (0.42, 0.43), (1e-9, 2e-9), (-1e6, 1e6)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = nice_ticks(low, high, 5)
    assert 1 < len(ticks) <= 7 or high - low < 1e-8
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)


def test_a_histogram_keeps_what_lies_beyond_its_ends() -> None:
    scores = np.array([0.0] * 500 + [1.0] * 499 + [1e6])
    svg = charts.histogram_svg(scores, scores[:10], label="a histogram of two")
    assert "nan" not in svg
    assert "e+" not in svg


def test_charts_of_one_point_are_drawn() -> None:
    line = [Line("a", (0.5,), (Mark(0.5, 0.5, 0.5),))]
    for svg in (
        charts.curves_svg(line, label="a curve of one", x_label="x", y_label="y"),
        charts.reliability_svg(line, label="a diagram of one"),
        charts.margin_by_length_svg(np.array([0.0]), np.array([0.0]), label="a chart of one pair"),
        charts.histogram_svg(np.array([1.0]), np.array([1.0]), label="a histogram of one"),
    ):
        assert parsed(svg)
        assert "nan" not in svg


def test_each_side_of_the_length_chart_has_its_accuracy() -> None:
    margin, gap = np.array([1.0, -1.0, 2.0, 0.0]), np.array([-0.5, -0.4, 0.3, 0.6])
    svg = charts.margin_by_length_svg(margin, gap, label="a chart of four pairs")
    assert "shorter preferred: 0.50 right" in svg
    assert "longer preferred: 0.75 right" in svg


def test_sixteen_scorers_look_different() -> None:
    assert len({charts.marker_svg(number) for number in range(16)}) == 16
