"""The length limit of one row made of `Parts`: what is left out, in which order.

The reply is kept whole. The prompt loses its oldest turns, then the oldest tokens of its last turn, and only then of
what says how to answer (system and developer turns), oldest tokens first. A reply that alone exceeds the limit is cut,
at its end. The tokens of a prompt's turn may go in steps (`in_steps`), so that replies of nearly one length leave the
same prompt.
"""

from itertools import chain

import numpy as np
from jaxtyping import Int8

from prefrank.text.reader import TextIds
from prefrank.text.settings import TokenTypes
from prefrank.text.templates import Parts, PartTurn
from prefrank.types import Row, reply_types


def fit(parts: Parts, reply: TextIds, limit: int, token_types: TokenTypes, *, step: int = 1) -> Row:
    """One row of at most `limit` tokens, as long as the control tokens alone are not more.

    Args:
        step: tokens that a turn loses at a time.
    """
    fixed = len(parts.before) + len(parts.middle) + len(parts.after)
    whole = sum(map(len, parts.turns))
    turns = _cut(parts.turns, max(limit - fixed - len(reply), 0), step)
    prompt = list(chain.from_iterable((*turn.opening, *turn.text, *turn.closing) for turn in turns))
    room = max(limit - fixed - len(prompt), 0)
    ids = [*parts.before, *prompt, *parts.middle, *reply[:room], *parts.after]
    start = len(ids) - len(parts.after) - len(reply[:room])
    types = _types(parts, len(prompt), len(reply[:room]), len(ids), start, token_types)
    return Row(np.array(ids, np.int64), types, start, whole - len(prompt), max(len(reply) - room, 0))


def in_steps(over: int, size: int, step: int) -> int:
    """How many tokens a text of `size` loses where at least `over` must go: a multiple of `step`, as long as no fewer
    than `step` are left. Of the last so many, with the question or cue that ends a prompt, go only as many as must.

    >>> [in_steps(over, 200, 64) for over in (1, 64, 65, 130, 150, 300)]
    [64, 64, 128, 136, 150, 200]
    """
    return min(-(-over // step) * step, max(over, size - step), size)


def _cut(turns: list[PartTurn], budget: int, step: int) -> list[PartTurn]:
    """The turns within a budget of tokens; the last turn's opening and closing always stay."""
    over = sum(map(len, turns)) - budget
    if over <= 0:
        return turns
    last = len(turns) - 1
    left: dict[int, PartTurn] = dict(enumerate(turns))
    for place, turn in enumerate(turns[:-1]):
        if over > 0 and not turn.kept:
            over -= len(left.pop(place))
    order = [last, *(place for place in left if place != last)]
    for place in order:
        turn = left[place]
        if over <= 0:
            break
        if place != last and over >= len(turn.text):
            over -= len(left.pop(place))
            continue
        text = turn.text[in_steps(over, len(turn.text), step) :]
        over -= len(turn.text) - len(text)
        left[place] = PartTurn(turn.opening, text, turn.closing, turn.kept)
    return list(left.values())


def _types(
    parts: Parts, prompt: int, reply: int, length: int, start: int, token_types: TokenTypes
) -> Int8[np.ndarray, " L"]:
    if token_types == "none":
        return np.zeros(length, np.int8)
    of = parts.types
    if of is None:
        return reply_types(length, start)
    return np.array([*of.before, *[of.first] * prompt, *of.middle, *[of.second] * reply, *of.after], np.int8)
