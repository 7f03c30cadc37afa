"""Texts of any length to token ids, in memory that does not grow with them but for the ids that are kept.

A tokenizer holds some hundred bytes for each character of a text that it encodes. So a long text is encoded in pieces,
cut where the tokenizer is proven to cut too (`borders.py`), and is never held as more than arrays.
"""

from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any
from unicodedata import normalize

import numpy as np
from jaxtyping import Int32
from tokenizers import Tokenizer

from prefrank.errors import BadInput, BadText, PrefrankError
from prefrank.limits import limit, past
from prefrank.text.borders import Borders, borders

PIECE = 100_000
"""Characters of a text that is encoded at once, and of a piece of a longer one where it has words."""
_WORD = "aa"
"""Stands before and after pieces, whose other side it is; its ids are taken away again."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The ids of one text, and from where to where each stands in it, in characters (M is L, or 0 if not asked for)."""

    ids: Int32[np.ndarray, " L"]
    starts: Int32[np.ndarray, " M"]
    ends: Int32[np.ndarray, " M"]


@dataclass(frozen=True, slots=True)
class Ends:
    """The ids of a text of which a row can hold so few that only its ends are kept, and how many there are."""

    length: int
    first: list[int]
    last: list[int]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: slice) -> list[int]:
        """Of ids that are kept; others are an IndexError."""
        places = range(self.length)[key]
        offset = self.length - len(self.last)
        if not places or places[-1] < len(self.first):
            return [self.first[place] for place in places]
        if places[0] < offset:
            raise IndexError("ids between the ends of a text are not kept")
        return [self.last[place - offset] for place in places]

    def __iter__(self) -> Iterator[int]:
        return iter(self[:])


TextIds = list[int] | Ends
"""A text's ids, all that a row may want."""


@contextmanager
def one_line(error: type[BadInput], what: str) -> Iterator[None]:
    """What the tokenizers library raises, as an error of one line. A panic of it is no Exception to Python.

    Args:
        what: the words before the library's own.
    """
    try:
        yield
    except PrefrankError:
        raise
    except BaseException as reason:
        if not isinstance(reason, Exception) and type(reason).__name__ != "PanicException":
            raise
        raise error(f"{what}: {' '.join(str(reason).split())[:300]}") from reason


