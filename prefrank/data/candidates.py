"""What a reader hands on: a candidate comparison as its row states it, or the reason why the row gives none.

Readers only translate. The rules that every data set shares live here, in `settle`: every text loses the white space
at its ends (how a text was pasted must not be a clue), empty replies are left out, equal replies become one, and a
preference that would then hold between a reply and itself disappears. Explicit preferences are carried over as they
are; nothing here makes an order up.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, combinations
from statistics import fmean

from prefrank.errors import BadData
from prefrank.io.rows import Record
from prefrank.types import MAIN_HEAD, Comparison, Preference, Preferences, Prompt, RankedPairs, Ratings, Turn

DUPLICATE = "duplicate"
EMPTY_PROMPT = "empty prompt"
EMPTY_REPLY = "empty reply"
EQUAL_REPLIES = "equal replies"
FEW_REPLIES = "fewer than two replies"
LABEL_AGAINST_SCORES = "label against the scores"
MERGED = "merged into an earlier comparison of the same prompt"
NO_PREFERENCE = "no preference between the replies"
OTHER_SPLIT = "another split"
OTHER_SYSTEM = "the prompt opens with another system turn"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A comparison as a row states it: its replies may still be empty, equal or too few.

    Args:
        prompt: the turns before the reply.
        replies: texts, as stated.
        preferences: index pairs into `replies`.
        id: the data set's own name for it; "" takes the file and line.
        voter: tells equal judgments by two people from a row that was written twice; "" takes the id.
        left_out: one reason for each reply or judgment that the reader itself left out.
        ratings: of the replies, by head; a rating for every reply or None.
    """

    prompt: Prompt
    replies: tuple[str, ...]
    preferences: Preferences
    id: str = ""
    voter: str = ""
    left_out: tuple[str, ...] = ()
    ratings: tuple[Ratings, ...] = ()


@dataclass(frozen=True, slots=True)
class Drop:
    """A row, or group of rows, that is well formed and gives no comparison."""

    reason: str
    left_out: tuple[str, ...] = ()


Candidates = Iterator[tuple[Record, Candidate | Drop]]
"""What a reader makes of a file, each with the record it begins at."""


_LONG = 64
"""Replies from which the pairs of a ranking are made one by one, when they are asked for."""


def from_ranks(ranks: Sequence[float | int]) -> Preferences:
    """All pairs of a ranking, 0 best; equal ranks are ties (probability 0.5).

    >>> [(p.winner, p.loser, p.probability) for p in from_ranks([1, 0])]
    [(1, 0, 1.0)]
    """
    return _all_pairs(tuple(ranks)) if len(ranks) < _LONG else RankedPairs(tuple(ranks))


@lru_cache(maxsize=4096)
def _all_pairs(ranks: tuple[float | int, ...]) -> tuple[Preference, ...]:
    return tuple(_between(i, j, ranks[i], ranks[j]) for i, j in combinations(range(len(ranks)), 2))


def _between(i: int, j: int, rank_i: float | int, rank_j: float | int) -> Preference:
    if rank_i == rank_j:
        return Preference(i, j, probability=0.5)
    return Preference(i, j) if rank_i < rank_j else Preference(j, i)


def from_ratings(ratings: Sequence[float | int]) -> Preferences:
    """All pairs of ratings on one scale, higher is better; equal ratings are ties."""
    return from_ranks([-rating for rating in ratings])


@lru_cache(maxsize=256)
def best_against_rest(num_replies: int, best: int = 0) -> tuple[Preference, ...]:
    """The best reply against each other one; the others are not ordered among themselves."""
    return tuple(Preference(best, other) for other in range(num_replies) if other != best)


def settle(candidate: Candidate) -> Candidate | Drop:
    """Apply the shared rules: what remains can be a `Comparison`, or there is a reason why not."""
    prompt = tuple(map(bare, candidate.prompt))
    if not any(turn.text or turn.extra for turn in prompt):
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
    ratings = carry_over_ratings([(candidate.ratings, texts)], distinct)
    return Candidate(prompt, distinct, preferences, candidate.id, candidate.voter, candidate.left_out + merged, ratings)


def bare(turn: Turn) -> Turn:
    """The turn without white space at its ends."""
    text = turn.text.strip()
    return turn if text == turn.text else replace(turn, text=text)


def under_system(stated: Candidate | Drop, system: str) -> Candidate | Drop:
    """The candidate with a system turn before its prompt; dropped where its prompt opens with another one."""
    if not system or isinstance(stated, Drop) or not any(turn.text.strip() for turn in stated.prompt):
        return stated
    first = stated.prompt[0]
    if first.role in ("system", "developer"):
        return stated if first.text.strip() == system else Drop(OTHER_SYSTEM, stated.left_out)
    return replace(stated, prompt=(Turn("system", system), *stated.prompt))


