"""Which comparisons are left out of training: repeats, and what evaluation sets hold or nearly hold.

Surprising: several people's judgments of the same replies are not duplicates of each other. Within a data set they are
merged, each vote counting; only what another data set repeats word for word is left out.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from prefrank.data import split_of
from prefrank.data.candidates import carry_over, carry_over_ratings
from prefrank.data.overlap import NGRAM, near_duplicates, prompt_key, shared_ngrams, text_of
from prefrank.types import Comparison, Preference

MERGED = "merged into an earlier comparison of the same prompt and replies"
NEAR = "nearly the same prompt and replies as an earlier comparison"
LEAK = "nearly in an evaluation set"
_IN_EVALUATION = "prompt is in an evaluation set"
_NOT_IN_FRACTION = "not in the fraction"
_FRACTION_SEED = 1
"""Of the hash that makes fractions, independent of the one that makes splits (0)."""
LEAK_SHARE = 0.5
"""Share of the shorter text's 13-grams from which a text counts as taken over. On Anthropic HH, between its published
splits, only one writer's template with another dish reaches it; a prompt of the test split wrapped in a request always
does, and one with a word in fifty left out does in nine of ten."""


@dataclass(frozen=True, slots=True)
class Exclusions:
    """Which comparisons of a data set are left out, by their prompts alone: the same where it is read whole or streams.

    Args:
        fraction: share of the prompts to use.
        openings: `split_of` of prompts in evaluation sets.
        keys: `prompt_key` of prompts in evaluation sets; empty where leaks are allowed.
    """

    fraction: float = 1.0
    openings: frozenset[float] = frozenset()
    keys: frozenset[bytes] = frozenset()

    def reason(self, comparison: Comparison) -> str:
        """Why it is left out; "" if it is not."""
        prompt = comparison.prompt
        if self.fraction < 1 and split_of(prompt, seed=_FRACTION_SEED) >= self.fraction:
            return _NOT_IN_FRACTION
        if self.openings and split_of(prompt) in self.openings:
            return _IN_EVALUATION
        return LEAK if self.keys and prompt_key(prompt) in self.keys else ""


@dataclass(frozen=True, slots=True)
class Repeats:
    """What is left of C comparisons.

    Args:
        kept: [C] each comparison, with the judgments of those merged into it; None where it is gone.
        reasons: [C] why it is gone, "" where it is not.
        contradicting: [C] whether it prefers the other one of two replies that an earlier comparison judged.
    """

    kept: tuple[Comparison | None, ...]
    reasons: tuple[str, ...]
    contradicting: tuple[bool, ...]


def find_repeats(comparisons: Sequence[Comparison], sets: Sequence[int], *, merge: bool, near: bool) -> Repeats:
    """Find comparisons of the same prompt and replies.

    Args:
        comparisons: C comparisons, of which the earlier ones stay.
        sets: [C] the data set that each comes from.
        merge: merge those of the same prompt and replies into the first; else they are only compared with it.
        near: also drop what nearly repeats an earlier comparison (`overlap.near_duplicates`).
    """
    kept: list[Comparison | None] = list(comparisons)
    reasons = [""] * len(comparisons)
    contradicting = [False] * len(comparisons)
    first: dict[object, int] = {}
    judged: dict[int, set[tuple[int, int, str]]] = {}
    again: dict[int, list[int]] = {}

    def said_by(number: int) -> set[tuple[int, int, str]]:
        """The judgments of a comparison and its repeats so far; computed only where there is a repeat."""
        if number not in judged:
            judged[number] = set()
            _contradicts(comparisons[number].preferences, judged[number])
        return judged[number]

    for number, comparison in enumerate(comparisons):
        earlier = first.setdefault((comparison.prompt, frozenset(comparison.replies)), number)
        if earlier != number:
            stated = carry_over(comparison.preferences, comparison.replies, comparisons[earlier].replies)
            contradicting[number] = _contradicts(stated, said_by(earlier))
        if merge and earlier != number:
            again.setdefault(earlier, []).append(number)
            kept[number], reasons[number] = None, MERGED
    for earlier, numbers in again.items():
        kept[earlier] = _merged([(comparisons[n], sets[n]) for n in (earlier, *numbers)])
    if near:
        left = [number for number, comparison in enumerate(kept) if comparison is not None]
        texts = [text_of(comparisons[number].prompt) for number in left]
        for later, (earlier, like) in near_duplicates(texts, [comparisons[n].replies for n in left]).items():
            number = left[later]
            stated = _in_place(comparisons[number], like)
            contradicting[number] |= _contradicts(stated, said_by(left[earlier]))
            kept[number], reasons[number] = None, NEAR
    return Repeats(tuple(kept), tuple(reasons), tuple(contradicting))


def _merged(again: Sequence[tuple[Comparison, int]]) -> Comparison:
    """The first of some comparisons and their sets, with each judgment as often as the set that has it most often."""
    first = again[0][0]
    by_set: dict[int, Counter[Preference]] = defaultdict(Counter)
    preferences: Counter[Preference] = Counter()
    for comparison, number in again:
        for p in carry_over(comparison.preferences, comparison.replies, first.replies):
            by_set[number][p] += 1
            preferences[p] = max(preferences[p], by_set[number][p])
    rated = [(comparison.ratings, comparison.replies) for comparison, _ in again]
    merged = tuple(preferences.elements())
    return replace(first, preferences=merged, ratings=carry_over_ratings(rated, first.replies))


def _in_place(comparison: Comparison, places: Sequence[int]) -> tuple[Preference, ...]:
    """The preferences with each reply's place in another comparison for its own."""
    return tuple(replace(p, winner=places[p.winner], loser=places[p.loser]) for p in comparison.preferences)


