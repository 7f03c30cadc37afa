"""Conversations as other tools write them: ShareGPT, ms-swift, UltraInteract, Nectar.

A message is `{"from", "value"}` or `{"role", "content"}`. Their roles become ours: human and user are the user; gpt,
assistant, function_call and tool_call (the call is the text) the assistant; observation, tool and tool_response a tool;
any other is refused by name. A system turn in the conversation wins over a `system` column, as in LLaMA-Factory.
"""

from collections.abc import Mapping
from typing import Any

from prefrank.data.candidates import Candidate, Drop
from prefrank.data.fields import Row, as_list, as_row, as_text, field, maybe_text, text
from prefrank.data.hh import PROMPTS_DIFFER, transcript
from prefrank.data.own import NOT_ONE_REPLY, own
from prefrank.errors import BadData, short
from prefrank.types import Prompt, Role, Turn, as_turn

ENDS_IN_REPLY = "the prompt ends in an assistant turn"
NOT_TEXT = "images, audio or video"
TOOLS = "tool descriptions, which are not read"

ROLES: Mapping[str, Role] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "function_call": "assistant",
    "tool_call": "assistant", "observation": "tool", "tool": "tool", "tool_response": "tool", "system": "system",
}  # fmt: skip
_SAID = ("id", "probability", "weight", "margin", "strength", "head")
_MEDIA = ("images", "image", "audios", "videos", "rejected_images", "rejected_audios", "rejected_videos")
_TOOLS = ("tools", "rejected_tools")


def as_message(value: object, name: str) -> Turn:
    """One message, in either writing.

    Raises:
        BadData: an unknown role, or content that is not text.
    """
    message = as_row(value, name)
    key = "from" if "from" in message else "role"
    role = message.get(key)
    known = ROLES.get(role) if isinstance(role, str) else None
    if key == "from":
        if known is None:
            raise BadData(f"{name!r} is from {short(role)}; wanted one of {', '.join(ROLES)}")
        return Turn(known, as_text(message.get("value"), f"{name}.value"))
    try:
        turn = as_turn({**message, "role": known or role})
    except ValueError as error:
        raise BadData(f"{name!r}: {error}") from None
    as_text(turn.text, f"{name}.content")
    return turn


def as_conversation(value: object, name: str) -> Prompt:
    return tuple(as_message(one, f"{name}[{i}]") for i, one in enumerate(as_list(value, name)))


def with_system(row: Row, turns: Prompt) -> Prompt:
    """The turns after the row's `system` (distilabel: `system_prompt`), where it has one and they do not."""
    system = maybe_text(row, "system").strip() or maybe_text(row, "system_prompt").strip()
    if not system or any(turn.role == "system" for turn in turns):
        return turns
    return (Turn("system", system), *turns)


def unread(row: Row) -> Drop | None:
    """Why a row cannot be read as text alone: it comes with images, sound or tools."""
    if any(row.get(name) not in (None, [], "") for name in _MEDIA):
        return Drop(NOT_TEXT)
    if any(row.get(name) not in (None, [], "", "[]") for name in _TOOLS):
        return Drop(TOOLS)
    return None


def pair(row: Row, prompt: Prompt, chosen: object, rejected: object) -> Candidate | Drop:
    """A pair of our own format, with what else our own rows may state of it: margin, probability, strength, ..."""
    said = {name: row[name] for name in _SAID if name in row}
    return own({**said, "prompt": [turn.message() for turn in prompt], "chosen": chosen, "rejected": rejected})


def conversation_pair(row: Row) -> Candidate | Drop:
    """LLaMA-Factory's ShareGPT ranking: `conversations`, and `chosen` and `rejected` of one message each; the same with
    `messages`, and UltraInteract's `trajectory` with two texts."""
    name = next(name for name in ("conversations", "trajectory", "messages") if name in row)
    if reason := unread(row):
        return reason
    prompt = with_system(row, as_conversation(row[name], name))
    if prompt and prompt[-1].role == "assistant":
        return Drop(ENDS_IN_REPLY)
    return pair(row, prompt, _reply(row, "chosen"), _reply(row, "rejected"))


