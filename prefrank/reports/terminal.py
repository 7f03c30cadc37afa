"""Results for a terminal: tables and one-line remarks, in the order in which they are read."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from prefrank.evaluation.protocols import missing_in_words
from prefrank.evaluation.protocols.suite import Suite
from prefrank.evaluation.results import PairedTest, PairedTests, Run, SuiteRecord, SuiteResult
from prefrank.io.names import short_names
from prefrank.reports.leaderboard import Leaderboard
from prefrank.reports.numbers import from_to, percent, points, three_places
from prefrank.reports.rich_tables import Part, Sheet, Shown, add_row, joined, new_table, stacked
from prefrank.stats.estimates import Estimate

_COLOURS = {"better": "green", "worse": "red", "cannot be told apart": "dim"}
_TIES = {"half": "count one half", "wrong": "are wrong", "shared": "share"}


def run(run: Run) -> Iterator[Shown]:
    """Every suite's figures for every scorer, then what is counted, then the differences."""
    shown = short_names([scorer.name for scorer in run.scorers])
    for name, suite in run.suites.items():
        results = {label: scorer.results[name] for label, scorer in zip(shown, run.scorers, strict=True)}
        yield _suite(name, suite, results)
        yield from _remarks(suite, results[shown[0]], tells_cuts=run.scorers[0].tells_cuts)
    if run.comparison is not None:
        yield from paired_tests(run.comparison, headlines=True)
    for scorer, label in zip(run.scorers, shown, strict=True):
        if scorer.audit is not None:
            yield joined(f"input formats of {label}", style="bold")
            yield from (joined(f"- {sentence}") for sentence in scorer.audit.summary)
    data = ", ".join(f"{name} {suite.data[:12]}" for name, suite in run.suites.items())
    model = re.sub(r"[0-9a-f]{40,}", lambda digest: digest[0][:12], run.scorers[0].model)
    yield joined(f"model {model}; data: {data}; {run.intervals.resamples:,} resamples of prompts")


def _suite(name: str, suite: SuiteRecord, results: Mapping[str, SuiteResult]) -> Sheet:
    """A row for each figure, a column for each scorer; an interval stands under its value."""
    title = suite.title if suite.title == name else f"{suite.title} ({name})"
    table = new_table(title, "", *results, "n")
    first = next(iter(results.values()))
    labels = _labels(suite, first)
    for label in labels:
        estimates = [_estimate(result, label) for result in results.values()]
        show_as = percent if label not in first.figures or label in first.shares else three_places
        cells = [_stack(show_as(estimate.value), from_to(estimate, show_as)) for estimate in estimates]
        n = _stack(f"{estimates[0].n:,} {estimates[0].unit}", f"{estimates[0].prompts:,} prompts")
        add_row(table, label, *cells, n, end_section=True)
    if labels[-1] == "accuracy":
        add_row(table, "log loss", *(three_places(result.overall.log_loss.value) for result in results.values()), "")
    return Sheet(table, width=max(100, 26 + 17 * len(results)))


def _labels(suite: SuiteRecord, result: SuiteResult) -> list[str]:
    """What a terminal has room for: no parts of sections and no cells of charts; subsets of plain comparisons."""
    charted = {figure for chart in suite.charts for figure in chart.figures}
    figures = [name for name in result.figures if "/" not in name and name not in charted]
    subsets = list(result.subsets) if figures == ["accuracy"] and len(result.subsets) > 1 else []
    return [*subsets, *figures]


def _estimate(result: SuiteResult, label: str) -> Estimate:
    """A figure, or a subset's accuracy."""
    return result.figures[label] if label in result.figures else result.subsets[label].accuracy


def _remarks(suite: SuiteRecord, result: SuiteResult, *, tells_cuts: bool) -> Iterator[Shown]:
    counts, ceiling = result.overall.counts, suite.noise_ceiling
    dropped = sum(suite.rows.dropped.values())
    parts: list[Part] = [
        f"{counts.comparisons:,} items of {counts.prompts:,} prompts",
        f"{suite.rows.read:,} rows read, {dropped:,} dropped" if dropped else "",
        f"equal scores {_TIES[suite.ties]} ({counts.score_ties:,})",
        f"{counts.ties:,} tied preferences count in the log loss only" if counts.ties else "",
        joined(f"{counts.failures:,} scores failed", style="yellow") if counts.failures else "",
        f"{counts.cut_prompts:,} prompts and {counts.cut_replies:,} replies of {counts.replies:,} cut"
        if tells_cuts
        else "the scorer does not tell what it cuts",
        f"noise ceiling {ceiling.value:.1%}" if ceiling is not None and ceiling.value is not None else "",
    ]
    yield joined(*(part for part in parts if part), between="; ")
    yield from (joined(sentence, style="yellow") for sentence in missing_in_words(suite.rows.missing))


