"""Runs: some scorers on some suites, everything that is measured of each, as one record; and runs compared.

Scoring is the only heavy part, and happens once for each scorer and suite; all figures are functions of the scored
samples. Comparing takes two scorers' samples of the same items, from one run or from two files.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import numpy as np

from prefrank.errors import BadData, BadInput, PrefrankError, short
from prefrank.evaluation.abstention import abstention
from prefrank.evaluation.calibration import calibration
from prefrank.evaluation.ceiling import noise_ceiling
from prefrank.evaluation.comparing import compare, mcnemar, verdict
from prefrank.evaluation.contamination import Contamination, accuracies, contamination
from prefrank.evaluation.credits import credits, in_subset, mean_over, subsets_of
from prefrank.evaluation.items import Item, Sample, sample_of, spoken
from prefrank.evaluation.metrics import accuracy_figure, measure_subsets
from prefrank.evaluation.protocols import missing_rows
from prefrank.evaluation.protocols.suite import Suite, SuiteData
from prefrank.evaluation.run import Scorer, data_hash, score_once, versions
from prefrank.evaluation.run_file import FORMAT, Run, facts_json, sample_of_run, scorer_of, scores_json
from prefrank.evaluation.run_schema import Wrong, check_run
from prefrank.evaluation.slices import slices
from prefrank.evaluation.style import style
from prefrank.evaluation.temperature_fit import Temperature, stored_temperature
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.estimates import estimate_all
from prefrank.stats.figures import Figure
from prefrank.stats.significance import holm
from prefrank.types import Comparison, Prompt

ERRORS_KEPT, TEXT_KEPT = 12, 600


@dataclass(frozen=True, slots=True)
class Entrant:
    """A scorer that takes part in a run.

    Args:
        name: unique in the run, as in tables.
        kind: model, transformers, http, python, file or baseline.
        score_pairs: the scorer.
        format: how texts reach it: text settings, precision, device and so on, as plain values.
        calibration: stored with the model; used but for the very data it was fitted on. None where it has none.
        control_strings: how many texts of pairs hold strings that mean control to the model; None where nobody knows,
            or where they are to mean it.
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
    hardware: Mapping[str, Any] | None = None,
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
    _check_names("scorers", [one.name for one in entrants])
    _check_names("suites", [one.suite.name for one in tasks])
    for task in tasks:
        if not task.data.items:
            raise BadData(f"{task.suite.title} from {task.where} has no items to score: {_drops(task.data)}")
    dirty = {task.suite.name: contamination(train, task.data.items) for task in tasks} if train else {}
    samples: dict[str, Sample] = {}
    ran = [_run_entrant(one, tasks, dirty, bootstrap, scoring, samples) for one in entrants]
    return {
        "format": FORMAT,
        "prefrank": versions()["prefrank"],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "versions": versions(),
        "hardware": dict(hardware or {}),
        "intervals": asdict(bootstrap),
        "suites": {
            task.suite.name: _suite_json(task, samples[task.suite.name], dirty.get(task.suite.name), bootstrap)
            for task in tasks
        },
        "scorers": ran,
    }


