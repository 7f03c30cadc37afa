"""Each suite's own figures by its protocol, the headline first; those that a chart shows are folded away."""

from collections.abc import Sequence

from prefrank.evaluation.results import Run
from prefrank.reports.blocks import Block, Cell, Fold, Section, Table, Words, figure_cell
from prefrank.reports.entries import Entry, entries, title_of
from prefrank.reports.numbers import count


def section(run: Run) -> Section | None:
    blocks: list[Block] = []
    for suite, record in run.suites.items():
        everyone, title = entries(run, suite), title_of(run, suite)
        names = list(dict.fromkeys(name for entry in everyone for name in entry.result.figures))
        in_charts = {name for chart in record.charts for name in chart.figures}
        blocks += [_table(title, [name for name in names if name not in in_charts], everyone)] if names else []
        if in_charts & set(names):
            behind = _table("Figures behind the chart", [name for name in names if name in in_charts], everyone)
            blocks.append(Fold(f"{title}: the figures that the charts below show", (behind,)))
    words = Words("As each benchmark's own protocol counts them, by its own rule for equal scores; the headline first.")
    return Section("figures", "Each suite's own figures", (words, *blocks)) if blocks else None


def _table(caption: str, names: Sequence[str], everyone: Sequence[Entry]) -> Table:
    headlines = {entry.result.headline for entry in everyone}
    rows = []
    for name in names:
        estimates = [entry.result.figures.get(name) for entry in everyone]
        known = next((estimate for estimate in estimates if estimate), None)
        part, _, rest = name.rpartition("/")
        label = Cell(rest, part, tone="strong" if name in headlines else "head")
        rows.append((label, Cell(count(known) if known else "-"), *map(figure_cell, estimates)))
    return Table(caption, ("", "n", *(entry.scorer.name for entry in everyone)), tuple(rows))
