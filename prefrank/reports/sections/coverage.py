"""Abstention: accuracy on the pairs a model is surest of."""

from prefrank.evaluation.results import Run
from prefrank.reports import charts
from prefrank.reports.blocks import Picture, Pictures, Section, Words
from prefrank.reports.charts import Line, Mark
from prefrank.reports.drawn import legend, line_in_words
from prefrank.reports.entries import Entry, models, title_of


def section(run: Run) -> Section | None:
    pictures: list[Picture] = []
    shown: set[int] = set()
    for suite in run.suites:
        lines = [line for line in map(_line, models(run, suite)) if line.places]
        if lines:
            shown |= {line.series for line in lines}
            title = title_of(run, suite)
            label = f"Accuracy by coverage on {title}: " + "; ".join(map(line_in_words, lines))
            svg = charts.curves_svg(lines, label=label, x_label="share of pairs judged", y_label="accuracy")
            pictures.append(Picture(title, svg))
    if not pictures:
        return None
    words = Words(
        "If a model judges only the pairs with its largest score differences, how often is it right on those?"
    )
    return Section("abstention", "Abstention", (words, Pictures(tuple(pictures), legend(run, shown))))


def _line(entry: Entry) -> Line:
    points = [point for point in entry.result.abstention.points if point.accuracy is not None]
    marks = tuple(Mark(point.accuracy, point.low, point.high, entry.number) for point in points)
    return Line(entry.scorer.name, tuple(point.coverage for point in points), marks, entry.number)
