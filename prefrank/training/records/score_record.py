"""How a model scores the replies it was not trained on: what prefrank.json keeps, to compare later scores with.

For each head, the scores of every reply of the evaluation sets as a histogram, and how far they go with length.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float64

from prefrank.stats.correlation import pearson, rank_correlation
from prefrank.training.feed.examples import Examples
from prefrank.training.losses.preference_loss import Scores, by_head

_BINS = 20
_OUTER = 1.0
"""Per cent of the scores in each of the two open bins, so that a few odd scores do not make the others one bin."""


def score_record(scored: Iterable[tuple[Examples, Scores]]) -> dict[str, Any]:
    """Head -> histogram of its scores and their correlation with length, as plain values; empty without scores.

    Replies that have no finite score are counted as failures and enter nothing else.
    """
    sets = list(scored)
    if not sets:
        return {}
    heads = sets[0][0].heads
    table = np.concatenate([by_head(scores).double().numpy() for _, scores in sets])
    characters = np.concatenate([examples.reply_characters for examples, _ in sets]).astype(np.float64)
    return {head: _of_head(column, characters) for head, column in zip(heads, table.T, strict=True) if len(column)}


def _of_head(scores: Float64[np.ndarray, " N"], characters: Float64[np.ndarray, " N"]) -> dict[str, Any]:
    finite = np.isfinite(scores)
    failures, scores, characters = int((~finite).sum()), scores[finite], characters[finite]
    pearson_r, spearman_r = pearson(scores, characters), rank_correlation(scores, characters)
    return {
        "n": len(scores),
        "failures": failures,
        "histogram": _histogram(scores),
        "length": {"n": len(scores), "pearson": pearson_r, "spearman": spearman_r},
    }


def _histogram(scores: Float64[np.ndarray, " N"]) -> dict[str, Any]:
    """Bins of one width between the outermost edges, and an open one on each side.

    Of E edges, `counts[0]` is what lies below the first, `counts[i]` from edge i - 1 up to but without edge i, and
    `counts[E]` what lies at the last or above.
    """
    if not len(scores):
        return {"edges": [], "counts": [0]}
    low, high = np.percentile(scores, [_OUTER, 100 - _OUTER])
    edges = np.unique(np.linspace(low, high, _BINS + 1))
    counts = np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
