"""Tables and lines for a terminal, as values of rich: nothing in them is read as markup or obeyed, nothing is printed.

Strings are foreign here, whatever they hold: control characters come out as their escapes and brackets as brackets.
What has a style is a rich `Text`, which `joined` makes.
"""

from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from prefrank.errors import printable

NARROWEST = 100
LONGEST = 2000
"""Characters of one text that are shown; files and `--json` have the whole."""

Part = str | Text


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table to be shown.

    Args:
        width: of a pipe or a log, which have none of their own.
        narrow: stands for a table that is wider than the console.
    """

    table: Table
    width: int = NARROWEST
    narrow: Table | None = None


Shown = Sheet | Text
"""A table of results, or a remark of one line."""


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
    return Text(between).join(Text(text(part).plain, style) if isinstance(part, str) else part for part in parts)


def stacked(*parts: Part) -> Text:
    """Parts one under the other."""
    return Text("\n").join(map(text, parts))


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
