"""What a server answers, as frozen values; each has the fields of the JSON that comes in.

A reply that failed has the score None and a sentence in `error`. `Scores` gives plain lists in three ways, so that what
a failure becomes is the caller's own choice: an error (`all_scored`), None (`values_or_none`), NaN (`values_or_nan`).
"""

import math
from dataclasses import dataclass
from typing import Literal

from prefrank.errors import BadInput
from prefrank.types import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One reply: its score and the facts behind it, as `prefrank.types.Score`, or why it has none.

    Args:
        index: the reply's place in the request.
        score: the raw logit; None where it failed.
        error: a sentence; None where it has a score.
    """

    index: int
    score: float | None
    tokens: int = 0
    cut_prompt: int = 0
    cut_reply: int = 0
    past_trained: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The scores of N rows, in the order they were given in.

    Args:
        model: as the server calls it.
        fingerprint: of weights, tokenizer and text settings; one for all rows.
        scale: "logit": raw scores.
    """

    model: str
    fingerprint: str
    scale: str
    scores: tuple[Scored, ...]

    @property
    def failures(self) -> tuple[Scored, ...]:
        """The rows without a score."""
        return tuple(row for row in self.scores if row.score is None)

    def all_scored(self) -> list[Score]:
        """A score for each row.

        Raises:
            BadInput: a row has none; says which and why.
        """
        if failures := self.failures:
            first = failures[0]
            raise BadInput(
                f"{len(failures)} of {len(self.scores)} rows have no score; row {first.index}: {first.error}"
            )
        return [
            Score(
                row.score if row.score is not None else math.nan,
                tokens=row.tokens,
                cut_prompt=row.cut_prompt,
                cut_reply=row.cut_reply,
                model=self.fingerprint,
                past_trained=row.past_trained,
            )
            for row in self.scores
        ]

    def values_or_none(self) -> list[float | None]:
        """The values; None where a row failed."""
        return [row.score for row in self.scores]

    def values_or_nan(self) -> list[float]:
        """The values; NaN where a row failed."""
        return [math.nan if row.score is None else row.score for row in self.scores]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One reply's place: `rank` 1 is best, equal scores share one; `index` is its place in the request.

    Args:
        rank: None where the reply failed.
        weight: of a softmax of score / temperature over the replies.
    """

    rank: int | None
    index: int
    score: float | None
    weight: float | None = None
    tokens: int = 0
    cut_prompt: int = 0
    cut_reply: int = 0
    past_trained: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Replies to one prompt, best first, failed ones last.

    Args:
        temperature: that differences are divided by for probabilities; 1 where the model has no calibration.
        win_probability: [K, K] by the places in the request: P(the row's reply beats the column's); None where one
            of them failed.
    """

    model: str
    fingerprint: str
    scale: str
    temperature: float
    calibrated: bool
    ranking: tuple[Place, ...]
    win_probability: tuple[tuple[float | None, ...], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two replies to one prompt; winner, margin and probability are None where one of them failed.

    Args:
        margin: the first one's score less the second one's.
        win_probability: P(the first beats the second).
        scores: of the first, of the second.
    """

    model: str
    fingerprint: str
    scale: str
    winner: Literal["first", "second", "tie"] | None
    margin: float | None
    win_probability: float | None
    temperature: float
    calibrated: bool
    scores: tuple[Scored, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BestReply:
    """One of the best replies; `index` is its place in the request."""

    index: int
    reply: str
    score: float
    tokens: int = 0
    cut_prompt: int = 0
    cut_reply: int = 0
    past_trained: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedReply:
    """A reply without a score; `index` is its place in the request."""

    index: int
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """The scores of all n replies that have one; the standard deviation divides by n."""

    n: int
    mean: float | None
    std: float | None
    min: float | None
    max: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best replies, best first; fewer than asked for where a threshold or failures leave no more."""

    model: str
    fingerprint: str
    scale: str
    best: tuple[BestReply, ...]
    group: GroupFacts
    failed: tuple[FailedReply, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One sentence of a reply: where it stands, in characters, and the reply's score without it.

    Args:
        difference: the reply's score less `score_without`: what the sentence adds.
    """

    text: str
    start: int
    end: int
    score_without: float | None
    difference: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeScore:
    """The score of the reply as it is."""

    score: float | None
    tokens: int = 0
    cut_prompt: int = 0
    cut_reply: int = 0
    past_trained: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a reply's score is made of, each sentence left out in turn."""

    model: str
    fingerprint: str
    scale: str
    score: WholeScore
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperature:
    """What differences are divided by for probabilities."""

    temperature: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that a server has."""

    name: str
    fingerprint: str
    architecture: str | None = None
    parameters: int | None = None
    precision: str | None = None
    kernels: str | None = None
    device: str | None = None
    max_length: int | None = None
    template: str | None = None
    causal: bool | None = None
    calibration: Temperature | None = None
    default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModels:
    """The models of a server, and its version."""

    version: str
    models: tuple[ServedModel, ...]
