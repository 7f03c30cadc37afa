"""Charts of evaluations as inline SVG, made by hand: small, the same bytes for the same figures, no script, no font.

Charts but for dots and whiskers have a fixed shape, WIDTH units wide, to be shown at about that many pixels. A mark
without a value is not drawn and its row says "-". Marks differ in color and in shape.
"""

from prefrank.reports.charts.dots import DotRow, dot_whisker_svg, limits_of, track_svg
from prefrank.reports.charts.drawing import ALERT, FAINT, GRID, INK, WIDTH, Mark, mark_of, marker_svg, shorten
from prefrank.reports.charts.lines import Line, curves_svg, reliability_svg
from prefrank.reports.charts.matrix import matrix_svg
from prefrank.reports.charts.single_pairs import histogram_svg, margin_by_length_svg

__all__ = [
    "ALERT",
    "FAINT",
    "GRID",
    "INK",
    "WIDTH",
    "DotRow",
    "Line",
    "Mark",
    "curves_svg",
    "dot_whisker_svg",
    "histogram_svg",
    "limits_of",
    "margin_by_length_svg",
    "mark_of",
    "marker_svg",
    "matrix_svg",
    "reliability_svg",
    "shorten",
    "track_svg",
]
