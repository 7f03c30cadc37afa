"""What a report's page is made of, as plain values: text to be escaped by the page, and drawings made by `charts`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from prefrank.reports.numbers import Real, digits, interval
from prefrank.stats.estimates import Estimate


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Args:
        main: what it says.
        sub: smaller, under it.
        svg: a drawing, made here and trusted.
        tone: "bad", "good", "head", "strong", "code", "text" (a sentence) or "".
        title: the whole of what is cut.
    """

    main: str
    sub: str = ""
    svg: str = ""
    tone: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names the row.

    Args:
        tight: one line for each row where there is room.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    tight: bool = False
    kind: Literal["table"] = "table"


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing with its title, the marks' meaning and a sentence."""

    title: str
    svg: str
    note: str = ""
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Pictures:
    """Side by side where there is room.

    Args:
        flow: they are of different height, and fill columns.
    """

    pictures: tuple[Picture, ...]
    legend: tuple[tuple[str, str], ...] = ()
    flow: bool = False
    kind: Literal["pictures"] = "pictures"


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph."""

    text: str
    kind: Literal["words"] = "words"


@dataclass(frozen=True, slots=True)
class FactList:
    """Names and values."""

    pairs: tuple[tuple[str, str], ...]
    kind: Literal["facts"] = "facts"


class Case(NamedTuple):
    """An error to read: a summary, the prompt, and the two replies with their scores."""

    title: str
    prompt: str
    preferred: str
    other: str
    preferred_score: str
    other_score: str


@dataclass(frozen=True, slots=True)
class Cases:
    """Errors to read."""

    cases: tuple[Case, ...]
    kind: Literal["cases"] = "cases"


@dataclass(frozen=True, slots=True)
class Fold:
    """Blocks behind a line to click on."""

    title: str
    blocks: tuple["Block", ...]
    kind: Literal["fold"] = "fold"


Block = Table | Pictures | Words | FactList | Cases | Fold


@dataclass(frozen=True, slots=True)
class Section:
    """Args:
    id: of its place on the page.
    """

    id: str
    title: str
    blocks: tuple[Block, ...]


# Cells


def figure_cell(estimate: Estimate | None) -> Cell:
    return Cell("-", "not measured") if estimate is None else Cell(digits(estimate.value), interval(estimate))


def number_cell(value: Real | None, reason: str = "nothing to measure") -> Cell:
    return Cell(digits(value), "" if value is not None else reason)


def name_cell(text: str, sub: str = "") -> Cell:
    return Cell(text, sub, tone="head")


def per_scorer(
    caption: str, head: tuple[str, ...], rows: Sequence[tuple[str, tuple[Cell, ...]]], *, tight: bool = False
) -> list[Table]:
    """One table for each scorer, from rows with the scorer's name."""
    by_name: dict[str, list[tuple[Cell, ...]]] = {}
    for name, row in rows:
        by_name.setdefault(name, []).append(row)
    return [Table(f"{caption}: {name}", head, tuple(of_scorer), tight) for name, of_scorer in by_name.items()]
