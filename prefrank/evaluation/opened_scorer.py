"""A scorer that was opened, whatever it is, and what a record says of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prefrank.evaluation.one_scorer import Scorer
from prefrank.wire.inputs import Pair

Kind = Literal["model", "transformers", "http", "python", "file"]


@dataclass(frozen=True, slots=True)
class OpenedScorer:
    """A scorer, and what a record says of it.

    Args:
        name: as it was asked for.
        kind: "model" is a prefrank checkpoint, "transformers" any other sequence classifier.
        model: the fingerprint its scores carry.
        format: how texts reach it and what its scores are, as plain values.
        score_pairs: pairs in, one score for each out; a value may be NaN.
        calibration: stored with the model, if there is one for these very scores.
        control_strings: of a reward model that takes texts as text: how many of them hold its control strings.
        doubt: what its scores may be other than raw scores, as an end of "its scores are"; "" for nothing.
    """

    name: str
    kind: Kind
    model: str
    format: dict[str, Any]
    score_pairs: Scorer
    calibration: dict[str, Any] | None = None
    control_strings: Callable[[Sequence[Pair]], int] | None = None
    doubt: str = ""
