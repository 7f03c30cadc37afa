"""Scorers that know next to nothing, to hold a model against. They go through the same `evaluate` as a model.

A reward model that does not beat the longer reply, or a bag of words, has learned little. The length scorers use the
logarithm of the length, so that their Bradley-Terry probability is the reply's share of the pair's characters, which
keeps their log loss readable; their accuracy does not depend on it.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from prefrank.data import split_of
from prefrank.errors import BadData, NotFound
from prefrank.evaluation.metrics import log_losses
from prefrank.evaluation.one_scorer import Scorer
from prefrank.evaluation.samples import Pairs, flatten, shares
from prefrank.types import Comparison, Prompt, Score

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Inverse regularization strengths tried by the TF-IDF baseline."""

SPLIT_SEED = 3
"""Of the inner split: unlike any seed by which data sets are cut, or no training prompt might fall in the fifth."""


def baselines(train: Sequence[Comparison] | None = None) -> dict[str, Scorer]:
    """What a model is set beside, by name; the TF-IDF one only where there are training comparisons to learn from.

    Raises:
        NotFound, BadData: as `tfidf_scorer`.
    """
    scorers = {"longer reply": longer_wins, "shorter reply": shorter_wins, "random": random_scorer()}
    return scorers | {"tf-idf + logistic": tfidf_scorer(train)} if train else scorers


def longer_wins(pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
    """The longer reply, in characters, is better."""
    return [_score(math.log1p(len(reply)), "longer") for _, reply in pairs]


def shorter_wins(pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
    """The shorter reply, in characters, is better."""
    return [_score(-math.log1p(len(reply)), "shorter") for _, reply in pairs]


def random_scorer(*, seed: int = 0) -> Scorer:
    """Scores from 0 to 1 that depend on the texts and the seed alone, so that order and repetition change nothing."""

    def score(prompt: Prompt, reply: str) -> Score:
        text = repr((seed, [(turn.role, turn.text) for turn in prompt], reply))
        digest = hashlib.sha256(text.encode()).digest()
        return _score(int.from_bytes(digest[:8]) / 2**64, f"random:{seed}")

    return lambda pairs: [score(*pair) for pair in pairs]


def tfidf_scorer(train: Sequence[Comparison], *, strengths: Sequence[float] = STRENGTHS) -> Scorer:
    """Logistic regression on differences of the replies' TF-IDF vectors (words and word pairs, sublinear counts).

    P(a beats b) = sigmoid(w . (x_a - x_b)), so a reply's own score is w . x: antisymmetric, without an intercept. Each
    comparison weighs the same. The strength of regularization has the least log loss on a fifth of the training
    prompts, held out; the final fit uses all.

    Raises:
        NotFound: scikit-learn is not installed.
        BadData: too few training prompts to hold a fifth out, or replies without words.
    """
    _sklearn()  # missing: say so before anything is computed
    held = [comparison for comparison in train if split_of(comparison.prompt, seed=SPLIT_SEED) < 0.2]
    kept = [comparison for comparison in train if split_of(comparison.prompt, seed=SPLIT_SEED) >= 0.2]
    if not held or not kept:
        raise BadData(
            f"the TF-IDF baseline got {len(train)} training comparisons, which leaves {len(kept)} to fit on and"
            f" {len(held)} to choose its regularization by; give it more prompts"
        )
    strength = _best_strength(kept, held, strengths)
    vectorizer = _vectorizer(train)
    weights = _fit(_gaps(vectorizer, train), pairs_of(train), strength)
    model = f"baseline:tfidf:C={strength:g}:{hashlib.sha256(weights.tobytes()).hexdigest()[:16]}"

    def score_pairs(pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        values = vectorizer.transform([reply for _, reply in pairs]) @ weights
        return [_score(value, model) for value in values.tolist()]

    return score_pairs


def _score(value: float, model: str) -> Score:
    return Score(value, tokens=0, cut_prompt=0, cut_reply=0, model=model)


def _sklearn() -> tuple[Any, Any]:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise NotFound(
            "the TF-IDF baseline needs scikit-learn, which is not installed; pip install 'prefrank[evaluate]'"
        ) from error
    return TfidfVectorizer, LogisticRegression


def _vectorizer(train: Sequence[Comparison]) -> Any:
    vectorizer = _sklearn()[0](sublinear_tf=True, ngram_range=(1, 2))
    try:
        return vectorizer.fit([reply for comparison in train for reply in comparison.replies])
    except ValueError as error:  # "empty vocabulary"
        raise BadData(f"the TF-IDF baseline finds no words in {len(train)} training comparisons") from error


def pairs_of(comparisons: Sequence[Comparison]) -> Pairs:
    """All preferences as arrays."""
    prompts, sizes = [split_of(c.prompt) for c in comparisons], [len(c.replies) for c in comparisons]
    return flatten([c.preferences for c in comparisons], prompts, sizes)


def _gaps(vectorizer: Any, comparisons: Sequence[Comparison]) -> Any:
    """[P, V] sparse: the preferred reply's vector minus the other's."""
    pairs = pairs_of(comparisons)
    vectors = vectorizer.transform([reply for comparison in comparisons for reply in comparison.replies])
    return vectors[pairs.ahead] - vectors[pairs.behind]


def _fit(gaps: Any, pairs: Pairs, strength: float) -> Float64[np.ndarray, " V"]:
    """Each gap once as won, weighing its probability, and once as lost; (gap, lost) says the same as (-gap, won)."""
    rows = np.tile(np.arange(len(pairs.ahead)), 2)
    share = shares(pairs, np.ones(len(pairs.weight), bool))
    regression = _sklearn()[1](C=strength, fit_intercept=False, max_iter=2000)
    won = np.repeat([1, 0], len(pairs.ahead))
    weights = np.concatenate([share * pairs.probability, share * (1 - pairs.probability)])
    return regression.fit(gaps[rows], won, sample_weight=weights).coef_[0]


def _best_strength(kept: Sequence[Comparison], held: Sequence[Comparison], strengths: Sequence[float]) -> float:
    vectorizer, pairs, held_pairs = _vectorizer(kept), pairs_of(kept), pairs_of(held)
    gaps, held_gaps = _gaps(vectorizer, kept), _gaps(vectorizer, held)
    held_share = shares(held_pairs, np.ones(len(held_pairs.weight), bool))
    losses = [
        float((log_losses(held_gaps @ _fit(gaps, pairs, strength), held_pairs) * held_share).sum())
        for strength in strengths
    ]
    return strengths[int(np.argmin(losses))]
