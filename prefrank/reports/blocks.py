"""What a report's page is made of, as plain values, and figures in digits.

Surprising: everything here is text to be escaped by the page, but for drawings, which `charts` has made.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from prefrank.errors import BadData, PrefrankError
from prefrank.reports.charts import Real

_ODD = (KeyError, TypeError, AttributeError, ValueError, IndexError, ArithmeticError)


@contextmanager
def made_from(what: str) -> Iterator[None]:
    """Names what is made where a part of a run file or record is missing in it or of a wrong type.

    Raises:
        BadData: there is such a part.
    """
    try:
        yield
    except Exception as error:
        odd = isinstance(error, _ODD) or type(error).__name__ == "UndefinedError"  # jinja2's, which may not be there
        if isinstance(error, PrefrankError) or not odd:
            raise
        why = f"{type(error).__name__}: {error}"
        raise BadData(f"{what} cannot be made: a part that it shows is missing or wrong ({why})") from error


@dataclass(frozen=True, slots=True)
class Cell:
    """Of a table.

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
    """Its first column names the row.

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
class Facts:
    """Names and values."""

    pairs: tuple[tuple[str, str], ...]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True, slots=True)
class Cases:
    """Errors to read: summary, prompt, and the two replies with their scores."""

    cases: tuple[tuple[str, str, str, str, str, str], ...]
    kind: Literal["cases"] = "cases"


@dataclass(frozen=True, slots=True)
class Fold:
    """Blocks behind a line to click on."""

    title: str
    blocks: tuple[Any, ...]
    kind: Literal["fold"] = "fold"


Block = Table | Pictures | Words | Facts | Cases | Fold


@dataclass(frozen=True, slots=True)
class Section:
    """Args:
    id: of its place on the page.
    """

    id: str
    title: str
    blocks: tuple[Block, ...]


# Figures in digits


def digits(value: Real | None, places: int = 3) -> str:
    if value is None:
        return "-"
    text = f"{value:.{places}f}"
    return f"−{text[1:]}" if text[0] == "-" and float(text) != 0 else text.removeprefix("-")


def interval(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "not defined" if estimate["n"] else "nothing to measure"
    if estimate["low"] is None:
        return "no interval"
    return f"[{digits(estimate['low'])},\u00a0{digits(estimate['high'])}]"  # never broken across lines


def in_words(estimate: Mapping[str, Any]) -> str:
    """Value, interval and what it rests on, in a line."""
    return f"{digits(estimate['value'])} {interval(estimate)}, {count(estimate)}"


def count(estimate: Mapping[str, Any]) -> str:
    n, unit = estimate["n"], estimate["unit"]
    return f"{n:,}\u00a0{unit if n != 1 else unit.removesuffix('s')}"


def p_value(p: Real | None) -> str:
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def figure_cell(estimate: Mapping[str, Any] | None) -> Cell:
    return Cell("-", "not measured") if estimate is None else Cell(digits(estimate["value"]), interval(estimate))


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
    return [Table(f"{caption}: {name}", head, tuple(those), tight) for name, those in by_name.items()]
