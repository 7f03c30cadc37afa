"""What an evaluation is made of: items to score, and the facts of them that are kept.

An item is a comparison as a benchmark states it: its replies may repeat (two samples of one model are sometimes equal),
and its preferences keep the benchmark's order, which may mean something (RM-Bench's nine cells).
`ItemFacts` hold everything that figures are made from and no text, so that a run file can be analyzed and compared
later without the data or the model.
"""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from prefrank.data import split_of
from prefrank.errors import BadInput, short
from prefrank.io.schema import Stored, Wrong, read
from prefrank.types import Comparison, Preference, Preferences, Prompt, RankedPairs

Style = tuple[int, int, int]
"""Markdown headers, list items and bold spans of a reply."""

_HEADER = re.compile(r"^ {0,3}#{1,6}\s", re.MULTILINE)
_LIST_ITEM = re.compile(r"^[^\S\n]*(?:[-*+]|\d{1,3}[.)])\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt, K >= 2 replies, and the preferences of people or of a check.

    Args:
        prompt: the turns before the reply, oldest first.
        replies: texts; may repeat.
        preferences: index pairs into `replies`, at least one; several votes on one pair are several preferences.
        subset: the part of its suite it belongs to, such as "llmbar-natural".
        id: unique inside its subset.
        gold: what each reply is worth by another measure, such as a judge's win probability; None for a reply that was
            not measured, () where there is no such measure.
        language: as the data state it, such as "en"; "" where they do not.
    """

    prompt: Prompt
    replies: tuple[str, ...]
    preferences: Preferences
    subset: str
    id: str
    gold: tuple[float | None, ...] = ()
    language: str = ""

    def __post_init__(self) -> None:
        if not self.prompt or len(self.replies) < 2 or not self.preferences:
            raise BadInput(
                f"item {self.id} has {len(self.prompt)} prompt turns, {len(self.replies)} replies and"
                f" {len(self.preferences)} preferences; wanted at least 1, 2 and 1"
            )
        last = len(self.replies) - 1
        if isinstance(self.preferences, RankedPairs):
            if len(self.preferences.ranks) != len(self.replies):
                raise BadInput(
                    f"item {self.id} has {len(self.preferences.ranks)} ranks for {len(self.replies)} replies"
                )
        elif any(not (0 <= p.winner <= last and 0 <= p.loser <= last) for p in self.preferences):
            raise BadInput(f"item {self.id} prefers a reply that it does not have; its replies are 0 to {last}")
        if any(value is not None and not math.isfinite(value) for value in self.gold):
            raise BadInput(f"item {self.id} has the gold {short(self.gold)}; wanted finite numbers, or None")
        if self.gold and len(self.gold) != len(self.replies):
            raise BadInput(f"item {self.id} has {len(self.gold)} gold values for {len(self.replies)} replies")


def as_item(comparison: Comparison) -> Item:
    """A comparison as an item; the subset is its source."""
    c = comparison
    return Item(c.prompt, c.replies, c.preferences, c.source, c.id)


def _read_preferences(value: Any) -> Preferences:
    """[[winner, loser, probability, weight], ...], or {"ranks": [...]} for a long ranking."""
    if type(value) is dict:
        return RankedPairs(read(_Ranks, value).ranks)
    if type(value) is not list:
        raise Wrong(value, "a list, or ranks")
    return tuple(_read_preference(place, row) for place, row in enumerate(value))


def _read_preference(place: int, row: Any) -> Preference:
    if type(row) is not list or len(row) != 4 or any(type(part) not in (int, float) for part in row):
        raise Wrong(row, "[winner, loser, probability, weight]").inside(f"[{place}]")
    winner, loser, probability, weight = row
    if type(winner) is not int or type(loser) is not int or winner == loser or not 0 <= probability <= 1:
        raise Wrong(row, "two replies, a probability from 0 to 1 and a weight above 0").inside(f"[{place}]")
    if not 0 < weight < math.inf:
        raise Wrong(row, "a weight above 0").inside(f"[{place}]")
    return Preference(winner, loser, float(probability), float(weight))


def _write_preferences(preferences: Preferences) -> Any:
    if isinstance(preferences, RankedPairs):
        return {"ranks": preferences.levels}
    return [[p.winner, p.loser, p.probability, p.weight] for p in preferences]


@dataclass(frozen=True, slots=True)
class _Ranks:
    """A long ranking in a run file, which holds no pair."""

    ranks: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What a run keeps of an item.

    Args:
        subset, id, preferences, gold, language: as the item's.
        prompt: items of one conversation start share it (`split_of`), and are resampled together.
        turns: of the prompt.
        prompt_length: characters of the prompt.
        lengths: [K] characters of each reply.
        styles: [K] markdown headers, list items and bold spans of each reply.
    """

    subset: str
    id: str
    prompt: float
    preferences: Annotated[Preferences, Stored(_read_preferences, _write_preferences)]
    turns: int
    prompt_length: int
    language: str
    lengths: tuple[int, ...]
    styles: tuple[Style, ...]
    gold: tuple[float | None, ...] = ()


def check_facts(facts: ItemFacts) -> None:
    """Check that the parts of an item's facts go together.

    Raises:
        Wrong: they do not.
    """
    size, preferences = len(facts.lengths), facts.preferences
    if size < 2 or len(facts.styles) != size:
        raise Wrong(facts.lengths, "two or more lengths, and three styles for each").inside("lengths")
    if facts.gold and len(facts.gold) != size:
        raise Wrong(facts.gold, f"gold for each of {size} replies, or none").inside("gold")
    if isinstance(preferences, RankedPairs):
        if len(preferences.ranks) != size or not len(preferences):
            raise Wrong(preferences.ranks, f"ranks of {size} replies, two or more of them known").inside("preferences")
        return
    if not preferences:
        raise Wrong([], "at least one preference").inside("preferences")
    for place, preference in enumerate(preferences):
        if not (0 <= preference.winner < size and 0 <= preference.loser < size):
            given = [preference.winner, preference.loser]
            raise Wrong(given, f"replies 0 to {size - 1}").inside(f"preferences[{place}]")


def facts_of(item: Item) -> ItemFacts:
    return ItemFacts(
        subset=item.subset,
        id=item.id,
        prompt=split_of(item.prompt),
        preferences=item.preferences,
        gold=item.gold,
        turns=len(item.prompt),
        prompt_length=sum(len(turn.text) for turn in item.prompt),
        language=item.language,
        lengths=tuple(map(len, item.replies)),
        styles=tuple(map(style_of, item.replies)),
    )


def style_of(text: str) -> Style:
    """Markdown headers, list items and bold spans.

    >>> style_of("# Yeast\\n- a **fungus**\\n2. alive")
    (1, 2, 1)
    """
    return len(_HEADER.findall(text)), len(_LIST_ITEM.findall(text)), len(_BOLD.findall(text))
