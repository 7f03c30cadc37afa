"""A run as one page of HTML: no script, no font, nothing from the network, and the same bytes for the same run.

Surprising: names, prompts and replies are untrusted, so the page escapes all text; only drawings made by `charts` go in
as they are, and those escape their own labels. Several runs make one page: suites of equal data are joined, and a
scorer stands once, with the first result of each suite.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prefrank.errors import BadInput, NotFound, printable
from prefrank.evaluation.run_file import Run
from prefrank.io.atomic import write_file
from prefrank.io.names import short_names
from prefrank.reports import charts
from prefrank.reports.blocks import count, digits, interval, made_from, p_value
from prefrank.reports.charts import Mark, mark_of
from prefrank.reports.sections import SECTIONS, entries, models, title_of, what_was_run

HOW_MADE = ("intervals", "versions", "hardware", "created")
"""Of a run, what its report says of how it was made."""


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


def write_report(run: Run | Sequence[Run], path: Path) -> None:
    """Write the page of one run, or of several together.

    Raises:
        BadInput: no run.
        NotFound: jinja2 is not installed.
        CannotWrite: the file cannot be written.
    """
    write_page(path, render_report(run))


def write_page(path: Path, page: str) -> None:
    """Write a page, making its folder; a lone surrogate in somebody's text is shown as "?".

    Raises:
        CannotWrite: the file cannot be written.
    """
    write_file(path, page.encode("utf-8", "replace"))


def render_report(run: Run | Sequence[Run]) -> str:
    """The page as text.

    Raises:
        BadInput: no run.
        BadData: a run that lacks a part, or has one of a wrong type.
        NotFound: jinja2 is not installed.
    """
    with made_from("the report"):
        return _rendered(_shown(run))


def _rendered(whole: Run) -> str:
    found = {make.__name__: make(whole) for make in SECTIONS}
    missing = [name.replace("_", " ") for name, section in found.items() if section is None]
    verdicts = _verdicts(whole)
    return _page("report.html").render(
        title=_title(whole),
        beside=_beside(whole),
        summary=_summary(verdicts, _title(whole)),
        verdicts=verdicts,
        sections=[what_was_run(whole), *(section for section in found.values() if section is not None)],
        missing=missing,
        run=whole,
        rules={suite["title"] or name: suite["ties"] for name, suite in whole["suites"].items()},
    )


def merged(runs: Sequence[Run]) -> Run:
    """Several runs as one, models first: suites of equal data are joined, others of that name get their hash added.

    Raises:
        BadInput: no run.
    """
    if not runs:
        raise BadInput("there is no run to report; give at least one run file")
    suites: dict[str, Any] = {}
    scorers: dict[tuple[str, str, str], dict[str, Any]] = {}
    spent: dict[tuple[str, str, str], list[tuple[Mapping[str, Any], list[str]]]] = {}
    pairs: list[Mapping[str, Any]] = []
    refused: list[str] = []
    for run in runs:
        names = {suite: _suite_name(suite, one["data"], suites) for suite, one in run["suites"].items()}
        for suite, one in run["suites"].items():
            suites.setdefault(names[suite], _titled(one, suite, names[suite]))
        for scorer in run["scorers"]:
            key = (scorer["name"], scorer["model"], repr(scorer["format"]))
            known = scorers.setdefault(key, {**scorer, "results": {}})
            known["audit"] = known["audit"] or scorer["audit"]
            new = [suite for suite in scorer["results"] if names[suite] not in known["results"]]
            spent.setdefault(key, []).append((scorer, new))
            for suite in new:
                result = scorer["results"][suite]
                ordered = _in_order(result, run["suites"][suite]["items"], suites[names[suite]]["items"])
                known["results"][names[suite]] = ordered
        compared = run.get("comparison") or {}
        pairs += [{**pair, "suite": names.get(pair["suite"], pair["suite"])} for pair in compared.get("pairs") or ()]
        refused += compared.get("refused") or ()
    whole = [one | _spent(spent[key]) for key, one in scorers.items()]
    by_kind = sorted(whole, key=lambda one: one["kind"] == "baseline")
    command = "\n".join(dict.fromkeys(run["command"] for run in runs if run["command"]))
    comparison = {"pairs": pairs, "refused": refused}
    made = [one for run in runs for one in run.get("made") or [{key: run[key] for key in HOW_MADE}]]
    joined = {"suites": suites, "scorers": _told_apart(by_kind), "command": command, "comparison": comparison}
    return {**runs[0], **joined, "made": made, "created": max(run["created"] for run in runs)}


def _spent(parts: Sequence[tuple[Mapping[str, Any], list[str]]]) -> dict[str, Any]:
    """Replies, tokens and seconds of the results that were taken from several runs of one scorer.

    Args:
        parts: the scorer as each run holds it, and the suites whose results were taken from there. Where not all were,
            what the run spent is shared out by tokens, or by replies where the scorer tells none.
    """
    total: dict[str, Any] = dict.fromkeys(SPENT, 0)
    for scorer, suites in parts:
        share = 1.0
        if len(suites) < len(scorer["results"]):
            size = {suite: _size(result, bool(scorer["tokens"])) for suite, result in scorer["results"].items()}
            share = sum(size[suite] for suite in suites) / max(1, sum(size.values()))
        for name in SPENT:
            value = scorer[name] * share
            total[name] += value if name.endswith("_s") else round(value)
    return total


SPENT = ("replies", "tokens", "scoring_s", "evaluating_s")
"""Of a scorer in a run, what adds up over runs."""


def _size(result: Mapping[str, Any], by_tokens: bool) -> int:
    """Tokens, or replies, of a suite's results."""
    return sum(map(sum if by_tokens else len, result["tokens"]))


