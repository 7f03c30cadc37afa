"""Marks in the place of control strings while texts go through a chat template.

A template puts texts into one string, which is then read with control tokens. So that a text brings none into it, what
of a text is, or could become, a control string is swapped for a mark before rendering and put back afterwards: a whole
control string (in whatever case, which templates change), and an end or a beginning that would make one together with
what the template puts beside it.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from typing import Any

from prefrank.errors import BadModel, BadText
from prefrank.io.json_files import kind_of, parse_json
from prefrank.limits import limit, past
from prefrank.text.tokenizer import FolderTokenizer
from prefrank.types import Turn


class Marks:
    """The marks of one row.

    Args:
        turns: all of the row's, whose characters no mark may use.

    Attributes:
        probe: a character that no text holds, to stand for a whole text.
    """

    def __init__(self, source: FolderTokenizer, turns: Sequence[Turn]) -> None:
        texts = [source.chat_template or "", *(part for turn in turns for part in (turn.text, turn.extra))]
        held = {character for text in texts for character in set(text)}
        free = list(islice((mark for mark in map(chr, range(0xE000, 0xF8FF)) if mark not in held), 3))
        if len(free) < 3:
            raise BadText("a text uses every private-use character; remove those characters")
        self.source = source
        self.left, self.right, self.probe = free
        self.strings: dict[str, int] = {}  # the number of the mark that stands for it
        self.messages: dict[Turn, dict[str, Any]] = {}  # made once for all renderings

    def message(self, turn: Turn) -> dict[str, Any]:
        """The turn as the template gets it.

        Raises:
            BadText: what it holds beside its text is no object of JSON, or has half of a character.
        """
        if turn not in self.messages:
            held = parse_json(turn.extra or "{}", f"what a turn of the role {turn.role} holds beside its text", BadText)
            if not isinstance(held, dict):
                raise BadText(f"a turn of the role {turn.role} holds {kind_of(held)} beside its text; wanted an object")
            extra = {name: self._put_all(held[name]) for name in held if name not in ("role", "content")}
            self.messages[turn] = {"role": turn.role, "content": self.put(turn.text, turn.role), **extra}
        return self.messages[turn]

    def put(self, text: str, role: str) -> str:
        """The text with marks; an assistant's may hold what models write themselves."""
        allowed = self.source.written_by_models if role == "assistant" else frozenset()

        def marked(match: re.Match[str]) -> str:
            return match.group() if match.group() in allowed else self._mark(match.group())

        text = self.source.control_spelt.sub(marked, text)
        body = text.strip()
        begins, size, ends = self._edges(body) if body not in allowed else (0, 0, 0)
        if not begins and not ends:
            return text
        first = text.index(body)
        return "".join(
            (
                text[:first],
                self._mark(body[:begins]),
                body[begins : size - ends],
                self._mark(body[size - ends :]),
                text[first + size :],
            )
        )

    def split(self, text: str) -> list[tuple[str, bool]]:
        """The rendered text as (text, whether it is a control string that the template wrote)."""
        pieces = re.split(f"({self.source.control_pattern.pattern})", text)
        return [(self.without(piece), place % 2 == 1) for place, piece in enumerate(pieces) if piece]

    def without(self, text: str) -> str:
        """The rendered text with what the marks stand for.

        Raises:
            BadModel: the template repeats marks until that is longer than any text may be.
        """
        strings = dict(enumerate(self.strings))
        written = [strings.get(int(number), "") for number in self._pattern.findall(text)]
        if sum(map(len, written)) > limit("template_bytes") + 8 * len(text):
            raise BadModel(f"the chat template makes {past('template_bytes')}; fix it, or give another chat_template")
        return self._pattern.sub(lambda match: strings.get(int(match.group(1)), match.group()), text)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(f"{self.left}([0-9]{{1,9}}){self.right}")

    def _mark(self, text: str) -> str:
        if not text:
            return ""
        number = self.strings.setdefault(text, len(self.strings))
        return f"{self.left}{number}{self.right}"

    def _edges(self, body: str) -> tuple[int, int, int]:
        """How many characters at the start end some control string, the length, and how many at the end begin one."""
        size, longest = len(body), len(next(iter(self.source.control_strings), ""))
        if size < longest and any(body in text for text in self.source.control_strings):
            return size, size, 0
        starts, ends = self.source.control_edges
        most = min(size, longest - 1)
        begins = next((n for n in range(most, 0, -1) if body[:n] in ends), 0)
        return begins, size, next((n for n in range(min(most, size - begins), 0, -1) if body[size - n :] in starts), 0)

    def _put_all(self, value: Any) -> Any:
        """Marks in every string of a JSON value; names, which templates compare, have them only for whole strings."""
        if isinstance(value, str):
            check_characters(value, "a string beside a turn's text")
            return self._whole(value) if value.isidentifier() else self.put(value, "")
        if isinstance(value, dict):
            for key in value:
                check_characters(key, "a key beside a turn's text")
            return {self._whole(key): self._put_all(each) for key, each in value.items()}
        return [self._put_all(each) for each in value] if isinstance(value, list) else value

    def _whole(self, text: str) -> str:
        return self.source.control_pattern.sub(lambda match: self._mark(match.group()), text)


def check_characters(text: str, what: str) -> None:
    """Raise BadText for a text with half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadText(
            f"{what} has a lone surrogate (half of a character) at position {error.start}; remove it or decode"
            " the text again from its bytes"
        ) from None
