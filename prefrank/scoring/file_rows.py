"""What a row of a file asks to be scored: its prompt and its replies, by the names of columns. Nothing is guessed: two
columns that could both be meant are refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefrank.data.cells import messages_or_text
from prefrank.data.fields import SYSTEM_COLUMNS, as_text, as_turns
from prefrank.errors import BadData, BadInput, short
from prefrank.io.columns import field
from prefrank.io.rows import FileRow
from prefrank.types import Prompt, Turn

COLUMNS = ("prompt", "system", "reply", "replies", "messages")
"""What a mapping of columns may name."""
_LIKELY = {
    "prompt": ("question", "instruction", "query", "input", "context", "conversations", "conversation"),
    "reply": ("response", "completion", "answer", "output", "generated_text", "chosen", "responses", "completions"),
}

BESIDE = (*_LIKELY["prompt"], "history", "tools")
"""Columns that hold a prompt, or a part of it, where there is one of that name too."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a row asks to be scored; `listed` says that its scores are a list."""

    prompt: Prompt
    replies: tuple[str, ...]
    listed: bool


def check_columns(columns: Mapping[str, str] | None, prompt: str | None, reply: str | None) -> dict[str, str]:
    """The file's own names of what is read, from the three ways to say them.

    Raises:
        BadInput: an unknown name, or two columns for one thing.
    """
    taken = dict(columns or {})
    for name, own in (("prompt", prompt), ("reply", reply)):
        if own is not None and taken.setdefault(name, own) != own:
            raise BadInput(f"the column of {name} is {own!r} and {taken[name]!r}; give one of them")
    if unknown := next((name for name in taken if name not in COLUMNS), None):
        raise BadInput(f"columns name {unknown!r}; wanted some of {', '.join(COLUMNS)}")
    for first, second in (("reply", "replies"), ("messages", "prompt"), ("messages", "reply"), ("messages", "replies")):
        if {first, second} <= taken.keys():
            raise BadInput(f"columns name both {first} and {second}; give one of them")
    return taken


def read_row(row: FileRow, columns: Mapping[str, str]) -> Asked:
    """A row's prompt and replies.

    Args:
        columns: as `check_columns` gives them; what is not named is a column of that very name.

    Raises:
        BadData: a column that is missing or does not hold text or messages, or two that could be meant.
    """
    start = columns.get("prompt") or columns.get("messages") or _either(row, "prompt", "messages")
    if "messages" in columns or ("prompt" not in columns and start == "messages"):
        if beside := _given(row, "reply", "replies"):
            raise BadData(
                f"'messages' end in a reply, and there is {beside[0]!r} too; name what is scored,"
                f" such as --columns prompt={start},{beside[0]}={beside[0]}"
            )
        *before, last = _turns(field(row, start), start)
        reply = _text_of(last, start)
        if not before:
            raise BadData(f"{start!r} hold a reply and nothing before it; wanted a prompt first")
        return Asked(_with_system(tuple(before), row, columns), (reply,), listed=False)
    if "prompt" not in columns:
        _check_alone(row)
    prompt = _with_system(_turns(field(row, start), start), row, columns)
    name = next((name for name in ("reply", "replies") if name in columns), None) or _either(row, "reply", "replies")
    column = columns.get(name, name)
    value = field(row, column)
    single = isinstance(value, str | Mapping) or (isinstance(value, list) and len(value) == 1 and _is_object(value[0]))
    if name == "reply" and single:
        return Asked(prompt, (_reply(value, column),), listed=False)
    if not isinstance(value, list):
        wanted = "a list of replies" if name == "replies" else "a list of replies, a string or a message"
        raise BadData(f"{column!r} holds {short(value)}; wanted {wanted}")
    if not value:
        raise BadData(f"{column!r} is an empty list; wanted at least one reply")
    return Asked(prompt, tuple(_reply(reply, f"{column}[{place}]") for place, reply in enumerate(value)), listed=True)


