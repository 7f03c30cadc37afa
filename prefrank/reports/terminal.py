"""What was measured, as tables on standard output and remarks on standard error."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrank.cli.screen import Part, add_row, joined, new_table, say, show, stacked
from prefrank.io.names import short_names

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from prefrank.evaluation.protocols.suite import Suite
    from prefrank.evaluation.run_file import Run
    from prefrank.reports.leaderboard import Leaderboard

_COLOURS = {"better": "green", "worse": "red", "cannot be told apart": "dim"}


def run(run: "Run") -> None:
    """Every suite's figures for every scorer, then what is counted, then the differences."""
    shown = short_names([scorer["name"] for scorer in run["scorers"]])
    for name, suite in run["suites"].items():
        results = [scorer["results"][name] for scorer in run["scorers"]]
        scorers = list(zip(shown, results, strict=True))
        _suite(name, suite, scorers)
        _remarks(suite, scorers[0][1])
    if run.get("comparison"):
        comparison(run["comparison"], headlines=True)
    for scorer, label in zip(run["scorers"], shown, strict=True):
        if scorer["audit"] is not None:
            say(f"input formats of {label}", style="bold")
            for sentence in scorer["audit"]["summary"]:
                say(f"- {sentence}")
    first = run["scorers"][0]
    data = ", ".join(f"{name} {suite['data'][:12]}" for name, suite in run["suites"].items())
    model = re.sub(r"[0-9a-f]{40,}", lambda hash: hash[0][:12], first["model"])
    say(f"model {model}; data: {data}; {run['intervals']['resamples']:,} resamples of prompts")


