"""The single pairs that people decided, from a run's stored scores, for charts of scores and of lengths."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from prefrank.evaluation.items import flatten
from prefrank.evaluation.results import SuiteRecord, SuiteResult
from prefrank.stats.bounds import LARGEST


@dataclass(frozen=True, slots=True, eq=False)
class DecidedPairs:
    """P pairs, ties left out.

    Args:
        preferred, other: [P] scores; NaN for a failure, and for what no axis reaches.
        preferred_length, other_length: [P] in characters.
    """

    preferred: Float64[np.ndarray, " P"]
    other: Float64[np.ndarray, " P"]
    preferred_length: Float64[np.ndarray, " P"]
    other_length: Float64[np.ndarray, " P"]


def decided_pairs(suite: SuiteRecord, result: SuiteResult) -> DecidedPairs:
    """Of one scorer on one suite."""
    items = suite.items
    pairs = flatten(
        [item.preferences for item in items], [item.prompt for item in items], [len(item.lengths) for item in items]
    )
    ahead, behind = pairs.ahead[pairs.decided], pairs.behind[pairs.decided]
    scores = np.array([score for of_item in result.scores for score in of_item], np.float64)
    scores[np.abs(scores) > LARGEST] = np.nan
    lengths = np.array([length for item in items for length in item.lengths], np.float64)
    return DecidedPairs(scores[ahead], scores[behind], lengths[ahead], lengths[behind])
