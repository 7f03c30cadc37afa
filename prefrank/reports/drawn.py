"""Marks, lines and legends of a run's figures, and what they say to those who cannot see them."""

from collections.abc import Callable, Iterable, Sequence

from prefrank.evaluation.results import Run, SuiteResult
from prefrank.reports import charts
from prefrank.reports.blocks import Block, Fold, Picture, Pictures
from prefrank.reports.charts import DotRow, Line, Mark, mark_of
from prefrank.reports.entries import Entry, models
from prefrank.reports.numbers import digits


def legend(run: Run, numbers: Iterable[int]) -> tuple[tuple[str, str], ...]:
    """The marks of scorers, by their numbers in the run."""
    return tuple((charts.marker_svg(number), run.scorers[number].name) for number in sorted(set(numbers)))


def legend_of(lines: Sequence[Line]) -> tuple[tuple[str, str], ...]:
    return tuple((charts.marker_svg(line.series), line.name) for line in lines)


def figure_mark(result: SuiteResult, figure: str, series: int = 0) -> Mark:
    """Of one of a suite's own figures; without a value where the scorer has none of that name."""
    return mark_of(result.figures[figure], series) if figure in result.figures else Mark(None)


def rows_in_words(run: Run, rows: Sequence[DotRow]) -> str:
    return "; ".join(
        f"{row.label}: " + ", ".join(f"{run.scorers[mark.series].name} {digits(mark.value)}" for mark in row.marks)
        for row in rows
    )


def line_in_words(line: Line) -> str:
    points = zip(line.places, line.marks, strict=True)
    return f"{line.name} " + ", ".join(f"{place:g}: {digits(mark.value)}" for place, mark in points)


def pictures_by_model(run: Run, draw: Callable[[Run, str, Entry], Picture | None]) -> list[Block]:
    """The first model's pictures of every suite, and the other models' folded away."""
    by_name: dict[str, list[Picture]] = {}
    for suite in run.suites:
        for entry in models(run, suite):
            picture = draw(run, suite, entry)
            if picture is not None:
                by_name.setdefault(entry.scorer.name, []).append(picture)
    blocks: list[Block] = []
    for number, (name, pictures) in enumerate(by_name.items()):
        shown = Pictures(tuple(pictures))
        blocks.append(Fold(f"The same of {name}", (shown,)) if number else shown)
    return blocks
