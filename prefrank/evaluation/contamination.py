"""What of an evaluation set stands in a training set, and what a model gets on the rest.

A prompt is looked for in three ways: the same words, nearly the same wording, long stretches of words in common. A
reply of some length is looked for by its words. A contaminated item is a warning, no proof; a public prompt may stand
in both sets with other replies. So the accuracy on clean and on contaminated items, and their difference with its
interval, are what says whether it matters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int64

from prefrank.data import split_of
from prefrank.data.overlap import (
    NEAR,
    NGRAM,
    SHINGLE,
    NGrams,
    jaccard,
    ngrams,
    prompt_key,
    shared_ngrams,
    text_of,
    words_of,
)
from prefrank.errors import BadData, BadInput
from prefrank.evaluation.credits import credits, mean_over
from prefrank.evaluation.items import Item, as_item
from prefrank.evaluation.samples import Sample
from prefrank.stats.arrays import distinct
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.estimates import Estimate, estimate_all
from prefrank.stats.figures import combine
from prefrank.types import Comparison, Prompt, Turn

SHARE = 0.5
"""Share of the shorter prompt's 13-grams from which a prompt counts as taken over, as training's own check has it."""

WAYS: Mapping[str, str] = {
    "same prompt": "the same words, whatever their case, white space and punctuation",
    "near prompt": f"a Jaccard similarity of at least {NEAR} in {SHINGLE}-word shingles",
    "shared words": f"at least {SHARE:.0%} of the shorter prompt's {NGRAM}-word stretches, common wording left out",
    "same reply": f"a reply of at least {NGRAM} words, word for word",
}


@dataclass(frozen=True, slots=True)
class ContaminatedItem:
    """An item that the training set holds something of.

    Args:
        subset, id: of the item.
        ways: in which it was found, names of `WAYS`.
        example: "source/id" of a training comparison that holds it.
    """

    subset: str
    id: str
    ways: tuple[str, ...]
    example: str


@dataclass(frozen=True, slots=True)
class Contamination:
    """What a training set holds of some items.

    Args:
        train: training comparisons looked at.
        train_prompts: distinct prompts among them, by their words.
        items: items looked for.
        prompts: distinct prompts among them.
        counts: way -> how many items were found in it; "any" counts each item once.
        contaminated: those items, in the items' order.
        leaks: "source/id" of every training comparison that holds something of them, in their order.
        clean_accuracy: of the other items, equal scores half; None without scores.
        contaminated_accuracy: of the contaminated items.
        difference: contaminated minus clean.
        ways: what each way means.
    """

    train: int
    train_prompts: int
    items: int
    prompts: int
    counts: Mapping[str, int]
    contaminated: tuple[ContaminatedItem, ...]
    leaks: tuple[str, ...]
    clean_accuracy: Estimate | None = None
    contaminated_accuracy: Estimate | None = None
    difference: Estimate | None = None
    ways: Mapping[str, str] = field(default_factory=lambda: dict(WAYS))


def contamination(
    train: Sequence[Comparison],
    items: Sequence[Item | Comparison],
    sample: Sample | None = None,
    *,
    bootstrap: Bootstrap | None = None,
) -> Contamination:
    """Look for items in a training set.

    Args:
        train: what a model was trained on.
        items: what it is evaluated on.
        sample: the same items with its scores, for the accuracy on clean and on contaminated items.

    Raises:
        BadData: no training comparisons, or no items.
        BadInput: a sample of other items.
    """
    if not train or not items:
        raise BadData(
            f"there are {len(train)} training comparisons and {len(items)} items; wanted at least one of each"
        )
    given = [item if isinstance(item, Item) else as_item(item) for item in items]
    if sample is not None and [(facts.subset, facts.id) for facts in sample.facts] != [
        (item.subset, item.id) for item in given
    ]:
        raise BadInput("the scores are of other items; wanted those of the items given, in their order")
    ours, theirs = _numbered([item.prompt for item in train]), _numbered([item.prompt for item in given])
    pairs = {
        "same prompt": _same(ours, theirs),
        "near prompt": _near(ours, theirs),
        "shared words": _shared(ours, theirs),
    }
    hits = {way: _spread(prompt_pairs, ours.owner, theirs.owner, len(given)) for way, prompt_pairs in pairs.items()}
    hits["same reply"] = _replies([item.replies for item in train], [item.replies for item in given])
    example = np.stack([hit.example for hit in hits.values()])
    contaminated = example.max(0) >= 0
    leaks = distinct(np.concatenate([hit.leaks for hit in hits.values()]))
    name = [f"{comparison.source}/{comparison.id}" for comparison in train]
    measured = accuracies(sample, contaminated, bootstrap or Bootstrap()) if sample is not None else {}
    return Contamination(
        train=len(train),
        train_prompts=len(ours.prompts),
        items=len(given),
        prompts=len(theirs.prompts),
        counts={way: int((hit.example >= 0).sum()) for way, hit in hits.items()} | {"any": int(contaminated.sum())},
        contaminated=tuple(
            ContaminatedItem(
                given[at].subset,
                given[at].id,
                tuple(way for way, hit in hits.items() if hit.example[at] >= 0),
                name[next(number for number in example[:, at].tolist() if number >= 0)],
            )
            for at in np.flatnonzero(contaminated).tolist()
        ),
        leaks=tuple(name[number] for number in leaks.tolist()),
        clean_accuracy=measured.get("clean"),
        contaminated_accuracy=measured.get("contaminated"),
        difference=measured.get("difference"),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Numbered:
    """The D distinct prompts of N texts, by their words: prompt `owner[n]` is that of text n."""

    prompts: tuple[Prompt, ...]
    keys: tuple[bytes, ...]
    owner: Int64[np.ndarray, " N"]

    def texts(self) -> list[str]:
        return [text_of(prompt) for prompt in self.prompts]


@dataclass(frozen=True, slots=True, eq=False)
class _Hits:
    """For each of C items a training comparison that holds it, -1 for none; and all training comparisons that do."""

    example: Int64[np.ndarray, " C"]
    leaks: Int64[np.ndarray, " L"]


_Pairs = Int64[np.ndarray, "P 2"]


def _numbered(prompts: Sequence[Prompt]) -> _Numbered:
    number: dict[bytes, int] = {}
    key_of: dict[Prompt, bytes] = {}
    distinct: list[Prompt] = []
    owner = []
    for prompt in prompts:
        key = key_of.get(prompt) or key_of.setdefault(prompt, prompt_key(prompt))
        if key not in number:
            number[key] = len(distinct)
            distinct.append(prompt)
        owner.append(number[key])
    return _Numbered(tuple(distinct), tuple(number), np.array(owner, np.int64))


def _as_pairs(pairs: Sequence[tuple[int, int]]) -> _Pairs:
    return np.array(pairs, np.int64).reshape(-1, 2)


def _same(ours: _Numbered, theirs: _Numbered) -> _Pairs:
    place = {key: number for number, key in enumerate(ours.keys)}
    return _as_pairs([(place[key], number) for number, key in enumerate(theirs.keys) if key in place])


def _shared(ours: _Numbered, theirs: _Numbered) -> _Pairs:
    """Prompts of one opening are one origin: turns that they share are not wording that many use."""
    overlaps = shared_ngrams(
        ours.texts(),
        theirs.texts(),
        origins=[split_of(prompt) for prompt in ours.prompts],
        other_origins=[split_of(prompt) for prompt in theirs.prompts],
    )
    kept = overlaps.share >= SHARE
    return np.stack([overlaps.text[kept], overlaps.other[kept]], axis=1)


def _near(ours: _Numbered, theirs: _Numbered) -> _Pairs:
    """Pairs with a similarity of at least `NEAR`: all of them, and no other.

    Of a set of size s, a near one holds at least NEAR s. So with all shingles in one order, rarest first, two near sets
    share one of their first s - ceil(NEAR s) + 1 (prefix filtering: Chaudhuri et al. 2006, "A primitive operator for
    similarity joins in data cleaning"). Those proposals are few, and each is verified.
    """
    mine, others = (ngrams(side.texts(), SHINGLE, whole_if_short=True) for side in (ours, theirs))
    known = distinct(others.hashes)
    place = np.minimum(np.searchsorted(known, mine.hashes), len(known) - 1)
    place = np.where(known[place] == mine.hashes, place, len(known))
    rarity = np.append(np.bincount(place, minlength=len(known))[: len(known)], -1)  # unknown ones stand first
    text, code = _prefixes(mine, place, rarity)
    other, other_code = _prefixes(others, np.searchsorted(known, others.hashes), rarity)
    pairs = _joined(text[code < len(known)], code[code < len(known)], other, other_code)
    sizes = np.diff(mine.starts)[pairs[:, 0]] / np.diff(others.starts)[pairs[:, 1]]
    pairs = pairs[(sizes >= NEAR) & (sizes <= 1 / NEAR)]
    return _as_pairs([(a, b) for a, b in pairs.tolist() if jaccard(mine.of(a), others.of(b)) >= NEAR])


def _prefixes(
    sets: NGrams, code: Int64[np.ndarray, " G"], rarity: Int64[np.ndarray, " K"]
) -> tuple[Int64[np.ndarray, " A"], Int64[np.ndarray, " A"]]:
    """The owners and codes of the shingles of which near sets share one."""
    size = np.diff(sets.starts)
    owner = np.repeat(np.arange(len(size)), size)
    order = np.lexsort((code, rarity[code], owner))
    prefix = size - np.ceil(NEAR * size).astype(np.int64) + 1
    first = order[np.arange(len(order)) - sets.starts[owner] < prefix[owner]]
    return owner[first], code[first]


def _joined(
    left: Int64[np.ndarray, " A"],
    left_code: Int64[np.ndarray, " A"],
    right: Int64[np.ndarray, " B"],
    right_code: Int64[np.ndarray, " B"],
) -> _Pairs:
    """Every distinct (left, right) whose codes are equal."""
    order = np.argsort(left_code, kind="stable")
    first, end = (np.searchsorted(left_code[order], right_code, side=side) for side in ("left", "right"))
    count = end - first
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - first, count)
    num_right = int(right.max(initial=0)) + 1
    both = distinct(left[order][place] * num_right + np.repeat(right, count))
    return np.stack(np.divmod(both, num_right), axis=1)


def _spread(
    pairs: _Pairs, our_owner: Int64[np.ndarray, " N"], their_owner: Int64[np.ndarray, " C"], num_items: int
) -> _Hits:
    """Pairs of distinct prompts as hits of items by training comparisons."""
    first = np.unique(our_owner, return_index=True)[1]  # the first comparison of each training prompt
    by_prompt = np.full(num_items, -1)  # there are at most as many prompts as items
    by_prompt[pairs[::-1, 1]] = first[pairs[::-1, 0]]
    return _Hits(by_prompt[their_owner], np.flatnonzero(np.isin(our_owner, pairs[:, 0])))


def _replies(ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> _Hits:
    """Items with a reply that stands in the training set, word for word; short ones are said by chance."""
    wanted: dict[bytes, list[int]] = {}
    for number, replies in enumerate(theirs):
        for key in filter(None, map(_reply_key, replies)):
            wanted.setdefault(key, []).append(number)
    example, leaks = np.full(len(theirs), -1), []
    for number, replies in reversed(list(enumerate(ours))):
        keys = [key for key in map(_reply_key, replies) if key in wanted]
        for key in keys:
            example[wanted[key]] = number
        if keys:
            leaks.append(number)
    return _Hits(example, np.array(leaks, np.int64))


def _reply_key(reply: str) -> bytes | None:
    """What replies of the same words share; None for one of fewer than 13."""
    long = len(reply) >= NGRAM and len(words_of(reply)) >= NGRAM
    return prompt_key((Turn("assistant", reply),)) if long else None


def accuracies(sample: Sample, contaminated: Bool[np.ndarray, " C"], bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Accuracy on the clean and on the contaminated items, and the second less the first."""
    values = credits(sample, "half")
    clean_part, contaminated_part = mean_over(sample, values, ~contaminated), mean_over(sample, values, contaminated)
    difference = combine([(1.0, contaminated_part), (-1.0, clean_part)])
    return estimate_all({"clean": clean_part, "contaminated": contaminated_part, "difference": difference}, bootstrap)
