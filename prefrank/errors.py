"""Every error prefrank raises on purpose, as a tree. Each says what came, what was wanted, what to do.

PrefrankError
├── BadInput            something the caller gave cannot be used (also a ValueError)
│   ├── BadData         a data file or row: names file and line
│   ├── BadText         a text that cannot be encoded
│   ├── BadRecipe       a recipe key or value
│   └── BadModel        a checkpoint that is missing files, torn, or not a reward model
├── NotFound            no data set, model or file of that name
├── CannotWrite         the output folder cannot be written, or the disk is full
├── Diverged            a loss or score that is not a number during training
└── Interrupted         stopped by Ctrl-C or a signal, after saving
"""

import difflib
import re
from collections.abc import Iterable

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters, line ends, marks that turn the direction of writing, and halves of characters."""


def printable(text: str) -> str:
    """A text in one line, as a terminal can show it without obeying it: control characters as their escapes.

    >>> printable("a\\x1b[2J")
    'a\\\\x1b[2J'
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


_LONGEST = 1_000
"""Characters up to which a message stays as it is."""
_LONG_WORD = re.compile(r"\S{200,}")


def message_of(text: str) -> str:
    """A text as one line that a person reads: of a long one, names of hundreds of characters lose their middles, and
    what is still twice too long its own."""
    text = printable(text)
    if len(text) > _LONGEST:
        text = _LONG_WORD.sub(lambda word: f"{word[0][:100]}...{word[0][-60:]}", text)
    return text if len(text) <= 2 * _LONGEST else f"{text[:1_400]} ... {text[-500:]}"


_RAW_IN_JSON = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What `printable` escapes and `json.dumps` does not."""


def printable_json(text: str) -> str:
    """A JSON text of the same value that a terminal does not obey, as `printable` of other texts."""
    return _RAW_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class PrefrankError(Exception):
    """The root: a message of one line, cut, in which control characters of names and values are escapes.

    `http_status` is what a server answers, `exit_code` what the command line returns.
    """

    http_status = 500
    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(message_of(arg) if isinstance(arg, str) else arg for arg in args))


class BadInput(PrefrankError, ValueError):
    """Something the caller gave cannot be used."""

    http_status = 422
    exit_code = 2


class BadData(BadInput):
    """A data file or row that cannot be read as comparisons; the message names file and line."""

    exit_code = 3


class BadText(BadInput):
    """A text that cannot be encoded, such as one with a lone surrogate."""

    exit_code = 3


class BadRecipe(BadInput):
    """A recipe with an unknown key, a wrong value, or settings that cannot work together."""

    exit_code = 5


class BadModel(BadInput):
    """A checkpoint that is missing files, torn, or not a reward model with one output."""

    exit_code = 4


class NotFound(PrefrankError, LookupError):
    """No data set, model, split or file of that name."""

    http_status = 404
    exit_code = 2


class CannotWrite(PrefrankError, OSError):
    """The output folder cannot be written, or the disk is full. Nothing half-written is left."""

    http_status = 507
    exit_code = 6


class Diverged(PrefrankError, ArithmeticError):
    """A loss or score that is not a finite number during training; names the rows that made it."""

    exit_code = 7


class Interrupted(PrefrankError):
    """Stopped by Ctrl-C or a signal, after the last state was saved."""

    exit_code = 130


def suggest(name: str, known: Iterable[str]) -> str:
    """A closing "; did you mean 'x'?" for a misspelt name, or the list of known names, cut where it is long."""
    known = sorted(known)
    near = difflib.get_close_matches(name[:100], known[:1_000], n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    names = ", ".join(known)
    return f"; known: {names if len(names) <= _LONGEST else f'{names[: _LONGEST // 2]}... ({len(known):,} in all)'}"


def short(value: object) -> str:
    """A value for an error message: its JSON-ish form, cut; its type, where it cannot be shown."""
    try:
        shown = "null" if value is None else ascii(value[:40] if isinstance(value, str) else value)
    except Exception:  # a number of too many digits, a list of too many levels, an object of somebody's own
        return f"of type {type(value).__name__}"
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
