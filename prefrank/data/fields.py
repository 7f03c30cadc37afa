"""Typed access to one row's fields. Each error says what came and what was wanted; the caller adds file and line."""

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from prefrank.errors import BadData, short, suggest
from prefrank.io.columns import field
from prefrank.io.rows import FileRow
from prefrank.types import Prompt, Role, Turn, as_turn

SYSTEM_COLUMNS = ("system", "system_prompt", "system_message", "system_instruction", "sys_prompt", "systemPrompt")
"""Columns that hold the system turn of a row's conversation, under any of these names."""
SHAREGPT: dict[object, Role] = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
SHAREGPT |= {"function_call": "assistant", "tool_call": "assistant", "system": "system"}
SHAREGPT |= {"tool": "tool", "observation": "tool", "tool_response": "tool"}
"""Who speaks in a ShareGPT message, by its `from`; LLaMA-Factory and ms-swift write some of these as a `role` too."""


def as_text(value: object, name: str) -> str:
    """The value, when it is a string that can be written as UTF-8.

    Raises:
        BadData: another type, or a lone surrogate, which no tokenizer can encode.
    """
    if not isinstance(value, str):
        raise BadData(f"{name!r} holds {short(value)}; wanted a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = short(value[error.start])
            raise BadData(f"{name!r} holds a lone surrogate, {half} at {error.start}; remove or replace it") from None
    return value


def text(row: FileRow, name: str) -> str:
    return as_text(field(row, name), name)


def maybe_text(row: FileRow, name: str) -> str:
    """The text at `name`; "" where the column is missing or null."""
    value = row.get(name) if "." not in name else field(row, name.rpartition(".")[0]).get(name.rpartition(".")[2])
    return "" if value is None else as_text(value, name)


def as_number(value: object, name: str) -> float:
    """The value as a float.

    Raises:
        BadData: not a number, NaN or infinite.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # of a whole number past every fraction
            if math.isfinite(number := float(value)):
                return number
    raise BadData(f"{name!r} holds {short(value)}; wanted a finite number")


def number(row: FileRow, name: str, default: float | None = None) -> float:
    """The number at `name`; the default, where there is one, if the column is missing or null."""
    if default is not None and row.get(name) is None:
        return default
    return as_number(field(row, name), name)


def maybe_number(value: object, name: str) -> float | None:
    """A number, also as a string; None for a missing one and for "N/A"."""
    if value is None or (isinstance(value, str) and value.strip() in ("", "N/A")):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise BadData(f"{name!r} holds {short(value)}; wanted a number") from None
    return as_number(value, name)


def index_of(value: object, name: str, count: int) -> int:
    """The value as an index below `count`; `"1"` counts as 1, since some releases hold labels as strings."""
    digits = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else value
    if isinstance(digits, bool) or not isinstance(digits, int) or not 0 <= digits < count:
        raise BadData(f"{name!r} holds {short(value)}; wanted a whole number from 0 to {count - 1}")
    return digits


def as_list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadData(f"{name!r} holds {short(value)}; wanted a list")
    return value


def as_texts(value: object, name: str) -> tuple[str, ...]:
    return tuple(as_text(item, f"{name}[{i}]") for i, item in enumerate(as_list(value, name)))


def as_row(value: object, name: str) -> FileRow:
    if not isinstance(value, Mapping):
        raise BadData(f"{name!r} holds {short(value)}; wanted an object")
    return value


def as_rows(row: FileRow, name: str) -> list[FileRow]:
    """The objects in the list at `name`."""
    return [as_row(entry, name) for entry in as_list(field(row, name), name)]


def user(prompt: str) -> Prompt:
    """A prompt of one user turn."""
    return (Turn("user", prompt),)


def as_turns(value: object, name: str) -> Prompt:
    """Messages as turns: a list of them, or one alone; OpenAI's role and content, or ShareGPT's from and value.

    Raises:
        BadData: no messages, an unknown speaker, or content that is not text.
    """
    if isinstance(value, Mapping):
        return (_turn(value, name),)
    if not isinstance(value, list):
        raise BadData(f"{name!r} holds {short(value)}; wanted a list of messages")
    return tuple(_turn(as_row(item, f"{name}[{i}]"), f"{name}[{i}]") for i, item in enumerate(value))


def _turn(message: FileRow, name: str) -> Turn:
    if message.get("role") is None and message.get("from") is not None:
        message = {"role": _sharegpt_role(message["from"], name), "content": message.get("value")}
    elif isinstance(role := message.get("role"), str) and role in SHAREGPT:
        message = {**message, "role": SHAREGPT[role]}
    try:
        turn = as_turn(message)
    except ValueError as error:
        raise BadData(f"{name!r}: {error}") from None
    as_text(turn.text, f"{name}.content")
    as_text(turn.extra, name)
    return turn


def _sharegpt_role(speaker: object, name: str) -> Role:
    if not isinstance(speaker, str) or speaker not in SHAREGPT:
        raise BadData(f"{name!r} is a ShareGPT message from {short(speaker)}; known: {', '.join(map(str, SHAREGPT))}")
    return SHAREGPT[speaker]


def label(row: FileRow, name: str) -> str:
    """A string or a number that names something, such as an `id`; "" where the column is missing or null.

    A whole number is the same name as a float, as which it is written where another row has none.
    """
    value = row.get(name)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.0f}" if value.is_integer() else str(value)
    return str(value) if isinstance(value, int) else maybe_text(row, name)


def system_of(row: FileRow) -> str:
    """The text of the row's system column, without white space at its ends; "" where there is none.

    Raises:
        BadData: two system columns with different texts.
    """
    texts = {name: content for name in SYSTEM_COLUMNS if (content := maybe_text(row, name).strip())}
    if len(set(texts.values())) > 1:
        raise BadData(f"{' and '.join(map(repr, texts))} hold different texts; keep one of them")
    return next(iter(texts.values()), "")


def known_keys(row: FileRow, name: str, known: Iterable[str]) -> None:
    """Refuse a key that would be read by nobody."""
    for key in row:
        if key not in (known := tuple(known)):
            raise BadData(f"{name!r} has a key {key!r}{suggest(key, known)}")