def _shown(run: Run | Sequence[Run]) -> Run:
    """One run or several as a page shows them: of long paths what tells them apart; whole where scorers are listed."""
    whole = merged([run] if isinstance(run, Mapping) else run)
    names = [scorer["name"] for scorer in whole["scorers"]]
    short = dict(zip(names, short_names(names), strict=True))
    scorers = [scorer | {"name": short[scorer["name"]], "path": scorer["name"]} for scorer in whole["scorers"]]
    sides = ("a", "b")
    pairs = [
        pair | {side: short.get(pair[side], pair[side]) for side in sides} for pair in whole["comparison"]["pairs"]
    ]
    return {**whole, "scorers": scorers, "comparison": {**whole["comparison"], "pairs": pairs}}


def _in_order(result: Mapping[str, Any], theirs: Sequence[Any], ours: Sequence[Any]) -> Mapping[str, Any]:
    """A result with its columns in the order of `ours`: equal data may be stored in any order."""
    places = {(item["subset"], item["id"]): place for place, item in enumerate(theirs)}
    order = [places[item["subset"], item["id"]] for item in ours]
    if order == list(range(len(order))):
        return result
    columns = ("scores", "tokens", "cut_prompt", "cut_reply")
    return {**result, **{name: [result[name][place] for place in order] for name in columns}}


def _suite_name(suite: str, data: str, known: Mapping[str, Any]) -> str:
    return suite if suite not in known or known[suite]["data"] == data else f"{suite} ({data[:8]})"


def _titled(suite: Mapping[str, Any], name: str, new: str) -> Mapping[str, Any]:
    return suite if name == new else {**suite, "title": f"{suite['title'] or name} (data {suite['data'][:8]})"}


