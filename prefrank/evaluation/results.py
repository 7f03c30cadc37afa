"""What an evaluation found, as one frozen value, which reports, cards, leaderboards and paired tests are made from.

    Run.suites    name -> SuiteRecord: the data, and the facts of every item
    Run.scorers   ScorerRecord: who scored; its results, suite -> SuiteResult: every figure and every score
    Run.comparison  PairedTests: which differences between scorers are real

A new analysis is one module with a frozen dataclass, one field here with a default, so that older files still read, and
one section of the report. A run holds no prompt or reply but for a few errors to read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from prefrank.errors import BadInput, NotFound, short, suggest
from prefrank.evaluation.abstention import Abstention
from prefrank.evaluation.audit_results import Audit
from prefrank.evaluation.calibration import Calibration
from prefrank.evaluation.comparing import McNemar
from prefrank.evaluation.contamination import Contamination
from prefrank.evaluation.items import ItemFacts, check_facts
from prefrank.evaluation.metrics import Metrics
from prefrank.evaluation.protocols.suite import Chart
from prefrank.evaluation.samples import Sample
from prefrank.evaluation.slices import Slice
from prefrank.evaluation.style import Style
from prefrank.io.schema import MOST, Between, Wrong
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.bounds import Free, Probability, Share, Signed
from prefrank.stats.estimates import Estimate
from prefrank.types import Score

ErrorScores = tuple[float | None, float | None]


def check_chart(chart: Chart) -> None:
    """Check that a chart has a figure for each cell, and columns that can be drawn.

    Raises:
        Wrong: it does not.
    """
    if not chart.rows or not chart.columns or len(chart.figures) != len(chart.rows) * len(chart.columns):
        raise Wrong(chart.figures, "a figure for each row and column").inside("figures")
    numbers = [column for column in chart.columns if not isinstance(column, str)]
    if chart.kind == "curves" and (len(numbers) < len(chart.columns) or not all(0 < n < MOST for n in numbers)):
        raise Wrong(chart.columns, "columns that are numbers above 0, for curves").inside("columns")


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What reading a suite's data gave.

    Args:
        read: rows.
        dropped: reason -> rows that gave no item.
        missing: part of a published suite -> items that are here, and those published (None where nobody says).
    """

    read: int
    dropped: Mapping[str, int]
    missing: Mapping[str, tuple[int, int | None]]


@dataclass(frozen=True, slots=True)
class SuiteRecord:
    """A suite as it was run.

    Args:
        title: as in tables.
        source: the protocol, in a line.
        data: sha256 of the items, whatever their order.
        ties: what equal scores count for: "half" a win, "wrong", or "shared".
        where: the data came from, as the user named it.
        rows: what reading gave.
        charts: how a report draws some of the figures.
        noise_ceiling: the most that any scorer can agree with the votes; None without several votes on most pairs.
        contamination: what the training set holds of the items; None where none was given.
        items: in the data's order.
    """

    title: str
    source: str
    data: str
    ties: str
    where: str
    rows: RowCounts
    charts: tuple[Annotated[Chart, check_chart], ...]
    noise_ceiling: Share | None
    contamination: Contamination | None
    items: tuple[Annotated[ItemFacts, check_facts], ...]


@dataclass(frozen=True, slots=True)
class CleanAndContaminated:
    """Accuracy on the items that the training set holds nothing of, on the others, and the second less the first."""

    clean: Share | None
    contaminated: Share | None
    difference: Signed | None


@dataclass(frozen=True, slots=True)
class WorstError:
    """A decided pair that a scorer got wrong, with its texts (cut), to be read by people.

    Args:
        subset, id: of the item.
        margin: score of the preferred reply less the other's, below 0; None where that is not finite.
        scores: of the preferred reply and of the other; None for a failure.
    """

    subset: str
    id: str
    margin: float | None
    prompt: str
    preferred: str
    other: str
    scores: ErrorScores


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """What one scorer got on one suite.

    Args:
        headline: name of the suite's first figure.
        figures: by the suite's own protocol.
        shares: names of those figures that are shares, shown in percent.
        overall: the metrics of all items.
        subsets: of each subset.
        scores: of each item's replies; None for a failure.
        tokens, cut_prompt, cut_reply: of each of these scores, see `Score`.
        contamination: accuracy on clean and on contaminated items; None where no training set was given.
        errors: the worst ones.
    """

    headline: str
    figures: Mapping[str, Free]
    overall: Metrics
    subsets: Mapping[str, Metrics]
    calibration: Calibration
    abstention: Abstention
    style: Style
    slices: tuple[Slice, ...]
    scores: tuple[tuple[float | None, ...], ...]
    tokens: tuple[tuple[int, ...], ...]
    cut_prompt: tuple[tuple[int, ...], ...]
    cut_reply: tuple[tuple[int, ...], ...]
    shares: tuple[str, ...] = ()
    contamination: CleanAndContaminated | None = None
    errors: tuple[WorstError, ...] = ()

    @property
    def value(self) -> Estimate:
        """The headline's."""
        return self.figures[self.headline]


