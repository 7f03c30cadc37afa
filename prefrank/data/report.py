"""What became of every row that was read. Nothing is dropped without a count here.

A candidate is what could become one comparison: one row, or, where rows are messages or single summaries, one prompt
with its replies. Always `candidates == kept + sum(dropped.values())`, and where each row is a candidate,
`rows == candidates`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from prefrank.data.candidates import DUPLICATE, Drop
from prefrank.types import Comparison, Preferences, RankedPairs


@dataclass(frozen=True, slots=True)
class ReadingReport:
    """Counts of one load.

    Args:
        source: the data set's name, or the file or folder as it was given.
        split: the split asked for; None is everything.
        files: the files read, as seen from the source's folder.
        unread: its data files that are not read for any split, since others name one and these do not.
        rows: rows read.
        candidates: possible comparisons found in them.
        kept: comparisons made.
        dropped: candidates that gave none, by reason.
        left_out: replies and judgments left out of their candidates, by reason (an equal or empty reply only of a
            kept candidate).
        replies: replies of the comparisons made.
        pairs: preferences of the comparisons made; two votes on one pair count twice.
        ties: those of them with probability 0.5.
        votes: comparisons that judge the prompt and replies of an earlier one again: under another id, by another
            voter, or with another judgment.
    """

    source: str
    split: str | None
    files: tuple[str, ...]
    rows: int
    candidates: int
    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    replies: int = 0
    pairs: int = 0
    ties: int = 0
    votes: int = 0
    unread: tuple[str, ...] = ()

    @property
    def duplicates(self) -> int:
        """Candidates that repeated an earlier comparison word for word."""
        return self.dropped.get(DUPLICATE, 0)

    @property
    def warning(self) -> str:
        """What of a folder is not read, in words; "" where all of it is."""
        return unread_files(self.unread)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Comparisons, and the report on the rows they came from."""

    comparisons: tuple[Comparison, ...]
    report: ReadingReport


def unread_files(names: Sequence[str]) -> str:
    """Files that are not read, in words; "" for none.

    >>> unread_files(["more.jsonl"])
    'not read, since they are of no split, or no part of the published set: more.jsonl'
    """
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"not read, since they are of no split, or no part of the published set: {', '.join(names[:3])}{more}"


class Tally:
    """Counts while reading; `report` freezes them. It lives for one load."""

    def __init__(self) -> None:
        self.rows = 0
        self.dropped: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.votes = 0

    def drop(self, drop: Drop) -> None:
        self.dropped[drop.reason] += 1
        self.left_out.update(drop.left_out)

    def report(
        self,
        comparisons: Iterable[Comparison],
        *,
        source: str,
        split: str | None,
        files: tuple[str, ...],
        unread: tuple[str, ...],
    ) -> ReadingReport:
        made = tuple(comparisons)
        return ReadingReport(
            source=source,
            split=split,
            files=files,
            rows=self.rows,
            candidates=len(made) + self.dropped.total(),
            kept=len(made),
            dropped=dict(self.dropped.most_common()),
            left_out=dict(self.left_out.most_common()),
            replies=sum(len(c.replies) for c in made),
            pairs=sum(len(c.preferences) for c in made),
            ties=sum(_ties(c.preferences) for c in made),
            votes=self.votes,
            unread=unread,
        )


def _ties(preferences: Preferences) -> int:
    return preferences.ties if isinstance(preferences, RankedPairs) else sum(p.tie for p in preferences)


def merge_reports(reports: Iterable[ReadingReport]) -> ReadingReport:
    """One report over several loads, such as the data sets of a recipe: every count is a sum.

    Raises:
        ValueError: no report at all.
    """
    parts = tuple(reports)
    if not parts:
        raise ValueError("there are no reports to merge; wanted at least one")
    splits = {part.split for part in parts}
    return ReadingReport(
        source=" + ".join(dict.fromkeys(part.source for part in parts)),
        split=splits.pop() if len(splits) == 1 else None,
        files=tuple(file for part in parts for file in part.files),
        rows=sum(part.rows for part in parts),
        candidates=sum(part.candidates for part in parts),
        kept=sum(part.kept for part in parts),
        dropped=_sums(part.dropped for part in parts),
        left_out=_sums(part.left_out for part in parts),
        replies=sum(part.replies for part in parts),
        pairs=sum(part.pairs for part in parts),
        ties=sum(part.ties for part in parts),
        votes=sum(part.votes for part in parts),
        unread=tuple(file for part in parts for file in part.unread),
    )


def _sums(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total.most_common())
