"""Evaluation: scorers and items in, figures with n and intervals out, and what is made of them.

The way of a run: `open_scorer` and `load_suite` (or comparisons), `run_all`, `write_run`; later `read_run`,
`compare_runs`. `evaluate` is the short way for one scorer and some comparisons. Reports, cards and leaderboards stand
in modules of their own, which need the packages of the `evaluate` extra.
"""

from prefrank.evaluation.baselines import baselines, longer_wins, random_scorer, shorter_wins, tfidf_scorer
from prefrank.evaluation.compare_runs import compare_runs
from prefrank.evaluation.items import Item, as_item
from prefrank.evaluation.metrics import Counts, Metrics, measure
from prefrank.evaluation.one_scorer import Evaluation, Scorer, data_hash, evaluate
from prefrank.evaluation.protocols import SUITES, load_suite
from prefrank.evaluation.protocols.suite import Suite, SuiteData
from prefrank.evaluation.results import Run, sample_of_run
from prefrank.evaluation.run_file import read_run, write_run
from prefrank.evaluation.running import Entrant, Task, comparisons_suite, run_all
from prefrank.evaluation.samples import Sample, sample_of
from prefrank.evaluation.scorers import OpenedScorer, open_scorer
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.estimates import Estimate, estimate_all
from prefrank.stats.figures import Figure, Part
from prefrank.stats.intervals import wilson

__all__ = [
    "SUITES",
    "Bootstrap",
    "Counts",
    "Entrant",
    "Estimate",
    "Evaluation",
    "Figure",
    "Item",
    "Metrics",
    "OpenedScorer",
    "Part",
    "Run",
    "Sample",
    "Scorer",
    "Suite",
    "SuiteData",
    "Task",
    "as_item",
    "baselines",
    "compare_runs",
    "comparisons_suite",
    "data_hash",
    "estimate_all",
    "evaluate",
    "load_suite",
    "longer_wins",
    "measure",
    "open_scorer",
    "random_scorer",
    "read_run",
    "run_all",
    "sample_of",
    "sample_of_run",
    "shorter_wins",
    "tfidf_scorer",
    "wilson",
    "write_run",
]
