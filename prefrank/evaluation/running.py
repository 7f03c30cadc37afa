"""`run_all`: some scorers on some suites, and everything that is measured of each, as one `Run`.

Scoring is the only heavy part and happens once for each scorer and suite; every figure is a function of the scored
samples.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from prefrank.errors import BadData, BadInput
from prefrank.evaluation.abstention import abstention
from prefrank.evaluation.calibration import calibration
from prefrank.evaluation.ceiling import noise_ceiling
from prefrank.evaluation.contamination import Contamination, accuracies, contamination
from prefrank.evaluation.items import Item
from prefrank.evaluation.metrics import accuracy_figure, measure_subsets
from prefrank.evaluation.one_scorer import Scorer, data_hash, plain_values, score_once, versions
from prefrank.evaluation.protocols import missing_rows
from prefrank.evaluation.protocols.suite import Suite, SuiteData
from prefrank.evaluation.results import (
    CleanAndContaminated,
    Hardware,
    RowCounts,
    Run,
    ScorerRecord,
    SuiteRecord,
    SuiteResult,
    WorstError,
)
from prefrank.evaluation.samples import Sample, sample_of
from prefrank.evaluation.slices import slices
from prefrank.evaluation.style import style
from prefrank.evaluation.temperature_fit import Temperature, stored_temperature
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.estimates import estimate_all
from prefrank.types import Comparison, Prompt
from prefrank.wire.inputs import spoken

ERRORS_KEPT, TEXT_KEPT = 12, 600


@dataclass(frozen=True, slots=True)
class Entrant:
    """A scorer that takes part in a run.

    Args:
        name: unique in the run, as in tables.
        kind: model, transformers, http, python, file or baseline.
        score_pairs: the scorer.
        format: how texts reach it: text settings, precision, device and so on, as plain values.
        calibration: stored with the model; used except on the very data it was fitted on. None where it has none.
        control_strings: counts the texts of pairs that hold the model's control strings; None where nobody knows, or
            where such strings are meant as control tokens.
    """

    name: str
    kind: str
    score_pairs: Scorer
    format: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    control_strings: Callable[[Sequence[tuple[Prompt, str]]], int] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A suite with its data, as the user named them."""

    suite: Suite
    data: SuiteData
    where: str


def comparisons_suite(name: str) -> Suite:
    """Any comparisons as a suite: accuracy, each comparison counting the same, equal scores half."""
    return Suite(
        name=name,
        title=name,
        hub="",
        layout=(),
        read=_no_reader,
        measure=lambda sample: {"accuracy": accuracy_figure(sample)},
        source="pairwise accuracy, averaged in each comparison, then over comparisons",
        ties="half",
    )


def _no_reader(folder: Any) -> SuiteData:
    raise BadInput(f"comparisons are read by load_comparisons, not as a suite from {folder}")


def run_all(
    entrants: Sequence[Entrant],
    tasks: Sequence[Task],
    *,
    bootstrap: Bootstrap,
    train: Sequence[Comparison] = (),
    command: str | None = None,
    hardware: Hardware | None = None,
    scoring: Callable[[str, Scorer], Scorer] = lambda name, scorer: scorer,
) -> Run:
    """Score every suite's items with every entrant and measure all there is to measure.

    Args:
        train: what a model was trained on, to look for the items in it.
        command: as the user gave it, for the record.
        hardware: of this machine, for the record.
        scoring: wraps a scorer before it runs, to show progress.

    Raises:
        BadInput: two entrants or two suites of one name, or a scorer that gives too few scores.
        BadData: a suite without items.
    """
    _check_names("scorers", [entrant.name for entrant in entrants])
    _check_names("suites", [task.suite.name for task in tasks])
    for task in tasks:
        if not task.data.items:
            raise BadData(f"{task.suite.title} from {task.where} has no items to score: {_drops(task.data)}")
    contaminated = {task.suite.name: contamination(train, task.data.items) for task in tasks} if train else {}
    samples: dict[str, Sample] = {}
    scorers = [_run_entrant(entrant, tasks, contaminated, bootstrap, scoring, samples) for entrant in entrants]
    return Run(
        suites={
            task.suite.name: _suite_record(task, samples[task.suite.name], contaminated.get(task.suite.name), bootstrap)
            for task in tasks
        },
        scorers=tuple(scorers),
        prefrank=versions()["prefrank"],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        versions=versions(),
        hardware=hardware or Hardware(),
        intervals=bootstrap,
    )