def one_reply_each(row: Row) -> bool:
    """Whether `chosen` is one text or one message, so that the conversation beside it is the prompt."""
    return row.get("prompt") is None and isinstance(row["chosen"], str | Mapping)


def _reply(row: Row, name: str) -> str:
    value = field(row, name)
    if isinstance(value, str):
        return as_text(value, name)
    turn = as_message(value, name)
    if turn.role != "assistant":
        raise BadData(f"{name!r} is a {turn.role} message; wanted the assistant's")
    return turn.text


def swift_response(row: Row) -> Candidate | Drop:
    """ms-swift: `messages` that end in the better reply, and `rejected_response`, the worse one."""
    return _swift(row, [{"role": "assistant", "content": text(row, "rejected_response")}])


def swift_messages(row: Row) -> Candidate | Drop:
    """ms-swift from 3.8: `messages` and `rejected_messages`, each a whole conversation (or, rejected, its reply)."""
    return _swift(row, as_list(row["rejected_messages"], "rejected_messages"))


def _swift(row: Row, rejected: list[Any]) -> Candidate | Drop:
    if reason := unread(row):
        return reason
    chosen = with_system(row, as_conversation(row["messages"], "messages"))
    other = as_conversation(rejected, "rejected_messages")
    found = two_conversations(chosen, (*chosen[:-1], *other) if len(other) == 1 else with_system(row, other))
    return found if isinstance(found, Drop) else pair(row, found[0], *found[1])


def swift_query(row: Row) -> Candidate | Drop:
    """ms-swift's query and response: `query`, `response`, `rejected_response`, `history` and `system`."""
    if reason := unread(row):
        return reason
    return pair(row, asked(row, text(row, "query")), text(row, "response"), text(row, "rejected_response"))


def asked(row: Row, question: str) -> Prompt:
    """The row's `system`, the exchanges of its `history`, then the question."""
    turns: list[Turn] = []
    for i, exchange in enumerate(as_list(row.get("history") or [], "history")):
        name = f"history[{i}]"
        texts = as_list(exchange, name)
        if len(texts) != 2:
            raise BadData(f"{name!r} holds {len(texts)} texts; wanted [question, answer]")
        turns += Turn("user", as_text(texts[0], name)), Turn("assistant", as_text(texts[1], name))
    return with_system(row, (*turns, Turn("user", question)))


def instructed(row: Row) -> Prompt:
    """The same of an `instruction`, followed by its `input` on a line of its own, as LLaMA-Factory joins them."""
    parts = (text(row, "instruction").strip(), maybe_text(row, "input").strip())
    return asked(row, "\n".join(filter(None, parts)))


def two_conversations(first: Prompt, second: Prompt) -> tuple[Prompt, tuple[str, str]] | Drop:
    """What two conversations share before the last turn of each, and those turns, which must be the assistant's."""
    if not all(turns and turns[-1].role == "assistant" for turns in (first, second)):
        return Drop(NOT_ONE_REPLY)
    if first[:-1] != second[:-1]:
        return Drop(PROMPTS_DIFFER)
    return first[:-1], (first[-1].text, second[-1].text)


def nectar(row: Row) -> Candidate | Drop:
    """berkeley-nest/Nectar: a transcript that ends in `Assistant:`, and `answers` with a `rank` each, 1 the best."""
    turns = [Turn(ROLES[who.lower()], said) for who, said in transcript(text(row, "prompt"))]
    if turns[-1].role == "assistant":
        if turns[-1].text:
            return Drop(ENDS_IN_REPLY)
        turns.pop()
    answers = [as_row(one, "answers") for one in as_list(field(row, "answers"), "answers")]
    return own(
        {
            "prompt": [turn.message() for turn in turns],
            "replies": [text(one, "answer") for one in answers],
            "ranks": [field(one, "rank") for one in answers],
        }
    )