def from_scores(chosen: float | None, rejected: float | None) -> Preference | Drop:
    """What a chosen and a rejected reply's scores say: equal ones a tie, and that the rejected one is not better.

    The chosen reply is reply 0; where a score is missing, the choice alone counts.
    """
    if chosen is not None and rejected is not None:
        if chosen < rejected:
            return Drop(LABEL_AGAINST_SCORES)
        if chosen == rejected:
            return Preference(0, 1, probability=0.5)
    return Preference(0, 1)


def carry_over(preferences: Preferences, replies: Sequence[str], distinct: Sequence[str]) -> Preferences:
    """The preferences between `replies` as preferences between `distinct`, without those that lose a side."""
    if tuple(replies) == tuple(distinct):
        return preferences
    new = {reply: index for index, reply in enumerate(distinct)}
    if isinstance(preferences, RankedPairs) and len(set(replies)) == len(replies):  # some new, some left out
        rank = dict(zip(replies, preferences.ranks, strict=True))
        return RankedPairs(tuple(rank.get(reply) for reply in distinct), preferences.head)
    index = [new.get(reply) for reply in replies]
    return tuple(
        replace(p, winner=winner, loser=loser)
        for p in preferences
        if (winner := index[p.winner]) is not None and (loser := index[p.loser]) is not None and winner != loser
    )


def carry_over_ratings(
    rated: Iterable[tuple[Sequence[Ratings], Sequence[str]]], distinct: Sequence[str]
) -> tuple[Ratings, ...]:
    """Ratings of several lists of replies as ratings of `distinct`; a reply rated more than once takes its mean."""
    by_head: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for ratings, replies in rated:
        for given in ratings:
            for reply, value in zip(replies, given.values, strict=True):
                if value is not None:
                    by_head[given.head][reply].append(value)
    means = {head: {reply: _mean(values) for reply, values in by_reply.items()} for head, by_reply in by_head.items()}
    return tuple(Ratings(tuple(map(by_reply.get, distinct)), head) for head, by_reply in means.items())


def pooled(
    rated: Sequence[tuple[Sequence[Ratings], Sequence[str]]],
) -> tuple[tuple[str, ...], tuple[Ratings, ...]]:
    """The distinct replies of several lists, in their order, and what they were rated, as `carry_over_ratings` says."""
    distinct = tuple(dict.fromkeys(reply for _, replies in rated for reply in replies))
    return distinct, carry_over_ratings(rated, distinct)


def _mean(values: Sequence[float]) -> float:
    try:
        return fmean(values)
    except OverflowError:  # of a sum past the largest fraction
        return sum(value / len(values) for value in values)


def heads_of(preferences: Preferences) -> set[str]:
    """The heads that some preferences are of."""
    if isinstance(preferences, RankedPairs):
        return {preferences.head}
    return {preference.head for preference in preferences}


def preferences_of(comparison: Comparison, heads: Sequence[str]) -> Preferences:
    """The preferences of these heads; those of a head that only has ratings are all pairs of what was rated."""
    stated = heads_of(comparison.preferences)
    rated = (ratings for ratings in comparison.ratings if ratings.head in heads and ratings.head not in stated)
    derived = [*map(from_ratings_of, rated)]
    if len(derived) == 1 and not stated & set(heads):
        return derived[0]
    if not derived and stated <= set(heads):
        return comparison.preferences
    kept = comparison.preferences if stated & set(heads) else ()
    return (*(preference for preference in kept if preference.head in heads), *chain.from_iterable(derived))


def labelled(comparisons: Sequence[Comparison], head: str | None = None) -> tuple[Comparison, ...]:
    """The comparisons that have labels of one head, with those alone as preferences.

    Args:
        head: the head asked for; the main one where it is None or the data have no such labels.

    Raises:
        BadData: labels of neither.
    """
    for name in (head or MAIN_HEAD, MAIN_HEAD):
        labels = [(comparison, preferences_of(comparison, (name,))) for comparison in comparisons]
        kept = tuple(replace(comparison, preferences=preferences) for comparison, preferences in labels if preferences)
        if kept or not comparisons:
            return kept
    others = sorted(set().union(*(heads_of(comparison.preferences) for comparison in comparisons)))
    raise BadData(f"no comparison has labels of {head or MAIN_HEAD}; the data have {', '.join(others)}")


def from_ratings_of(rated: Ratings) -> Preferences:
    """All pairs of the replies that were rated, under the ratings' head."""
    judged = [reply for reply, value in enumerate(rated.values) if value is not None]
    if len(judged) >= _LONG:
        return RankedPairs(tuple(None if value is None else -value for value in rated.values), rated.head)
    pairs = from_ratings([value for value in rated.values if value is not None])
    return tuple(replace(p, winner=judged[p.winner], loser=judged[p.loser], head=rated.head) for p in pairs)


def joined(groups: Sequence[Preferences]) -> Preferences:
    """The preferences of several groups as one."""
    return groups[0] if len(groups) == 1 else tuple(chain.from_iterable(groups))
