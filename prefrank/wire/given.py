"""Annotations of requests: texts, conversations and lists of them, as JSON has them, read into plain values."""

from typing import Annotated, Any

from prefrank.errors import BadInput
from prefrank.io.json_schema import Shape
from prefrank.io.schema import Stored, Wrong
from prefrank.types import ROLES, Prompt, Turn, as_prompt


def read_prompt(value: Any) -> Prompt:
    """A string, which is one user turn, or a list of messages.

    Raises:
        Wrong: anything else.
    """
    if not isinstance(value, str | list) or value == []:
        raise Wrong(value, "a string, or a list of messages with role and content")
    try:
        return as_prompt(value)
    except (ValueError, TypeError) as error:
        raise Wrong.because(f"cannot be used: {error}") from None


def read_messages(value: Any) -> Prompt:
    """A list of messages.

    Raises:
        Wrong: anything else.
    """
    if not isinstance(value, list):
        raise Wrong(value, "a list of messages with role and content")
    return read_prompt(value)


def read_texts(value: Any) -> tuple[str, ...]:
    """A string, or a list of strings.

    Raises:
        Wrong: anything else.
    """
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise Wrong(value, "a string or a list of strings")
    for place, part in enumerate(value):
        if not isinstance(part, str):
            raise Wrong(part, "a string").inside(f"[{place}]")
    return tuple(value)


def _as_is(value: Any) -> Any:
    return value


_MESSAGES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": list(ROLES)}, "content": {"type": "string"}},
    },
}
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}

GivenPrompt = Annotated[Prompt, Stored(read_prompt, _as_is), Shape({"anyOf": [_TEXT, _MESSAGES]})]
"""Of a request: a string or messages, as turns."""
GivenMessages = Annotated[Prompt, Stored(read_messages, _as_is), Shape(_MESSAGES)]
"""Messages, as turns, the reply among them."""
GivenTexts = Annotated[tuple[str, ...], Stored(read_texts, _as_is), Shape({"anyOf": [_TEXT, _TEXTS]})]
"""One text or several."""


def split_reply(turns: Prompt) -> tuple[Prompt, str]:
    """A conversation's prompt and the reply that ends it.

    Raises:
        BadInput: its last turn is not the assistant's, or its only one.
    """
    last = turns[-1]
    if last.role != "assistant":
        raise BadInput(f"the last message has the role {last.role}; wanted the assistant's reply that is to be scored")
    if last.extra:
        raise BadInput("the last message has tool calls, which the score would miss; wanted a reply of text")
    if len(turns) == 1:
        return (Turn("user", ""),), last.text
    return turns[:-1], last.text
