"""Text to rows: the one place where prompts and replies become token ids, for training, scoring and serving alike.

Each row's limit is applied to that row alone, so that a row is the same whatever it is scored beside: the reply is
kept whole, the prompt loses its oldest turns, then its oldest tokens, and only a reply that alone exceeds the limit is
cut, at its end. A cue that closes the prompt, such as `TL;DR:`, therefore stays. What was cut is counted in the row.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from prefrank.errors import BadInput, BadText
from prefrank.text.padding import safe_padding, wanted_padding
from prefrank.text.settings import PLAIN_TURNS, TextSettings
from prefrank.text.templates import Ids, Parts, chat_ids, pair_parts, pair_tokens, turn_parts
from prefrank.text.tokenizer import FolderTokenizer, load_tokenizer
from prefrank.types import Prompt, Row, Turn, reply_types

OA_TURNS = {
    "system": ("<|system|>", "{eos}"),
    "user": ("<|prompter|>", "{eos}"),
    "assistant": ("<|assistant|>", "{eos}"),
}
"""The turn tokens of Open Assistant's decoder reward models (their model cards' usage section)."""


class TextEncoder:
    """A tokenizer and the text settings of one checkpoint.

    Args:
        source: the folder's tokenizer.
        settings: template, labels and maximum length.
    """

    def __init__(self, source: FolderTokenizer, settings: TextSettings) -> None:
        self.source = source
        self.settings = settings
        self._pair = pair_tokens(source)
        if settings.template == "pair" and self._pair is None:
            raise BadText("this tokenizer puts nothing between the two texts of a pair; use the template chat or turns")

    @classmethod
    def load(cls, folder: Path, settings: TextSettings | None = None, *, max_length: int = 512) -> "TextEncoder":
        """Read a checkpoint's tokenizer; without `settings` (a plain checkpoint) take the defaults stated below.

        The defaults: the pair encoding where the tokenizer has one, with turns joined by the separator and no labels
        (as Open Assistant trained); else the tokenizer's chat template; else Open Assistant's turn tokens where the
        vocabulary has them; else plain `User:` and `Assistant:` turns. At most `max_length` tokens.
        """
        source = load_tokenizer(folder)
        return cls(source, settings or default_settings(source, max_length))

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and the tokenizer's other files into an existing folder."""
        self.source.save(folder)

    def with_padding(self, wanted: int | None, *, never: frozenset[int]) -> "tuple[TextEncoder, int]":
        """The same text path whose tokenizer pads with a token that can end no row (`padding.py`), and its id.

        Args:
            wanted: the id of the padding token, where it is decided.
            never: ids that end or begin texts.
        """
        if wanted is not None:
            return TextEncoder(wanted_padding(self.source, wanted), self.settings), wanted
        source, padding = safe_padding(self.source, self._template_source(), self._used() | never)
        return TextEncoder(source, self.settings), padding

    def _template_source(self) -> str:
        strings = self.settings.turn_strings or PLAIN_TURNS
        fixed = "".join(part for pair in strings.values() for part in pair)
        return (self.source.chat_template or "") if self.settings.template == "chat" else fixed

    def _used(self) -> frozenset[int]:
        """Ids in rows of all kinds of turns, as far as the template takes them."""
        used: set[int] = set()
        user, reply = Turn("user", "a"), Turn("assistant", "b")
        for prompt in ((user,), (user, reply, user), (Turn("system", "s"), user)):
            with suppress(BadInput):
                used.update(*(row.ids.tolist() for row in self.encode(prompt, ["c", ""])))
        return frozenset(used)

    def text_json(self) -> dict[str, Any]:
        """The text settings as prefrank.json holds them."""
        return self.settings.to_json()

    def fingerprint_bytes(self) -> bytes:
        """What of the text path decides a score: tokenizer and settings, in one canonical form."""
        settings = json.dumps(self.settings.to_json(), sort_keys=True)
        template = self.source.chat_template if self.settings.template == "chat" else ""
        return "\0".join((self.source.tokenizer.to_str(), settings, template or "")).encode()

    def encode(self, prompt: Prompt, replies: Sequence[str]) -> list[Row]:
        """One row per reply to one prompt."""
        return self.encode_pairs([(prompt, reply) for reply in replies])

    def encode_pairs(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Row]:
        """One row per (prompt, reply), each text tokenised once.

        Raises:
            BadText: a text with a lone surrogate, naming the pair.
        """
        if self.settings.template == "chat":
            return [self._chat_row(prompt, reply) for prompt, reply in pairs]
        encoded = self._encode_texts(pairs)
        return [_fit(self._parts(prompt, encoded), encoded(reply), self.settings.max_length) for prompt, reply in pairs]

    def count_tokens(self, text: str) -> int:
        """Tokens of one text, without control tokens."""
        return len(self.source.tokenizer.encode(text, add_special_tokens=False).ids)

    def _parts(self, prompt: Prompt, encoded: Callable[[str], Ids]) -> Parts:
        if self._pair is not None and self.settings.template == "pair":
            return pair_parts(self._pair, prompt, encoded, self.settings)
        return turn_parts(self.source, prompt, encoded, self.settings)

    def _encode_texts(self, pairs: Sequence[tuple[Prompt, str]]) -> Callable[[str], Ids]:
        """Tokenise every distinct text of the pairs in one call; the answer looks a text's ids up."""
        texts = dict.fromkeys(chain.from_iterable((*(turn.text for turn in prompt), reply) for prompt, reply in pairs))
        if self.settings.labels:
            texts.update(dict.fromkeys(f"{turn.role}:" for prompt, _ in pairs for turn in prompt))
        try:
            encodings = self.source.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeError) as error:
            check_texts(pairs)
            raise BadText(f"a text cannot be encoded: {error}") from error
        return {text: encoding.ids for text, encoding in zip(texts, encodings, strict=True)}.__getitem__

    def _chat_row(self, prompt: Prompt, reply: str) -> Row:
        """Render with fewer and shorter turns until the row fits: a template may add text to what is left."""
        check_texts([(prompt, reply)])
        limit = self.settings.max_length
        whole = ids = chat_ids(self.source, (*prompt, Turn("assistant", reply)))
        turns, cut_reply = prompt, 0
        while len(ids) > limit:
            over = len(ids) - limit
            if len(turns) > 1:
                turns = _without_oldest(turns)
            elif turns[0].text:
                turns = (Turn(turns[0].role, self._shorten(turns[0].text, over, keep_end=True)),)
            else:
                if not reply:
                    raise BadText(
                        f"the chat template alone takes {len(ids)} tokens of at most {limit}; raise max_length"
                    )
                shorter = self._shorten(reply, over, keep_end=False)
                cut_reply += self.count_tokens(reply) - self.count_tokens(shorter)
                reply = shorter
            ids = chat_ids(self.source, (*turns, Turn("assistant", reply)))
        start = len(ids) - min(self.count_tokens(reply), len(ids))
        types = reply_types(len(ids), start)
        return Row(np.array(ids, np.int64), types, start, len(whole) - len(ids) - cut_reply, cut_reply)

    def _shorten(self, text: str, over: int, *, keep_end: bool) -> str:
        """Drop at least `over` tokens' worth of characters from the start (keep_end) or the end of a text."""
        spans = self.source.tokenizer.encode(text, add_special_tokens=False).offsets
        if over >= len(spans):
            return ""
        return text[spans[over][0] or 1 :] if keep_end else text[: min(spans[-over - 1][1], len(text) - 1)]


