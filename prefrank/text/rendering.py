"""A chat template's text, and its token ids with only the template's own control strings as control tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from jaxtyping import Int32

from prefrank.errors import BadModel, BadText
from prefrank.text.marks import Marks
from prefrank.text.reader import Reader, Tokens, joined
from prefrank.text.tokenizer import FolderTokenizer


def render_chat(source: FolderTokenizer, messages: list[dict[str, Any]], tokens: dict[str, str]) -> str:
    """Render the tokenizer's chat template as transformers does, within bounds (`sandbox.py`).

    Args:
        tokens: special tokens that the template may write, such as `bos_token`.

    Raises:
        BadText: the template refuses these turns (some want strict user/assistant alternation), or fails on them.
        BadModel: there is no template, or one that is not Jinja's language or costs more than it may.
    """
    if source.chat_template is None:
        raise BadModel("the tokenizer has no chat template; use the template 'turns' or add chat_template.jinja")
    return written_by(
        source.chat_template, messages, dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "") | tokens
    )


def written_by(template: str, messages: list[dict[str, Any]], tokens: Mapping[str, Any], *, cue: bool = False) -> str:
    """What a chat template writes, whosever it is.

    Args:
        cue: whether what opens a reply is asked for after the messages.

    Raises:
        BadText, BadModel: as `render_chat`.
    """
    from jinja2 import TemplateAssertionError, TemplateError, TemplateRuntimeError, TemplateSyntaxError

    from prefrank.text.budget import Refused
    from prefrank.text.sandbox import render

    try:
        written = render(template, messages, tokens, cue=cue)
        written.encode()
        return written
    except UnicodeEncodeError as error:
        raise BadText(
            f"the model's chat template writes half of a character ({error.object[error.start]!a}); fix it, or give"
            " another chat_template"
        ) from error
    except Refused as error:
        raise BadModel(f"the chat template {error}; fix it, or give another chat_template") from error
    except (RecursionError, MemoryError, SyntaxError) as error:  # the last two of Python's own compiler
        raise BadModel("the chat template is nested too deeply; fix it, or give another chat_template") from error
    except TemplateSyntaxError as error:
        raise BadModel(
            f"line {error.lineno} of the chat template is not Jinja's language: {_reason(error)}; fix the template, or"
            " give another chat_template"
        ) from error
    except Exception as error:  # Jinja raises its own tree, and operators in templates Python's
        roles = ", ".join(message["role"] for message in messages[:6]) + (", ..." if len(messages) > 6 else "")
        if isinstance(error, TemplateError) and not isinstance(error, TemplateRuntimeError | TemplateAssertionError):
            raise BadText(
                f"the model's chat template refuses turns of the roles {roles}: {_reason(error)}; leave out or rename"
                " the turns it does not take (a system text can open the first user turn), or give another"
                " chat_template"
            ) from error
        raise BadText(
            f"the model's chat template fails on turns of the roles {roles}: {type(error).__name__}, {_reason(error)};"
            " leave out what it does not take, or give another chat_template"
        ) from error


def _reason(error: Exception) -> str:
    """What an error says, in one line that is not too long."""
    reason = " ".join(str(error)[:2000].split())
    return reason if len(reason) <= 300 else f"{reason[:297]}..."


@dataclass(frozen=True)
class Rendered:
    """A rendered row.

    Args:
        marked: what the template wrote, with marks.
        most: tokens that a row may have.
    """

    source: FolderTokenizer
    marks: Marks
    marked: str
    most: int

    @cached_property
    def text(self) -> str:
        """What the template wrote, without marks."""
        return self.marks.without(self.marked)

    @property
    def ids(self) -> Int32[np.ndarray, " L"]:
        return self._encoded.ids

    @cached_property
    def fits(self) -> bool:
        """Whether it is no longer than a row may be. Of a long text no more is read than says so."""
        if self._is_short:
            return len(self.ids) <= self.most
        if "_length" not in self.__dict__ and self.source.rendered.more_than(self.text, self.most):
            counts = accumulate(self._count(part, self.most) for part in self._parts)
            if any(count > self.most for count in counts):
                return False  # however it is read
        return len(self) <= self.most

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _length(self) -> int:
        if self._is_short:
            return len(self.ids)
        if self._may_be_whole:
            layout = self.source.rendered.layout(self.text, self.source.control_ids)
            if self._holds_as_written(joined(map(layout.tokens, layout.noted))):
                return len(layout)
        return sum(map(self._count, self._parts))

    def _count(self, part: "RowPart", most: int | None = None) -> int:
        """How many tokens a part has; where only so many are of interest, more than that may be one more."""
        if part.number is not None:
            return 1
        reader = part.reader(self.source)
        return most + 1 if most is not None and reader.more_than(part.text, most) else reader.count(part.text)

    def token_at(self, position: int) -> int:
        """The first token that ends after this character of `text`."""
        after = np.flatnonzero(self._encoded.ends > position)
        return int(after[0]) if len(after) else len(self.ids)

    @cached_property
    def _encoded(self) -> Tokens:
        """The tokens of `text`: in one call, as transformers does it, unless that finds other control tokens than those
        that the template wrote."""
        if self._may_be_whole:
            tokens = self.source.rendered.tokens(self.text)
            if self._holds_as_written(tokens):
                return tokens
        return joined(tokens_of(self.source, part) for part in self._parts)

    @property
    def _is_short(self) -> bool:
        return len(self.text) <= self.source.rendered.piece or "_encoded" in self.__dict__

    @cached_property
    def _written(self) -> Int32[np.ndarray, "C 2"]:
        """From where to where `text` has control strings, whoever wrote them."""
        matches = self.source.control_pattern.finditer(self.text)
        return np.fromiter((end for match in matches for end in match.span()), np.int32).reshape(-1, 2)

    @cached_property
    def _may_be_whole(self) -> bool:
        """Whether none of them was brought in by a text."""
        find = self.source.control_pattern.finditer
        return self.text == self.marked or len(self._written) == sum(1 for _ in find(self.marked))

    def _holds_as_written(self, tokens: Tokens) -> bool:
        """Whether the control tokens among these are the control strings of the text."""
        control = np.flatnonzero(np.isin(tokens.ids, list(self.source.control_ids)))
        if len(control) != len(self._written):
            return False
        first, last, start, end = tokens.starts[control], tokens.ends[control], *self._written.T
        return bool(np.all((first <= start) & (end <= last)))  # a token may take the white space beside it

    @cached_property
    def _parts(self) -> list["RowPart"]:
        return parts_of(self.source, self.marks.split(self.marked))


@dataclass(frozen=True, slots=True)
class RowPart:
    """A control string or a text of a rendered row.

    Args:
        start: of it in the row's text, in characters.
        number: the id of a control string.
        first: whether nothing is before it.
    """

    text: str
    start: int
    number: int | None
    first: bool

    def reader(self, source: FolderTokenizer) -> Reader:
        return source.texts if self.first else source.texts_inside


def parts_of(source: FolderTokenizer, pieces: Sequence[tuple[str, bool]]) -> list[RowPart]:
    """Control strings and texts, each to be read on its own, without the white space that tokens beside them take."""
    parts: list[RowPart] = []
    position = 0
    added = {token.content: token for token in source.tokenizer.get_added_tokens_decoder().values()}
    for place, (text, control) in enumerate(pieces):
        number = source.tokenizer.token_to_id(text) if control else None
        start, position = position, position + len(text)
        if number is None:
            before = added.get(pieces[place - 1][0]) if place else None
            after = added.get(pieces[place + 1][0]) if place + 1 < len(pieces) else None
            text = text.lstrip() if before is not None and before.rstrip else text
            start = position - len(text)
            text = text.rstrip() if after is not None and after.lstrip else text
        parts.append(RowPart(text, start, number, not place))
    return parts


def tokens_of(source: FolderTokenizer, part: RowPart) -> Tokens:
    """The tokens of a part, none of them a control token but its own."""
    if part.number is not None:
        end = part.start + len(part.text)
        return Tokens(*(np.array([number], np.int32) for number in (part.number, part.start, end)))
    tokens, offset = part.reader(source).tokens(part.text), np.int32(part.start)
    return Tokens(tokens.ids, tokens.starts + offset, tokens.ends + offset)
