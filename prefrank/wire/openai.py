"""What servers with OpenAI's API have in common: vLLM's and SGLang's requests, answers and names of errors."""

import base64
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from prefrank.errors import BadInput
from prefrank.io.json_schema import Shape
from prefrank.io.schema import Stored, Wrong
from prefrank.types import Prompt
from prefrank.wire.given import read_texts, split_reply
from prefrank.wire.route import Answered, Asked, Kind, Refused

_BAD: tuple[Kind, ...] = ("invalid", "empty", "text", "too_long", "too_many", "unsupported")
STATUSES: dict[Kind, int] = {**dict.fromkeys(_BAD, 400), "overloaded": 503, "limited": 503}
"""verl takes any 4xx for final, so a server that has too much to do answers with a 503, which it tries again."""


def error_type(status: int) -> str:
    """What OpenAI's clients and servers call an error of this status."""
    return _ERROR_TYPES.get(status, "BadRequestError" if status < 500 else "InternalServerError")


_ERROR_TYPES = {401: "AuthenticationError", 404: "NotFoundError", 503: "ServiceUnavailableError"}


def _read_input(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else []
    if any(type(part) is int or isinstance(part, list) for part in parts):
        raise Wrong.because("holds token ids; wanted text, as this model reads it with its own tokenizer")
    return read_texts(value)


def _same(value: Any) -> Any:
    return value


GivenInput = Annotated[
    tuple[str, ...],
    Stored(_read_input, _same),
    Shape({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One text or several, not token ids."""
Encoding = Literal["float", "base64"]


def activates(*flags: bool | None) -> bool:
    """Whether vLLM would squash the scores.

    Args:
        flags: by the names that the flag has had, the newest first; the first that is given counts, and without any
            they are squashed.
    """
    return next((flag for flag in flags if flag is not None), True)


def texts_or_messages(texts: Sequence[str] | None, messages: Prompt | None) -> tuple[Asked, ...]:
    """What a request with `input` or `messages` asks about.

    Raises:
        Refused: both are there or neither, or the last message is no reply.
    """
    if (texts is None) == (messages is None):
        raise Refused("invalid", "wanted input, a text or a list of texts, or messages that end in the reply")
    if messages is None:
        return tuple(Asked((), text) for text in texts or ())
    try:
        return (Asked(*split_reply(messages)),)
    except BadInput as error:
        raise Refused("invalid", str(error), place="messages") from None


def written(value: float, encoding: Encoding | None) -> list[float] | str:
    """A score as a vector of one number, or as the bytes of a float32 in base64."""
    return base64.b64encode(struct.pack("<f", value)).decode() if encoding == "base64" else [value]


def head(kind: str, answered: Answered) -> dict[str, Any]:
    """What an answer begins with."""
    named = {"id": f"{kind}-{answered.id}", "object": "list"}
    return named | {"created": answered.created, "model": answered.about.name}


def usage(answered: Answered) -> dict[str, Any]:
    """Tokens, as answers count them."""
    tokens = answered.tokens
    return {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
