"""What of the test data stands in the training data, and whether that matters."""

from collections.abc import Sequence

from prefrank.evaluation.contamination import Contamination
from prefrank.evaluation.results import Run
from prefrank.reports.blocks import Cell, FactList, Section, Table, figure_cell, name_cell, per_scorer
from prefrank.reports.entries import models, title_of


def section(run: Run) -> Section | None:
    checked = {name: suite.contamination for name, suite in run.suites.items() if suite.contamination}
    if not checked:
        return None
    ways = {way: meaning for contamination in checked.values() for way, meaning in contamination.ways.items()}
    rows = tuple(_row(title_of(run, suite), contamination, [*ways, "any"]) for suite, contamination in checked.items())
    head = ("Suite", "Training comparisons", "Items", *ways, "any", "Which")
    clean = [
        (
            entry.scorer.name,
            (name_cell(title_of(run, suite)), *map(figure_cell, (parts.clean, parts.contaminated, parts.difference))),
        )
        for suite in checked
        for entry in models(run, suite)
        if checked[suite].contaminated and (parts := entry.result.contamination)
    ]
    kinds = ("Suite", "Accuracy on clean items", "On the found ones", "Found minus clean")
    tables = [Table("Items found in the training data", head, rows), *per_scorer("Does it matter?", kinds, clean)]
    return Section("contamination", "Contamination", (FactList((*ways.items(), ("any", "each item once"))), *tables))


def _row(title: str, contamination: Contamination, ways: Sequence[str]) -> tuple[Cell, ...]:
    counts = [contamination.counts.get(way, 0) for way in ways]
    cells = [Cell(f"{n:,}", tone="bad" if n else "") for n in counts]
    items = [f"{item.subset}/{item.id}" for item in contamination.contaminated]
    more = f" and {len(items) - 5:,} more" if len(items) > 5 else ""
    which = Cell(", ".join(items[:5]) + more if items else "none", tone="text")
    return (name_cell(title), Cell(f"{contamination.train:,}"), Cell(f"{contamination.items:,}"), *cells, which)