def _either(row: FileRow, name: str, other: str) -> str:
    """Which of two columns a row has."""
    given = _given(row, name, other)
    if len(given) == 2:
        raise BadData(
            f"{name!r} and {other!r} are both there; name the one that is meant, such as --columns {name}={name}"
        )
    if not given:
        given = [column for column in (name, other) if column in row]
    if given:
        return given[0]
    likely = next((column for column in _LIKELY[name] if column in row), "COLUMN")
    raise BadData(
        f"no column {name!r} or {other!r}; the row has {', '.join(map(str, row)) or '(none)'};"
        f" name the one that is meant, such as --columns {name}={likely}"
    )


def _check_alone(row: FileRow) -> None:
    """Raises BadData for a column beside `prompt` that may hold the prompt, or a part of it, and would not be read."""
    if also := next((name for name in BESIDE if isinstance(row.get(name), str | list | Mapping) and row[name]), None):
        raise BadData(
            f"'prompt' and {also!r} are both there, and one may be a part of the other; name the one that is meant,"
            " such as --columns prompt=prompt"
        )


def _given(row: FileRow, *names: str) -> list[str]:
    return [name for name in names if name in row and row[name] is not None]


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _turns(value: Any, name: str) -> Prompt:
    """A string as a user's turn, a message, or a list of messages; either as JSON too."""
    value = messages_or_text(value, name) if isinstance(value, str) else value
    if isinstance(value, str):
        return (Turn("user", as_text(value, name)),)
    turns = _messages(value, name)
    if not turns:
        raise BadData(f"{name!r} has no messages; wanted at least one")
    return turns


def _messages(value: Any, name: str) -> Prompt:
    if not isinstance(value, Mapping | list):
        raise BadData(f"{name!r} holds {short(value)}; wanted a string or messages")
    return as_turns([value] if isinstance(value, Mapping) else value, name)


def _with_system(prompt: Prompt, row: FileRow, columns: Mapping[str, str]) -> Prompt:
    """The turns after the row's own system turn, where it has one."""
    name = columns["system"] if "system" in columns else system_column(row)
    value = field(row, name) if "system" in columns else row.get(name)
    text = "" if value is None else as_text(value, name)
    system = next((turn.text for turn in prompt if turn.role == "system"), None)
    if system is not None and text not in ("", system):
        raise BadData(f"{name!r} and the prompt's messages hold different system turns; keep one of them")
    return (Turn("system", text), *prompt) if text and system is None else prompt


def system_column(row: FileRow) -> str:
    """Which of the columns that the data of training read as the system turn a row has; the first where it has none.

    Raises:
        BadData: two of them, with different texts.
    """
    given = [name for name in SYSTEM_COLUMNS if name in row and _is_given(row[name])]
    if len({row[name] if isinstance(row[name], str) else short(row[name]) for name in given}) > 1:
        raise BadData(f"{' and '.join(map(repr, given))} hold different texts; keep one of them")
    return given[0] if given else SYSTEM_COLUMNS[0]


def _is_given(value: Any) -> bool:
    """Whether a system turn is there: NaN is pandas' nothing."""
    if isinstance(value, float):
        return value == value and value != 0
    return bool(value) if isinstance(value, str | int | list | tuple | Mapping | None) else True


def _reply(value: Any, name: str) -> str:
    value = messages_or_text(value, name) if isinstance(value, str) else value
    if isinstance(value, str):
        return as_text(value, name)
    turns = _messages(value, name)
    if len(turns) != 1:
        raise BadData(f"{name!r} holds {len(turns)} messages; wanted one of the assistant")
    return _text_of(turns[0], name)


def _text_of(turn: Turn, name: str) -> str:
    if turn.role != "assistant":
        raise BadData(f"{name!r} ends in a turn of {turn.role!r}; wanted the assistant's, which is scored")
    if turn.extra:
        raise BadData(f"{name!r} ends in a turn with more than text ({short(turn.extra)}); wanted text alone")
    return turn.text