def paired_tests(tests: PairedTests, *, headlines: bool = False) -> Iterator[Shown]:
    """Differences with their intervals, p-values and what they come to: of headlines in one table, or all by pair."""
    names = list(dict.fromkeys(name for test in tests.pairs for name in (test.a, test.b)))
    short = dict(zip(names, short_names(names), strict=True))
    shown = [replace(test, a=short[test.a], b=short[test.b]) for test in tests.pairs]
    if headlines:
        of_headlines = [test for test in shown if test.headline]
        yield _differences("Differences on the same items", ("first", "second", "suite"), of_headlines, _by_scorers)
    else:
        for a, b in dict.fromkeys((test.a, test.b) for test in shown):
            of_pair = [test for test in shown if (test.a, test.b) == (a, b)]
            yield _differences(f"{a} less {b}", ("suite", "figure"), of_pair, _by_figures)
    yield from (joined(f"not compared: {sentence}", style="yellow") for sentence in tests.refused)
    yield joined("differences in points of 100; detectable: what these items would show four times in five")


_Names = Callable[[PairedTest], tuple[str, ...]]


def _by_scorers(test: PairedTest) -> tuple[str, ...]:
    return (test.a, test.b, test.suite)


def _by_figures(test: PairedTest) -> tuple[str, ...]:
    """A subset's line stands under its suite's."""
    return (test.suite, test.figure) if test.headline else ("", f"  {test.figure.removeprefix('accuracy: ')}")


def _differences(title: str, head: tuple[str, ...], tests: Sequence[PairedTest], names: _Names) -> Sheet:
    title = f"{title} (first less second; prompts swapped for p; Holm-adjusted)"
    wide, narrow = (_difference_rows(title, head, tests, names, narrow=narrow) for narrow in (False, True))
    return Sheet(wide, width=140, narrow=narrow)


def _difference_rows(
    title: str, head: tuple[str, ...], tests: Sequence[PairedTest], names: _Names, *, narrow: bool
) -> Table:
    """Where there is little room, intervals stand under their differences, and what is detectable is left out."""
    columns = (
        ("difference", "p", "verdict") if narrow else ("difference", "95 % interval", "p", "detectable", "verdict")
    )
    table = new_table(title, *head, *columns, left=len(head))
    table.columns[-1].justify = "left"
    for column in table.columns[len(head) :]:
        column.no_wrap = True
    for place, test in enumerate(tests):
        if place and test.headline and names is _by_figures:
            table.add_section()
        difference, verdict = test.difference, test.verdict or "-"
        value, p = points(difference.value), "-" if test.p_holm is None else _p(test.p_holm)
        interval = from_to(difference, points)
        detectable = "-" if test.detectable is None else f"{100 * test.detectable:.1f}"
        colour = _COLOURS.get(verdict, "dim")
        if narrow:
            words = verdict.replace(" told", "\ntold").split("\n")
            cells: list[Part] = [_stack(value, interval), p, stacked(*(joined(word, style=colour) for word in words))]
        else:
            cells = [value, interval, p, detectable, joined(verdict, style=colour)]
        add_row(table, *names(test), *cells)
    return table


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _stack(value: str, under: str) -> Text:
    return stacked(value, joined(under, style="dim"))


def leaderboard(leaderboard: Leaderboard) -> Iterator[Shown]:
    """A table for each suite and data, best first."""
    for board in leaderboard.boards:
        title = f"{board.title}: {board.figure}, {board.items:,} items, data {board.data[:12]}"
        table = new_table(title, "", "model", "value", "95 % interval", "group", "n", "evaluated", left=2)
        for place, name in zip(board.places, short_names([place.name for place in board.places]), strict=True):
            add_row(
                table,
                "-" if place.rank is None else str(place.rank),
                joined(joined(name), " (baseline)" if place.kind == "baseline" else "", style="dim"),
                percent(place.estimate.value),
                from_to(place.estimate, percent),
                place.group or "-",
                f"{place.estimate.n:,}",
                place.created[:10],
            )
        yield Sheet(table)
    yield joined("models that share a letter cannot be told apart (paired tests on the same items, Holm-adjusted)")
    yield from (joined(note, style="yellow") for note in leaderboard.notes)
    yield from (joined(f"not used: {file}: {why}", style="yellow") for file, why in leaderboard.broken.items())


def calibrated(folder: Path, facts: Mapping[str, Any]) -> Iterator[Shown]:
    """A temperature that was fitted, and where it is kept."""
    yield joined(
        joined(f"temperature {facts['temperature']:.3g}", style="bold"),
        f" in {folder / 'prefrank.json'}: log loss {facts['log_loss']:.3f}, scaled {facts['scaled_log_loss']:.3f} on"
        f" prompts it was not fitted on; {facts['pairs']:,} pairs of {facts['prompts']:,} prompts of",
        f" {facts['fitted_on']}",
    )


def suites(known: Iterable[Suite]) -> Iterator[Shown]:
    """The benchmarks, and the files of each."""
    table = new_table(None, "name", "benchmark, and its files on the hub or in NAME=FOLDER", "equal scores", left=3)
    for suite in known:
        files = [*suite.layout[:2], *(["..."] if len(suite.layout) > 2 else [])] or ["ship with prefrank"]
        hub = [f"on the hub: {suite.hub}"] if suite.hub else []
        facts = stacked(suite.title, *(joined(line, style="dim") for line in (*hub, *files)))
        add_row(table, suite.name, facts, suite.ties, end_section=True)
    yield Sheet(table)
    yield joined("all file patterns: prefrank suites --json, docs/suites.md")
