"""Our own format (docs/formats.md): a prompt and judged replies, or a chosen and a rejected one; TRL's forms too."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from prefrank.data.candidates import Candidate, Drop, bare, from_ratings_of, from_scores, joined
from prefrank.data.fields import (
    SYSTEM_COLUMNS,
    FileRow,
    as_list,
    as_number,
    as_row,
    as_text,
    as_texts,
    as_turns,
    field,
    index_of,
    known_keys,
    label,
    maybe_number,
    maybe_text,
    number,
    short,
    user,
)
from prefrank.data.hh import PROMPTS_DIFFER, turns_of
from prefrank.data.implicit import refuse_other_texts, split_texts
from prefrank.data.pairs import earlier_turns
from prefrank.errors import BadData
from prefrank.types import MAIN_HEAD, Preference, Prompt, Ratings, Turn

JUDGEMENTS = ("ranks", "ratings", "preferences")
_SAID = ("probability", "weight", "margin", "strength", "head")
COLUMNS = ("id", "voter", "system", "history", "prompt", "replies", *JUDGEMENTS, "chosen", "rejected", *_SAID)
SCORES = tuple(
    (form.format("chosen"), form.format("rejected"))
    for form in ("score_{}", "{}_score", "rating_{}", "{}_rating", "{}-rating", "{}_avg_rating")
)
"""Columns with the scores that a pair was chosen by, as published sets name them."""
_MEDIA = ("images", "image", "audios", "videos", "rejected_images", "rejected_audios", "rejected_videos")
_TOOLS = ("tools", "rejected_tools")
READ = (*COLUMNS, *_MEDIA, *_TOOLS, *SYSTEM_COLUMNS[1:], *chain.from_iterable(SCORES))
_READ_WITHOUT_PROMPT = tuple(name for name in READ if name != "history")
UNJUDGED = "reply without a rank or rating"
NOT_ONE_REPLY = "the completion is not one assistant message"
TOOL_CALL = "the completion is a tool call"
NOT_TEXT = "images, audio or video"
TOOLS = "tool descriptions, which are not read"


def unread(row: FileRow) -> Drop | None:
    """Why a row cannot be read as text alone: it comes with images, sound or tools."""
    if any(row.get(name) not in (None, [], "") for name in _MEDIA):
        return Drop(NOT_TEXT)
    if any(row.get(name) not in (None, [], "", "[]") for name in _TOOLS):
        return Drop(TOOLS)
    return None


def own(row: FileRow) -> Candidate | Drop:
    """One row of our own format.

    Raises:
        BadData: `replies` without exactly one of ranks, ratings and preferences; lists of unequal length; no reply at
            all; numbers that are not finite; an index out of range; an unknown role.
    """
    if reason := unread(row):
        return reason
    if row.get("replies") is None:
        return _pair(row)
    if both := [name for name in ("chosen", "rejected") if row.get(name) is not None]:
        raise BadData(f"'replies' came with {' and '.join(both)}; wanted replies, or chosen and rejected")
    prompt, replies = _prompt(row), as_texts(row["replies"], "replies")
    if not replies:
        raise BadData("'replies' is empty; wanted at least two replies")
    given = [name for name in JUDGEMENTS if row.get(name) is not None]
    if len(given) != 1:
        came = " and ".join(given) or "no judgment"
        raise BadData(f"'replies' came with {came}; wanted one of {', '.join(JUDGEMENTS)}")
    name = given[0]
    if name == "preferences":
        values = as_list(row[name], name)
        preferences = tuple(_preference(v, f"{name}[{i}]", len(replies)) for i, v in enumerate(values))
        return Candidate(prompt, replies, preferences, label(row, "id"), label(row, "voter"))
    return _judged(row, prompt, replies, name)


def _judged(row: FileRow, prompt: Prompt, replies: tuple[str, ...], name: str) -> Candidate:
    """`ranks` or `ratings`: one list, or one for each head by name."""
    judgements = row[name]
    lists = {
        head: _numbers(values, f"{name}.{head}" if isinstance(judgements, Mapping) else name, len(replies))
        for head, values in (judgements if isinstance(judgements, Mapping) else {MAIN_HEAD: judgements}).items()
        if values is not None  # Parquet gives every row every head
    }
    judged = [i for i in range(len(replies)) if any(values[i] is not None for values in lists.values())]
    # ranks are ratings upside down; as such they give preferences, but are no ratings to learn
    up = 1 if name == "ratings" else -1
    rated = tuple(
        Ratings(tuple(None if (value := values[i]) is None else up * value for i in judged), head)
        for head, values in lists.items()
    )
    given = [ratings for ratings in rated if name == "ranks" or MAIN_HEAD not in lists or ratings.head == MAIN_HEAD]
    return Candidate(
        prompt,
        tuple(replies[i] for i in judged),
        joined([*map(from_ratings_of, given)]),
        label(row, "id"),
        label(row, "voter"),
        left_out=(UNJUDGED,) * (len(replies) - len(judged)),
        ratings=rated if name == "ratings" else (),
    )


def _numbers(value: object, name: str, count: int) -> list[float | None]:
    values = as_list(value, name)
    if len(values) != count:
        raise BadData(f"{count} replies came with {len(values)} {name}; wanted as many of each")
    return [None if item is None else as_number(item, name) for item in values]


def _prompt(row: FileRow) -> Prompt:
    """The prompt after its `history`.

    A string is one user turn, or the turns of a transcript that ends where the reply begins; a blank one is none.
    """
    value = field(row, "prompt")
    if not isinstance(value, str):
        prompt = _messages(value, "prompt")
    elif not value.strip():
        prompt = ()
    else:
        turns = turns_of("\n\n" + as_text(value, "prompt").lstrip())
        prompt = turns[:-1] if len(turns) > 1 and turns[-1] == Turn("assistant", "") else user(value)
    history = () if isinstance(row.get("history"), str) else earlier_turns(row)
    whole = continued(tuple(map(bare, history)), tuple(map(bare, prompt))) if history else prompt
    if whole is None:
        raise BadData("'history' comes before a prompt that opens with a system turn; put the system turn first")
    return whole


def _messages(value: object, name: str) -> Prompt:
    if not isinstance(value, list | Mapping):
        raise BadData(f"{name!r} holds {short(value)}; wanted a string or a list of messages")
    return as_turns(value, name)


def _preference(value: Any, name: str, count: int) -> Preference:
    """[winner, loser], [winner, loser, probability] or an object with those names and the others of `_SAID`."""
    if isinstance(value, list):
        if len(value) not in (2, 3):
            raise BadData(f"{name!r} holds {short(value)}; wanted [winner, loser] or [winner, loser, probability]")
        value = dict(zip(("winner", "loser", "probability"), value, strict=False))
    entry = as_row(value, name)
    known_keys(entry, name, ("winner", "loser", *_SAID))
    winner = index_of(field(entry, "winner"), f"{name}.winner", count)
    return _stated(entry, winner, index_of(field(entry, "loser"), f"{name}.loser", count))


def _stated(row: FileRow, winner: int, loser: int) -> Preference:
    """What a row or an entry says of a pair; strength 0 alone says that it is a tie."""
    strength = None if row.get("strength") is None else number(row, "strength")
    if strength is not None and (strength < 0 or strength != int(strength)):
        raise BadData(f"'strength' holds {short(strength)}; wanted a whole number from 0")
    return Preference(
        winner,
        loser,
        probability=number(row, "probability", 0.5 if strength == 0 else 1.0),
        weight=number(row, "weight", 1.0),
        margin=number(row, "margin", 0.0),
        strength=None if strength is None else int(strength),
        head=maybe_text(row, "head") or MAIN_HEAD,
    )


def _pair(row: FileRow) -> Candidate | Drop:
    """`chosen` and `rejected`: each a string, or messages that end in the reply, with or without `prompt`."""
    stated = _preference_of(row)
    if isinstance(stated, Drop):
        return stated
    id, voter = label(row, "id"), label(row, "voter")
    sides = field(row, "chosen"), field(row, "rejected")
    chosen, rejected = (_completion(value, name) for value, name in zip(sides, ("chosen", "rejected"), strict=True))
    if row.get("prompt") is not None:
        prompt = tuple(map(bare, _prompt(row)))
    elif all(isinstance(side, str) for side in sides):
        pair = split_texts(row, _READ_WITHOUT_PROMPT)
        return pair if isinstance(pair, Drop) else replace(pair, preferences=(stated,), id=id, voter=voter)
    else:
        refuse_other_texts(row, _READ_WITHOUT_PROMPT, [turn.text for turn in (*chosen, *rejected)])
        prompt = ()
    if drop := drop_without_reply(chosen) or drop_without_reply(rejected):
        return drop
    context, other = (continued(prompt, turns[:-1]) for turns in (chosen, rejected))
    if context is None or context != other:
        return Drop(PROMPTS_DIFFER)
    return Candidate(context, (chosen[-1].text, rejected[-1].text), (stated,), id, voter)


def drop_without_reply(turns: Prompt) -> Drop | None:
    """The drop of turns that do not end in a reply."""
    if not turns or turns[-1].role != "assistant":
        return Drop(NOT_ONE_REPLY)
    return Drop(TOOL_CALL) if turns[-1].message().keys() & {"tool_calls", "function_call"} else None


def _preference_of(row: FileRow) -> Preference | Drop:
    """What a row says of its pair: the chosen reply is better, unless its two scores are equal or say otherwise."""
    stated = _stated(row, 0, 1)
    for names in SCORES:
        if not (names[0] in row and names[1] in row):
            continue
        scored = from_scores(*(maybe_number(row[name], name) for name in names))
        if isinstance(scored, Drop):
            return scored
        if scored.tie and row.get("probability") is None and row.get("strength") is None:
            return replace(stated, probability=0.5)
    return stated


def _completion(value: object, name: str) -> Prompt:
    """What follows the prompt: a string is one assistant turn, or the turns of a transcript that ends in it."""
    if not isinstance(value, str):
        return tuple(map(bare, _messages(value, name)))
    turns = turns_of(as_text(value, name))
    return turns if len(turns) > 1 and turns[-1].role == "assistant" else (bare(Turn("assistant", value)),)


def continued(prompt: Prompt, context: Prompt) -> Prompt | None:
    """The prompt and the messages that follow it, where these may repeat the prompt or its last turns.

    Returns:
        The messages alone if the whole prompt stands in them; else the prompt and what of the messages comes after
        the longest of its ends that they begin with; None where another system turn would follow the prompt.
    """
    length = len(prompt)
    if any(context[start : start + length] == prompt for start in range(len(context) - length + 1)):
        return context
    shared = max(k for k in range(min(length, len(context)) + 1) if prompt[length - k :] == context[:k])
    rest = context[shared:]
    return None if rest and rest[0].role in ("system", "developer") else prompt + rest
