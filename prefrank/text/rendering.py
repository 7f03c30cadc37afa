"""A chat template's text, and its token ids with only the template's own control strings as control tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int32

from prefrank.errors import BadModel, BadText
from prefrank.text.marks import Marks
from prefrank.text.reader import Tokens, joined
from prefrank.text.tokenizer import FolderTokenizer


def render_chat(source: FolderTokenizer, messages: list[dict[str, Any]], tokens: dict[str, str]) -> str:
    """Render the tokenizer's chat template as transformers does, within bounds (`sandbox.py`).

    Args:
        tokens: special tokens that the template may write, such as `bos_token`.

    Raises:
        BadText: the template refuses these turns (some want strict user/assistant alternation), or fails on them.
        BadModel: there is no template, or one that is not Jinja's language or costs more than it may.
    """
    from jinja2 import TemplateAssertionError, TemplateError, TemplateRuntimeError, TemplateSyntaxError

    from prefrank.text.budget import Refused
    from prefrank.text.sandbox import render

    if source.chat_template is None:
        raise BadModel("the tokenizer has no chat template; use the template 'turns' or add chat_template.jinja")
    specials = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "") | tokens
    try:
        return render(source.chat_template, messages, specials)
    except Refused as error:
        raise BadModel(f"the chat template {error}; mend it, or give another chat_template") from error
    except (RecursionError, MemoryError, SyntaxError) as error:  # the last two of Python's own compiler
        raise BadModel("the chat template is nested too deeply; mend it, or give another chat_template") from error
    except TemplateSyntaxError as error:
        raise BadModel(
            f"line {error.lineno} of the chat template is not Jinja's language: {_reason(error)}; mend the template, or"
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
    said = " ".join(str(error)[:2000].split())
    return said if len(said) <= 300 else f"{said[:297]}..."


@dataclass(frozen=True)
class Rendered:
    """A rendered row.

    Args:
        marked: what the template wrote, with marks.
    """

    source: FolderTokenizer
    marks: Marks
    marked: str

    @cached_property
    def text(self) -> str:
        """What the template wrote, without marks."""
        return self.marks.without(self.marked)

    @property
    def ids(self) -> Int32[np.ndarray, " L"]:
        return self._encoded.ids

    def token_at(self, position: int) -> int:
        """The first token that ends after this character of `text`."""
        after = np.flatnonzero(self._encoded.ends > position)
        return int(after[0]) if len(after) else len(self.ids)

    @cached_property
    def _encoded(self) -> Tokens:
        """The tokens of `text`: in one call, as transformers does it, unless that finds other control tokens than those
        that the template wrote."""
        find = self.source.control_pattern.finditer
        written = np.fromiter((end for match in find(self.text) for end in match.span()), np.int32).reshape(-1, 2)
        if self.text == self.marked or len(written) == sum(1 for _ in find(self.marked)):
            tokens = self.source.rendered.tokens(self.text)
            found = np.flatnonzero(np.isin(tokens.ids, list(self.source.control_ids)))
            if len(found) == len(written):
                first, last, start, end = tokens.starts[found], tokens.ends[found], written[:, 0], written[:, 1]
                if np.all((first <= start) & (end <= last)):  # a token may take the white space beside it
                    return tokens
        return encode_pieces(self.source, self.marks.split(self.marked))


def encode_pieces(source: FolderTokenizer, pieces: Sequence[tuple[str, bool]]) -> Tokens:
    """The tokens of control strings and of texts, each text on its own with no control token from it."""
    found: list[Tokens] = []
    position = 0
    added = {token.content: token for token in source.tokenizer.get_added_tokens_decoder().values()}
    for place, (text, control) in enumerate(pieces):
        number = source.tokenizer.token_to_id(text) if control else None
        start, position = position, position + len(text)
        if number is not None:
            found.append(Tokens(*(np.array([one], np.int32) for one in (number, start, position))))
            continue
        before = added.get(pieces[place - 1][0]) if place else None
        after = added.get(pieces[place + 1][0]) if place + 1 < len(pieces) else None
        text = text.lstrip() if before is not None and before.rstrip else text
        start = position - len(text)
        text = text.rstrip() if after is not None and after.lstrip else text
        tokens = (source.texts_inside if place else source.texts).tokens(text)
        found.append(Tokens(tokens.ids, tokens.starts + np.int32(start), tokens.ends + np.int32(start)))
    return joined(found)
