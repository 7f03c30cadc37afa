"""A text that a policy was given and what it wrote, taken apart into the turns of a conversation.

Trainers send what their policy saw: one text with its control strings. A reward model reads turns by a template of its
own, so the text is taken apart here, by the forms in `markups.py`. What a policy itself wrote is never searched for
turns: it could write the rest of a conversation that suits it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prefrank.types import Prompt, Role, Turn
from prefrank.wire.markups import BEGINNINGS, ENDS, MARKUPS, Markup
from prefrank.wire.route import Asked, Refused


@dataclass(frozen=True, slots=True)
class Read:
    """A text taken apart.

    Args:
        turns: that are whole.
        opened: what stands in an assistant's turn that is not closed, at the end; None where there is none.
    """

    turns: Prompt
    opened: str | None
    markup: Markup


_WRITTEN_THOUGHT = re.compile(r"\s*(?:(?:<think>\s*)?</think>|<\|channel>thought\s*<channel\|>)\s*")
"""Of no thoughts, as templates write it where thinking is switched off."""
LONGEST_CUE = 100
_UNKNOWN_CUE = re.compile(r"(?:<\|[^<>|\s]+\|>|<｜[^<>｜\s]+｜>)[a-z_]{0,20}\s*$")
"""A control string at the end, perhaps before the name of a role."""


def read_turns(text: str) -> Read | None:
    """The turns of a text in a markup that is known; None for any other text."""
    text = without_beginning(text)
    return next(
        (
            read
            for markup in MARKUPS
            if (read := _read(markup, text.lstrip(markup.filling) if markup.filling else text)) is not None
        ),
        None,
    )


def reply_to(prompt: str, response: str) -> Asked:
    """What is to be scored of a policy's prompt and of all that it wrote after it.

    Args:
        prompt: as the policy was given it; without control strings it is one user turn.
        response: taken as it stands, but for the control strings that end it.

    Raises:
        Refused: the prompt ends as in a markup that is not known, so that it would be scored as another text.
    """
    read = read_turns(prompt)
    if read is None or not read.turns:
        if cue := _UNKNOWN_CUE.search(prompt[-LONGEST_CUE:]):
            known = ", ".join(markup.name for markup in MARKUPS)
            raise Refused(
                "invalid",
                f"a prompt ends in {cue.group()!r}, as in a chat markup that is not known here; send it as messages, as"
                f" plain text or in one of {known}",
            )
        return Asked((Turn("user", without_beginning(prompt)),), without_ends(response, ENDS))
    markup, opened = read.markup, read.opened
    if opened is None:
        reply = response.removeprefix(markup.before_reply)
    else:
        reply = response if _WRITTEN_THOUGHT.fullmatch(opened) else opened + response
    return Asked(read.turns, without_ends(reply.removeprefix(markup.lead), markup.ends))


def last_reply(text: str) -> Asked:
    """What is to be scored of a conversation in one text: its last turn, if the markup is known and that turn is the
    assistant's; otherwise the text as a whole."""
    read = read_turns(text)
    if read is None:
        return Asked((), text)
    turns, reply = read.turns, read.opened
    if reply is None and turns[-1].role == "assistant":
        turns, reply = turns[:-1], turns[-1].text
    if reply is None or not turns:
        return Asked((), text)
    return Asked(turns, without_ends(reply.removeprefix(read.markup.lead), read.markup.ends))


def without_beginning(text: str) -> str:
    """A text without the control strings that open it, and without the spaces that some decoders put after those."""
    start = 0
    while beginning := next((one for one in BEGINNINGS if text.startswith(one, start)), None):
        start += len(beginning)
        start += text.startswith(" ", start)
    return text[start:]


def without_ends(text: str, ends: Sequence[str]) -> str:
    """A text without the control strings at its end, and the white space after and between them."""
    kept = len(text)
    while True:
        place = kept
        while place and text[place - 1].isspace():
            place -= 1
        end = next((end for end in ends if text.endswith(end, 0, place)), None)
        if end is None:
            return text[:kept]
        kept = place - len(end)


def _read(markup: Markup, text: str) -> Read | None:
    """The turns of a text, if it begins as in this markup, and at least one turn ends as in it."""
    first = markup.pattern.search(text) if markup.bare_system else markup.pattern.match(text)
    if first is None:
        return None
    turns = [Turn("system", text[: first.start()])] if first.start() else []
    role, start = markup.openings[first.group()], first.end()
    for match in markup.pattern.finditer(text, start):
        closing, following = _closing(markup, role, text, start, match.start()), markup.openings[match.group()]
        if closing or (closing == "" and following != role):
            turns.append(Turn(role, text[start : match.start() - len(closing)].removeprefix(markup.lead)))
            role, start = following, match.end()
    is_known, opened = bool(turns), None
    closing = _closing(markup, role, text, start, len(text)) or ""
    if role == "assistant" and not closing.strip():
        opened = text[start:]
    else:
        turns.append(Turn(role, text[start : len(text) - len(closing)].removeprefix(markup.lead)))
        is_known = is_known or bool(closing.strip())
    return Read(_with_system(tuple(turns), markup), opened, markup) if is_known else None


def _closing(markup: Markup, role: Role, text: str, start: int, end: int) -> str | None:
    """What ends the turn from `start`, if it ends there."""
    closings = markup.closings[role]
    return next((one for one in closings if text.endswith(one, start, end)), None) if closings else ""


def _with_system(turns: Prompt, markup: Markup) -> Prompt:
    """The turns, with the system's taken out of the first user turn where it stands there."""
    if markup.inner_system is None or not turns or turns[0].role != "user":
        return turns
    before, after = markup.inner_system
    system, found, user = turns[0].text.removeprefix(before).partition(after)
    if not (found and turns[0].text.startswith(before)):
        return turns
    return (Turn("system", system), Turn("user", user), *turns[1:])
