"""Votes between two models, as Chatbot Arena and MT-Bench publish them.

Both replies must answer the same conversation: from the second turn on each model has a history of its own, so such a
vote is dropped (`prompts differ`) and never read as a comparison of the last replies. A tie is a tie, and so is "both
bad", which names no better one either.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prefrank.data.candidates import EMPTY_PROMPT, EMPTY_REPLY, Candidate, Drop
from prefrank.data.conversations import two_conversations
from prefrank.data.fields import FileRow, as_list, as_number, as_row, as_turns, field, index_of, maybe_text, text, user
from prefrank.data.own import NOT_TEXT
from prefrank.data.pairs import NO_LABEL
from prefrank.errors import BadData, short
from prefrank.io.json_array import UNUSUAL, unusual
from prefrank.io.json_rows import DECODER
from prefrank.types import Preference, Prompt

BROKEN_TEXT = "a text with a lone surrogate"
FLAGS = ("winner_model_a", "winner_model_b", "winner_tie")
_TIES = ("tie", "tie (bothbad)", "tie (inconsistent)", "both_bad")
_WINNERS = {
    "model_a": Preference(0, 1),
    "model_b": Preference(1, 0),
    **{name: Preference(0, 1, probability=0.5) for name in _TIES},
}


def arena_vote(row: FileRow) -> Candidate | Drop:
    """lmsys/chatbot_arena_conversations, lmsys/mt_bench_human_judgments, lmarena-ai/arena-human-preference-100k, -140k.

    `turn` is the turn voted on: what follows it, in MT-Bench's conversations, was not seen. A later vote of a session
    (`evaluation_order` of the 140k) was cast on the whole of `full_conversation`.
    """
    winner = _winner(row)
    if isinstance(winner, Drop):
        return winner
    first, second = _conversations(row)
    if _has_other_parts(first) or _has_other_parts(second):
        return Drop(NOT_TEXT)
    turn = row.get("turn")
    sides = (as_turns(first, "conversation_a"), as_turns(second, "conversation_b"))
    candidate = two_conversations({}, *(_up_to(side, turn) for side in sides))
    id, judge = _id(row, "id") or _id(row, "question_id"), maybe_text(row, "judge")
    return candidate if isinstance(candidate, Drop) else replace(candidate, preferences=(winner,), id=id, voter=judge)


def _conversations(row: FileRow) -> tuple[list[Any], list[Any]]:
    """Both sides as messages: of this vote alone, or of its whole session where earlier votes came before it."""
    later = row.get("evaluation_order") not in (None, 1) or row.get("conversation_a") is None
    if later and row.get("full_conversation"):
        name = "full_conversation"
        exchanges = [as_row(exchange, name) for exchange in _decoded(row[name], name)]
        first, second = ([field(e, side) for e in exchanges for side in ("user", f"model_side_{x}")] for x in "ab")
        return first, second
    a, b = (_decoded(field(row, name), name) for name in ("conversation_a", "conversation_b"))
    return a, b


def _up_to(turns: Prompt, turn: object) -> Prompt:
    """The turns up to the reply in the exchange of that number, from 1; all where the row names none."""
    if turn is None:
        return turns
    ends = [i + 1 for i, turn in enumerate(turns) if turn.role == "assistant"]
    number = as_number(turn, "turn")
    return turns[: ends[int(number) - 1]] if 1 <= number <= len(ends) else turns


def _has_other_parts(messages: list[Any]) -> bool:
    """Whether a message has an image or another part that is not text."""
    contents = [message.get("content") for message in messages if isinstance(message, Mapping)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any(isinstance(part, Mapping) and part.get("type", "text") != "text" for part in parts)


def _winner(row: FileRow) -> Preference | Drop:
    winner = field(row, "winner")
    if winner is None or winner == "":
        return Drop(NO_LABEL)
    if not isinstance(winner, str) or winner not in _WINNERS:
        raise BadData(f"'winner' holds {short(winner)}; wanted one of {', '.join(_WINNERS)}")
    return _WINNERS[winner]


def arena_battle(row: FileRow) -> Candidate | Drop:
    """lmarena-ai/arena-human-preference-55k: `prompt` and two responses as JSON lists of texts, one for each turn."""
    flags = [0 if (value := field(row, name)) is None else index_of(value, name, 2) for name in FLAGS]
    if sum(flags) != 1:
        return Drop(NO_LABEL)
    texts = [_decoded(text(row, name), name) for name in ("prompt", "response_a", "response_b")]
    if None in texts[0] or None in texts[1] + texts[2]:
        return Drop(EMPTY_PROMPT if None in texts[0] else EMPTY_REPLY)
    if any(isinstance(reply, str) and _has_surrogate(reply) for side in texts for reply in side):
        return Drop(BROKEN_TEXT)
    candidate = two_conversations({}, *(_alternating(texts[0], replies) for replies in texts[1:]))
    winner = _WINNERS[FLAGS[flags.index(1)].removeprefix("winner_")]
    return candidate if isinstance(candidate, Drop) else replace(candidate, preferences=(winner,), id=_id(row, "id"))


def _alternating(questions: list[Any], replies: list[Any]) -> Prompt:
    if len(questions) != len(replies):
        raise BadData(f"{len(questions)} prompts came with {len(replies)} responses of a side; wanted as many")
    turns = [
        {"role": role, "content": content}
        for exchange in zip(questions, replies, strict=True)
        for role, content in zip(("user", "assistant"), exchange, strict=True)
    ]
    return as_turns(turns, "prompt and response")


def battle_of_texts(row: FileRow) -> Candidate | Drop:
    """The same battle with plain texts: `prompt`, `response_a`, `response_b`, `winner` (the WSDM Cup's files)."""
    winner = _winner(row)
    if isinstance(winner, Drop):
        return winner
    replies = (text(row, "response_a"), text(row, "response_b"))
    return Candidate(user(text(row, "prompt")), replies, (winner,), _id(row, "id"))


def _decoded(value: object, name: str) -> list[Any]:
    """A list, or the JSON text of one."""
    if isinstance(value, str):
        try:
            value = DECODER.decode(value)
        except json.JSONDecodeError:
            raise BadData(f"{name!r} holds {short(value)}; wanted a list or one as JSON") from None
        except UNUSUAL as error:
            raise unusual(repr(name), error) from None
    return as_list(value, name)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= sign <= "\udfff" for sign in text)


def _id(row: FileRow, name: str) -> str:
    """The row's own name, where it is one: MT-Bench numbers questions, not votes."""
    value = row.get(name)
    return value if isinstance(value, str) else str(value) if name == "id" and isinstance(value, int) else ""
