"""The rows of one JSON array, element by element, in the memory of the largest of them."""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prefrank.errors import BadData
from prefrank.io.packed import decoded
from prefrank.limits import limit, past

_SPACE = re.compile(r"[ \t\r\n]*")
_LINE_END = re.compile(r"[ \t]*[\r\n][ \t\r\n]*")
_STEP = 1 << 20
_TOKEN = 16
"""Characters at the end of what was read that may be a number, a word or an escape of which the rest is to come."""
UNUSUAL = (RecursionError, MemoryError, ValueError)


def unusual(where: str, error: Exception) -> BadData:
    """What to say of JSON that Python's reader fails on with errors of its own."""
    if isinstance(error, BadData):
        return BadData(f"{where}: {error}")
    if isinstance(error, RecursionError):
        return BadData(f"{where}: the JSON is nested too deeply; wanted one object per line")
    if isinstance(error, MemoryError):
        return BadData(f"{where}: the row takes more memory than there is; make it smaller")
    return BadData(f"{where}: a number has too many digits to be read; write it as a string")


class _PieceText:
    """The text of pieces, of which what was read is forgotten; it knows how much of it is gone, for errors."""

    def __init__(self, name: str, parts: Iterable[bytes]) -> None:
        self._name, self._parts, self._codec = name, iter(parts), codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.ended = "", False
        self._lines, self._column = 0, 0  # before the text

    def more(self, at: int) -> int:
        """Forget what stands before a place and read on, three times as much as there is after it; the place now."""
        gone = self.text[:at]
        if ends := gone.count("\n"):
            self._lines, self._column = self._lines + ends, 0
        self._column += at - 1 - gone.rfind("\n") if ends else at
        texts, wanted = [self.text[at:]], max(_STEP, 3 * (len(self.text) - at))
        while wanted > 0 and not self.ended:
            piece = next(self._parts, None)
            self.ended = piece is None
            try:
                texts.append(self._codec.decode(piece or b"", final=self.ended))
            except UnicodeDecodeError as error:
                decoded(error.object, self._name)
                raise BadData(f"{self._name}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
            wanted -= len(texts[-1])
        self.text = "".join(texts)
        return 0

    def filled(self, at: int) -> int:
        """The next place that is not white space, read on where there is none."""
        while True:
            space = _SPACE.match(self.text, at)
            at = space.end() if space else at
            if at < len(self.text) or self.ended:
                return at
            at = self.more(at)

    def bad(self, what: str, at: int) -> BadData:
        line = self._lines + self.text.count("\n", 0, at) + 1
        last = self.text.rfind("\n", 0, at)
        column = at - last if last >= 0 else self._column + at + 1
        what = what.removesuffix(" at")
        return BadData(
            f"{self._name}: not valid JSON ({what} at line {line} column {column}); wanted one list of objects"
        )


def array_rows(
    name: str, parts: Iterable[bytes], decoder: json.JSONDecoder, check_row: Callable[[int], None] = lambda row: None
) -> Iterator[tuple[int, str, Any]]:
    """Each element as (its number, its text, its value).

    Args:
        name: of the file, for errors.
        parts: its bytes, which open with "[", white space and a mark left aside.
        check_row: called with the number of each element before it is read; raises BadData where that is too many.

    Raises:
        BadData: no valid JSON, an empty array, or too large an element; with the place.
    """
    file, most = _PieceText(name, parts), limit("line_bytes")
    at, row = file.filled(file.filled(0) + 1), 0
    if file.text[at : at + 1] == "]":
        raise BadData(f"{name}: the file holds an empty list; wanted at least one row")
    while True:
        row += 1
        check_row(row)
        while True:
            try:
                value, end = decoder.raw_decode(file.text, at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(file.text) - _TOKEN
                if file.ended or not cut:
                    raise file.bad(error.msg, error.pos) from None
            except UNUSUAL as error:
                raise unusual(f"{name}:{row}", error) from None
            else:
                goes_on = isinstance(value, int | float) and end + _TOKEN > len(file.text)
                if file.ended or not goes_on:
                    break
            if len(file.text) - at > most:
                raise BadData(f"{name}:{row}: the row has {past('line_bytes')}; is it one row?")
            at = file.more(at)
        yield row, _LINE_END.sub(" ", file.text[at:end]), value  # a line end inside JSON is never part of a string
        at = file.filled(end)
        if file.text[at : at + 1] == "]":
            break
        if file.text[at : at + 1] != ",":
            raise file.bad("Expecting ',' delimiter", at)
        at = file.filled(at + 1)
    at = file.filled(at + 1)
    if at < len(file.text):
        raise file.bad("Extra data", at)
