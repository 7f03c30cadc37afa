"""Samples made by hand or at random, for the tests of analyses that need no text."""

from collections.abc import Sequence

import numpy as np

from prefrank.evaluation import Sample
from prefrank.evaluation.items import ItemFacts
from prefrank.types import Preference, Score


def facts(
    preferences: Sequence[Preference],
    lengths: Sequence[int],
    *,
    prompt: float = 0.0,
    subset: str = "set",
    turns: int = 1,
    language: str = "",
    styles: Sequence[tuple[int, int, int]] = (),
) -> ItemFacts:
    none = tuple((0, 0, 0) for _ in lengths)
    return ItemFacts(
        subset, "0", prompt, tuple(preferences), turns, 40, language, tuple(lengths), tuple(styles) or none
    )


def scores(values: Sequence[float], *, cut: bool = False) -> tuple[Score, ...]:
    return tuple(Score(float(value), 8, 0, int(cut), "abc") for value in values)


def pair_sample(
    margins: Sequence[float],
    *,
    prompts: Sequence[float] | None = None,
    labels: Sequence[float] | None = None,
    longer: Sequence[int] | None = None,
) -> Sample:
    """Two replies an item: the preferred one is ahead by `margins`, and is longer than 1,000 characters by `longer`."""
    count = len(margins)
    prompts = [k / count for k in range(count)] if prompts is None else prompts
    labels, longer = [1.0] * count if labels is None else labels, [0] * count if longer is None else longer
    each = zip(prompts, labels, longer, strict=True)
    return Sample(
        tuple(facts([Preference(0, 1, label)], [1000 + int(more), 1000], prompt=place) for place, label, more in each),
        tuple(scores([margin, 0.0]) for margin in margins),
    )


def random_sample(seed: int, *, items: int = 200, prompts: int = 200, replies: int = 2, length: float = 0.3) -> Sample:
    """Rankings by a hidden quality, of a model that sees it with noise and likes length; people like headers."""
    random = np.random.default_rng(seed)
    result, values = [], []
    shift = random.normal(size=(prompts, 1))  # what items of one prompt share
    for item in range(items):
        quality = random.normal(size=replies)
        marks = random.poisson((1.0, 2.0, 0.5), (replies, 3))
        size = np.exp(random.normal(5, 0.7, replies))
        liked = quality + 0.3 * marks[:, 0] + 0.5 * random.logistic(size=replies)
        order = np.argsort(-liked)
        preferences = [Preference(int(order[a]), int(order[b])) for a in range(replies) for b in range(a + 1, replies)]
        place = item % prompts
        noise = (0.6 + np.abs(shift[place])) * random.normal(size=replies)
        result.append(
            facts(
                preferences,
                size.astype(int).tolist(),
                prompt=place / prompts,
                styles=[tuple(mark) for mark in marks.tolist()],
            )
        )
        values.append(scores(2 * (quality + noise + length * np.log(size))))
    return Sample(tuple(result), tuple(values))
