"""What the sections of a report look up in a run: who was measured on a suite, and what things are called."""

from dataclasses import replace
from typing import NamedTuple

from prefrank.evaluation.protocols.suite import Chart
from prefrank.evaluation.results import PairedTests, Run, ScorerRecord, SuiteResult
from prefrank.io.names import short_names


class Entry(NamedTuple):
    """A scorer's number in the run, the scorer, and its results on one suite."""

    number: int
    scorer: ScorerRecord
    result: SuiteResult


def entries(run: Run, suite: str) -> list[Entry]:
    """The scorers that have results on a suite."""
    return [
        Entry(number, scorer, scorer.results[suite])
        for number, scorer in enumerate(run.scorers)
        if suite in scorer.results
    ]


def models(run: Run, suite: str) -> list[Entry]:
    """The scorers with results on a suite that are not baselines; all of them if there is nothing else."""
    everyone = entries(run, suite)
    return [entry for entry in everyone if not entry.scorer.is_baseline] or everyone


def title_of(run: Run, suite: str) -> str:
    return run.suites[suite].title or suite


def title_for(run: Run, suite: str, scorer: ScorerRecord) -> str:
    """The title of a picture of one scorer on one suite."""
    return f"{title_of(run, suite)} · {scorer.name}"


def charts_of(run: Run, kind: str) -> list[tuple[str, Chart]]:
    """The suites' own charts of a kind, with the name of the suite."""
    return [(name, chart) for name, suite in run.suites.items() for chart in suite.charts if chart.kind == kind]


def with_short_names(run: Run) -> Run:
    """The same with scorers' long paths cut to what tells them apart."""
    names = [scorer.name for scorer in run.scorers]
    short = dict(zip(names, short_names(names), strict=True))
    comparison = run.comparison and PairedTests(
        tuple(replace(pair, a=short.get(pair.a, pair.a), b=short.get(pair.b, pair.b)) for pair in run.comparison.pairs),
        run.comparison.refused,
    )
    scorers = tuple(replace(scorer, name=short[scorer.name]) for scorer in run.scorers)
    return replace(run, scorers=scorers, comparison=comparison)
