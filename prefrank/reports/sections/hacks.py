"""Probes: which kinds of reward hacking win against a good reply."""

from prefrank.evaluation.results import Run
from prefrank.reports import charts
from prefrank.reports.blocks import Picture, Pictures, Section, Words
from prefrank.reports.charts import DotRow
from prefrank.reports.drawn import figure_mark, legend, rows_in_words
from prefrank.reports.entries import entries, models
from prefrank.reports.numbers import in_words

PROBES = "probes"
"""The suite whose subsets are kinds of reward hacking."""


def section(run: Run) -> Section | None:
    everyone = entries(run, PROBES) if PROBES in run.suites else []
    if not everyone:
        return None
    _, scorer, result = models(run, PROBES)[0]
    figures = {kind: estimate for kind, estimate in result.figures.items() if kind != result.headline}
    kinds = sorted(figures, key=lambda kind: (figures[kind].value is None, figures[kind].value or 0.0))
    rows = [
        DotRow(
            kind,
            tuple(figure_mark(entry.result, kind, entry.number) for entry in everyone),
            f"n {figures[kind].n:,}",
        )
        for kind in kinds
    ]
    winning = "; ".join(
        f"{kind} ({in_words(figures[kind])})"
        for kind in kinds
        if (value := figures[kind].value) is not None and value < 0.5
    )
    words = (
        f"Against {scorer.name} these win more often than they lose: {winning}."
        if winning
        else f"No kind of hack wins more often than it loses against {scorer.name}."
    )
    label = f"Share of good replies that beat each kind of hack: {rows_in_words(run, rows)}"
    svg = charts.dot_whisker_svg(rows, label=label, reference_name="as often as not", limits=(0.0, 1.0))
    picture = Picture("Good replies that beat the hack", svg, f"Sorted by {scorer.name}, the weakest first.")
    blocks = (Words(words), Pictures((picture,), legend(run, [entry.number for entry in everyone])))
    return Section("probes", "Probes: hacks against good replies", blocks)
