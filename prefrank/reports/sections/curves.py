"""Curves, such as best of n, also against the KL divergence that choosing the best of n costs."""

import numpy as np

from prefrank.evaluation.protocols.suite import Chart
from prefrank.evaluation.results import Run, SuiteResult
from prefrank.reports import charts
from prefrank.reports.blocks import Picture, Pictures, Section
from prefrank.reports.charts import Line
from prefrank.reports.drawn import figure_mark, legend_of, line_in_words
from prefrank.reports.entries import charts_of, models, title_for
from prefrank.reports.numbers import Real


def section(run: Run) -> Section | None:
    pictures = []
    for suite, chart in charts_of(run, "curves"):
        for _, scorer, result in models(run, suite):
            lines, title = _lines(chart, result), title_for(run, suite, scorer)
            label = f"{chart.title}, {scorer.name}: " + "; ".join(map(line_in_words, lines))
            places = [place for line in lines for place in line.places]
            doubling = all(place.is_integer() and place >= 1 for place in places) and max(places, default=1) >= 8
            svg = charts.curves_svg(lines, label=label, x_label=chart.x_label, y_label="value", doubling=doubling)
            pictures.append(Picture(title, svg, chart.title, legend_of(lines)))
            if doubling:
                at_kl = [
                    Line(line.name, tuple(map(kl_of_best, line.places)), line.marks, line.series) for line in lines
                ]
                svg = charts.curves_svg(at_kl, label=label, x_label="KL of best of n, in nats", y_label="value")
                note = f"{chart.title}, against KL = ln n − (n − 1)/n"
                pictures.append(Picture(title, svg, note, legend_of(lines)))
    return Section("curves", "Curves", (Pictures(tuple(pictures)),)) if pictures else None


def kl_of_best(n: Real) -> float:
    """KL divergence of the best of n from the policy it is drawn from (Gao et al., arXiv 2210.10760, section 2)."""
    return float(np.log(n) - (n - 1) / n)


def _lines(chart: Chart, result: SuiteResult) -> list[Line]:
    places = tuple(float(column) for column in chart.columns)
    lines = []
    for row, name in enumerate(chart.rows):
        figures = chart.figures[row * len(places) : (row + 1) * len(places)]
        lines.append(Line(name, places, tuple(figure_mark(result, figure, row) for figure in figures), row))
    return lines
