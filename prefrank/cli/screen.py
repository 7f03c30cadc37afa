"""The one place that writes to a terminal. What is shown is text: nothing in it is read as markup or obeyed."""

import io
import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefrank.errors import CannotWrite, printable_json
from prefrank.reports.rich_tables import NARROWEST, Part, Shown, joined


class _Talk(io.TextIOBase):
    """Standard error for remarks: one that is closed or full takes no result with it."""

    def write(self, text: str) -> int:
        if sys.stderr is not None:
            try:
                sys.stderr.write(text)
                sys.stderr.flush()
            except (OSError, ValueError):  # the second where a library has closed it
                pass
        return len(text)

    def isatty(self) -> bool:
        return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return (sys.stderr and sys.stderr.encoding) or "utf-8"


def talk() -> Console:
    """The console of remarks and progress, on standard error."""
    console = _console(_Talk())
    return console if console.is_terminal else _console(_Talk(), NARROWEST)


def _console(file: Any = None, width: int | None = None) -> Console:
    return Console(file=file, highlight=False, emoji=False, markup=False, width=width)


def say(*parts: Part, style: str = "") -> None:
    """A remark of one line, on standard error."""
    console = talk()
    console.print(joined(*parts, style=style), soft_wrap=not console.is_terminal)


def show_all(parts: Iterable[Shown]) -> None:
    """Tables on standard output and remarks on standard error, as they come.

    Raises:
        CannotWrite: standard output is closed.
    """
    for part in parts:
        if isinstance(part, Text):
            say(part)
        else:
            show(part.table, width=part.width, narrow=part.narrow)


def show(table: Table, *, width: int = NARROWEST, narrow: Table | None = None) -> None:
    """Print a table on standard output; `width` is that of a pipe or a log, `narrow` what stands for a table that is
    wider than the console.

    Raises:
        CannotWrite: standard output is closed.
    """
    check_output()
    console = _console()
    # A pipe or a log has no width of its own; 80 columns would fold the tables.
    if not console.is_terminal:
        console = _console(width=width)
    wanted = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.print(table if narrow is None or wanted <= console.width else narrow)


def show_json(record: Any) -> None:
    """Print a value as JSON on standard output.

    Raises:
        CannotWrite: standard output is closed.
    """
    check_output()
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")  # another console's JSON has escapes instead
    whole = json.dumps(record, indent=2, ensure_ascii=not unicode, allow_nan=False)
    print(printable_json(whole))


def check_output() -> None:
    """See that there is a standard output.

    Raises:
        CannotWrite: it is closed.
    """
    if sys.stdout is None or sys.stdout.closed:
        raise CannotWrite("standard output is closed; open it, or send it to a file")
