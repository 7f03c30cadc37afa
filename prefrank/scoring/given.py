"""Reads the prompts, replies and rows that callers pass in, by position.

Any sequence or iterable will do: a list, a generator, a dict's values, a column of pandas, numpy, pyarrow or
`datasets`, told apart by how they behave; none of those libraries is imported. What has no order (a set), or gives
names when it is iterated over (a dict, a table), is refused.
"""

from collections.abc import Iterable, Mapping, MappingView, Set
from typing import Any, Protocol, cast, runtime_checkable

from prefrank.errors import BadData, BadInput, BadText, short
from prefrank.scoring.file_rows import BESIDE, system_column
from prefrank.types import Message, Prompt, Turn, as_prompt, as_turn

ReplyLike = str | Turn | Message | list[Message] | list[Turn]
"""A reply: a string, or the assistant message that holds it, alone or in a list of one."""
RowLike = tuple[Any, Any] | list[Any] | Mapping[str, Any]
"""A prompt with its reply: a pair, or a row with `prompt` and `reply`."""
_ALSO_PROMPT = ("messages", *BESIDE)
"""Columns that data sets keep a part of the prompt in, or another one."""


@runtime_checkable
class _Array(Protocol):
    """A column or table of numpy, pandas or torch."""

    @property
    def ndim(self) -> int: ...


@runtime_checkable
class _ArrowColumn(Protocol):
    """A column of pyarrow, which is walked as values of its own kind."""

    @property
    def type(self) -> Any: ...

    def to_pylist(self) -> list[Any]: ...


def as_replies(replies: object) -> list[str]:
    """The texts of replies to one prompt, in the given order.

    Raises:
        BadInput: no replies, or what has no positions to read them by.
        BadText: a reply that is neither a string nor an assistant message.
    """
    values = values_of(replies, "replies", "a list of strings, such as [reply]")
    if not values:
        raise BadInput("there are no replies to score; give at least one")
    return [as_reply(value, f"reply {number}") for number, value in enumerate(values)]


def as_pairs(rows: object) -> list[tuple[Prompt, str]]:
    """(prompt, reply) pairs from pairs or from rows with `prompt` and `reply`; other keys of a row are not read.

    A row's string `system`, `system_prompt` or `system_message` becomes the system turn.

    Raises:
        BadInput: rows, or a row, of another form; a prompt that is none; a row with one more column of the prompt.
        BadText: a reply that is neither a string nor an assistant message.
    """
    values = values_of(rows, "pairs", "a list of (prompt, reply) pairs or of rows with prompt and reply")
    return [_pair(value, f"pair {number}") for number, value in enumerate(values)]


def as_reply(reply: object, name: str) -> str:
    """A reply's text. Of an assistant message that is its content, and there must be nothing beside it.

    Raises:
        BadText: another type, a message of another role, several messages, or tool calls, which the score would miss.
    """
    if isinstance(reply, str):
        return str.__str__(reply)  # numpy's strings become plain ones
    message = _plain(reply)
    if isinstance(message, list) and message and all(isinstance(turn, Turn | Mapping) for turn in message):
        if len(message) > 1:
            raise BadText(f"{name} is a list of {len(message)} messages; wanted one, the others belong to the prompt")
        message = message[0]
    if not isinstance(message, Turn | Mapping):
        raise BadText(f"{name} is of type {type(reply).__name__} ({short(reply)}); wanted a string")
    try:
        turn = as_turn(message)
    except (ValueError, TypeError) as error:
        raise BadText(f"{name}: {error}") from error
    if turn.role != "assistant":
        raise BadText(f"{name} is a message of the role {turn.role}; wanted one of the assistant, or a string")
    if beside := turn.message().keys() - {"role", "content"}:
        raise BadText(f"{name} is a message with {', '.join(sorted(beside))}; only its content can be scored")
    return turn.text


