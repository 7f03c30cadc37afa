"""Texts that were rendered already: their control strings are tokens.

Under `chat` a text stands as it is. Under `pair` and `turns` it is taken apart into the turns it was made of, and goes
the way of every other row from there.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from prefrank.errors import BadText
from prefrank.text.limit import in_steps
from prefrank.text.reader import Tokens, joined
from prefrank.text.settings import TextSettings
from prefrank.text.templates import Ids, PairTokens
from prefrank.text.tokenizer import FolderTokenizer
from prefrank.types import Prompt, Row, Turn, reply_types


def one_text(prompt: Prompt, reply: str, number: int, before_reply: str) -> str:
    """The prompt's text, ending as it stands before a reply.

    Args:
        before_reply: what stands between a user's text and the reply.

    Raises:
        BadText: a prompt of several turns, which pre-rendered texts are not.
    """
    if len(prompt) != 1 or prompt[0].extra:
        raise BadText(
            f"the prompt of pair {number} has {len(prompt)} turns; pre-rendered texts want the whole prompt as one"
            " string, or leave pre_rendered out"
        )
    text = prompt[0].text
    return text + _space_after(text, reply, before_reply)


def rendered_row(
    source: FolderTokenizer, settings: TextSettings, opening: Ids, closing: str, prompt: str, reply: str
) -> Row:
    """A row of `chat`: the texts as they stand, after what opens a row and before what closes it, where they lack that.
    Of too many tokens the prompt loses its oldest, in steps, then the reply its last."""
    text = prompt + reply + _missing(prompt + reply, closing)
    tokens = source.rendered.tokens(text)
    if tokens.ids[: len(opening)].tolist() != opening:
        nowhere = np.zeros(len(opening), np.int32)
        tokens = joined([Tokens(np.array(opening, np.int32), nowhere, nowhere), tokens])
    ids = tokens.ids
    end = _first(tokens.starts >= len(text) - len(closing)) if closing else len(ids)
    start = min(_first(tokens.ends > len(prompt)), end)
    over = max(len(ids) - settings.max_length, 0)
    cut_prompt = in_steps(over, max(start - len(opening), 0), settings.cut_step)
    cut_reply = min(max(over - cut_prompt, 0), end - start)
    left = np.concatenate([ids[: len(opening)], ids[len(opening) + cut_prompt : end - cut_reply], ids[end:]])
    none = settings.token_types == "none"
    types = np.zeros(len(left), np.int8) if none else reply_types(len(left), start - cut_prompt)
    return Row(left.astype(np.int64), types, start - cut_prompt, cut_prompt, cut_reply)


def _first(chosen: Bool[np.ndarray, " L"]) -> int:
    """The place of the first that is chosen, or how many there are."""
    places = np.flatnonzero(chosen)
    return int(places[0]) if len(places) else len(chosen)


def pair_of(source: FolderTokenizer, control: PairTokens, prompt: str, reply: str) -> tuple[Prompt, str]:
    """The turns and the reply of `[CLS] turn [SEP] turn [SEP] reply [SEP]`. Prompt and reply meet at a separator, which
    may stand in either text or in neither; so may what opens and closes the row. Of a whole row as the prompt, with no
    reply, the last part is the reply."""

    def written(ids: Ids) -> str:
        return r"\s*".join(re.escape(source.tokenizer.id_to_token(id) or "") for id in ids)

    separator, closing = written(control.middle), f"{written(control.after)}$"
    prompt = re.sub(f"^{written(control.before)}", "", prompt)
    if not reply:
        *turns, last = re.split(separator, re.sub(closing, "", prompt))
        turns, last = (turns, last) if turns else ([last], "")
    else:
        turns = re.split(separator, re.sub(rf"{separator}\s*$", "", prompt))
        last = re.sub(rf"^\s*{separator}", "", re.sub(closing, "", reply))
    return tuple(Turn("user", turn) for turn in turns), last


def turns_of(strings: Mapping[str, tuple[str, str]], bos: str, prompt: str, reply: str) -> tuple[Prompt, str]:
    """The turns and the reply of a text with an opening and a closing string around each turn. A text that does not
    open as one is a user turn; the reply may have no opening and closing yet.

    Args:
        strings: of each role, as they stand in texts.
        bos: what may open the text before them.
    """
    turns = _said(strings, (prompt + reply).removeprefix(bos))
    if turns and turns[-1].role == "assistant":
        return tuple(turns[:-1]), turns[-1].text
    return tuple(_said(strings, prompt.removeprefix(bos)) or [Turn("user", prompt)]), reply


def _said(strings: Mapping[str, tuple[str, str]], text: str) -> list[Turn]:
    roles: dict[str, Any] = {opening: role for role, (opening, _) in strings.items()}
    closings = {closing for _, closing in strings.values()}
    # The longest first, as one may begin with another
    openings = "|".join(map(re.escape, sorted(roles, key=len, reverse=True)))
    endings = "|".join(map(re.escape, sorted(closings, key=len, reverse=True)))
    if not re.match(openings, text):
        return []
    _, first, *rest = re.split(f"^({openings})", text, maxsplit=1)
    pieces = re.split(f"(?:{endings})({openings})", rest[0])
    turns = [Turn(roles[opening], part) for opening, part in zip((first, *pieces[1::2]), pieces[::2], strict=True)]
    last = turns[-1]
    return [*turns[:-1], Turn(last.role, last.text.removesuffix(strings[last.role][1]))]


def _space_after(prompt: str, reply: str, before_reply: str) -> str:
    """The white space that follows the header of a reply, where the texts have none there: what is read from files has
    lost it."""
    if not reply or reply[0].isspace() or prompt[-1:].isspace():
        return ""
    spaces = [
        match["space"]
        for match in re.finditer(r"(?P<word>\S+)(?P<space>\s*)", before_reply)
        if len(match["word"]) > 2 and prompt.endswith(match["word"])
    ]
    return spaces[-1] if spaces else ""


def _missing(text: str, closing: str) -> str:
    """What of the closing the text lacks: all of it, nothing, or the white space that ends it."""
    if text.endswith(closing):
        return ""
    bare = closing.rstrip()
    return closing[len(bare) :] if bare and text.endswith(bare) else closing
