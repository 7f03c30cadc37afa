"""What a prompt and a reply become for a server: two texts, a list of messages, or one text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from prefrank.types import Prompt, Turn

Pair = tuple[Prompt, str]
Turns = Literal["all", "last"]


@dataclass(frozen=True, slots=True)
class TwoTexts:
    """The prompt as one text, and the reply."""

    prompt: str
    reply: str


@dataclass(frozen=True, slots=True)
class Messages:
    """The turns of the prompt, and the reply as the last turn."""

    turns: Prompt


@dataclass(frozen=True, slots=True)
class OneText:
    """Prompt and reply as one text."""

    text: str


@dataclass(frozen=True, slots=True)
class OpenedText:
    """Prompt and reply as one text, and the part of it before the reply."""

    text: str
    opening: str


Input = TypeVar("Input", TwoTexts, Messages, OneText, OpenedText)


@dataclass(frozen=True, slots=True)
class Writing:
    """How prompt and reply become one text.

    Args:
        text: of a prompt and a reply.
        opening: of a prompt, what precedes the reply.
        description: for the record.
        bos: what every text begins with, for tokenizers that add it themselves; "" for nothing.
    """

    text: Callable[[Prompt, str], str]
    opening: Callable[[Prompt], str]
    description: str
    bos: str = ""


def inputs_of(pairs: Sequence[Pair], takes: type[Any], *, turns: Turns, writing: Writing, adds_bos: bool) -> list[Any]:
    """The pairs as a server takes them.

    Args:
        takes: the form, one of `Input`.
        turns: of a prompt, where it becomes a text of its own.
        writing: of one text.
        adds_bos: whether the server puts the beginning before a text itself.
    """
    if takes is TwoTexts:
        return [TwoTexts(query_of(prompt, turns=turns), reply) for prompt, reply in pairs]
    if takes is Messages:
        return [Messages((*prompt, Turn("assistant", reply))) for prompt, reply in pairs]
    bos = writing.bos if adds_bos else ""
    texts = [writing.text(prompt, reply).removeprefix(bos) for prompt, reply in pairs]
    if takes is OneText:
        return [OneText(text) for text in texts]
    return [OpenedText(text, writing.opening(prompt)) for text, (prompt, _) in zip(texts, pairs, strict=True)]


def description_of(takes: type[Any], *, turns: Turns, writing: Writing) -> str:
    """What `inputs_of` makes of a pair, for the record."""
    if takes is TwoTexts:
        return QUERIES[turns]
    if takes is Messages:
        return "messages, to which the server applies its chat template"
    return writing.description + ("; `prompts` holds all but the reply" if takes is OpenedText else "")


def spoken(turn: Turn) -> str:
    """What a turn says as text; what else its message holds, such as tool calls, follows as JSON on the next line.

    >>> spoken(Turn("assistant", "", '{"tool_calls": []}'))
    '{"tool_calls": []}'
    """
    return "\n".join(part for part in (turn.text, turn.extra) if part)


def labelled(prompt: Prompt) -> str:
    """A conversation as one text.

    >>> labelled((Turn("user", "Why?"), Turn("assistant", "")))
    'User: Why?\\n\\nAssistant: '
    """
    return "\n\n".join(f"{turn.role.capitalize()}: {spoken(turn)}" for turn in prompt)


def query_of(prompt: Prompt, *, turns: Turns = "all") -> str:
    """A prompt as one text: its own where it is one user turn, else labeled; or the last user turn alone."""
    if turns == "last":
        users = [turn for turn in prompt if turn.role == "user"]
        return spoken(users[-1] if users else prompt[-1])
    return spoken(prompt[0]) if len(prompt) == 1 and prompt[0].role == "user" else labelled(prompt)


QUERIES = {
    "all": "prompt and reply as two texts; a prompt of several turns is one text of 'User: ...', 'Assistant: ...'",
    "last": "last user turn and reply as two texts",
}
"""What `query_of` does, for the record."""


LABELLED = Writing(
    text=lambda prompt, reply: labelled((*prompt, Turn("assistant", reply))),
    opening=lambda prompt: labelled((*prompt, Turn("assistant", ""))),
    description="one text of 'User: ...', a blank line, 'Assistant: ' and the reply, without a chat template",
)