def _check_names(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise BadInput(f"{what} {', '.join(twice)} are named twice" if twice else f"there are no {what} to run")


def _drops(data: SuiteData) -> str:
    dropped = ", ".join(f"{count} {reason}" for reason, count in data.dropped.items())
    return f"{data.read} rows read, dropped: {dropped or 'none'}"


def _suite_json(task: Task, sample: Sample, dirty: Contamination | None, bootstrap: Bootstrap) -> dict[str, Any]:
    suite, ceiling = task.suite, noise_ceiling(sample, bootstrap)
    voted = ceiling.n >= sum(len(facts.preferences) for facts in sample.facts) / 2  # not a few rows that repeat
    return {
        "title": suite.title,
        "source": suite.source,
        "data": data_hash(task.data.items),
        "ties": suite.ties,
        "from": task.where,
        "rows": {
            "read": task.data.read,
            "dropped": dict(task.data.dropped),
            "missing": {name: list(counts) for name, counts in missing_rows(suite.name, sample.facts).items()},
        },
        "charts": [asdict(chart) for chart in suite.charts],
        "noise_ceiling": ceiling.to_json() if voted else None,
        "contamination": None if dirty is None else dirty.to_json(),
        "items": [facts_json(facts) for facts in sample.facts],
    }


def _run_entrant(
    one: Entrant,
    tasks: Sequence[Task],
    dirty: Mapping[str, Contamination],
    bootstrap: Bootstrap,
    scoring: Callable[[str, Scorer], Scorer],
    known: dict[str, Sample],
) -> dict[str, Any]:
    """One scorer's entry; `known` gets the first scorer's samples, whose facts of the items serve the others too."""
    started = time.perf_counter()
    score_pairs = scoring(one.name, one.score_pairs)
    scored = [(task, score_once(score_pairs, task.data.items)) for task in tasks]
    scoring_s = time.perf_counter() - started
    samples = {
        name: known[name].with_scores(scores) if name in known else sample_of(task.data.items, scores)
        for name, task, scores in ((task.suite.name, task, scores) for task, scores in scored)
    }
    results = {
        name: _result(task, samples[name], one, dirty.get(name), bootstrap)
        for name, task in ((task.suite.name, task) for task in tasks)
    }
    first = next(iter(samples.values())).scores[0][0]
    pairs = [(item.prompt, reply) for task in tasks for item in task.data.items for reply in item.replies]
    entry = {
        "name": one.name,
        "kind": one.kind,
        "model": first.model,
        "format": dict(one.format),
        "scoring_s": scoring_s,
        "replies": sum(len(sample.values) for sample in samples.values()),
        "control_strings": one.control_strings(pairs) if one.control_strings else None,
        "tokens": sum(score.tokens for sample in samples.values() for each in sample.scores for score in each),
        "evaluating_s": time.perf_counter() - started - scoring_s,
        "results": results,
        "audit": None,
    }
    # without what was found of this scorer's scores, which takes much memory for long lists
    known.update({name: one.with_scores(one.scores) for name, one in samples.items() if name not in known})
    return entry


def _result(
    task: Task, sample: Sample, one: Entrant, dirty: Contamination | None, bootstrap: Bootstrap
) -> dict[str, Any]:
    figures = task.suite.measure(sample)
    overall, subsets = measure_subsets(sample, bootstrap)
    estimates = estimate_all(figures, bootstrap, strata=sample.prompt_strata)
    return {
        "headline": next(iter(figures)),
        "figures": {name: estimate.to_json() for name, estimate in estimates.items()},
        "shares": [name for name, figure in figures.items() if figure.bounds and figure.bounds[0] == 0.0],
        "overall": overall.to_json(),
        "subsets": {name: metrics.to_json() for name, metrics in subsets.items()},
        "calibration": calibration(sample, bootstrap, temperature=_temperature(one, task)).to_json(),
        "abstention": abstention(sample, bootstrap).to_json(),
        "style": style(sample, bootstrap).to_json(),
        "slices": [found.to_json() for found in slices(sample, bootstrap)],
        "contamination": None if dirty is None else clean_and_dirty(sample, dirty, bootstrap),
        "errors": worst_errors(sample, task.data.items),
        **scores_json(sample.scores),
    }


def _temperature(one: Entrant, task: Task) -> Temperature | None:
    """The stored one, unless it was fitted on these items: then each prompt gets one fitted on others."""
    stored = one.calibration
    return None if stored is None or stored.get("data") == data_hash(task.data.items) else stored_temperature(stored)


def clean_and_dirty(sample: Sample, found: Contamination, bootstrap: Bootstrap) -> dict[str, Any]:
    """Accuracy on the items that the training set holds nothing of, on the others, and the difference."""
    held = {(one.subset, one.id) for one in found.dirty}
    dirty = np.array([(facts.subset, facts.id) in held for facts in sample.facts])
    return {name: one and one.to_json() for name, one in accuracies(sample, dirty, bootstrap).items()}


def worst_errors(sample: Sample, items: Sequence[Item], *, count: int = ERRORS_KEPT) -> list[dict[str, Any]]:
    """The decided pairs that are most wrong, at most one for each item, with their texts, to be read by people."""
    pairs = sample.pairs
    wrong = np.flatnonzero(pairs.decided & (sample.lead < 0))
    item, lead = pairs.comparison[wrong], sample.lead[wrong]
    starts = np.flatnonzero(np.diff(item, prepend=-1))  # pairs are in the items' order
    least = np.minimum.reduceat(lead, starts) if len(starts) else lead
    worst = np.flatnonzero(lead == np.repeat(least, np.diff(starts, append=len(lead))))
    worst = worst[np.flatnonzero(np.diff(item[worst], prepend=-1))]  # of equal ones an item's first
    chosen = worst[np.argsort(lead[worst], kind="stable")][:count]
    return [_error(sample, items[i], i, p) for i, p in zip(item[chosen].tolist(), wrong[chosen].tolist(), strict=True)]


def _error(sample: Sample, item: Item, number: int, pair: int) -> dict[str, Any]:
    first = sample.pairs.first[number]
    ahead, behind = int(sample.pairs.ahead[pair] - first), int(sample.pairs.behind[pair] - first)
    scores = sample.scores[number]
    return {
        "subset": item.subset,
        "id": item.id,
        "margin": float(sample.lead[pair]),
        "prompt": _cut("\n\n".join(f"{turn.role}: {spoken(turn)}" for turn in item.prompt), from_end=True),
        "preferred": _cut(item.replies[ahead]),
        "other": _cut(item.replies[behind]),
        "scores": [scores[ahead].value, scores[behind].value],
    }


def _cut(text: str, *, from_end: bool = False) -> str:
    """A prompt keeps its end, a reply its beginning."""
    if len(text) <= TEXT_KEPT:
        return text
    return "… " + text[-TEXT_KEPT:] if from_end else text[:TEXT_KEPT] + " …"


@dataclass(frozen=True, slots=True)
class Side:
    """One scorer of one run, as a comparison sees it."""

    label: str
    run: Run
    name: str

    @property
    def is_baseline(self) -> bool:
        return scorer_of(self.run, self.name)["kind"] == "baseline"


def compare_runs(
    runs: Mapping[str, Run], suites: Mapping[str, Suite], *, bootstrap: Bootstrap | None = None
) -> dict[str, Any]:
    """Every model against every other scorer, on each suite that both were run on; baselines not with each other.

    Args:
        runs: by where they come from, which tells scorers of one name apart.
        suites: the known ones by name, whose headlines are compared; other data compare by accuracy.
        bootstrap: that of the first run by default.

    Returns:
        {"pairs": [...], "refused": [sentences]}. `p_holm` of a headline is adjusted over the suites of its pair of
        scorers, that of a subset over the subsets of its suite.

    Raises:
        BadInput: fewer than two scorers, or no two that share a suite with the same data; something else than runs.
    """
    try:
        return _compare_runs(runs, suites, bootstrap)
    except PrefrankError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        _check_runs(runs)  # no run of a file or of `run_all` comes this far
        raise


def _check_runs(runs: object) -> None:
    """Say which part of which run is not as a run has it."""
    if not isinstance(runs, Mapping):
        raise BadInput(f"the runs are {short(runs)}; wanted runs by name")
    for name, run in runs.items():
        try:
            check_run(run)
        except Wrong as wrong:
            raise BadInput(f"the run {short(name)} is no whole run: {wrong}; give one of read_run or run_all") from None


def _compare_runs(runs: Mapping[str, Run], suites: Mapping[str, Suite], bootstrap: Bootstrap | None) -> dict[str, Any]:
    sides = _sides(runs)
    style = bootstrap or _intervals_of(runs)
    samples: dict[tuple[str, str], Sample] = {}
    for side in sides:
        for name in scorer_of(side.run, side.name)["results"]:
            samples[side.label, name] = _in_order(sample_of_run(side.run, side.name, name))
    rows: list[dict[str, Any]] = []
    refused: list[str] = []
    for one, other in _duels(sides):
        shared = [name for name in one.run["suites"] if (one.label, name) in samples and (other.label, name) in samples]
        hashes = {name: (one.run["suites"][name]["data"], other.run["suites"][name]["data"]) for name in shared}
        for name, (mine, theirs) in hashes.items():
            if mine != theirs:
                refused.append(
                    f"{name}: {one.label} was run on data {mine[:12]} and {other.label} on {theirs[:12]}; run both on"
                    " the same data to compare them"
                )
        same = [name for name, (mine, theirs) in hashes.items() if mine == theirs]
        found = [
            _compare_on(name, one.label, other.label, samples, suites.get(name) or comparisons_suite(name), style)
            for name in same
        ]
        heads = [each[0] for each in found if each[0]["p"] is not None]
        for head, adjusted in zip(heads, holm([head["p"] for head in heads]), strict=True):
            head["p_holm"] = adjusted
            head["verdict"] = verdict(head["difference"]["value"], adjusted, level=1 - style.confidence)
        rows += [row for each in found for row in each]
    refused = list(dict.fromkeys(refused))
    if not rows:
        raise BadInput("; ".join(refused) or "no two scorers were run on one suite; give runs that share one")
    return {"pairs": rows, "refused": refused}


def _intervals_of(runs: Mapping[str, Run]) -> Bootstrap:
    """As the first run made its own."""
    if not runs:
        raise BadInput("there is no run to compare; give at least one")
    made = next(iter(runs.values()))["intervals"]
    return Bootstrap(made["resamples"], made["seed"], made["confidence"])


def _in_order(sample: Sample) -> Sample:
    """Items by subset and id: equal data hashes say nothing of the order that a file has them in."""
    return sample.take(sorted(range(len(sample.facts)), key=lambda i: (sample.facts[i].subset, sample.facts[i].id)))


def _duels(sides: Sequence[Side]) -> list[tuple[Side, Side]]:
    """A model comes first; two baselines do not meet."""
    ordered = sorted(sides, key=lambda side: side.is_baseline)
    return [(one, other) for one, other in combinations(ordered, 2) if not one.is_baseline]


def _sides(runs: Mapping[str, Run]) -> list[Side]:
    found = [(where, run, scorer["name"]) for where, run in runs.items() for scorer in run["scorers"]]
    names = [name for _, _, name in found]
    baselines: set[tuple[str, ...]] = set()
    sides = []
    for where, run, name in found:
        entry = scorer_of(run, name)
        if entry["kind"] == "baseline":  # one that ran beside each model is one scorer
            key = (entry["model"], *sorted(f"{suite}:{run['suites'][suite]['data']}" for suite in entry["results"]))
            if key in baselines:
                continue
            baselines.add(key)
        sides.append(Side(name if names.count(name) == 1 else f"{name} ({where})", run, name))
    if len(sides) < 2:
        raise BadInput(f"there is only one scorer to compare ({', '.join(names) or 'none'}); give another run file")
    return sides


def _compare_on(
    name: str, one: str, other: str, samples: Mapping[tuple[str, str], Sample], suite: Suite, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """The headline's difference, then each subset's where there are several."""
    first, second = samples[one, name], samples[other, name]
    mine, theirs = (_compared_figures(suite, sample) for sample in (first, second))
    headline = next(iter(mine))
    found = compare(mine, theirs, bootstrap, strata=first.prompt_strata)
    decided = first.pairs.decided
    prompts = first.pairs.prompt[first.pairs.comparison][decided]
    tests = mcnemar(first.lead[decided] > 0, second.lead[decided] > 0, prompts)
    return [
        {
            "a": one,
            "b": other,
            "suite": name,
            "figure": figure,
            "headline": figure == headline,
            "difference": difference.difference.to_json(),
            "p": difference.p,
            "p_holm": difference.p_adjusted,
            "detectable": difference.detectable,
            "verdict": difference.verdict,
            "mcnemar": tests.to_json() if figure == headline else None,
        }
        for figure, difference in found.items()
    ]


def _compared_figures(suite: Suite, sample: Sample) -> dict[str, Figure]:
    """The suite's headline, and each subset's accuracy by the suite's rule for equal scores."""
    figures = suite.measure(sample)
    headline = next(iter(figures))
    subsets = subsets_of(sample)
    credit = credits(sample, "wrong" if suite.ties == "wrong" else "half")
    parts = {f"accuracy: {one}": mean_over(sample, credit, in_subset(sample, one)) for one in subsets}
    return {headline: figures[headline]} | (parts if len(subsets) > 1 else {})
