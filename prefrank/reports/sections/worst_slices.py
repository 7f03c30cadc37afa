"""Accuracy of the models on parts of the data, the worst ones marked."""

from collections.abc import Sequence

from prefrank.evaluation.results import Run
from prefrank.evaluation.slices import Slice
from prefrank.reports import charts
from prefrank.reports.blocks import (
    Block,
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
from prefrank.reports.entries import Entry, models, title_of


def section(run: Run) -> Section | None:
    by_suite = {suite: [entry for entry in models(run, suite) if entry.result.slices] for suite in run.suites}
    by_suite = {suite: sliced for suite, sliced in by_suite.items() if sliced}
    if not by_suite:
        return None
    pictures = tuple(_picture(run, title_of(run, suite), sliced) for suite, sliced in by_suite.items())
    worst = [
        (entry.scorer.name, _worst_row(title_of(run, suite), part, entry))
        for suite, sliced in by_suite.items()
        for entry in sliced
        for part in entry.result.slices
        if part.worst
    ]
    head = ("Suite", "Slice", "n", "Accuracy there", "Accuracy on all")
    tables: list[Block] = [*per_scorer("Worst slices", head, worst)]
    tables = tables or [Words("No slice is worse than chance explains.")]
    in_digits = Fold("In digits", tuple(_table(title_of(run, suite), sliced) for suite, sliced in by_suite.items()))
    key = legend(run, {entry.number for sliced in by_suite.values() for entry in sliced})
    return Section("slices", "Slices", (*tables, Pictures(pictures, key, flow=True), in_digits))


def _worst_row(suite: str, part: Slice, entry: Entry) -> tuple[Cell, ...]:
    there, everywhere = part.accuracy, entry.result.overall.accuracy
    return (name_cell(suite), Cell(_name(part)), Cell(f"{there.n:,}"), figure_cell(there), figure_cell(everywhere))


def _name(part: Slice) -> str:
    return f"{part.name}: {part.value or 'none'}"


def _by_name(sliced: Sequence[Entry]) -> dict[str, list[tuple[int, Slice]]]:
    """The slices' names in order -> numbers of the scorers that were measured on it, and what they got."""
    by_name: dict[str, list[tuple[int, Slice]]] = {}
    for entry in sliced:
        for part in entry.result.slices:
            by_name.setdefault(_name(part), []).append((entry.number, part))
    return by_name


def _picture(run: Run, title: str, sliced: Sequence[Entry]) -> Picture:
    rows = []
    for name, parts in _by_name(sliced).items():
        worst = ", worst" if any(part.worst for _, part in parts) else ""
        marks = tuple(mark_of(part.accuracy, number) for number, part in parts)
        rows.append(DotRow(name, marks, f"n {parts[0][1].accuracy.n:,}{worst}", alert=bool(worst)))
    label = f"Accuracy by slice on {title}: {rows_in_words(run, rows)}"
    return Picture(title, charts.dot_whisker_svg(rows, label=label))


def _table(title: str, sliced: Sequence[Entry]) -> Table:
    rows = []
    for name, parts in _by_name(sliced).items():
        known = {number: part.accuracy for number, part in parts}
        n = max(accuracy.n for accuracy in known.values())
        rows.append((name_cell(name), Cell(f"{n:,}"), *(figure_cell(known.get(entry.number)) for entry in sliced)))
    return Table(title, ("Slice", "n", *(entry.scorer.name for entry in sliced)), tuple(rows))
