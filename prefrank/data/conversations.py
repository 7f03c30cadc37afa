"""Conversations as other tools write them: ShareGPT, ms-swift, UltraInteract, Nectar.

What LLaMA-Factory and ms-swift call a function's or a tool's call is an assistant turn whose text is the call.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from prefrank.data.candidates import Candidate, Drop
from prefrank.data.fields import SHAREGPT, FileRow, as_list, as_rows, as_text, as_turns, field, maybe_text, text
from prefrank.data.hh import transcript
from prefrank.data.own import SCORES, own, unread
from prefrank.data.pairs import asked
from prefrank.errors import BadData, short
from prefrank.io.columns import with_values
from prefrank.types import Prompt, Turn

ENDS_IN_REPLY = "the prompt ends in an assistant turn"

_SAID = ("id", "voter", "probability", "weight", "margin", "strength", "head", *chain.from_iterable(SCORES))


def pair(row: FileRow, prompt: Prompt, chosen: object, rejected: object) -> Candidate | Drop:
    """A pair of our own format, with what else our own rows may state of it: margin, probability, scores, ..."""
    stated = {name: row[name] for name in _SAID if name in row}
    return own({**stated, "prompt": _messages(prompt), "chosen": chosen, "rejected": rejected})


def two_conversations(row: FileRow, first: Prompt, second: Prompt) -> Candidate | Drop:
    """The same of two whole conversations, which may differ in their last turn alone."""
    stated = {name: row[name] for name in _SAID if name in row}
    return own({**stated, "chosen": _messages(first), "rejected": _messages(second)})


def _messages(turns: Prompt) -> list[dict[str, Any]]:
    return [turn.message() for turn in turns]


def conversation_pair(row: FileRow) -> Candidate | Drop:
    """LLaMA-Factory's ShareGPT ranking: `conversations`, and `chosen` and `rejected` of one message each; the same with
    `messages`, and UltraInteract's `trajectory` with two texts."""
    name = next((name for name in ("conversations", "trajectory") if name in row), "messages")
    if reason := unread(row):
        return reason
    prompt = as_turns(field(row, name), name)
    if prompt and prompt[-1].role == "assistant":
        return Drop(ENDS_IN_REPLY)
    return pair(row, prompt, _reply(row, "chosen"), _reply(row, "rejected"))


def one_reply_each(row: FileRow) -> bool:
    """Whether `chosen` is one text or one message, so that the conversation beside it is the prompt."""
    chosen = row.get("chosen")
    return row.get("prompt") is None and (isinstance(chosen, str | Mapping) or _is_one(chosen))


def _is_one(messages: object) -> bool:
    return isinstance(messages, list) and len(messages) == 1


def _reply(row: FileRow, name: str) -> str:
    value = field(row, name)
    if isinstance(value, str):
        return as_text(value, name)
    if not (isinstance(value, Mapping) or _is_one(value)):
        raise BadData(f"{name!r} holds {short(value)}; wanted one message or a text")
    (turn,) = as_turns(value, name)
    if turn.role != "assistant":
        raise BadData(f"{name!r} is a {turn.role} message; wanted the assistant's")
    return turn.text


def swift_response(row: FileRow) -> Candidate | Drop:
    """ms-swift: `messages` (or `conversations`) that end in the better reply, and `rejected_response`, the worse."""
    return _swift(row, [{"role": "assistant", "content": text(row, "rejected_response")}])


def swift_messages(row: FileRow) -> Candidate | Drop:
    """ms-swift from 3.8: `messages` and `rejected_messages`, each a whole conversation (or, rejected, its reply)."""
    return _swift(row, as_list(field(row, "rejected_messages"), "rejected_messages"))


def _swift(row: FileRow, rejected: list[Any]) -> Candidate | Drop:
    if reason := unread(row):
        return reason
    name = "messages" if "messages" in row else "conversations"
    chosen, other = as_turns(field(row, name), name), as_turns(rejected, "rejected_messages")
    return two_conversations(row, chosen, (*chosen[:-1], *other) if len(other) == 1 else other)


def swift_exchanges(row: FileRow) -> Candidate | Drop:
    """ms-swift: `conversation` of exchanges, each with `human` and `assistant`, and `rejected_response`."""
    exchanges = as_rows(row, "conversation")
    speakers = (("human", "user"), ("assistant", "assistant"))
    messages = [{"role": role, "content": text(exchange, name)} for exchange in exchanges for name, role in speakers]
    return swift_response(with_values(row, {"messages": messages}))


def swift_query(row: FileRow) -> Candidate | Drop:
    """ms-swift's query and response: `query`, `response`, `rejected_response`, `history` and `system`."""
    if reason := unread(row):
        return reason
    return pair(row, asked(row, text(row, "query")), text(row, "response"), text(row, "rejected_response"))


def swift_instruction(row: FileRow) -> Candidate | Drop:
    """ms-swift's alpaca: `instruction`, `input`, `output`, `rejected_response`, `history` and `system`."""
    if reason := unread(row):
        return reason
    return pair(row, instructed(row), text(row, "output"), text(row, "rejected_response"))


def instructed(row: FileRow) -> Prompt:
    """The `history`, then the `instruction` and on a line of its own its `input`, as LLaMA-Factory joins them."""
    parts = (text(row, "instruction").strip(), maybe_text(row, "input").strip())
    return asked(row, "\n".join(filter(None, parts)))


def has_ranked_answers(row: FileRow) -> bool:
    answers = row.get("answers")
    return isinstance(answers, list) and all(isinstance(answer, Mapping) and "rank" in answer for answer in answers)


def nectar(row: FileRow) -> Candidate | Drop:
    """berkeley-nest/Nectar: a transcript that ends in `Assistant:`, and `answers` with a `rank` each, 1 the best."""
    turns = [Turn(SHAREGPT[who.lower()], content) for who, content in transcript(text(row, "prompt"))]
    if turns[-1].role == "assistant":
        if turns[-1].text:
            return Drop(ENDS_IN_REPLY)
        turns.pop()
    answers = as_rows(row, "answers")
    return own(
        {
            "prompt": _messages(tuple(turns)),
            "replies": [text(answer, "answer") for answer in answers],
            "ranks": [field(answer, "rank") for answer in answers],
        }
    )
