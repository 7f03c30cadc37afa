"""What a data set holds, before anything is trained on it: sizes, lengths, drops, and two warnings.

The warnings are what a scorer that only looks at length would get, and how many prompts of one split stand in another.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations, repeat
from typing import Any

import numpy as np

from prefrank.data.overlap import prompt_key
from prefrank.data.report import Loaded, unread_files
from prefrank.stats.intervals import Z_95, wilson_of_share
from prefrank.types import Comparison, Prompt, RankedPairs


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of some texts, in the description's unit."""

    median: float
    p95: float
    max: int


@dataclass(frozen=True, slots=True)
class Share:
    """An accuracy over n judgments with its 95 % interval (Wilson 1927); without judgments all are NaN.

    The interval takes judgments as independent; several on one prompt are not, so it is a little narrow.
    """

    value: float
    n: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many of a split's distinct prompts stand in another split too: word for word, or but for case, white space
    and punctuation. `opening` compares first user turns, which is what a split by prompt keeps apart.
    """

    split: str
    other: str
    prompts: int
    exact: int
    normalised: int
    opening: int


@dataclass(frozen=True, slots=True)
class SplitDescription:
    """Counts of one split.

    Args:
        num_replies: comparisons by their number of replies, K.
        longer_wins: a scorer that prefers the reply with more characters: ½ for equal lengths; human ties not judged.
    """

    rows: int
    comparisons: int
    distinct_prompts: int
    replies: int
    pairs: int
    ties: int
    votes: int
    num_replies: Mapping[int, int]
    prompt_lengths: Lengths
    reply_lengths: Lengths
    dropped: Mapping[str, int]
    left_out: Mapping[str, int]
    longer_wins: Share


@dataclass(frozen=True, slots=True)
class Description:
    """What `describe` found; `unit` says what lengths count, `unread` which files of the folder no split has."""

    unit: str
    splits: Mapping[str, SplitDescription]
    overlaps: tuple[Overlap, ...]
    unread: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """What of a folder is not read, in words; "" where all of it is."""
        return unread_files(self.unread)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`; a NaN becomes None, as JSON has none."""
        return {
            "unit": self.unit,
            "splits": {name: _plain(asdict(split)) for name, split in self.splits.items()},
            "overlaps": [asdict(overlap) for overlap in self.overlaps],
            "unread": list(self.unread),
        }


def describe(loaded: Mapping[str, Loaded], *, count_tokens: Callable[[str], int] | None = None) -> Description:
    """Describe the splits of a data set.

    Args:
        loaded: what `load_splits` returns: a Loaded for each split's name.
        count_tokens: the length of a text in tokens, without special ones; None counts words between white space.
    """
    count = count_tokens or (lambda text: len(text.split()))
    prompts = {name: Counter(comparison.prompt for comparison in part.comparisons) for name, part in loaded.items()}
    forms = {name: _forms(distinct) for name, distinct in prompts.items()} if len(loaded) > 1 else {}
    return Description(
        unit="tokens" if count_tokens else "words",
        splits={name: _describe_split(part, prompts[name], count) for name, part in loaded.items()},
        overlaps=tuple(_overlap(a, b, forms) for a, b in permutations(loaded, 2)),
        unread=tuple(dict.fromkeys(name for part in loaded.values() for name in part.report.unread)),
    )


def _describe_split(loaded: Loaded, prompts: Counter[Prompt], count: Callable[[str], int]) -> SplitDescription:
    made, report = loaded.comparisons, loaded.report
    return SplitDescription(
        rows=report.rows,
        comparisons=len(made),
        distinct_prompts=len(prompts),
        replies=report.replies,
        pairs=report.pairs,
        ties=report.ties,
        votes=report.votes,
        num_replies=dict(sorted(Counter(len(comparison.replies) for comparison in made).items())),
        prompt_lengths=_lengths(
            length
            for prompt, times in prompts.items()
            for length in repeat(sum(count(turn.text) for turn in prompt), times)
        ),
        reply_lengths=_lengths(count(reply) for comparison in made for reply in comparison.replies),
        dropped=report.dropped,
        left_out=report.left_out,
        longer_wins=longer_wins(made),
    )


def _lengths(values: Iterable[int]) -> Lengths:
    lengths = np.fromiter(values, dtype=np.int64)
    if lengths.size == 0:
        return Lengths(math.nan, math.nan, 0)
    return Lengths(float(np.median(lengths)), float(np.percentile(lengths, 95)), int(lengths.max()))


def longer_wins(comparisons: Iterable[Comparison]) -> Share:
    """How often the reply with more characters is the preferred one; equal lengths count ½, human ties not at all."""
    points, n = 0.0, 0
    for comparison in comparisons:
        if isinstance(comparison.preferences, RankedPairs):
            won, judged = _longer_wins_of(comparison.preferences, comparison.replies)
            points, n = points + won, n + judged
            continue
        for p in comparison.preferences:
            difference = len(comparison.replies[p.winner]) - len(comparison.replies[p.loser])
            if not p.tie:
                points += 0.5 if difference == 0 else float((difference > 0) == (p.probability > 0.5))
                n += 1
    if n == 0:
        return Share(math.nan, 0, math.nan, math.nan)
    return Share(points / n, n, *wilson_of_share(points / n, n, Z_95))


def _longer_wins_of(pairs: RankedPairs, replies: Sequence[str]) -> tuple[float, int]:
    """What the longer reply gets on one ranked list: points and judgments, one reply against all others at a time."""
    rank = np.array([pairs.ranks[reply] for reply in pairs.ranked], float)
    length = np.array([len(replies[reply]) for reply in pairs.ranked])
    points = 0.0
    for place in range(len(rank)):
        difference = (length[place] - length)[rank[place] < rank]
        points += np.count_nonzero(difference > 0) + np.count_nonzero(difference == 0) / 2
    return float(points), len(pairs) - pairs.ties


_Forms = Mapping[str, Sequence[object]]
"""Of each distinct prompt of a split, what is compared with those of another split, by how exactly."""


def _forms(prompts: Iterable[Prompt]) -> _Forms:
    return {
        name: [form(prompt) for prompt in prompts]
        for name, form in (("exact", _exact), ("normalised", prompt_key), ("opening", _opening))
    }


def _overlap(split: str, other: str, forms: Mapping[str, _Forms]) -> Overlap:
    mine, theirs = forms[split], {name: set(prompts) for name, prompts in forms[other].items()}
    counts = {name: sum(prompt in theirs[name] for prompt in prompts) for name, prompts in mine.items()}
    return Overlap(split, other, len(mine["exact"]), counts["exact"], counts["normalised"], counts["opening"])


def _exact(prompt: Prompt) -> str:
    return "\0".join(turn.text for turn in prompt)


def _opening(prompt: Prompt) -> str:
    return next((turn for turn in prompt if turn.role == "user"), prompt[0]).text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
