"""Labels as tensors over scored rows: preferences, rankings and ratings.

Rankings are derived from preferences, since those are what every data set states; where preferences do not order the
replies, there is no ranking (`rank_replies`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from prefrank.types import MAIN_HEAD, Preference, RankedPairs

Weigh = Literal["comparison", "pair"]
Group = Sequence[Preference]
"""The preferences of one comparison; a long ranking's are `RankedPairs`."""
_Columns = tuple[np.ndarray, ...]
UNKNOWN = -1
"""The strength where none was stated: the reply was better, by some level."""
_EVEN = 1e-9
"""Sums of votes closer to 0 than this are ties, since weights such as 0.1 are not exact."""


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """S choices of the best among the replies that are left, as Plackett-Luce sees a ranking; E rows stand in them.

    Args:
        stage: [E] which choice.
        row: [E] a row to choose from.
        odds: [E] what the row counts among those to choose from: 1, less for a tied row that may be placed already.
        share: [E] its share in what is chosen: 1 for the winner, 1/m for each of m tied, 0 for the others.
        place: [S] how many choices of the same ranking came before.
        places: [S] how many choices that ranking has.
        head: [S] its head.
        weight: [S] what the ranking counts.
    """

    stage: Int64[Tensor, " E"]
    row: Int64[Tensor, " E"]
    odds: Float32[Tensor, " E"]
    share: Float32[Tensor, " E"]
    place: Int64[Tensor, " S"]
    places: Int64[Tensor, " S"]
    head: Int64[Tensor, " S"]
    weight: Float32[Tensor, " S"]


@dataclass(frozen=True, slots=True, eq=False)
class RatedRows:
    """R ratings: the row, the head, the rating, and its weight."""

    row: Int64[Tensor, " R"]
    head: Int64[Tensor, " R"]
    rating: Float32[Tensor, " R"]
    weight: Float32[Tensor, " R"]


@dataclass(frozen=True, slots=True, eq=False)
class Preferences:
    """P preferences between N scored rows, and the rankings and ratings of the same rows.

    Args:
        winner: [P] row of the preferred reply.
        loser: [P] row of the other reply.
        probability: [P] of the winner winning; 0.5 is a tie.
        weight: [P] what each preference counts; those of one comparison sum to 1 unless pairs were asked for.
        margin: [P] by how much the winner's score should exceed the loser's.
        strength: [P] level of strength, -1 where nobody stated it.
        head: [P] which score it speaks of.
        choices: empty unless the examples are ranked.
        rated: empty where nothing was rated.
    """

    winner: Int64[Tensor, " P"]
    loser: Int64[Tensor, " P"]
    probability: Float32[Tensor, " P"]
    weight: Float32[Tensor, " P"]
    margin: Float32[Tensor, " P"]
    strength: Int64[Tensor, " P"]
    head: Int64[Tensor, " P"]
    choices: Choices
    rated: RatedRows

    def to(self, device: torch.device) -> "Preferences":
        return Preferences(*(_moved(getattr(self, attribute.name), device) for attribute in fields(self)))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return type(value)(*(_moved(getattr(value, attribute.name), device) for attribute in fields(value)))


