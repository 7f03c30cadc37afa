"""The same model under other input formats: in sentences, and each combination folded away."""

from prefrank.evaluation.audit_results import Combination
from prefrank.evaluation.results import Run
from prefrank.reports.blocks import Block, Cell, Fold, Section, Table, Words, name_cell
from prefrank.reports.numbers import digits


def section(run: Run) -> Section | None:
    blocks: list[Block] = []
    for scorer in run.scorers:
        audit = scorer.audit
        if audit:
            blocks += [Words(scorer.name), *map(Words, audit.summary)]
            head = ("Format", "Type", "Padding", "Batch", "Largest difference", "In spreads", "Flipped", "Rows cut")
            rows = tuple(map(_row, audit.combinations))
            title = f"{len(rows)} combinations against {audit.reference}"
            blocks.append(Fold(title, (Table(scorer.name, head, rows),)))
    return Section("audit", "Input formats", tuple(blocks)) if blocks else None


def _row(way: Combination) -> tuple[Cell, ...]:
    flips = "-" if way.flips is None else f"{way.flips:,} of {way.pairs:,}"
    failures = f"{way.failures:,} failed scores" if way.failures else ""
    return (
        name_cell(way.format, way.engine),
        Cell(way.dtype),
        Cell(way.padding_side or "-"),
        Cell(f"{way.batch_size}"),
        *(Cell("-" if size is None else f"{size:.2g}") for size in (way.max_difference, way.max_spreads)),
        Cell(flips, way.reason or failures, tone="bad" if way.flips or failures else ""),
        Cell(digits(way.cut)),
    )
