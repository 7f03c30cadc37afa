"""Rows of texts that a chat template has rendered already: their control strings are tokens."""

import re

import numpy as np

from prefrank.errors import BadText
from prefrank.text.settings import TextSettings
from prefrank.text.templates import Ids, PartTypes
from prefrank.text.tokenizer import FolderTokenizer
from prefrank.types import Prompt, Row, reply_types


def rendered_row(
    source: FolderTokenizer,
    settings: TextSettings,
    ends: tuple[Ids, str, str],
    prompt: Prompt,
    reply: str,
    number: int,
    *,
    types: PartTypes | None,
) -> Row:
    """The prompt's text and the reply's as they stand, after what opens a row and before what closes it, where the
    texts lack that. Too many tokens: the prompt loses its oldest, then the reply its last.

    Args:
        ends: ids that open a row, what stands between a prompt and its reply, and the string that closes a row.
        types: of a pair, where the tokenizer gives its own.

    Raises:
        BadText: a prompt of several turns, which pre-rendered texts are not.
    """
    if len(prompt) != 1 or prompt[0].extra:
        raise BadText(
            f"the prompt of pair {number} has {len(prompt)} turns; pre-rendered texts want the whole prompt as one"
            " string, or leave pre_rendered out"
        )
    opening, before_reply, closing = ends
    asked = prompt[0].text + _space_after(prompt[0].text, reply, before_reply)
    text = asked + reply
    encoding = source.with_special_tokens.encode(text, add_special_tokens=False)
    ids = encoding.ids
    start = next((n for n, (_, end) in enumerate(encoding.offsets) if end > len(asked)), len(ids))
    before = [] if ids[: len(opening)] == opening else opening
    missing = _missing(text, closing)
    if missing:
        # Read together with the text, as a whole rendering is
        whole = source.with_special_tokens.encode(text + missing, add_special_tokens=False)
        after = [place for place, (first, _) in enumerate(whole.offsets) if first >= len(text)]
        ids = whole.ids
        size_after = len(after)
    else:
        size_after = sum(1 for first, _ in encoding.offsets if closing and first >= len(text) - len(closing))
    ids = [*before, *ids]
    start = min(start + len(before), len(ids) - size_after)
    opened = len(opening) if ids[: len(opening)] == opening else 0
    over = max(len(ids) - settings.max_length, 0)
    cut_prompt = min(over, max(start - opened, 0))
    ids = [*ids[:opened], *ids[opened + cut_prompt :]]
    start -= cut_prompt
    cut_reply = min(over - cut_prompt, max(len(ids) - size_after - start, 0))
    end = len(ids) - size_after
    ids = [*ids[: end - cut_reply], *ids[end:]]
    if settings.token_types == "none":
        row_types = np.zeros(len(ids), np.int8)
    elif types is None:
        row_types = reply_types(len(ids), start)
    else:
        body = len(ids) - size_after - start
        after_types = (types.after * size_after)[-size_after:] if size_after else []
        firsts = [*types.before[:opened], *[types.first] * max(start - opened, 0)]
        row_types = np.array([*firsts, *[types.second] * body, *after_types], np.int8)
    return Row(np.array(ids, np.int64), row_types, start, cut_prompt, cut_reply)


def _space_after(asked: str, reply: str, before_reply: str) -> str:
    """The white space that the template writes after the header of a reply, where the texts have none there: what is
    read from files has lost it."""
    if not reply or reply[0].isspace() or asked[-1:].isspace():
        return ""
    spaces = [
        found["space"]
        for found in re.finditer(r"(?P<word>\S+)(?P<space>\s*)", before_reply)
        if len(found["word"]) > 2 and asked.endswith(found["word"])
    ]
    return spaces[-1] if spaces else ""


def _missing(text: str, closing: str) -> str:
    """What of the closing the text lacks: all of it, nothing, or the white space that ends it."""
    if text.endswith(closing):
        return ""
    bare = closing.rstrip()
    return closing[len(bare) :] if bare and text.endswith(bare) else closing