def _told_apart(scorers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Scorers of one name that are not the same get a number."""
    seen: dict[str, int] = {}
    found = []
    for scorer in scorers:
        seen[scorer["name"]] = number = seen.get(scorer["name"], 0) + 1
        found.append(scorer if number == 1 else {**scorer, "name": f"{scorer['name']} ({number})"})
    return found


def _title(run: Run) -> str:
    return next((scorer["name"] for scorer in run["scorers"]), "An empty run")


def _beside(run: Run) -> str:
    names = [scorer["name"] for scorer in run["scorers"][1:]]
    return f"beside {', '.join(names)}" if names else ""


def _summary(verdicts: Sequence[Verdict], model: str) -> str:
    """The verdicts in a sentence."""
    tested = [one.outcome for one in verdicts if one.outcome]
    if not tested:
        return f"{model} was not tested against a baseline; its headline figures stand alone."
    counts = [(outcome, tested.count(outcome)) for outcome in dict.fromkeys(tested)]
    words = {"better": "better", "worse": "worse", "cannot be told apart": "not to be told apart"}
    parts = [f"{words.get(outcome, outcome)} on {n}" for outcome, n in counts]
    suites = f"{len(tested)} suite{'s' if len(tested) != 1 else ''}"
    return f"Against the best baseline {model} is {' and '.join(parts)} of {suites} (paired tests, Holm-corrected)."


def _verdicts(run: Run) -> list[Verdict]:
    """Of the first model, suite by suite."""
    found = []
    for suite in run["suites"]:
        first = next((one for one in models(run, suite) if one[0] == 0), None)
        if first is None:
            continue
        _, scorer, result = first
        headline = result["headline"]
        estimate = result["figures"][headline]
        against, outcome = _against(run, suite, scorer["name"], headline)
        shown = digits(estimate["value"]), interval(estimate), count(estimate)
        found.append(Verdict(title_of(run, suite), headline, *shown, against, outcome))
    return found


def _against(run: Run, suite: str, model: str, headline: str) -> tuple[str, str]:
    baselines = [
        (scorer["name"], result["figures"][headline])
        for _, scorer, result in entries(run, suite)
        if scorer["kind"] == "baseline" and scorer["name"] != model and headline in result["figures"]
    ]
    baselines = [one for one in baselines if one[1]["value"] is not None]
    if not baselines:
        return "No baseline was run.", ""
    name, estimate = max(baselines, key=lambda one: one[1]["value"])
    told = f"Best baseline: {name}, {digits(estimate['value'])} {interval(estimate)}."
    found = _tested(run, suite, headline, model, name)
    if found is None:
        return f"{told} The difference was not tested.", ""
    difference, outcome = found["difference"], found["verdict"]
    return (
        f"{told} Difference {digits(difference['value'])} {interval(difference)}, p {p_value(found['p_holm'])}.",
        outcome,
    )


def _tested(run: Run, suite: str, figure: str, model: str, other: str) -> Mapping[str, Any] | None:
    """The comparison of a model with another scorer, if that was made."""
    wanted = (model, other, suite, figure)
    pairs = run["comparison"]["pairs"]
    return next((one for one in pairs if (one["a"], one["b"], one["suite"], one["figure"]) == wanted), None)


def _page(name: str) -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise NotFound("a report needs jinja2; pip install 'prefrank[evaluate]'") from error
    loader = PackageLoader("prefrank.reports", "templates")
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template(name)


def accuracy_png(run: Run | Sequence[Run], path: Path) -> None:
    """Overall accuracy of every scorer on every suite with intervals, as a picture for a README.

    Raises:
        BadInput: no run, or one without results.
        NotFound: matplotlib is not installed.
        CannotWrite: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NotFound("a picture needs matplotlib; pip install 'prefrank[evaluate]'") from error
    whole = _shown(run)
    suites = [suite for suite in whole["suites"] if entries(whole, suite)]
    if not suites:
        raise BadInput("the run has no results to draw; evaluate a scorer on a suite first")
    names = [scorer["name"] for scorer in whole["scorers"]]
    figure = Figure(figsize=(8.4, 1.2 + len(suites) * (0.3 + 0.16 * len(names)) + 0.24 * len(names)))
    axis = figure.subplots()
    for number in range(len(names)):
        _draw_scorer(axis, whole, suites, number)
    _finish(axis, [_in_picture(charts.shorten(title_of(whole, suite), 36)) for suite in suites])
    axis.set_xlabel(f"accuracy, {whole['intervals']['confidence'] * 100:g} % intervals; dashed: chance")
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font lacks is shown as boxes
        figure.savefig(picture, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    write_file(path, picture.getvalue())


def _in_picture(text: str) -> str:
    """A text as matplotlib shows it and does not typeset it."""
    return printable(text).replace("$", r"\$")


def _draw_scorer(axis: Any, run: Run, suites: Sequence[str], number: int) -> None:
    """One scorer's accuracies, a little apart from the others' on each suite's line."""
    names = [scorer["name"] for scorer in run["scorers"]]
    apart = 0.8 / len(names) * (number - (len(names) - 1) / 2)
    found = [
        (place + apart, mark_of(result["overall"]["accuracy"]))
        for place, suite in enumerate(suites)
        for i, _, result in entries(run, suite)
        if i == number and result["overall"]["accuracy"]["value"] is not None
    ]
    if not found:
        return
    values = [mark.value for _, mark in found]
    axis.errorbar(
        values,
        [place for place, _ in found],
        xerr=np.abs(np.array([_ends(mark) for _, mark in found]).T - np.array(values)),
        fmt="osD^"[number % 4],
        color=charts.COLORS[number % len(charts.COLORS)],
        markersize=6,
        linewidth=2,
        label=_in_picture(charts.shorten(names[number], 60)),
    )


def _ends(mark: Mark) -> tuple[float | None, float | None]:
    """Of its interval; the value itself where there is none."""
    return (mark.value, mark.value) if mark.low is None else (mark.low, mark.high)


def _finish(axis: Any, titles: Sequence[str]) -> None:
    axis.axvline(0.5, color=charts.FAINT, linestyle="--", linewidth=1)
    axis.set_yticks(range(len(titles)), titles)
    axis.set_ylim(len(titles) - 0.5, -0.5)
    axis.grid(axis="x", color=charts.GRID)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1.02), frameon=False, borderaxespad=0)
