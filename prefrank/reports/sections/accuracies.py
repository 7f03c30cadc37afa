"""Pairwise accuracy of every scorer on every suite and subset, with the counts it rests on."""

from collections.abc import Sequence

from prefrank.evaluation.metrics import Metrics
from prefrank.evaluation.results import Run
from prefrank.reports import charts
from prefrank.reports.blocks import (
    Cell,
    Fold,
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
from prefrank.reports.drawn import legend, rows_in_words
from prefrank.reports.entries import Entry, entries, title_of
from prefrank.reports.numbers import in_words

ROWS_IN_CHART = 12  # a taller chart does not fit a printed page


def section(run: Run) -> Section | None:
    suites = [suite for suite in run.suites if entries(run, suite)]
    if not suites:
        return None
    pictures = [picture for suite in suites for picture in _pictures(run, suite)]
    tables = [_table(run, suite) for suite in suites]
    words = Words(
        "Share of pairs that a scorer puts in the order people did; equal scores are half a win, a failed score loses."
        " Dots are measured, lines are intervals. A suite's own score, which may count differently, is further below."
    )
    key = legend(run, range(len(run.scorers)))
    counts, of_baselines = (_counts_tables(run, suites, baselines=which) for which in (False, True))
    folded = [Fold("The same of the baselines", tuple(of_baselines))] if counts and of_baselines else of_baselines
    return Section(
        "accuracy",
        "Accuracy",
        (words, Pictures(tuple(pictures), key, flow=True), Fold("In digits", tuple(tables)), *counts, *folded),
    )


def _pictures(run: Run, suite: str) -> list[Picture]:
    rows, title = _rows(run, suite), title_of(run, suite)
    ceiling = run.suites[suite].noise_ceiling
    top = ceiling.value if ceiling else None
    note = ""
    if ceiling is not None and top is not None:
        note = f"Noise ceiling: {in_words(ceiling)}, the most any scorer can agree with these votes."
    # Parts of one suite share their axis, and are about equally tall.
    parts = -(-len(rows) // ROWS_IN_CHART)
    size = -(-len(rows) // parts)
    pieces = [rows[i : i + size] for i in range(0, len(rows), size)]
    ends = charts.limits_of(rows, [0.5, *([top] if top is not None else [])])
    return [
        Picture(
            title if len(pieces) == 1 else f"{title}, {number} of {len(pieces)}",
            charts.dot_whisker_svg(
                piece, label=f"Accuracy on {title}: {rows_in_words(run, piece)}", ceiling=top, limits=ends
            ),
            note if number == len(pieces) else "",
        )
        for number, piece in enumerate(pieces, 1)
    ]


def _parts(run: Run, suite: str) -> list[tuple[str, dict[int, Metrics]]]:
    """All together, then each subset where there are several: a scorer's number -> its metrics there."""
    everyone = entries(run, suite)
    parts = [("all", {entry.number: entry.result.overall for entry in everyone})]
    subsets = list(dict.fromkeys(name for entry in everyone for name in entry.result.subsets))
    for name in subsets if len(subsets) > 1 else ():
        parts.append(
            (name, {entry.number: entry.result.subsets[name] for entry in everyone if name in entry.result.subsets})
        )
    return parts


def _rows(run: Run, suite: str) -> list[DotRow]:
    """One for each part, with one mark for each scorer."""
    return [
        DotRow(
            name,
            tuple(mark_of(measured.accuracy, number) for number, measured in metrics.items()),
            f"n {next(iter(metrics.values())).accuracy.n:,}",
        )
        for name, metrics in _parts(run, suite)
    ]


def _table(run: Run, suite: str) -> Table:
    everyone = entries(run, suite)
    rows = []
    for name, metrics in _parts(run, suite):
        accuracies = [metrics[entry.number].accuracy if entry.number in metrics else None for entry in everyone]
        n = max(accuracy.n for accuracy in accuracies if accuracy)
        rows.append((name_cell(name), Cell(f"{n:,}"), *map(figure_cell, accuracies)))
    return Table(title_of(run, suite), ("", "Pairs", *(entry.scorer.name for entry in everyone)), tuple(rows))


def _counts_tables(run: Run, suites: Sequence[str], *, baselines: bool) -> list[Table]:
    head = (
        "Suite",
        "Comparisons",
        "Prompts",
        "Pairs",
        "Tied labels",
        "Equal scores",
        "Failed scores",
        "Pairs they lost",
        "Cut prompts",
        "Cut replies",
        "Accuracy, equal scores lost",
    )
    rows = [
        (entry.scorer.name, _counts_row(title_of(run, suite), entry))
        for suite in suites
        for entry in entries(run, suite)
        if entry.scorer.is_baseline == baselines
    ]
    return per_scorer("What the accuracies rest on", head, rows, tight=True)


def _counts_row(title: str, entry: Entry) -> tuple[Cell, ...]:
    metrics, counts = entry.result.overall, entry.result.overall.counts
    cuts = [f"{n:,}" if entry.scorer.tells_cuts else "not told" for n in (counts.cut_prompts, counts.cut_replies)]
    whole = (counts.comparisons, counts.prompts, counts.pairs, counts.ties, counts.score_ties)
    failed = (counts.failures, counts.failed_pairs)
    return (
        name_cell(title),
        *(Cell(f"{n:,}") for n in whole),
        *(Cell(f"{n:,}", tone="bad" if n else "") for n in failed),
        *map(Cell, cuts),
        figure_cell(metrics.accuracy_ties_lost),
    )
