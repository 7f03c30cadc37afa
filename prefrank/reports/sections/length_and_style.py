"""What length and layout have to do with the scores."""

from collections.abc import Sequence

import numpy as np

from prefrank.evaluation.results import Run
from prefrank.evaluation.style import Regression, Style, Term
from prefrank.reports import charts
from prefrank.reports.blocks import (
    Block,
    Cell,
    Picture,
    Pictures,
    Section,
    Table,
    Words,
    figure_cell,
    name_cell,
    per_scorer,
)
from prefrank.reports.charts import DotRow, mark_of
from prefrank.reports.decided import decided_pairs
from prefrank.reports.drawn import legend, pictures_by_model, rows_in_words
from prefrank.reports.entries import Entry, models, title_for, title_of
from prefrank.reports.numbers import digits, p_value
from prefrank.stats.estimates import Estimate


def section(run: Run) -> Section | None:
    everyone = [(suite, entry) for suite in run.suites for entry in models(run, suite)]
    if not everyone:
        return None
    words = Words(
        "A reward model should not care for length as such. The margin is the score of the preferred reply minus the"
        " other's; a circle's area counts pairs, and those in the shaded half are lost. Where length decides, circles"
        " fill the upper right and the lower left. Balanced accuracy is the mean of the two sides."
    )
    sides = ("Pairs, longer / shorter", "Preferred is longer", "Preferred is shorter", "Balanced")
    relations = ("Margin and length, Pearson", "Margin and length, Spearman", "Score and length in a prompt")
    rows = [(entry.scorer.name, _length_row(title_of(run, suite), entry.result.style)) for suite, entry in everyone]
    blocks: list[Block] = [
        words,
        *pictures_by_model(run, _length_picture),
        *per_scorer("Length", ("Suite", *sides, *relations), rows),
        *(
            Words(f"{entry.scorer.name} on {title_of(run, suite)}: {entry.result.style.note}")
            for suite, entry in everyone
            if entry.result.style.note
        ),
    ]
    buckets = [picture for suite in run.suites if (picture := _bucket_picture(run, suite))]
    if buckets:
        key = legend(run, {entry.number for _, entry in everyone})
        blocks.append(Words("Accuracy by how much longer the preferred reply is, as (preferred − other) / (both)."))
        blocks.append(Pictures(tuple(buckets), key))
    return Section("style", "Length and style", (*blocks, *_regression_tables(run, everyone)))


def _length_row(suite: str, style: Style) -> tuple[Cell, ...]:
    accuracies = (style.longer, style.shorter, style.balanced)
    relations = (style.pearson, style.spearman, style.within_prompt)
    pairs = Cell(f"{style.longer.n:,} / {style.shorter.n:,}")
    return (name_cell(suite), pairs, *map(figure_cell, (*accuracies, *relations)))


def _length_picture(run: Run, suite: str, entry: Entry) -> Picture | None:
    pairs = decided_pairs(run.suites[suite], entry.result)
    with np.errstate(over="ignore"):
        margin = pairs.preferred - pairs.other
    kept = np.isfinite(margin)
    if not kept.any():
        return None
    both = pairs.preferred_length + pairs.other_length
    gap = (pairs.preferred_length - pairs.other_length) / np.maximum(both, 1.0)
    title = title_for(run, suite, entry.scorer)
    failed = int((~kept).sum())
    note = f"{kept.sum():,} pairs" + (f"; {failed:,} with a failed score left out." if failed else ".")
    label = f"Margin of the preferred reply against relative length difference, {title}, {note}"
    return Picture(title, charts.margin_by_length_svg(margin[kept], gap[kept], label=label), note)


def _bucket_picture(run: Run, suite: str) -> Picture | None:
    of_models = [(entry.number, entry.result.style.buckets) for entry in models(run, suite)]
    if not of_models or not of_models[0][1]:
        return None
    rows = []
    for place, bucket in enumerate(of_models[0][1]):
        label = f"{digits(bucket.low, 2)} to {digits(bucket.high, 2)}"
        marks = tuple(mark_of(b[place].accuracy, number) for number, b in of_models if place < len(b))
        rows.append(DotRow(label, marks, f"n {bucket.accuracy.n:,}"))
    title = title_of(run, suite)
    label = f"Accuracy by length difference on {title}: {rows_in_words(run, rows)}"
    return Picture(title, charts.dot_whisker_svg(rows, label=label))


def _regression_tables(run: Run, everyone: Sequence[tuple[str, Entry]]) -> list[Table]:
    """Coefficients of the models' scores and of style, one row for each suite."""
    regressions = [
        (entry.scorer.name, title_of(run, suite), regression)
        for suite, entry in everyone
        if (regression := entry.result.style.regression)
    ]
    terms = list(dict.fromkeys(term.name for _, _, regression in regressions for term in regression.terms))
    names = [term.replace("_", " ") for term in terms]
    head = ("Suite", "Pairs", *names, "Gain over style alone", "Accuracy at equal style")
    rows = [(name, _regression_row(suite, regression, terms)) for name, suite, regression in regressions]
    return per_scorer("Which reply people prefer, by score and style", head, rows)


def _regression_row(suite: str, regression: Regression, terms: Sequence[str]) -> tuple[Cell, ...]:
    known = {term.name: term for term in regression.terms}
    cells = [_term_cell(known[term], regression.n) if term in known else Cell("-", "left out") for term in terms]
    gain = Cell(f"χ² {digits(regression.statistic, 1)}", f"p {p_value(regression.p)}")
    return (name_cell(suite), Cell(f"{regression.n:,}"), *cells, gain, figure_cell(regression.at_equal_style))


def _term_cell(term: Term, n: int) -> Cell:
    return figure_cell(Estimate(term.coefficient, term.low, term.high, n, "pairs", 0))