def _check_names(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise BadInput(f"{what} {', '.join(twice)} are named twice" if twice else f"there are no {what} to run")


def _drops(data: SuiteData) -> str:
    dropped = ", ".join(f"{count} {reason}" for reason, count in data.dropped.items())
    return f"{data.read} rows read, dropped: {dropped or 'none'}"


def _suite_record(task: Task, sample: Sample, contaminated: Contamination | None, bootstrap: Bootstrap) -> SuiteRecord:
    suite, ceiling = task.suite, noise_ceiling(sample, bootstrap)
    voted = ceiling.n >= sum(len(facts.preferences) for facts in sample.facts) / 2  # not a few rows that repeat
    return SuiteRecord(
        title=suite.title,
        source=suite.source,
        data=data_hash(task.data.items),
        ties=suite.ties,
        where=task.where,
        rows=RowCounts(task.data.read, dict(task.data.dropped), missing_rows(suite.name, sample.facts)),
        charts=suite.charts,
        noise_ceiling=ceiling if voted else None,
        contamination=contaminated,
        items=sample.facts,
    )


def _run_entrant(
    entrant: Entrant,
    tasks: Sequence[Task],
    contaminated: Mapping[str, Contamination],
    bootstrap: Bootstrap,
    scoring: Callable[[str, Scorer], Scorer],
    known: dict[str, Sample],
) -> ScorerRecord:
    """One scorer's record; `known` gets the first scorer's samples, whose facts of the items serve the others too."""
    started = time.perf_counter()
    score_pairs = scoring(entrant.name, entrant.score_pairs)
    scored = [(task, score_once(score_pairs, task.data.items)) for task in tasks]
    scoring_s = time.perf_counter() - started
    samples = {
        name: known[name].with_scores(scores) if name in known else sample_of(task.data.items, scores)
        for name, task, scores in ((task.suite.name, task, scores) for task, scores in scored)
    }
    results = {
        task.suite.name: _result(task, samples[task.suite.name], entrant, contaminated, bootstrap) for task in tasks
    }
    first = next(iter(samples.values())).scores[0][0]
    pairs = [(item.prompt, reply) for task in tasks for item in task.data.items for reply in item.replies]
    record = ScorerRecord(
        name=entrant.name,
        kind=entrant.kind,
        model=first.model,
        format=dict(entrant.format),
        scoring_s=scoring_s,
        replies=sum(len(sample.values) for sample in samples.values()),
        control_strings=entrant.control_strings(pairs) if entrant.control_strings else None,
        tokens=sum(score.tokens for sample in samples.values() for item in sample.scores for score in item),
        evaluating_s=time.perf_counter() - started - scoring_s,
        results=results,
    )
    # without what is cached of this scorer's scores, which takes much memory for long lists
    known.update({name: sample.with_scores(sample.scores) for name, sample in samples.items() if name not in known})
    return record


def _result(
    task: Task, sample: Sample, entrant: Entrant, contaminated: Mapping[str, Contamination], bootstrap: Bootstrap
) -> SuiteResult:
    figures = task.suite.measure(sample)
    overall, subsets = measure_subsets(sample, bootstrap)
    overlap = contaminated.get(task.suite.name)
    return SuiteResult(
        headline=next(iter(figures)),
        figures=estimate_all(figures, bootstrap, strata=sample.prompt_strata),
        shares=tuple(name for name, figure in figures.items() if figure.bounds and figure.bounds[0] == 0.0),
        overall=overall,
        subsets=subsets,
        calibration=calibration(sample, bootstrap, temperature=_temperature(entrant, task)),
        abstention=abstention(sample, bootstrap),
        style=style(sample, bootstrap),
        slices=tuple(slices(sample, bootstrap)),
        contamination=None if overlap is None else clean_and_contaminated(sample, overlap, bootstrap),
        errors=worst_errors(sample, task.data.items),
        scores=tuple(tuple(plain_values(item)) for item in sample.scores),
        tokens=tuple(tuple(score.tokens for score in item) for item in sample.scores),
        cut_prompt=tuple(tuple(score.cut_prompt for score in item) for item in sample.scores),
        cut_reply=tuple(tuple(score.cut_reply for score in item) for item in sample.scores),
    )


def _temperature(entrant: Entrant, task: Task) -> Temperature | None:
    """The stored temperature, unless it was fitted on these items: then each prompt gets one fitted on others."""
    stored = entrant.calibration
    return None if stored is None or stored.get("data") == data_hash(task.data.items) else stored_temperature(stored)


def clean_and_contaminated(sample: Sample, overlap: Contamination, bootstrap: Bootstrap) -> CleanAndContaminated:
    """Accuracy on the items that the training set holds nothing of, on the others, and the difference."""
    names = {(item.subset, item.id) for item in overlap.contaminated}
    contaminated = np.array([(facts.subset, facts.id) in names for facts in sample.facts])
    return CleanAndContaminated(**accuracies(sample, contaminated, bootstrap))


def worst_errors(sample: Sample, items: Sequence[Item], *, count: int = ERRORS_KEPT) -> tuple[WorstError, ...]:
    """The decided pairs that are most wrong, at most one for each item, with their texts, for people to read."""
    pairs = sample.pairs
    wrong = np.flatnonzero(pairs.decided & (sample.margin < 0))
    item, margin = pairs.comparison[wrong], sample.margin[wrong]
    starts = np.flatnonzero(np.diff(item, prepend=-1))  # pairs are in the items' order
    least = np.minimum.reduceat(margin, starts) if len(starts) else margin
    worst = np.flatnonzero(margin == np.repeat(least, np.diff(starts, append=len(margin))))
    worst = worst[np.flatnonzero(np.diff(item[worst], prepend=-1))]  # an item's first where several are equal
    chosen = worst[np.argsort(margin[worst], kind="stable")][:count]
    both = zip(item[chosen].tolist(), wrong[chosen].tolist(), strict=True)
    return tuple(_error(sample, items[number], number, pair) for number, pair in both)


def _error(sample: Sample, item: Item, number: int, pair: int) -> WorstError:
    first = sample.pairs.first[number]
    ahead, behind = int(sample.pairs.ahead[pair] - first), int(sample.pairs.behind[pair] - first)
    scores = sample.scores[number]
    return WorstError(
        subset=item.subset,
        id=item.id,
        margin=float(sample.margin[pair]),
        prompt=_cut("\n\n".join(f"{turn.role}: {spoken(turn)}" for turn in item.prompt), from_end=True),
        preferred=_cut(item.replies[ahead]),
        other=_cut(item.replies[behind]),
        scores=(scores[ahead].value, scores[behind].value),
    )


def _cut(text: str, *, from_end: bool = False) -> str:
    """A prompt keeps its end, a reply its beginning."""
    if len(text) <= TEXT_KEPT:
        return text
    return "… " + text[-TEXT_KEPT:] if from_end else text[:TEXT_KEPT] + " …"
