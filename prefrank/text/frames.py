"""Finds out what a chat template writes around the texts of turns, by rendering probe texts once."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefrank.errors import BadModel, BadText
from prefrank.text.rendering import render_chat
from prefrank.text.templates import KEPT_ROLES
from prefrank.text.tokenizer import FolderTokenizer

BEFORE, PROBE = "\uf8fe", "\uf8ff"
"""Their repetitions stand for the text of a turn, and of the one before, where only what the template writes around
them is wanted."""
REPEATED = 16
"""So that something is left where a template leaves out the first or last characters."""
_Messages = list[dict[str, Any]]
_Write = Callable[[_Messages], str]


@dataclass(frozen=True)
class Frame:
    """What a template writes around a reply.

    Args:
        opening: between the text of a user turn and the reply.
        stem: of that, what ends with its last control string and the word after it, before what depends on the reply,
            such as empty thoughts; "" where it has no control string.
        closing: after the reply.
    """

    opening: str
    stem: str
    closing: str


@dataclass(frozen=True)
class Habits:
    """What a template does with texts.

    Args:
        frame: None where it does not render a plain exchange, or not in its order.
        spaces: of each role that it renders, whether it keeps white space before and after a text (many trim it); None
            where it keeps some.
        openings: of each role, what it writes before the text of a turn, after the turns before it.
    """

    frame: Frame | None
    spaces: dict[str, tuple[bool | None, bool | None]]
    openings: dict[str, str]


def try_template(source: FolderTokenizer, tokens: dict[str, str]) -> Habits:
    """Render a few conversations to see what the template of a tokenizer does."""
    fails = False  # for every conversation, as one that is not Jinja's language does

    def write(messages: _Messages) -> str:
        """What the template writes; nothing where it refuses the conversation."""
        nonlocal fails
        try:
            return "" if fails else render_chat(source, messages, tokens)
        except BadText:
            return ""
        except BadModel:  # said with the first row, as another template may be given until then
            fails = True
            return ""

    return Habits(
        frame=_frame(source, write),
        spaces=_spaces(write),
        openings={role: _opening(write, role) for role in ("system", "developer", "user", "assistant")},
    )


def _frame(source: FolderTokenizer, write: _Write) -> Frame | None:
    turns = [_message("user", BEFORE * REPEATED), _message("assistant", PROBE * REPEATED)]
    before, probe, closing = write(turns).rpartition(PROBE)
    _, asked, opening = before.rstrip(PROBE).rpartition(BEFORE)
    if not probe or not asked or BEFORE in closing:
        return None
    ends = [
        match.end()
        for match in source.control_pattern.finditer(opening)
        if match.group() not in source.written_by_models
    ]
    word = re.compile(r"\S*").match(opening, ends[-1]) if ends else None
    return Frame(opening, opening[: word.end()] if word else "", closing)


def _opening(write: _Write, role: str) -> str:
    turns = [_message(role, PROBE * REPEATED)]
    if role == "assistant":
        turns = [_message("user", BEFORE * REPEATED), *turns]
    return write(turns).partition(PROBE)[0].rpartition(BEFORE)[2]


def _spaces(write: _Write) -> dict[str, tuple[bool | None, bool | None]]:
    kept, space = {}, "\n \t"
    for role in ("user", "assistant", *KEPT_ROLES):
        written = []
        for text in (PROBE, f"{space}{PROBE}{space}"):
            turns = [_message(role, text), *([_message("user", "a")] if role in KEPT_ROLES else [])]
            turns = [_message("user", "a"), *turns] if role == "assistant" else turns
            written.append(write(turns).partition(PROBE))
        (before, probe, after), (spaced_before, _, spaced_after) = written
        if probe:
            left = {before: False, before + space: True}.get(spaced_before)
            kept[role] = left, {after: False, space + after: True}.get(spaced_after)
    return kept


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}
