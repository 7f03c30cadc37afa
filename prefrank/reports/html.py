"""A run as one page of HTML: no script, no font, nothing from the network, and the same bytes for the same run.

Names, prompts and replies are untrusted, so the page escapes all text; only drawings made by `charts` go in as they
are, and those escape their own labels. Several runs make one page, of the runs as `merged` joins them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prefrank.evaluation.merging import merged
from prefrank.evaluation.results import PairedTests, Run
from prefrank.reports.entries import models, title_of, with_short_names
from prefrank.reports.numbers import count, digits, interval, p_value
from prefrank.reports.page import template, write_page
from prefrank.reports.sections import SECTIONS
from prefrank.reports.sections.what_was_run import what_was_run


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one suite says of the first model.

    Args:
        suite: title.
        figure: name of its headline.
        value: in digits.
        interval: in digits.
        count: what it rests on.
        against: the best baseline and the difference, in words.
        outcome: "better", "worse", "cannot be told apart" from that baseline, or "" where it was not tested.
    """

    suite: str
    figure: str
    value: str
    interval: str
    count: str
    against: str
    outcome: str


def write_report(run: Run | Sequence[Run], path: Path, *, comparison: PairedTests | None = None) -> None:
    """Write the page of one run, or of several together; see `render_report`.

    Raises:
        BadInput: no run.
        NotFound: jinja2 is not installed.
        CannotWrite: the file cannot be written.
    """
    write_page(path, render_report(run, comparison=comparison))


def render_report(run: Run | Sequence[Run], *, comparison: PairedTests | None = None) -> str:
    """The page as text.

    Args:
        comparison: of the scorers as `merged` names them, in place of what the runs hold.

    Raises:
        BadInput: no run.
        NotFound: jinja2 is not installed.
    """
    runs = [run] if isinstance(run, Run) else list(run)
    whole = merged(runs)
    if comparison is not None:
        whole = replace(whole, comparison=comparison)
    shown = with_short_names(whole)
    sections = {name: section(shown) for name, section in SECTIONS.items()}
    first = what_was_run(shown, [scorer.name for scorer in whole.scorers], runs)
    verdicts = _verdicts(shown)
    model, *others = [scorer.name for scorer in shown.scorers] or ["An empty run"]
    return template("report.html", "a report").render(
        title=model,
        beside=f"beside {', '.join(others)}" if others else "",
        summary=_summary(verdicts, model),
        verdicts=verdicts,
        sections=[first, *(section for section in sections.values() if section is not None)],
        missing=[name for name, section in sections.items() if section is None],
        run=shown,
        rules={title_of(shown, name): suite.ties for name, suite in shown.suites.items()},
    )


def _summary(verdicts: Sequence[Verdict], model: str) -> str:
    """The verdicts in a sentence."""
    outcomes = [verdict.outcome for verdict in verdicts if verdict.outcome]
    if not outcomes:
        return f"{model} was not tested against a baseline; its headline figures stand alone."
    words = {"better": "better", "worse": "worse", "cannot be told apart": "not to be told apart"}
    parts = [f"{words.get(outcome, outcome)} on {outcomes.count(outcome)}" for outcome in dict.fromkeys(outcomes)]
    suites = f"{len(outcomes)} suite{'s' if len(outcomes) != 1 else ''}"
    return f"Against the best baseline {model} is {' and '.join(parts)} of {suites} (paired tests, Holm-corrected)."


def _verdicts(run: Run) -> list[Verdict]:
    """The verdicts on the first model, suite by suite."""
    verdicts = []
    for suite in run.suites:
        for number, scorer, result in models(run, suite):
            if number == 0:
                value, (against, outcome) = result.value, _against(run, suite, scorer.name)
                shown = digits(value.value), interval(value), count(value)
                verdicts.append(Verdict(title_of(run, suite), result.headline, *shown, against, outcome))
    return verdicts


def _against(run: Run, suite: str, model: str) -> tuple[str, str]:
    """The best baseline and the difference in words, and the outcome of the test."""
    best = run.best_baseline(suite, besides=model)
    if best is None:
        return "No baseline was run.", ""
    baseline, estimate = best
    named = f"Best baseline: {baseline.name}, {digits(estimate.value)} {interval(estimate)}."
    headline = run.scorer(model).results[suite].headline
    test = run.comparison and run.comparison.of(model, baseline.name, suite, headline)
    if not test:
        return f"{named} The difference was not tested.", ""
    difference = f"{digits(test.difference.value)} {interval(test.difference)}"
    return f"{named} Difference {difference}, p {p_value(test.p_holm)}.", test.verdict or ""
