"""Escapes text inside Markdown, so that whatever it holds changes nothing of the page around it.

`plain` is for names and records, which are shown as they are; `prose` for what a card's author wrote as Markdown:
emphasis, code and links to the web stay, raw HTML, headings, images, tables and other links are shown as text.
CommonMark 0.31: a backslash before any punctuation makes it text (2.4); what opens blocks stands at a line's start (4).
"""

import re
from dataclasses import dataclass

from prefrank.errors import printable

_MARKUP = re.compile(r"([\\`*_\[\]|<>~$]|&(?=#?\w+;))")
_OPENS = re.compile(r"^([-+](?=\s|$)|[-=](?=[-=]*$)|#(?=#{0,5}(?:\s|$))|\d{1,9}(?=[.)](?:\s|$)))")
"""What at the start of a line would open a list or a heading, underline one or close the metadata."""
_FOLDERS = re.compile(r"(?<![\w.:/])(?:~|/|[A-Za-z]:\\)[^\s=:'\"]*[/\\](?=[^\s/\\])")

_OF_AUTHORS = re.compile(
    r"(\\*)(<|\||&(?=#?\w+;)|!(?=\[)|\](?=\[|:)|\](?=\((?!\s*(?i:https?://|mailto:|#|(?!//)[\w./-]*\))))"
    r"|(?<=\w):(?=//)(?<!http:)(?<!https:))"
)
"""With the backslashes before it: HTML, tables, entities, images, references, and links to what is not the web."""
_CONTAINERS = re.compile(r"(?:[-+*]\s+|\d{1,9}[.)]\s+)*")
_BLOCKS = re.compile(r"#{1,6}(?=\s|$)|>|`{3,}|~{3,}|=+\s*$|-+\s*$|(?:[-_*]\s*){3,}$|\+{3,}\s*$|\[(?=[^\]]*\]:)")


@dataclass(frozen=True, slots=True)
class Markdown:
    """Text in which all that is somebody else's has been made harmless."""

    text: str


def bare(text: object) -> str:
    """Somebody else's text on one line, without the folders of their machine before a file's name."""
    return printable(_FOLDERS.sub("", " ".join(str(text).split())))


def plain(text: object) -> str:
    """The same inside Markdown, without markup."""
    escaped = _MARKUP.sub(r"\\\1", bare(text))
    return _OPENS.sub(lambda match: f"{match[1]}\\" if match[1].isdigit() else f"\\{match[1]}", escaped)


def prose(text: str) -> str:
    """An author's paragraphs: their lines stay, and nothing in them opens a block other than a list."""
    return "\n".join(_line(line) for line in text.strip().splitlines())


def sentence(text: str) -> str:
    """The same where there is room for one line only."""
    return _line(" ".join(text.split()))


def _line(text: str) -> str:
    line = printable(text.expandtabs(4).strip())
    opening = _CONTAINERS.match(line)
    assert opening is not None  # it matches nothing, too
    rest = line[opening.end() :]
    if opens := _BLOCKS.match(rest):
        rest = "".join(f"\\{sign}" if sign in "#>`~=-_*+[" else sign for sign in opens[0]) + rest[opens.end() :]
    even = _OF_AUTHORS.sub(lambda match: match[0] if len(match[1]) % 2 else f"{match[1]}\\{match[2]}", rest)
    return opening[0] + even


def code(text: object) -> str:
    """A span of code, in a table too."""
    shown = bare(text).replace("|", "\\|") or " "
    ticks = "`" * (_longest_run(shown) + 1)
    edge = " " if "`" in (shown[0], shown[-1]) else ""
    return f"{ticks}{edge}{shown}{edge}{ticks}"


def fence(text: str) -> str:
    """What opens and closes a block of code that holds this text."""
    return "`" * max(3, _longest_run(text) + 1)


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def bibtex(text: object) -> str:
    """Inside braces of BibTeX, in a block of code: braces are round, and no line begins with what would end it."""
    return bare(text).translate(str.maketrans("{}`", "()'"))