def number_rows(
    groups: Sequence[Group],
    first_rows: Sequence[int],
    *,
    weigh: Weigh = "comparison",
    weights: Sequence[float] | None = None,
    heads: Sequence[str] = (MAIN_HEAD,),
    levels: Sequence[np.ndarray] | None = None,
    ratings: Sequence[np.ndarray] | None = None,
) -> Preferences:
    """Turn each comparison's reply indexes into row numbers, and its preference weights into shares.

    Args:
        groups: the preferences of each comparison.
        first_rows: the row of each comparison's reply 0.
        weigh: "comparison": a comparison's weights are scaled to sum to 1 (InstructGPT's mean over K-choose-2, Ouyang
            et al. 2022 eq. 1); "pair": they are taken as they are, so that every pair counts alike. A comparison's
            rankings and ratings count as much as its preferences do together, each head's ranking as much as the
            preferences of that head.
        weights: what each comparison counts on top of that; 1 each by default.
        heads: names of the heads that preferences may have, in the scores' order.
        levels: of each comparison, [K H] places in its rankings, 0 best, -1 for no place; see `rank_replies`.
        ratings: of each comparison, [K H] ratings, NaN for none.
    """
    outer = [1.0] * len(groups) if weights is None else list(weights)
    number = {name: index for index, name in enumerate(heads)}
    both = zip(groups, first_rows, outer, strict=True)
    parts = [_columns(group, first, share, number, weigh) for group, first, share in both]
    winner, loser, probability, share, margin, strength, head = (
        np.concatenate(column) for column in zip(_columns((), 0, 1.0, number, weigh), *parts, strict=True)
    )
    counts = np.zeros((len(groups), len(heads)))
    np.add.at(counts, (np.repeat(np.arange(len(groups)), [len(part[0]) for part in parts]), head), share)
    return Preferences(
        winner=torch.from_numpy(winner),
        loser=torch.from_numpy(loser),
        probability=torch.from_numpy(probability.astype(np.float32)),
        weight=torch.from_numpy(share.astype(np.float32)),
        margin=torch.from_numpy(margin.astype(np.float32)),
        strength=torch.from_numpy(strength),
        head=torch.from_numpy(head),
        choices=_choices(levels or [], first_rows, counts),
        rated=_rated(ratings or [], first_rows, counts.sum(1)),
    )


def _columns(group: Group, first: int, outer: float, number: Mapping[str, int], weigh: Weigh) -> _Columns:
    """Winner, loser, probability, share, margin, strength and head of each preference of one comparison."""
    if isinstance(group, RankedPairs):
        winner, loser, tie = group.arrays()
        size = len(tie)
        share = outer * 1.0 / (1.0 if weigh == "pair" else float(size))
        known = (np.full(size, share), np.zeros(size), np.full(size, UNKNOWN), np.full(size, number[group.head]))
        return winner.astype(np.int64) + first, loser.astype(np.int64) + first, np.where(tie, 0.5, 1.0), *known
    total = 1.0 if weigh == "pair" else sum(p.weight for p in group)
    return (
        np.array([first + p.winner for p in group], np.int64),
        np.array([first + p.loser for p in group], np.int64),
        np.array([p.probability for p in group], np.float64),
        np.array([outer * p.weight / total for p in group], np.float64),
        np.array([p.margin for p in group], np.float64),
        np.array([UNKNOWN if p.strength is None else p.strength for p in group], np.int64),
        np.array([number[p.head] for p in group], np.int64),
    )


def _choices(levels: Sequence[np.ndarray], first_rows: Sequence[int], counts: Float[np.ndarray, "C H"]) -> Choices:
    """The choices of every ranking of two replies or more."""
    entries: list[np.ndarray] = [np.zeros((4, 0))]
    stages: list[tuple[int, int, int, float]] = []
    for c, (table, first) in enumerate(zip(levels, first_rows, strict=bool(levels))):
        for head, column in enumerate(table.T):
            table_entries = _stages_of(tuple(column.tolist()))
            places = int(table_entries[0].max(initial=-1)) + 1
            entries.append(table_entries + np.array([[len(stages)], [first], [0], [0]]))
            stages += [(place, places, head, counts[c, head]) for place in range(places)]
    stage, row, odds, share = np.concatenate(entries, 1)
    place, places_, head_, weight = np.array(stages, float).reshape(-1, 4).T
    whole = [torch.tensor(part, dtype=torch.int64) for part in (stage, row, place, places_, head_)]
    parts = [torch.tensor(part, dtype=torch.float32) for part in (odds, share, weight)]
    return Choices(whole[0], whole[1], parts[0], parts[1], whole[2], whole[3], whole[4], parts[2])


def _stages_of(levels: tuple[int, ...]) -> np.ndarray:
    """The same, kept for short rankings only: those of a long one fill memory."""
    return _kept_stages(levels) if len(levels) < _LONG else _stages(levels)


