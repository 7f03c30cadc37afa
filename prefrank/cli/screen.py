"""The one place that writes to a terminal. What is shown is text: nothing in it is read as markup or obeyed.

Strings are foreign here, whatever they hold: control characters come out as their escapes and brackets as brackets.
What has a style is a rich `Text`, which `joined` makes.
"""

import io
import json
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefrank.errors import CannotWrite, printable, printable_json

NARROWEST = 100
LONGEST = 2000
"""Characters of one text that are shown; files and `--json` have the whole."""

Part = str | Text


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


def text(part: Part, longest: int = LONGEST) -> Text:
    """A part in one line; a long one is cut, and says so."""
    return part if isinstance(part, Text) else Text(printable(_cut(part, longest)))


def lines(part: str) -> Text:
    """A text with its own line breaks, where there is room for them."""
    kept = _cut(part, LONGEST).replace("\r\n", "\n").expandtabs(4).split("\n")
    return Text("\n").join(Text(printable(line)) for line in kept)


def _cut(part: str, longest: int) -> str:
    return part if len(part) <= longest else f"{part[:longest]}… ({len(part):,} characters)"


def joined(*parts: Part, style: str = "", between: str = "") -> Text:
    """Parts one after the other; the strings among them in a style."""
    return Text(between).join(Text(text(one).plain, style) if isinstance(one, str) else one for one in parts)


def stacked(*parts: Part) -> Text:
    """Parts one under the other."""
    return Text("\n").join(map(text, parts))


def say(*parts: Part, style: str = "") -> None:
    """A remark of one line, on standard error."""
    console = talk()
    console.print(joined(*parts, style=style), soft_wrap=not console.is_terminal)


def new_table(title: Part | None, *columns: str, left: int = 1) -> Table:
    """Columns after the first `left` hold figures and stand to the right."""
    shown = None if title is None else text(title)
    table = Table(title=shown, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.collapse_padding = True  # two columns of space, not three: 80 are few
    for number, name in enumerate(columns):
        table.add_column(lines(name), justify="left" if number < left else "right", overflow="fold")
    return table


def add_row(table: Table, *cells: Part, end_section: bool = False) -> None:
    """One row; each string a cell of one line, which is folded where it is too wide."""
    table.add_row(*map(text, cells), end_section=end_section)


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
