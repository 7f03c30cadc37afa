"""What a reader hands on: a candidate comparison as its row states it, or the reason why the row gives none.

Readers only translate. The rules that every data set shares live here, in `settle`: empty replies are left out, equal
replies become one, and a preference that would then hold between a reply and itself disappears. Explicit preferences
are carried over as they are; nothing here makes an order up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from prefrank.types import Comparison, Preference, Prompt

DUPLICATE = "duplicate"
EMPTY_PROMPT = "empty prompt"
EMPTY_REPLY = "empty reply"
EQUAL_REPLIES = "equal replies"
FEW_REPLIES = "fewer than two replies"
MERGED = "merged into an earlier comparison of the same prompt"
NO_PREFERENCE = "no preference between the replies"
OTHER_SPLIT = "another split"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A comparison as a row states it: its replies may still be empty, equal or too few.

    Args:
        prompt: the turns before the reply.
        replies: texts, as stated.
        preferences: index pairs into `replies`.
        id: the data set's own name for it; "" takes the file and line.
        voter: tells equal judgements by two people from a row that was written twice.
        left_out: one reason for each reply that the reader itself left out.
    """

    prompt: Prompt
    replies: tuple[str, ...]
    preferences: tuple[Preference, ...]
    id: str = ""
    voter: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drop:
    """A row, or group of rows, that is well formed and gives no comparison."""

    reason: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """A comparison and one reason for each reply left out of it."""

    comparison: Comparison
    voter: str
    left_out: tuple[str, ...]


def from_ranks(ranks: Sequence[float]) -> tuple[Preference, ...]:
    """All pairs of a ranking, 0 best; equal ranks are ties (probability 0.5).

    >>> from_ranks([1, 0])
    (Preference(winner=1, loser=0, probability=1.0, weight=1.0, margin=0.0),)
    """
    return tuple(_between(i, j, ranks[i], ranks[j]) for i, j in combinations(range(len(ranks)), 2))


def _between(i: int, j: int, rank_i: float, rank_j: float) -> Preference:
    if rank_i == rank_j:
        return Preference(i, j, probability=0.5)
    return Preference(i, j) if rank_i < rank_j else Preference(j, i)


def from_ratings(ratings: Sequence[float]) -> tuple[Preference, ...]:
    """All pairs of ratings on one scale, higher is better; equal ratings are ties."""
    return from_ranks([-rating for rating in ratings])


def best_against_rest(num_replies: int, best: int = 0) -> tuple[Preference, ...]:
    """The best reply against each other one; the others are not ordered among themselves."""
    return tuple(Preference(best, other) for other in range(num_replies) if other != best)


def settle(candidate: Candidate, *, source: str, id: str) -> Kept | Drop:
    """Apply the shared rules: what remains is a comparison of distinct, non-empty replies, or a reason why not.

    Replies that differ only in white space at their ends count as equal; the first one's text stays.
    """
    if not any(turn.text.strip() for turn in candidate.prompt):
        return Drop(EMPTY_PROMPT, candidate.left_out)
    if len(candidate.replies) < 2:
        return Drop(FEW_REPLIES, candidate.left_out)
    texts: dict[str, str] = {}
    for reply in candidate.replies:
        if bare := reply.strip():
            texts.setdefault(bare, reply)
    if len(texts) < 2:
        empty = any(not reply.strip() for reply in candidate.replies)
        return Drop(EMPTY_REPLY if empty else EQUAL_REPLIES, candidate.left_out)
    preferences = _carry_over(candidate, {bare: index for index, bare in enumerate(texts)})
    if not preferences:
        return Drop(NO_PREFERENCE, candidate.left_out)
    comparison = Comparison(candidate.prompt, tuple(texts.values()), preferences, source, candidate.id or id)
    return Kept(comparison, candidate.voter, candidate.left_out + _merged(candidate.replies, len(texts)))


def _carry_over(candidate: Candidate, index_of: dict[str, int]) -> tuple[Preference, ...]:
    """The preferences with new indexes, without those that touch an empty reply or one reply twice."""
    if len(index_of) == len(candidate.replies):
        return candidate.preferences
    index = [index_of.get(reply.strip(), -1) for reply in candidate.replies]
    return tuple(
        Preference(index[p.winner], index[p.loser], p.probability, p.weight, p.margin)
        for p in candidate.preferences
        if index[p.winner] != index[p.loser] and min(index[p.winner], index[p.loser]) >= 0
    )


def _merged(replies: Sequence[str], num_kept: int) -> tuple[str, ...]:
    num_empty = sum(not reply.strip() for reply in replies)
    return (EMPTY_REPLY,) * num_empty + (EQUAL_REPLIES,) * (len(replies) - num_empty - num_kept)