def default_settings(source: FolderTokenizer, max_length: int) -> TextSettings:
    """The text settings of a checkpoint that carries none (see `TextEncoder.load`)."""
    pair = pair_tokens(source)
    if pair is not None and pair.after and pair.middle[0] == pair.after[-1]:
        return TextSettings("pair", max_length)
    if source.chat_template is not None:
        return TextSettings("chat", max_length)
    vocabulary = source.tokenizer
    oa = all(vocabulary.token_to_id(token) is not None for token in ("<|prompter|>", "<|assistant|>"))
    return TextSettings("turns", max_length, turn_strings=OA_TURNS if oa else None)


def check_texts(pairs: Sequence[tuple[Prompt, str]]) -> None:
    """Raise BadText for the first text that is not a string of whole characters, saying which it is."""
    for number, (prompt, reply) in enumerate(pairs):
        for name, text in (*((f"prompt turn {i}", turn.text) for i, turn in enumerate(prompt)), ("the reply", reply)):
            if not isinstance(text, str):
                raise BadText(f"{name} of pair {number} is of type {type(text).__name__}; wanted a string")
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise BadText(
                    f"{name} of pair {number} has a lone surrogate (half of a character) at position {error.start};"
                    " remove it or decode the text again from its bytes"
                ) from error


def _without_oldest(turns: Prompt) -> Prompt:
    """Drop the oldest turn, and an assistant turn that would then open the prompt (chat templates refuse it)."""
    turns = turns[1:]
    return turns[1:] if len(turns) > 1 and turns[0].role == "assistant" else turns


def _fit(parts: Parts, reply: Ids, limit: int) -> Row:
    """Apply the length limit to one row: oldest turns, then oldest tokens, then the reply's end."""
    fixed = len(parts.before) + len(parts.middle) + len(parts.after)
    turns, sizes = parts.turns, [sum(map(len, turn)) for turn in parts.turns]
    whole = sum(sizes)
    budget = max(limit - fixed - len(reply), 0)
    kept = whole
    first = 0
    while kept > budget and first < len(turns) - 1:
        kept -= sizes[first]
        first += 1
    prompt = list(chain.from_iterable(chain.from_iterable(turns[first:-1])))
    opening, text, closing = turns[-1]
    if first == len(turns) - 1:
        around = len(opening) + len(closing)
        text = text[max(len(text) - max(budget - around, 0), 0) :]
    prompt += [*opening, *text, *closing]
    room = max(limit - fixed - len(prompt), 0)
    ids = [*parts.before, *prompt, *parts.middle, *reply[:room], *parts.after]
    start = len(parts.before) + len(prompt) + len(parts.middle)
    types = reply_types(len(ids), start)
    return Row(np.array(ids, np.int64), types, start, whole - len(prompt), max(len(reply) - room, 0))