def _contradicts(preferences: Sequence[Preference], judged: set[tuple[int, int, str]]) -> bool:
    """Whether one of them contradicts what was judged before; they are added to what was judged."""
    decided = {
        (p.winner, p.loser, p.head) if p.probability > 0.5 else (p.loser, p.winner, p.head)
        for p in preferences
        if not p.tie
    }
    opposed = any((loser, winner, head) in judged for winner, loser, head in decided)
    judged |= decided
    return opposed


@dataclass(frozen=True, slots=True)
class Leak:
    """A training comparison that an evaluation set nearly holds.

    Args:
        training: its number.
        set: name of the evaluation set.
        example: both texts and what they share, in a few words.
    """

    training: int
    set: str
    example: str


def find_leaks(training: Sequence[Comparison], evaluation: Mapping[str, Sequence[Comparison]]) -> list[Leak]:
    """Training comparisons whose prompt has the same words as one of an evaluation set, or which share at least
    `LEAK_SHARE` of a prompt's or a reply's 13-grams with one; each once, in their order.

    Wording that stands under several openings is not looked at (`overlap.shared_ngrams`), so that templates, and turns
    that conversations of one opening share, raise no alarm.
    """
    held_out = [(name, comparison) for name, comparisons in evaluation.items() for comparison in comparisons]
    keys = {prompt_key(comparison.prompt): number for number, (_, comparison) in reversed(list(enumerate(held_out)))}
    leaks: dict[int, Leak] = {}

    def add(number: int, other: int, mine: str, theirs: str, what: str) -> None:
        name, comparison = held_out[other]
        own = f"{training[number].source}/{training[number].id}"
        example = f"{_short(mine)} ({own}) {what} {_short(theirs)} ({comparison.id})"
        leaks.setdefault(number, Leak(number, name, example))

    for number, comparison in enumerate(training):
        other = keys.get(prompt_key(comparison.prompt))
        if other is not None:
            add(number, other, text_of(comparison.prompt), text_of(held_out[other][1].prompt), "has the words of")
    ours = [(number, text) for number, comparison in enumerate(training) for text in [text_of(comparison.prompt)]]
    theirs = [
        (number, text) for number, (_, comparison) in enumerate(held_out) for text in [text_of(comparison.prompt)]
    ]
    replies = [(number, text) for number, comparison in enumerate(training) for text in comparison.replies]
    their_replies = [(number, text) for number, (_, comparison) in enumerate(held_out) for text in comparison.replies]
    for mine, others in ((ours, theirs), (replies, their_replies)):
        shared = shared_ngrams(
            [text for _, text in mine],
            [text for _, text in others],
            origins=[split_of(training[number].prompt) for number, _ in mine],
            other_origins=[split_of(held_out[number][1].prompt) for number, _ in others],
        )
        for a, b, share in zip(shared.text.tolist(), shared.other.tolist(), shared.share.tolist(), strict=True):
            if share >= LEAK_SHARE:
                what = f"shares {share:.0%} of its {NGRAM}-grams with"
                add(mine[a][0], others[b][0], mine[a][1], others[b][1], what)
    return [leaks[number] for number in sorted(leaks)]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else f"{line[:57]}...")