def _suite(name: str, suite: Mapping[str, Any], scorers: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """A row for each figure, a column for each scorer; an interval stands under its value."""
    title = suite["title"] if suite["title"] == name else f"{suite['title']} ({name})"
    table = new_table(title, "", *(scorer for scorer, _ in scorers), "n")
    shown = _shown(suite, scorers[0][1])
    for label in shown:
        figures = [_figure(result, label) for _, result in scorers]
        show_as = _percent if label not in scorers[0][1]["figures"] or label in scorers[0][1]["shares"] else _number
        cells = [_stack(show_as(one["value"]), _interval(one, show_as)) for one in figures]
        n = _stack(f"{figures[0]['n']:,} {figures[0]['unit']}", f"{figures[0]['prompts']:,} prompts")
        add_row(table, label, *cells, n, end_section=True)
    if shown[-1] == "accuracy":
        losses = [result["overall"]["log_loss"] for _, result in scorers]
        add_row(table, "log loss", *("-" if one["value"] is None else f"{one['value']:.3f}" for one in losses), "")
    show(table, width=max(100, 26 + 17 * len(scorers)))


def _shown(suite: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """What a terminal has room for: no parts of sections and no cells of charts; subsets of plain comparisons."""
    charted = {figure for chart in suite["charts"] for figure in chart["figures"]}
    figures = [name for name in result["figures"] if "/" not in name and name not in charted]
    subsets = list(result["subsets"]) if figures == ["accuracy"] and len(result["subsets"]) > 1 else []
    return [*subsets, *figures]


def _figure(result: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    """A figure, or a subset's accuracy."""
    return result["figures"][label] if label in result["figures"] else result["subsets"][label]["accuracy"]


def _remarks(suite: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    from prefrank.evaluation.protocols import missing_in_words

    counts, rule = result["overall"]["counts"], {"half": "count one half", "wrong": "are wrong", "shared": "share"}
    dropped = sum(suite["rows"]["dropped"].values())
    parts: list[Part] = [
        f"{counts['comparisons']:,} items of {counts['prompts']:,} prompts",
        f"{suite['rows']['read']:,} rows read, {dropped:,} dropped" if dropped else "",
        f"equal scores {rule[suite['ties']]} ({counts['score_ties']:,})",
        f"{counts['ties']:,} tied preferences count in the log loss only" if counts["ties"] else "",
        joined(f"{counts['failures']:,} scores failed", style="yellow") if counts["failures"] else "",
        f"{counts['cut_prompts']:,} prompts and {counts['cut_replies']:,} replies of {counts['replies']:,} cut",
        f"noise ceiling {suite['noise_ceiling']['value']:.1%}" if _has_value(suite["noise_ceiling"]) else "",
    ]
    say(joined(*(part for part in parts if part), between="; "))
    for sentence in missing_in_words(suite["rows"]["missing"]):
        say(sentence, style="yellow")


def comparison(found: Mapping[str, Any], *, headlines: bool = False) -> None:
    """Differences with their intervals, p-values and what they come to: of headlines in one table, or all by pair."""
    title = "{} (first less second; prompts swapped for p; Holm-adjusted)"
    columns = ("difference", "95 % interval", "p", "detectable", "verdict")
    names = list(dict.fromkeys(row[side] for row in found["pairs"] for side in ("a", "b")))
    short = dict(zip(names, short_names(names), strict=True))
    pairs = [row | {"a": short[row["a"]], "b": short[row["b"]]} for row in found["pairs"]]
    if headlines:
        rows = [row for row in pairs if row["headline"]]
        head = ("first", "second", "suite")
        _differences(title.format("Differences on the same items"), (*head, *columns), rows, ("a", "b", "suite"))
    else:
        for one, other in dict.fromkeys((row["a"], row["b"]) for row in pairs):
            rows = [row for row in pairs if (row["a"], row["b"]) == (one, other)]
            _differences(title.format(f"{one} less {other}"), ("suite", "figure", *columns), rows, ("suite", "figure"))
    for sentence in found["refused"]:
        say(f"not compared: {sentence}", style="yellow")
    say("differences in points of 100; detectable: what these items would show four times in five")


def _differences(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], named: Sequence[str]) -> None:
    wide, narrow = (_difference_rows(title, columns, rows, named, narrow=narrow) for narrow in (False, True))
    show(wide, width=140, narrow=narrow)


def _difference_rows(
    title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], named: Sequence[str], *, narrow: bool
) -> "Table":
    """Where there is little room, intervals stand under their differences, and what is detectable is left out."""
    figures = [name for name in columns[len(named) :] if not narrow or name not in ("95 % interval", "detectable")]
    table = new_table(title, *columns[: len(named)], *figures, left=len(named))
    table.columns[-1].justify = "left"
    for column in table.columns[len(named) :]:
        column.no_wrap = True
    before = None
    for row in rows:
        difference, verdict = row["difference"], row["verdict"]
        names = [row[name].removeprefix("accuracy: ") for name in named]
        if not row["headline"]:
            names = ["", f"  {names[-1]}"]
        elif before is not None and named[0] == "suite":
            table.add_section()
        before = row["suite"]
        value, p = _points(difference["value"]), "-" if row["p_holm"] is None else _p(row["p_holm"])
        low, high = _points(difference["low"]), _points(difference["high"])
        low_high = "-" if difference["low"] is None else f"{low} to {high}"
        detectable = "-" if row["detectable"] is None else f"{100 * row['detectable']:.1f}"
        colour = _COLOURS.get(verdict or "", "dim")
        if narrow:
            words = (verdict or "-").replace(" told", "\ntold").split("\n")
            cells: list[Part] = [_stack(value, low_high), p, stacked(*(joined(one, style=colour) for one in words))]
        else:
            cells = [value, low_high, p, detectable, joined(verdict or "-", style=colour)]
        add_row(table, *names, *cells)
    return table


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _stack(value: str, under: str) -> "Text":
    return stacked(value, joined(under, style="dim"))


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"


def _has_value(estimate: Mapping[str, Any] | None) -> bool:
    return estimate is not None and estimate["value"] is not None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(estimate: Mapping[str, Any], show_as: Callable[[float | None], str]) -> str:
    if estimate["low"] is None:
        return "-"
    return f"{show_as(estimate['low']).removesuffix(' %')} to {show_as(estimate['high']).removesuffix(' %')}"


def leaderboard(found: "Leaderboard") -> None:
    """A table for each suite and data, best first."""
    for board in found.boards:
        title = f"{board.title}: {board.figure}, {board.items:,} items, data {board.data[:12]}"
        table = new_table(title, "", "model", "value", "95 % interval", "group", "n", "evaluated", left=2)
        for place, name in zip(board.places, short_names([place.name for place in board.places]), strict=True):
            estimate = place.estimate.to_json()
            add_row(
                table,
                "-" if place.rank is None else str(place.rank),
                joined(joined(name), " (baseline)" if place.kind == "baseline" else "", style="dim"),
                _percent(estimate["value"]),
                _interval(estimate, _percent),
                place.group or "-",
                f"{estimate['n']:,}",
                place.created[:10],
            )
        show(table)
    say("models that share a letter cannot be told apart (paired tests on the same items, Holm-adjusted)")
    for note in found.notes:
        say(note, style="yellow")
    for file, why in found.broken.items():
        say(f"not used: {file}: {why}", style="yellow")


def calibrated(folder: Path, found: Mapping[str, Any]) -> None:
    say(
        joined(f"temperature {found['temperature']:.3g}", style="bold"),
        f" in {folder / 'prefrank.json'}: log loss {found['log_loss']:.3f}, scaled {found['scaled_log_loss']:.3f} on"
        f" prompts it was not fitted on; {found['pairs']:,} pairs of {found['prompts']:,} prompts of",
        f" {found['fitted_on']}",
    )


def suites(known: "Sequence[Suite]") -> None:
    table = new_table(None, "name", "benchmark, and its files on the hub or in NAME=FOLDER", "equal scores", left=3)
    for suite in known:
        files = [*suite.layout[:2], *(["..."] if len(suite.layout) > 2 else [])] or ["ship with prefrank"]
        hub = [f"on the hub: {suite.hub}"] if suite.hub else []
        facts = stacked(suite.title, *(joined(line, style="dim") for line in (*hub, *files)))
        add_row(table, suite.name, facts, suite.ties, end_section=True)
    show(table)
    say("all file patterns: prefrank suites --json, docs/suites.md")
