"""Differences of two scorers on the same items, paired; those of subsets folded away."""

from collections.abc import Sequence

from prefrank.evaluation.comparing import McNemar
from prefrank.evaluation.results import PairedTest, Run
from prefrank.reports import charts
from prefrank.reports.blocks import (
    Block,
    Cell,
    Fold,
    Section,
    Table,
    Words,
    figure_cell,
    name_cell,
    number_cell,
    per_scorer,
)
from prefrank.reports.charts import Mark, mark_of
from prefrank.reports.entries import title_of
from prefrank.reports.numbers import count, p_value


def section(run: Run) -> Section | None:
    comparison = run.comparison
    if comparison is None or not (comparison.pairs or comparison.refused):
        return None
    headlines = [test for test in comparison.pairs if test.headline]
    parts = [test for test in comparison.pairs if not test.headline]
    words = Words(
        "Paired on the same items: the interval is of the difference itself, p comes from swapping the two scorers"
        " prompt by prompt, and Holm's p allows for the number of comparisons; the verdict uses it. McNemar's mid-p"
        " treats every decided pair as an independent trial, with equal scores wrong; where pairs share prompts it is"
        " marked clustered, and too sure of itself. Detectable: the least true difference that so many items would show"
        " four times out of five."
    )
    blocks: list[Block] = [words, *(Words(f"Not compared. {reason}") for reason in comparison.refused)]
    blocks += _tables(run, headlines)
    blocks += [Fold("Differences on subsets", tuple(_tables(run, parts)))] if parts else []
    return Section("comparison", "Comparison", tuple(blocks))


def _tables(run: Run, tests: Sequence[PairedTest]) -> list[Table]:
    """One for each two scorers; all drawn on one axis."""
    marks = [mark_of(test.difference) for test in tests]
    ends = [abs(end) for mark in marks for end in (mark.value, mark.low, mark.high) if end is not None]
    reach = max(ends, default=1.0) or 1.0
    head = ("Suite", "Difference", "Verdict", "Drawn", "p", "p, Holm", "McNemar", "Detectable", "Counted")
    rows = [(f"{test.a} minus {test.b}", _row(run, test, mark, reach)) for test, mark in zip(tests, marks, strict=True)]
    return per_scorer("Difference", head, rows)


def _row(run: Run, test: PairedTest, mark: Mark, reach: float) -> tuple[Cell, ...]:
    return (
        name_cell(title_of(run, test.suite) if test.suite in run.suites else test.suite, test.figure),
        figure_cell(test.difference),
        Cell(test.verdict or "-", tone={"better": "good", "worse": "bad"}.get(test.verdict or "", "")),
        Cell("", svg=charts.track_svg(mark, low=-reach, high=reach, reference=0.0)),
        Cell(p_value(test.p)),
        Cell(p_value(test.p_holm)),
        _mcnemar_cell(test.mcnemar),
        number_cell(test.detectable, "not known"),
        Cell(count(test.difference)),
    )


def _mcnemar_cell(test: McNemar | None) -> Cell:
    """The mid-p, with the pairs that only the one and only the other scorer has right."""
    if test is None:
        return Cell("-")
    counts = f"{test.b:,} : {test.c:,} pairs" + (", clustered" if test.clustered else "")
    return Cell(p_value(test.mid_p), counts, title=f"exact p {p_value(test.exact)}")