class Reader:
    """Encodes texts with one tokenizer, without control tokens around them.

    Args:
        growth: how many times longer its normalizers may make a text.
        piece: see `PIECE`.
    """

    def __init__(self, tokenizer: Tokenizer, *, growth: int = 1, piece: int = PIECE) -> None:
        self.tokenizer = tokenizer
        self.growth = growth
        self.piece = piece

    @cached_property
    def borders(self) -> Borders | None:
        return borders(self.tokenizer)

    @cached_property
    def _guards(self) -> tuple[list[int], list[int]]:
        """The ids of the word before a piece and of the one after it."""
        first = self._encode(_WORD).ids
        return first, self._encode(f"{_WORD} {_WORD}").ids[len(first) :]

    def ids(self, text: str, most: int | None = None) -> TextIds:
        """The ids of a text; of a long one that has more than `most`, no others than the first and last of so many.

        Raises:
            BadText: the tokenizer cannot encode it, or it is too long for one that cannot read it in pieces.
        """
        if len(text) <= self.piece:
            return self._encode(text).ids
        first: list[int] = []
        last, length = np.zeros(0, np.int32), 0
        kept: list[np.ndarray] = []
        for tokens in self._pieces(text, spans=False):
            length += len(tokens.ids)
            if most is None:
                kept.append(tokens.ids)
                continue
            first += tokens.ids[: max(most - len(first), 0)].tolist()
            last = np.concatenate([last, tokens.ids])[-most:]
        if most is None:
            return np.concatenate(kept).tolist()
        return first if length <= most else Ends(length, first, last.tolist())

    def batch(self, texts: Sequence[str], most: int) -> list[TextIds]:
        """`ids` of each text, short ones encoded together."""
        by_place: dict[int, TextIds] = {}
        group: list[int] = []
        size = 0
        for place, text in enumerate(texts):
            if len(text) > self.piece:
                by_place[place] = self.ids(text, most)
                continue
            if size + len(text) > 10 * self.piece:
                by_place |= self._together(texts, group)
                group, size = [], 0
            group.append(place)
            size += len(text)
        by_place |= self._together(texts, group)
        return [by_place[place] for place in range(len(texts))]

    def _together(self, texts: Sequence[str], group: Sequence[int]) -> dict[int, TextIds]:
        chosen = [texts[place] for place in group]
        with one_line(BadText, "a text cannot be encoded"):
            encodings = self.tokenizer.encode_batch_fast(chosen, add_special_tokens=False)
        return {place: encoding.ids for place, encoding in zip(group, encodings, strict=True)}

    def count(self, text: str) -> int:
        """How many ids a text has. Raises as `ids`."""
        return len(self.ids(text, 1))

    def tokens(self, text: str) -> Tokens:
        """The ids of a text and their places in it. Raises as `ids`."""
        if len(text) <= self.piece:
            return _tokens(self._encode(text))
        return joined(self._pieces(text, spans=True))

    def layout(self, text: str, marked: Collection[int] = ()) -> "TextLayout":
        """Where the pieces of a text are, so that the places of a few of its tokens can be asked for.

        Args:
            marked: ids whose pieces are noted.

        Raises:
            BadText: as `ids`.
        """
        wanted = np.array(sorted(marked), np.int32)
        places, counts, noted = [0], list[int](), list[int]()
        for tokens, end in self._ended(text, spans=False):
            if len(wanted) and np.isin(tokens.ids, wanted).any():
                noted.append(len(counts))
            places.append(end)
            counts.append(len(tokens.ids))
        return TextLayout(self, text, tuple(places), tuple(accumulate(counts, initial=0)), tuple(noted))

    def more_than(self, text: str, most: int) -> bool:
        """Whether a text has more ids than so many; of a long one no more is read than says so. Raises as `ids`."""
        counts = accumulate(len(tokens.ids) for tokens in self._pieces(text, spans=False))
        return any(count > most for count in counts)

    def _pieces(self, text: str, *, spans: bool) -> Iterator[Tokens]:
        return (tokens for tokens, _ in self._ended(text, spans=spans))

    def _ended(self, text: str, *, spans: bool) -> Iterator[tuple[Tokens, int]]:
        """A long text's tokens, piece by piece, and where each piece ends; without their places where nobody asks for
        them."""
        start = end = 0
        while not end or end < len(text):
            start, end = end, self._end(text, end)
            yield self.piece_of(text, start, end, spans=spans), end
            if not text:
                return

    def piece_of(self, text: str, start: int, end: int, *, spans: bool) -> Tokens:
        """The tokens of a text's piece between two places that `borders` has found."""
        before, after = _WORD if start else "", f" {_WORD}" if end < len(text) else ""
        shown = before + text[start:end] + after
        tokens = _tokens(self._encode(shown), start - len(before)) if spans else self._bare(shown)
        first, last = (word if used else [] for word, used in zip(self._guards, (before, after), strict=True))
        low, high = len(first), len(tokens.ids) - len(last)
        if tokens.ids[:low].tolist() != first or tokens.ids[high:].tolist() != last:
            raise BadText(f"a text of {len(text):,} characters cannot be encoded in pieces; shorten it")
        return Tokens(tokens.ids[low:high], tokens.starts[low:high], tokens.ends[low:high])

    def _end(self, text: str, start: int) -> int:
        """Where the piece that begins here ends.

        Raises:
            BadText: nowhere before the bound of what is encoded at once.
        """
        size = len(text) - start
        if size <= self.piece:
            return len(text)
        most = max(limit("whole_text_bytes") // self.growth, self.piece)
        place = len(text)
        if self.borders is not None:
            place = next(self.borders.find(text, start + self.piece // 2, min(start + most, len(text))), len(text))
        if place - start <= 2 * self.piece or (place - start <= most and _bytes(text[start:place]) <= most):
            return place
        why = "this tokenizer reads texts only whole" if self.borders is None else "so many without a word's end"
        raise BadText(
            f"a text has {len(text):,} characters ({why}), {past('whole_text_bytes')}; shorten it, since no row"
            " holds so many tokens"
        )

    def _encode(self, text: str) -> Any:
        with one_line(BadText, "a text cannot be encoded"):
            return self.tokenizer.encode(text, add_special_tokens=False)

    def _bare(self, text: str) -> Tokens:
        with one_line(BadText, "a text cannot be encoded"):
            (encoding,) = self.tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids, nowhere = np.array(encoding.ids, np.int32), np.zeros(0, np.int32)
        return Tokens(ids, nowhere, nowhere)


@dataclass(frozen=True)
class TextLayout:
    """The pieces of one text.

    Args:
        places: in characters, where each piece begins, and the text's length.
        counts: how many tokens are before each, and how many there are.
        noted: the pieces that hold an id which was asked for.
    """

    reader: Reader
    text: str
    places: tuple[int, ...]
    counts: tuple[int, ...]
    noted: tuple[int, ...]

    def __len__(self) -> int:
        return self.counts[-1]

    def tokens(self, number: int) -> Tokens:
        """A piece's tokens, with their places in the text."""
        return self.reader.piece_of(self.text, *self.places[number : number + 2], spans=True)

    def span(self, token: int) -> tuple[int, int]:
        """From where to where one token stands."""
        number = bisect_right(self.counts, token) - 1
        tokens, place = self.tokens(number), token - self.counts[number]
        return int(tokens.starts[place]), int(tokens.ends[place])

    def last_start(self, before: int) -> int | None:
        """The last place after the text's first character and before another at which a token begins."""
        for number in reversed(range(len(self.places) - 1)):
            if self.places[number] < before:
                starts = self.tokens(number).starts
                inside = starts[(starts > 0) & (starts < before)]
                if len(inside):
                    return int(inside[-1])
        return None


def joined(parts: Iterable[Tokens]) -> Tokens:
    """The tokens of a text from those of its parts."""
    ids, starts, ends = array("i"), array("i"), array("i")  # they grow in place, where joining would hold all twice
    for part in parts:
        ids.frombytes(part.ids.tobytes())
        starts.frombytes(part.starts.tobytes())
        ends.frombytes(part.ends.tobytes())
    return Tokens(*(np.frombuffer(column, np.int32) for column in (ids, starts, ends)))


def _bytes(text: str) -> int:
    """Bytes of a text, at most, after Unicode's own forms made some of its characters longer."""
    size = len(text.encode("utf-8", "surrogatepass"))
    for character in set(text):
        grown = len(normalize("NFKC", character).encode("utf-8", "surrogatepass")) - 6
        if grown > 0:
            size += grown * text.count(character)
    return size


def _tokens(encoding: Any, offset: int = 0) -> Tokens:
    spans = np.array(encoding.offsets, np.int32).reshape(-1, 2) + np.int32(offset)
    return Tokens(np.array(encoding.ids, np.int32), spans[:, 0], spans[:, 1])