def _stages(levels: tuple[int, ...]) -> np.ndarray:
    """[4 E] stage, reply, odds and share of each entry; the last choice, with one reply left, adds nothing.

    Replies of one level are m places long. Any of them may stand first, so each counts 1/m of what is chosen, and
    once l of them are placed, each counts (m - l)/m among those that are left (Efron 1977).
    """
    level = np.array(levels, np.int64)
    order = np.argsort(level, kind="stable")
    order = order[level[order] >= 0]
    begins, ends = (np.searchsorted(level[order], level[order], side=side) for side in ("left", "right"))
    parts = [np.zeros((4, 0))]
    for stage, (begin, end) in enumerate(zip(begins[:-1].tolist(), ends[:-1].tolist(), strict=True)):
        part, tied = np.empty((4, len(order) - begin)), end - begin
        part[0], part[1], part[2], part[3] = stage, order[begin:], 1.0, 0.0
        part[2, :tied], part[3, :tied] = 1 - (stage - begin) / tied, 1 / tied
        parts.append(part)
    return np.concatenate(parts, 1)


_kept_stages = lru_cache(maxsize=4096)(_stages)
_LONG = 64
"""Rankings of this many replies or more are not cached."""


def _rated(ratings: Sequence[np.ndarray], first_rows: Sequence[int], counts: Float[np.ndarray, " C"]) -> RatedRows:
    """All ratings; those of one comparison share its weight."""
    rows, heads, values, weights = [], [], [], []
    for table, first, count in zip(ratings, first_rows, counts, strict=bool(ratings)):
        reply, head = np.nonzero(~np.isnan(table))
        rows += (first + reply).tolist()
        heads += head.tolist()
        values += table[reply, head].tolist()
        weights += [count / max(1, len(reply))] * len(reply)
    return RatedRows(
        torch.tensor(rows, dtype=torch.int64),
        torch.tensor(heads, dtype=torch.int64),
        torch.tensor(values, dtype=torch.float32),
        torch.tensor(weights, dtype=torch.float32),
    )


def rank_replies(preferences: Group, size: int, *, places: int) -> tuple[int, ...] | None:
    """The level of each reply in the order that preferences of one head imply: 0 best, -1 in no preference.

    Votes on one pair are added up by weight; an even vote is a tie, and tied replies share a level. The order must
    hold as far as `places` replies: then it does not matter how those below compare among themselves.

    Returns:
        None where it does not: the preferences go in a circle, or leave open which of two replies is better.
    """
    if isinstance(preferences, RankedPairs):
        return tuple(-1 if level is None else level for level in preferences.levels)
    votes: dict[tuple[int, int], float] = {}
    for p in preferences:
        pair, side = ((p.winner, p.loser), 1.0) if p.winner < p.loser else ((p.loser, p.winner), -1.0)
        votes[pair] = votes.get(pair, 0.0) + side * p.weight * (p.probability - 0.5)
    block = list(range(size))
    for (a, b), balance in votes.items():
        if abs(balance) < _EVEN:
            block = [block[a] if member == block[b] else member for member in block]
    below: dict[int, list[int]] = {block[reply]: [] for pair in votes for reply in pair}
    waiting = dict.fromkeys(below, 0)
    for (a, b), balance in votes.items():
        if abs(balance) >= _EVEN:
            upper, lower = (block[a], block[b]) if balance > 0 else (block[b], block[a])
            below[upper].append(lower)
            waiting[lower] += 1
    members = {member: block.count(member) for member in below}
    level_of: dict[int, int] = {}
    placed = 0
    free = [member for member, count in waiting.items() if not count]
    while len(free) == 1 and len(level_of) < len(below):
        (best,) = free
        level_of[best] = len(level_of)
        placed += members[best]
        free = []
        for lower in below[best]:
            waiting[lower] -= 1
            if not waiting[lower]:
                free.append(lower)
    if len(level_of) < len(below) and placed < places:
        return None
    return tuple(level_of.get(member, len(level_of)) if member in below else -1 for member in block)
