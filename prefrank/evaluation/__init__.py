"""Evaluation: a scorer and comparisons in, estimates with n and intervals out."""

from prefrank.evaluation.baselines import baselines, longer_wins, random_scorer, shorter_wins, tfidf_scorer
from prefrank.evaluation.estimates import Bootstrap, Estimate, cluster_bootstrap, estimate, wilson
from prefrank.evaluation.items import Item, Sample, as_item, sample_of
from prefrank.evaluation.metrics import Counts, Metrics, measure
from prefrank.evaluation.run import Evaluation, Scorer, data_hash, evaluate

__all__ = [
    "Bootstrap",
    "Counts",
    "Estimate",
    "Evaluation",
    "Item",
    "Metrics",
    "Sample",
    "Scorer",
    "as_item",
    "baselines",
    "cluster_bootstrap",
    "data_hash",
    "estimate",
    "evaluate",
    "longer_wins",
    "measure",
    "random_scorer",
    "sample_of",
    "shorter_wins",
    "tfidf_scorer",
    "wilson",
]
