"""Heat maps, one for each model and suite that has one."""

from prefrank.evaluation.results import Run
from prefrank.reports import charts
from prefrank.reports.blocks import Picture, Pictures, Section, Words
from prefrank.reports.drawn import figure_mark
from prefrank.reports.entries import charts_of, models, title_for
from prefrank.reports.numbers import digits


def section(run: Run) -> Section | None:
    pictures = []
    for suite, chart in charts_of(run, "matrix"):
        for _, scorer, result in models(run, suite):
            cells = [figure_mark(result, figure) for figure in chart.figures]
            shares = ", ".join(
                f"{figure} {digits(mark.value, 2)}" for figure, mark in zip(chart.figures, cells, strict=True)
            )
            label = f"{chart.title}, {scorer.name}: {shares}"
            svg = charts.matrix_svg(chart.rows, list(map(str, chart.columns)), cells, label=label)
            pictures.append(Picture(title_for(run, suite, scorer), svg, chart.title))
    words = Words("Each cell is a share of comparisons won: blue above one half, orange below.")
    return Section("matrix", "Matrices", (words, Pictures(tuple(pictures)))) if pictures else None
