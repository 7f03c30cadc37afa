"""What a reader hands on: a candidate comparison as its row states it, or the reason why the row gives none.

Readers only translate. The rules that every data set shares live here, in `settle`: every text loses the white space
at its ends (how a text was pasted must not be a clue), empty replies are left out, equal replies become one, and a
preference that would then hold between a reply and itself disappears. Explicit preferences are carried over as they
are; nothing here makes an order up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from prefrank.types import Preference, Prompt, Turn

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


def from_ranks(ranks: Sequence[float | int]) -> tuple[Preference, ...]:
    """All pairs of a ranking, 0 best; equal ranks are ties (probability 0.5).

    >>> from_ranks([1, 0])
    (Preference(winner=1, loser=0, probability=1.0, weight=1.0, margin=0.0),)
    """
    return _all_pairs(tuple(ranks))


@lru_cache(maxsize=4096)
def _all_pairs(ranks: tuple[float | int, ...]) -> tuple[Preference, ...]:
    return tuple(_between(i, j, ranks[i], ranks[j]) for i, j in combinations(range(len(ranks)), 2))


def _between(i: int, j: int, rank_i: float | int, rank_j: float | int) -> Preference:
    if rank_i == rank_j:
        return Preference(i, j, probability=0.5)
    return Preference(i, j) if rank_i < rank_j else Preference(j, i)


def from_ratings(ratings: Sequence[float | int]) -> tuple[Preference, ...]:
    """All pairs of ratings on one scale, higher is better; equal ratings are ties."""
    return from_ranks([-rating for rating in ratings])


@lru_cache(maxsize=256)
def best_against_rest(num_replies: int, best: int = 0) -> tuple[Preference, ...]:
    """The best reply against each other one; the others are not ordered among themselves."""
    return tuple(Preference(best, other) for other in range(num_replies) if other != best)


def settle(candidate: Candidate) -> Candidate | Drop:
    """Apply the shared rules: what remains can be a `Comparison`, or there is a reason why not."""
    prompt = tuple(map(_bare, candidate.prompt))
    if not any(turn.text for turn in prompt):
        return Drop(EMPTY_PROMPT, candidate.left_out)
    if len(candidate.replies) < 2:
        return Drop(FEW_REPLIES, candidate.left_out)
    texts = [reply.strip() for reply in candidate.replies]
    distinct = tuple(dict.fromkeys(filter(None, texts)))
    if len(distinct) < 2:
        return Drop(EQUAL_REPLIES if all(texts) else EMPTY_REPLY, candidate.left_out)
    preferences = carry_over(candidate.preferences, texts, distinct)
    if not preferences:
        return Drop(NO_PREFERENCE, candidate.left_out)
    merged = (EMPTY_REPLY,) * texts.count("") + (EQUAL_REPLIES,) * (len(texts) - texts.count("") - len(distinct))
    return Candidate(prompt, distinct, preferences, candidate.id, candidate.voter, candidate.left_out + merged)


def _bare(turn: Turn) -> Turn:
    text = turn.text.strip()
    return turn if text == turn.text else Turn(turn.role, text)


def carry_over(
    preferences: Sequence[Preference], replies: Sequence[str], distinct: Sequence[str]
) -> tuple[Preference, ...]:
    """The preferences between `replies` as preferences between `distinct`, without those that lose a side."""
    if tuple(replies) == tuple(distinct):
        return tuple(preferences)
    new = {reply: index for index, reply in enumerate(distinct)}
    index = [new.get(reply) for reply in replies]
    return tuple(
        Preference(winner, loser, p.probability, p.weight, p.margin)
        for p in preferences
        if (winner := index[p.winner]) is not None and (loser := index[p.loser]) is not None and winner != loser
    )
