"""Our own format (docs/formats.md): a prompt and judged replies, or a chosen and a rejected one; TRL's forms too.

Without a `prompt`, what `chosen` and `rejected` share at their start is the prompt: whole messages, or whole words of
two strings.
"""

from collections.abc import Mapping
from itertools import chain, takewhile
from typing import Any

from prefrank.data.candidates import Candidate, Drop, from_ratings_of
from prefrank.data.fields import (
    Row,
    as_list,
    as_number,
    as_row,
    as_text,
    as_texts,
    as_turns,
    field,
    index_of,
    known_keys,
    maybe_text,
    number,
    short,
    user,
)
from prefrank.data.hh import PROMPTS_DIFFER
from prefrank.errors import BadData
from prefrank.types import MAIN_HEAD, Preference, Prompt, Ratings, Turn

JUDGEMENTS = ("ranks", "ratings", "preferences")
_SAID = ("probability", "weight", "margin", "strength", "head")
COLUMNS = ("id", "prompt", "replies", *JUDGEMENTS, "chosen", "rejected", *_SAID)
UNJUDGED = "reply without a rank or rating"
NOT_ONE_REPLY = "the completion is not one assistant message"


def own(row: Row) -> Candidate | Drop:
    """One row of our own format.

    Raises:
        BadData: `replies` without exactly one of ranks, ratings and preferences; lists of unequal length; no reply at
            all; numbers that are not finite; an index out of range; an unknown role.
    """
    if row.get("replies") is None:
        return _pair(row)
    prompt, replies = _prompt(field(row, "prompt")), as_texts(row["replies"], "replies")
    if not replies:
        raise BadData("'replies' is empty; wanted at least two replies")
    given = [name for name in JUDGEMENTS if row.get(name) is not None]
    if len(given) != 1:
        came = " and ".join(given) or "no judgement"
        raise BadData(f"'replies' came with {came}; wanted one of {', '.join(JUDGEMENTS)}")
    name = given[0]
    if name == "preferences":
        values = as_list(row[name], name)
        preferences = tuple(_preference(v, f"{name}[{i}]", len(replies)) for i, v in enumerate(values))
        return Candidate(prompt, replies, preferences, _id(row))
    return _judged(row, prompt, replies, name)


def _judged(row: Row, prompt: Prompt, replies: tuple[str, ...], name: str) -> Candidate:
    """`ranks` or `ratings`: one list, or one for each head by name."""
    said = row[name]
    lists = {
        head: _numbers(values, f"{name}.{head}" if isinstance(said, Mapping) else name, len(replies))
        for head, values in (said if isinstance(said, Mapping) else {MAIN_HEAD: said}).items()
        if values is not None  # Parquet gives every row every head
    }
    judged = [i for i in range(len(replies)) if any(values[i] is not None for values in lists.values())]
    # ranks are ratings upside down; as such they give preferences, but are no ratings to learn
    up = 1 if name == "ratings" else -1
    rated = tuple(
        Ratings(tuple(None if (value := values[i]) is None else up * value for i in judged), head)
        for head, values in lists.items()
    )
    given = [one for one in rated if name == "ranks" or MAIN_HEAD not in lists or one.head == MAIN_HEAD]
    return Candidate(
        prompt,
        tuple(replies[i] for i in judged),
        tuple(chain.from_iterable(map(from_ratings_of, given))),
        _id(row),
        left_out=(UNJUDGED,) * (len(replies) - len(judged)),
        ratings=rated if name == "ratings" else (),
    )


def _numbers(value: object, name: str, count: int) -> list[float | None]:
    values = as_list(value, name)
    if len(values) != count:
        raise BadData(f"{count} replies came with {len(values)} {name}; wanted as many of each")
    return [None if one is None else as_number(one, name) for one in values]


def _id(row: Row) -> str:
    id = row.get("id")
    return str(id) if isinstance(id, int) else maybe_text(row, "id")


def _prompt(value: object) -> Prompt:
    return user(as_text(value, "prompt")) if isinstance(value, str) else as_turns(value, "prompt")


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


def _stated(row: Row, winner: int, loser: int) -> Preference:
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


def _pair(row: Row) -> Candidate | Drop:
    """`chosen` and `rejected`: two strings or two lists of messages, with or without `prompt`."""
    chosen, rejected = field(row, "chosen"), field(row, "rejected")
    prompt = None if row.get("prompt") is None else _prompt(row["prompt"])
    split: tuple[Prompt, tuple[str, str]] | Drop
    if isinstance(chosen, str) and isinstance(rejected, str):
        texts = as_text(chosen, "chosen"), as_text(rejected, "rejected")
        split = _shared_words(*texts) if prompt is None else (prompt, texts)
    else:
        split = _shared_turns(prompt or (), as_turns(chosen, "chosen"), as_turns(rejected, "rejected"))
    if isinstance(split, Drop):
        return split
    return Candidate(split[0], split[1], (_stated(row, 0, 1),), id=_id(row))


def _shared_words(chosen: str, rejected: str) -> tuple[Prompt, tuple[str, str]]:
    """TRL's implicit prompt: the longest shared start, cut back to the end of a word so that both keep a reply."""
    longest = min(len(chosen.rstrip()), len(rejected.rstrip()))
    shared = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    shared = shared[:longest]
    if shared and not shared[-1].isspace():
        shared = shared[: len(shared) - len(shared.split()[-1])]
    return user(shared), (chosen[len(shared) :], rejected[len(shared) :])


def _shared_turns(prompt: Prompt, chosen: Prompt, rejected: Prompt) -> tuple[Prompt, tuple[str, str]] | Drop:
    """Completions of one assistant message each, after the prompt, or after messages that repeat or continue it."""
    if not all(turns and turns[-1].role == "assistant" for turns in (chosen, rejected)):
        return Drop(NOT_ONE_REPLY)
    context = chosen[:-1]
    if context != rejected[:-1]:
        return Drop(PROMPTS_DIFFER)
    if prompt and not _opens_with(context, prompt):
        context = prompt + context
    return context, (chosen[-1].text, rejected[-1].text)


def _opens_with(context: Prompt, prompt: Prompt) -> bool:
    """Whether the messages repeat the prompt: all its turns, or its one text as a user turn among them."""
    return context[: len(prompt)] == prompt or (len(prompt) == 1 and any(_same(turn, prompt[0]) for turn in context))


def _same(a: Turn, b: Turn) -> bool:
    return a.role == b.role and a.text.strip() == b.text.strip()
