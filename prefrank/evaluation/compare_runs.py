"""`compare_runs`: every model against every other scorer, item by item, from one run or from several files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from prefrank.errors import BadInput, short
from prefrank.evaluation.comparing import compare, mcnemar, verdict
from prefrank.evaluation.credits import credits, in_subset, mean_over, subsets_of
from prefrank.evaluation.protocols.suite import Suite
from prefrank.evaluation.results import PairedTest, PairedTests, Run, sample_of_run
from prefrank.evaluation.running import comparisons_suite
from prefrank.evaluation.samples import Sample
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.figures import Figure
from prefrank.stats.significance import holm


@dataclass(frozen=True, slots=True)
class Side:
    """One scorer of one run, as a comparison sees it."""

    label: str
    run: Run
    name: str

    @property
    def is_baseline(self) -> bool:
        return self.run.scorer(self.name).is_baseline


def compare_runs(
    runs: Mapping[str, Run], suites: Mapping[str, Suite], *, bootstrap: Bootstrap | None = None
) -> PairedTests:
    """Every model against every other scorer, on each suite that both were run on; baselines not with each other.

    Args:
        runs: by where they come from, which tells scorers of one name apart.
        suites: the known ones by name, whose headlines are compared; other data compare by accuracy.
        bootstrap: that of the first run by default.

    Returns:
        `p_holm` of a headline is adjusted over the suites of its pair of scorers, that of a subset over the subsets of
        its suite.

    Raises:
        BadInput: fewer than two scorers, no two that share a suite with the same data, or values that are not runs.
    """
    check_runs(runs)
    sides = _sides(runs)
    bootstrap = bootstrap or next(iter(runs.values())).intervals
    samples = {
        (side.label, suite): _in_order(sample_of_run(side.run, side.name, suite))
        for side in sides
        for suite in side.run.scorer(side.name).results
    }
    tests: list[PairedTest] = []
    refused: list[str] = []
    for first, second in _meetings(sides):
        shared = [
            suite for suite in first.run.suites if (first.label, suite) in samples and (second.label, suite) in samples
        ]
        hashes = {suite: (first.run.suites[suite].data, second.run.suites[suite].data) for suite in shared}
        refused += [
            f"{suite}: {first.label} was run on data {mine[:12]} and {second.label} on {theirs[:12]}; run both on"
            " the same data to compare them"
            for suite, (mine, theirs) in hashes.items()
            if mine != theirs
        ]
        same = [suite for suite, (mine, theirs) in hashes.items() if mine == theirs]
        by_suite = [
            _compare_on(
                suite, first.label, second.label, samples, suites.get(suite) or comparisons_suite(suite), bootstrap
            )
            for suite in same
        ]
        tests += _adjusted(by_suite, level=1 - bootstrap.confidence)
    refused = list(dict.fromkeys(refused))
    if not tests:
        raise BadInput("; ".join(refused) or "no two scorers were run on one suite; give runs that share one")
    return PairedTests(tuple(tests), tuple(refused))


def _adjusted(by_suite: Sequence[list[PairedTest]], *, level: float) -> list[PairedTest]:
    """The tests of two scorers; each suite's first test, its headline's, is adjusted for the number of suites."""
    heads = [tests[0] for tests in by_suite]
    tested = [place for place, head in enumerate(heads) if head.p is not None]
    for place, p in zip(tested, holm([heads[place].p or 0.0 for place in tested]), strict=True):
        judged = verdict(heads[place].difference.value, p, level=level)
        heads[place] = replace(heads[place], p_holm=p, verdict=judged)
    return [test for head, tests in zip(heads, by_suite, strict=True) for test in (head, *tests[1:])]


def check_runs(runs: object) -> None:
    """Check that these are runs, at least one.

    Raises:
        BadInput: they are not.
    """
    if not isinstance(runs, Mapping):
        raise BadInput(f"the runs are {short(runs)}; wanted runs by name")
    for name, run in runs.items():
        if not isinstance(run, Run):
            raise BadInput(f"the run {short(name)} is {short(run)}; give one of read_run or run_all")
    if not runs:
        raise BadInput("there is no run to compare; give at least one")


def _in_order(sample: Sample) -> Sample:
    """Items by subset and id: equal data hashes say nothing about the order of items in a file."""
    return sample.take(sorted(range(len(sample.facts)), key=lambda i: (sample.facts[i].subset, sample.facts[i].id)))


def _meetings(sides: Sequence[Side]) -> list[tuple[Side, Side]]:
    """Pairs to compare: a model comes first, and two baselines are not compared."""
    ordered = sorted(sides, key=lambda side: side.is_baseline)
    return [(first, second) for first, second in combinations(ordered, 2) if not first.is_baseline]


def _sides(runs: Mapping[str, Run]) -> list[Side]:
    places = [(where, run, scorer) for where, run in runs.items() for scorer in run.scorers]
    names = [scorer.name for _, _, scorer in places]
    baselines: set[tuple[str, ...]] = set()
    sides = []
    for where, run, scorer in places:
        if scorer.is_baseline:  # a baseline that ran beside each model counts as one scorer
            key = (scorer.model, *sorted(f"{suite}:{run.suites[suite].data}" for suite in scorer.results))
            if key in baselines:
                continue
            baselines.add(key)
        label = scorer.name if names.count(scorer.name) == 1 else f"{scorer.name} ({where})"
        sides.append(Side(label, run, scorer.name))
    if len(sides) < 2:
        raise BadInput(f"there is only one scorer to compare ({', '.join(names) or 'none'}); give another run file")
    return sides


def _compare_on(
    suite_name: str, a: str, b: str, samples: Mapping[tuple[str, str], Sample], suite: Suite, bootstrap: Bootstrap
) -> list[PairedTest]:
    """The headline's difference, then each subset's where there are several."""
    first, second = samples[a, suite_name], samples[b, suite_name]
    mine, theirs = (_compared_figures(suite, sample) for sample in (first, second))
    headline = next(iter(mine))
    differences = compare(mine, theirs, bootstrap, strata=first.prompt_strata)
    decided = first.pairs.decided
    prompts = first.pairs.prompt[first.pairs.comparison][decided]
    counts = mcnemar(first.margin[decided] > 0, second.margin[decided] > 0, prompts)
    return [
        PairedTest(
            a=a,
            b=b,
            suite=suite_name,
            figure=figure,
            headline=figure == headline,
            difference=difference.difference,
            p=difference.p,
            p_holm=difference.p_adjusted,
            detectable=difference.detectable,
            verdict=difference.verdict,
            mcnemar=counts if figure == headline else None,
        )
        for figure, difference in differences.items()
    ]


def _compared_figures(suite: Suite, sample: Sample) -> dict[str, Figure]:
    """The suite's headline, and each subset's accuracy by the suite's rule for equal scores."""
    figures = suite.measure(sample)
    headline = next(iter(figures))
    subsets = subsets_of(sample)
    credit = credits(sample, "wrong" if suite.ties == "wrong" else "half")
    parts = {f"accuracy: {subset}": mean_over(sample, credit, in_subset(sample, subset)) for subset in subsets}
    return {headline: figures[headline]} | (parts if len(subsets) > 1 else {})