def as_given_prompt(prompt: object, name: str = "") -> Prompt:
    """A prompt as turns; columns of messages as pandas reads them from Parquet are taken too.

    Raises:
        BadInput: no prompt; `name` opens the message.
    """
    plain: Any = _plain(prompt)
    try:
        return as_prompt(plain)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{name}{error}") from error


def _pair(row: object, name: str) -> tuple[Prompt, str]:
    if isinstance(row, Mapping):
        return _of_row(row, name)
    if not isinstance(row, tuple | list) or len(row) != 2:
        came = f"has {len(row)} items" if isinstance(row, tuple | list) else f"is of type {type(row).__name__}"
        raise BadInput(f"{name} {came} ({short(row)}); wanted (prompt, reply), or a row with prompt and reply")
    prompt, reply = row
    return as_given_prompt(prompt, f"{name}: "), as_reply(reply, f"the reply of {name}")


def _of_row(row: Mapping[Any, Any], name: str) -> tuple[Prompt, str]:
    if not {"prompt", "reply"} <= row.keys():
        raise BadInput(f"{name} has the keys {', '.join(map(str, row)) or '(none)'}; wanted prompt and reply")
    for also in _ALSO_PROMPT:
        value = row.get(also)
        if isinstance(value, str | list | tuple | Mapping) and value:
            raise BadInput(
                f"{name} has {also!r} beside prompt, which would not be read; put it into the prompt, as a message,"
                " or leave it out"
            )
    prompt = as_given_prompt(row["prompt"], f"{name}: ")
    try:
        system = row.get(system_column(row))
    except BadData as error:
        raise BadInput(f"{name}: {error}") from error
    return _with_system(prompt, system, name), as_reply(row["reply"], f"the reply of {name}")


def _with_system(prompt: Prompt, system: object, name: str) -> Prompt:
    """The turns after the row's own system turn, where it has one."""
    if system is None or (isinstance(system, str) and not system) or (isinstance(system, float) and system != system):
        return prompt  # NaN is pandas' nothing
    if not isinstance(system, str):
        raise BadInput(f"the system of {name} is of type {type(system).__name__} ({short(system)}); wanted a string")
    said_system = next((turn.text for turn in prompt if turn.role == "system"), None)
    if said_system is not None and said_system != system:
        raise BadInput(f"{name} has a system that differs from the system turn of its prompt; keep one of them")
    return prompt if said_system is not None else (Turn("system", str.__str__(system)), *prompt)


def values_of(given: object, name: str, wanted: str) -> list[Any]:
    """The values of a column in their order.

    Raises:
        BadInput: what has no order, or names for values; `name` and `wanted` stand in the message.
    """
    if isinstance(given, str | bytes):
        raise BadInput(f"{name} is one string; wanted {wanted}")
    if isinstance(given, _ArrowColumn):
        return given.to_pylist()
    unordered = isinstance(given, Mapping) or (isinstance(given, Set) and not isinstance(given, MappingView))
    if unordered or (isinstance(given, _Array) and given.ndim != 1):
        dimensions = f" of {given.ndim} dimensions" if isinstance(given, _Array) else ""
        raise BadInput(f"{name} is of type {type(given).__name__}{dimensions}; wanted {wanted}")
    try:
        values = iter(cast(Iterable[Any], given))
    except TypeError:
        raise BadInput(f"{name} is of type {type(given).__name__}; wanted {wanted}") from None
    return list(values)


def _plain(value: object) -> object:
    """Arrays inside a message or list as lists, numpy's strings as Python's.

    Raises:
        BadInput: a list in a list without end.
    """
    try:
        return _walked(value)
    except RecursionError:
        raise BadInput("messages are nested too deeply, or hold themselves; wanted a list of messages") from None


def _walked(value: object) -> object:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {key: _walked(part) for key, part in value.items()}
    if isinstance(value, list | tuple) or (isinstance(value, _Array) and value.ndim == 1):
        return [_walked(part) for part in cast(Iterable[object], value)]
    return value
