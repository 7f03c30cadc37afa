"""Text to rows: the one place where prompts and replies become token ids, for training, scoring and serving alike.

Each row's limit is applied to that row alone, so that a row is the same whatever it is scored beside. A cue that closes
the prompt, such as `TL;DR:`, stays longest of its turn. What was cut is counted in the row (`limit.py`, `chat.py`).
"""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from prefrank.errors import BadInput, BadText, short
from prefrank.text.chat import ChatTexts
from prefrank.text.defaults import default_length, default_settings, own_template, with_template
from prefrank.text.limit import fit
from prefrank.text.marks import check_characters
from prefrank.text.padding import safe_padding, wanted_padding
from prefrank.text.reader import TextIds
from prefrank.text.rendered import one_text, pair_of, rendered_row, turns_of
from prefrank.text.settings import PLAIN_TURNS, TextSettings
from prefrank.text.templates import (
    Parts,
    check_turns,
    pair_parts,
    pair_tokens,
    row_opening,
    turn_parts,
    turn_strings,
)
from prefrank.text.tokenizer import FolderTokenizer, load_tokenizer
from prefrank.types import Prompt, Row, Turn


class TextEncoder:
    """A tokenizer and the text settings of one checkpoint.

    Args:
        source: the folder's tokenizer.
        settings: template, labels and maximum length.
        pre_rendered: whether texts are what the model's chat template has rendered already, control strings as tokens.
    """

    def __init__(self, source: FolderTokenizer, settings: TextSettings, *, pre_rendered: bool = False) -> None:
        self.source = source
        self.settings = settings
        self.pre_rendered = pre_rendered
        self._pair = pair_tokens(source)
        self._chat = ChatTexts(source, settings) if settings.template == "chat" else None
        if settings.template == "pair" and self._pair is None:
            raise BadText("this tokenizer puts nothing between the two texts of a pair; use the template chat or turns")

    @classmethod
    def load(
        cls,
        folder: Path,
        settings: TextSettings | None = None,
        *,
        positions: int | None = None,
        max_length: int | None = None,
        pre_rendered: bool = False,
        template: str | None = None,
    ) -> "TextEncoder":
        """Read a checkpoint's tokenizer; without `settings` (a plain checkpoint) take the defaults stated below.

        The defaults: the pair encoding where the tokenizer has one, with turns joined by the separator and no labels
        (as Open Assistant trained); else the tokenizer's chat template; else Open Assistant's turn tokens where the
        vocabulary has both, as its published decoders have no chat template; else none: the caller has to name one. At
        most `max_length` tokens; by default what the tokenizer's `model_max_length` and the model's `positions` allow,
        up to 4,096, and 512 where neither says. Decoders are cut in steps of 64 tokens.

        Args:
            template: of a decoder that comes without one: the path of a Jinja file, a name among the tokenizer's other
                templates, or `turns` for plain `User:` and `Assistant:` turns.

        Raises:
            BadModel: nothing says how the model reads prompt and reply, and no template is named; a tokenizer that
                cannot be read.
            BadInput: a template is named for a model that has its own.
            NotFound: there is no such template.
        """
        source = load_tokenizer(folder)
        if template is not None and (own := own_template(source, settings)):
            raise BadInput(
                f"a template is given ({short(template)}), but the model in {folder} has {own}; leave it out"
            )
        if settings is None:
            length = default_length(source, positions) if max_length is None else max_length
            settings = default_settings(source, length, named=template is not None)
        if template is not None:
            source, settings = with_template(source, settings, template)
        return cls(source, settings, pre_rendered=pre_rendered)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (self.source, self.settings, self.pre_rendered)

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and the tokenizer's other files into an existing folder.

        Where rows have token types that transformers' class for the tokenizer would leave out, its `model_input_names`
        say so from here on.
        """
        source = self.source
        typed = self._pair is not None and any((self._pair.types.second, *self._pair.types.before))
        wanted = self.settings.template == "pair" and self.settings.token_types != "none" and typed
        if wanted and not source.gives_types:
            config = source.config | {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
            text = json.dumps(config, indent=2, ensure_ascii=False)
            source = replace(source, files={**source.files, "tokenizer_config.json": text.encode()})
        source.save(folder)

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
        plain = TextEncoder(self.source, self.settings)
        user, reply = Turn("user", "a"), Turn("assistant", "b")
        for prompt in ((user,), (user, reply, user), (Turn("system", "s"), user)):
            with suppress(BadInput):
                used.update(*(row.ids.tolist() for row in plain.encode(prompt, ["c", ""])))
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
        """One row per (prompt, reply), each text tokenized once.

        Raises:
            BadText: a text with a lone surrogate, or turns that the template cannot hold, naming the pair.
        """
        return _checked(self._rows(pairs))

    def encode_whole(self, texts: Sequence[str]) -> list[Row]:
        """One row per text that holds prompt and reply already, as a chat template or the tokenizer's pair encoding has
        written them: control strings in it are tokens. Under `pair` a text without a separator is a row of one text, as
        the tokenizer writes it, and is cut at its end.

        Raises:
            BadText: as `encode_pairs`.
        """
        if self._pair is None or self.settings.template != "pair":
            return _checked(self._rendered_rows([((Turn("user", text),), "") for text in texts]))
        check_texts([((), text) for text in texts])
        taken = [pair_of(self.source, self._pair, text, "") for text in texts]
        alone = [((), prompt[0].text) if len(prompt) == 1 and not reply else (prompt, reply) for prompt, reply in taken]
        return _checked(self._rendered_fitted(alone))

    def _rows(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Row]:
        if self.pre_rendered:
            return self._rendered_rows(pairs)
        if self._chat is not None:
            check_texts(pairs)
            return [self._chat.row(prompt, reply, number) for number, (prompt, reply) in enumerate(pairs)]
        for number, (prompt, _) in enumerate(pairs):
            check_turns(prompt, number, self.settings)
        return self._fitted(pairs, self._encode_texts(pairs), self.settings)

    def count_tokens(self, text: str) -> int:
        """Tokens of one text, without control tokens."""
        return self.source.texts.count(text)

    def holds_control_strings(self, prompt: Prompt, reply: str) -> bool:
        """Whether a text holds a string that this model takes for control: those of its control tokens, and what its
        chat template (or its turn strings) writes before a turn. Such texts are often rendered already. What a model
        writes itself, such as `<think>`, does not count in a reply."""
        own = self.source.written_by_models
        texts = [*((turn.text, own if turn.role == "assistant" else ()) for turn in prompt), (reply, own)]
        return any(string not in allowed for text, allowed in texts for string in self._control_strings.findall(text))

    @cached_property
    def _control_strings(self) -> re.Pattern[str]:
        strings = set(self.source.control_strings)
        if self._chat is not None:
            strings |= {opening.strip() for opening in self._chat.openings.values()}
        strings |= {
            text.strip()
            for pair in ((self.settings.turn_strings or {}).values() if self.settings.template == "turns" else ())
            for text in pair
        }
        return re.compile("|".join(re.escape(text) for text in sorted(strings) if len(text) > 2) or r"(?!)")

    def _rendered_rows(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Row]:
        check_texts(pairs)
        chat, strings = self._chat, turn_strings(self.source, self.settings)
        before = chat.before_reply if chat else strings["assistant"][0] if self.settings.template == "turns" else ""
        texts = [(one_text(prompt, reply, number, before), reply) for number, (prompt, reply) in enumerate(pairs)]
        if chat is not None:
            opening = row_opening(self.source, self.settings.row_ends)
            return [rendered_row(self.source, self.settings, opening, chat.closing, *pair) for pair in texts]
        if self.settings.template == "pair":
            assert self._pair is not None
            taken = [pair_of(self.source, self._pair, *pair) for pair in texts]
        else:
            bos = self.source.special_token("bos_token") or ""
            taken = [turns_of(strings, bos, *pair) for pair in texts]
        return self._rendered_fitted(taken)

    def _rendered_fitted(self, taken: Sequence[tuple[Prompt, str]]) -> list[Row]:
        def encoded(text: str) -> TextIds:
            return self.source.rendered.ids(text, self.settings.max_length)

        return self._fitted(taken, encoded, replace(self.settings, labels=False))

    def _fitted(
        self, pairs: Sequence[tuple[Prompt, str]], encoded: Callable[[str], TextIds], settings: TextSettings
    ) -> list[Row]:
        def parts(prompt: Prompt) -> Parts:
            if settings.template == "pair":
                assert self._pair is not None
                return pair_parts(self._pair, prompt, encoded, settings)
            return turn_parts(self.source, prompt, encoded, settings)

        limit, types = settings.max_length, settings.token_types
        step = 1 if settings.template == "pair" else settings.cut_step
        return [fit(parts(prompt), encoded(reply), limit, types, step=step) for prompt, reply in pairs]

    def _encode_texts(self, pairs: Sequence[tuple[Prompt, str]]) -> Callable[[str], TextIds]:
        """Tokenize every distinct text of the pairs together; the answer looks a text's ids up."""
        texts = dict.fromkeys(chain.from_iterable((*(turn.text for turn in prompt), reply) for prompt, reply in pairs))
        if self.settings.labels:
            texts.update(dict.fromkeys(f"{turn.role}:" for prompt, _ in pairs for turn in prompt))
        try:
            token_ids = self.source.texts.batch(list(texts), self.settings.max_length)
        except (TypeError, BadText):
            check_texts(pairs)  # says which it is
            raise
        return dict(zip(texts, token_ids, strict=True)).__getitem__


def _checked(rows: list[Row]) -> list[Row]:
    for number, row in enumerate(rows):
        if not len(row.ids):
            raise BadText(f"the row of pair {number} has no tokens: the tokenizer knows nothing of its texts")
    return rows


def _made_again(source: FolderTokenizer, settings: TextSettings, pre_rendered: bool) -> TextEncoder:
    """What unpickling calls: templates and their caches are made again."""
    return TextEncoder(source, settings, pre_rendered=pre_rendered)


def check_texts(pairs: Sequence[tuple[Prompt, str]]) -> None:
    """Raise BadText for the first text that is not a string of whole characters, saying which it is."""
    for number, (prompt, reply) in enumerate(pairs):
        for name, text in (*((f"prompt turn {i}", turn.text) for i, turn in enumerate(prompt)), ("the reply", reply)):
            if not isinstance(text, str):
                raise BadText(f"{name} of pair {number} is of type {type(text).__name__}; wanted a string")
            check_characters(text, f"{name} of pair {number}")
