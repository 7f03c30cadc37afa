"""The single pairs that people decided, from a run's stored scores, for charts of scores and of lengths."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.evaluation.results import SuiteRecord, SuiteResult
from prefrank.stats.bounds import LARGEST
from prefrank.types import RankedPairs


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
    """The decided pairs of one scorer on one suite."""
    ahead, behind = _rows(suite)
    scores = np.array([score for of_item in result.scores for score in of_item], np.float64)
    scores[np.abs(scores) > LARGEST] = np.nan
    lengths = np.array([length for item in suite.items for length in item.lengths], np.float64)
    return DecidedPairs(scores[ahead], scores[behind], lengths[ahead], lengths[behind])


def _rows(suite: SuiteRecord) -> tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]]:
    """The rows of the preferred replies and of the others, where each reply of the suite is a row."""
    pairs = [np.zeros((2, 0), np.int64)]
    first = 0
    for item in suite.items:
        if isinstance(item.preferences, RankedPairs):
            winner, loser, tie = item.preferences.arrays()
            pairs.append(first + np.stack([winner, loser])[:, ~tie].astype(np.int64))
        else:
            decided = [
                (p.winner, p.loser) if p.probability > 0.5 else (p.loser, p.winner)
                for p in item.preferences
                if p.probability != 0.5
            ]
            pairs.append(first + np.array(decided, np.int64).reshape(-1, 2).T)
        first += len(item.lengths)
    ahead, behind = np.concatenate(pairs, 1)
    return ahead, behind