@dataclass(frozen=True, slots=True)
class ScorerRecord:
    """A scorer as it took part.

    Args:
        name: unique in the run.
        kind: model, transformers, http, python, file or baseline.
        model: fingerprint.
        format: how texts reach it: text settings, precision, device and so on.
        scoring_s, evaluating_s: seconds.
        replies: scored, with those that were equal.
        tokens: of all of them; 0 where the scorer tells none.
        results: suite -> what it got there.
        audit: the same model under other input formats; None where that was not asked for.
        control_strings: texts that hold strings that mean control to the model; None where nobody knows.
    """

    name: str
    kind: str
    model: str
    format: Mapping[str, Any]
    scoring_s: Annotated[float, Between(0.0)]
    replies: int
    tokens: int
    evaluating_s: Annotated[float, Between(0.0)]
    results: Mapping[str, SuiteResult]
    audit: Audit | None = None
    control_strings: int | None = None

    @property
    def is_baseline(self) -> bool:
        return self.kind == "baseline"

    @property
    def tells_cuts(self) -> bool:
        """Whether it says what it cut: who tells no tokens, as most servers and functions, tells no cuts either."""
        return self.tokens > 0 or self.is_baseline


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two scorers on the same items of one suite.

    Args:
        a, b: names of the scorers.
        figure: of the suite; the headline, or "accuracy: SUBSET".
        headline: whether it is the suite's.
        difference: a less b.
        p: by swapping the two scorers prompt by prompt; None where there is no test.
        p_holm: adjusted (Holm 1979) over the suites of the two scorers, that of a subset over the suite's subsets.
        detectable: the least true difference that so many items would show four times in five.
        verdict: of a for the adjusted p: better, worse or cannot be told apart.
        mcnemar: of the headline's pairs.
    """

    a: str
    b: str
    suite: str
    figure: str
    headline: bool
    difference: Free
    p: Probability | None
    p_holm: Probability | None
    detectable: Annotated[float, Between(0.0)] | None
    verdict: str | None
    mcnemar: McNemar | None


@dataclass(frozen=True, slots=True)
class PairedTests:
    """Args:
    pairs: every test that could be made.
    refused: sentences on those that could not.
    """

    pairs: tuple[PairedTest, ...] = ()
    refused: tuple[str, ...] = ()

    def of(self, a: str, b: str, suite: str, figure: str) -> PairedTest | None:
        """One of the tests, if it was made."""
        wanted = (a, b, suite, figure)
        return next((test for test in self.pairs if (test.a, test.b, test.suite, test.figure) == wanted), None)


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine that scored; None, or (), for what the system does not report."""

    cpu: str | None = None
    cores: int | None = None
    usable_cores: int | None = None
    memory_bytes: int | None = None
    gpus: tuple[str, ...] = ()
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Some scorers on some suites.

    Args:
        suites: by name.
        scorers: models first, as they were given.
        prefrank: its version.
        created: ISO 8601, UTC.
        command: as the user gave it; None where Python was the caller.
        versions: of Python and the packages a score depends on.
        hardware: of the machine.
        intervals: how they were made.
        comparison: of each two scorers; None where that was not done.
    """

    suites: Mapping[str, SuiteRecord]
    scorers: tuple[ScorerRecord, ...]
    prefrank: str
    created: str
    command: str | None
    versions: Mapping[str, str]
    hardware: Hardware
    intervals: Bootstrap
    comparison: PairedTests | None = None

    def scorer(self, name: str) -> ScorerRecord:
        """Raises:
        NotFound: the run has no scorer of that name.
        """
        for scorer in self.scorers:
            if scorer.name == name:
                return scorer
        raise NotFound(f"the run has no scorer {name!r}{suggest(name, [scorer.name for scorer in self.scorers])}")

    def results_on(self, suite: str) -> Iterator[tuple[ScorerRecord, SuiteResult]]:
        """The scorers that have results on a suite."""
        return ((scorer, scorer.results[suite]) for scorer in self.scorers if suite in scorer.results)

    def best_baseline(self, suite: str, *, besides: str) -> tuple[ScorerRecord, Estimate] | None:
        """The baseline with the highest value of a scorer's headline on a suite; None where none has a value."""
        headline = self.scorer(besides).results[suite].headline
        baselines = [
            (scorer, result.figures[headline])
            for scorer, result in self.results_on(suite)
            if scorer.is_baseline and scorer.name != besides and headline in result.figures
        ]
        valued = [(scorer, estimate) for scorer, estimate in baselines if estimate.value is not None]
        return max(valued, key=lambda pair: pair[1].value or 0.0, default=None)


def check_run(run: object) -> None:
    """Check that this is a run; until format 2 it was a dict.

    Raises:
        BadInput: it is not.
    """
    if not isinstance(run, Run):
        raise BadInput(f"the run is {short(run)}; give one of read_run or run_all")


def sample_of_run(run: Run, scorer: str, suite: str) -> Sample:
    """The scored items of one scorer on one suite, as they were measured.

    Raises:
        NotFound: the run has no such scorer or suite.
    """
    record = run.scorer(scorer)
    if suite not in record.results:
        raise NotFound(f"{scorer} has no results of {suite!r}{suggest(suite, record.results)}")
    result = record.results[suite]
    columns = zip(result.scores, result.tokens, result.cut_prompt, result.cut_reply, strict=True)
    scores = tuple(
        tuple(
            Score(float("nan") if value is None else value, tokens, cut_prompt, cut_reply, record.model)
            for value, tokens, cut_prompt, cut_reply in zip(*item, strict=True)
        )
        for item in columns
    )
    return Sample(run.suites[suite].items, scores)
