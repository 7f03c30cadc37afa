"""From a run to the sections of its report: tables, charts and sentences as plain values, ready for the page.

A section that the run has nothing for is None, and the page says so at its end. Surprising: nothing here is computed
that the run file does not hold, but for the counts behind the two charts of single pairs (scores, and lead against
length), which come from the stored scores.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from prefrank.evaluation import charts
from prefrank.evaluation.charts import Line, Mark, Row, mark_of
from prefrank.evaluation.items import Sample
from prefrank.evaluation.run_file import Run, sample_of_run

ROWS_IN_CHART = 12  # a taller chart does not fit a printed page
ERRORS_SHOWN, TEXT_SHOWN = 8, 1200

PROBES = "probes"
"""The suite whose subsets are kinds of reward hacking."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Of a table.

    Args:
        main: what it says.
        sub: smaller, under it.
        svg: a drawing, made here and trusted.
        tone: "bad", "good", "head", "strong", "code", "text" (a sentence) or "".
        title: the whole of what is cut.
    """

    main: str
    sub: str = ""
    svg: str = ""
    tone: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Its first column names the row.

    Args:
        tight: one line for each row where there is room.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    tight: bool = False
    kind: Literal["table"] = "table"


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing with its title, the marks' meaning and a sentence."""

    title: str
    svg: str
    note: str = ""
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Pictures:
    """Side by side where there is room.

    Args:
        flow: they are of different height, and fill columns.
    """

    pictures: tuple[Picture, ...]
    legend: tuple[tuple[str, str], ...] = ()
    flow: bool = False
    kind: Literal["pictures"] = "pictures"


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph."""

    text: str
    kind: Literal["words"] = "words"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    pairs: tuple[tuple[str, str], ...]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True, slots=True)
class Cases:
    """Errors to read: summary, prompt, and the two replies with their scores."""

    cases: tuple[tuple[str, str, str, str, str, str], ...]
    kind: Literal["cases"] = "cases"


@dataclass(frozen=True, slots=True)
class Fold:
    """Blocks behind a line to click on."""

    title: str
    blocks: tuple[Any, ...]
    kind: Literal["fold"] = "fold"


Block = Table | Pictures | Words | Facts | Cases | Fold


@dataclass(frozen=True, slots=True)
class Section:
    """Args:
    id: of its place on the page.
    """

    id: str
    title: str
    blocks: tuple[Block, ...]


Entry = tuple[int, Mapping[str, Any], Mapping[str, Any]]
"""A scorer's number in the run, the scorer, and its results on one suite."""


# Who and what


def entries(run: Run, suite: str) -> list[Entry]:
    """The scorers that have results on a suite."""
    return [(i, one, one["results"][suite]) for i, one in enumerate(run["scorers"]) if suite in one["results"]]


def models(run: Run, suite: str) -> list[Entry]:
    """Those of them that are no baselines; all, where there is nothing else."""
    found = entries(run, suite)
    return [one for one in found if one[1]["kind"] != "baseline"] or found


def title_of(run: Run, suite: str) -> str:
    return run["suites"][suite]["title"] or suite


def legend(run: Run, numbers: Iterable[int]) -> tuple[tuple[str, str], ...]:
    names = [scorer["name"] for scorer in run["scorers"]]
    return tuple((charts.marker_svg(number), names[number]) for number in sorted(set(numbers)))


# Figures in digits


def digits(value: float | None, places: int = 3) -> str:
    if value is None:
        return "-"
    text = f"{value:.{places}f}"
    return f"−{text[1:]}" if text[0] == "-" and float(text) != 0 else text.removeprefix("-")


def interval(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "nothing to measure" if not estimate["n"] else "undefined: a score failed, or too few"
    if estimate["low"] is None:
        return "no interval: one prompt" if estimate["prompts"] < 2 else "no interval"
    return f"[{digits(estimate['low'])},\u00a0{digits(estimate['high'])}]"  # never broken across lines


def in_words(estimate: Mapping[str, Any]) -> str:
    """Value, interval and what it rests on, in a line."""
    return f"{digits(estimate['value'])} {interval(estimate)}, {count(estimate)}"


def count(estimate: Mapping[str, Any]) -> str:
    n, unit = estimate["n"], estimate["unit"]
    return f"{n:,}\u00a0{unit if n != 1 else unit.removesuffix('s')}"


def percentage(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")


def p_value(p: float | None) -> str:
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _cell(estimate: Mapping[str, Any] | None) -> Cell:
    return Cell("-", "not measured") if estimate is None else Cell(digits(estimate["value"]), interval(estimate))


def _number(value: float | None, reason: str = "nothing to measure") -> Cell:
    return Cell(digits(value), "" if value is not None else reason)


def _name(text: str, sub: str = "") -> Cell:
    return Cell(text, sub, tone="head")


# Sections, in the page's order


def what_was_run(run: Run) -> Section:
    """Scorers, data, and how intervals were made, in a compact block."""
    scorers = tuple(
        (
            _name(scorer["name"]),
            Cell(scorer["kind"]),
            Cell(scorer["model"][:12], tone="code", title=scorer["model"]),
            Cell(_format(scorer["format"]), tone="text"),
            Cell(_speed(scorer)),
        )
        for scorer in run["scorers"]
    )
    suites = tuple(
        (
            _name(suite["title"] or name, name),
            Cell(f"{len(suite['items']):,}"),
            Cell(f"{suite['rows']['read']:,}", _dropped(suite["rows"]["dropped"]), tone="text"),
            Cell({"half": "half a win", "wrong": "lost", "shared": "shared"}.get(suite["ties"], suite["ties"])),
            Cell(str(suite["from"])),
            Cell(suite["data"][:12], tone="code", title=suite["data"]),
            Cell(suite["source"], tone="text"),
        )
        for name, suite in run["suites"].items()
    )
    tables = [
        Table("Scorers", ("Scorer", "Kind", "Fingerprint", "Format", "Scoring"), scorers),
        Table("Data", ("Suite", "Items", "Rows read", "Equal scores", "From", "Hash", "Protocol"), suites),
    ]
    return Section("run", "What was run", (*(one for one in tables if one.rows), Facts(_about(run))))


def _about(run: Run) -> tuple[tuple[str, str], ...]:
    made, machine = run["intervals"], run["hardware"]
    memory = f"{machine['memory_bytes'] / 2**30:.1f} GiB" if machine.get("memory_bytes") else "memory unknown"
    parts = [
        machine.get("cpu"),
        f"{machine.get('usable_cores')} of {machine.get('cores')} cores used",
        memory,
        *machine.get("gpus", ()),
        machine.get("system"),
    ]
    return (
        (
            "Intervals",
            f"{made['confidence'] * 100:g} %, {made['resamples']:,} resamples of prompts, seed {made['seed']}",
        ),
        ("Versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())),
        ("Hardware", ", ".join(str(part) for part in parts if part)),
        ("Command", run["command"] or "called from Python"),
        ("Time", run["created"]),
    )


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return {None: "none", True: "yes", False: "no"}.get(value, str(value)) if not value or value is True else str(value)


def _format(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in settings.items()) or "-"


def _speed(scorer: Mapping[str, Any]) -> str:
    seconds, tokens = scorer["scoring_s"], scorer["tokens"]
    return f"{seconds:,.1f} s" + (f", {tokens / seconds:,.0f} tokens/s" if tokens and seconds >= 0.1 else "")


def _dropped(dropped: Mapping[str, int]) -> str:
    kept = {reason: n for reason, n in dropped.items() if n}
    return "; ".join(f"{n:,} dropped: {reason}" for reason, n in kept.items()) or "none dropped"


def accuracy(run: Run) -> Section | None:
    """Pairwise accuracy of every scorer on every suite and subset, with the counts it rests on."""
    suites = [suite for suite in run["suites"] if entries(run, suite)]
    if not suites:
        return None
    pictures = [picture for suite in suites for picture in _accuracy_pictures(run, suite)]
    tables = [_accuracy_table(run, suite) for suite in suites]
    words = Words(
        "Share of pairs that a scorer puts in the order people did; equal scores are half a win, a failed score loses."
        " Dots are measured, lines are intervals. A suite's own score, which may count otherwise, comes further below."
    )
    key = legend(run, range(len(run["scorers"])))
    counts = [_counts_table(run, suites, baselines=False), _counts_table(run, suites, baselines=True)]
    rest = [counts[0], Fold("The same of the baselines", (counts[1],))] if counts[0].rows and counts[1].rows else counts
    rest = [one for one in rest if isinstance(one, Fold) or one.rows]
    return Section(
        "accuracy",
        "Accuracy",
        (words, Pictures(tuple(pictures), key, flow=True), Fold("In digits", tuple(tables)), *rest),
    )


def accuracy_rows(run: Run, suite: str) -> list[Row]:
    """All together, then each subset: one mark for each scorer."""
    found = entries(run, suite)
    places = dict.fromkeys(name for _, _, result in found for name in result["subsets"])
    rows = [_accuracy_row("all", [(i, result["overall"]) for i, _, result in found])]
    for place in places if len(places) > 1 else ():
        rows.append(_accuracy_row(place, [(i, r["subsets"][place]) for i, _, r in found if place in r["subsets"]]))
    return rows


def _accuracy_row(label: str, metrics: Sequence[tuple[int, Mapping[str, Any]]]) -> Row:
    marks = tuple(mark_of(one["accuracy"], i) for i, one in metrics)
    return Row(label, marks, f"n {metrics[0][1]['accuracy']['n']:,}" if metrics else "")


def _accuracy_pictures(run: Run, suite: str) -> list[Picture]:
    rows, title = accuracy_rows(run, suite), title_of(run, suite)
    ceiling = run["suites"][suite].get("noise_ceiling")
    top = ceiling["value"] if ceiling else None
    note = f"Noise ceiling: {in_words(ceiling)}, the most any scorer can agree with these votes." if ceiling else ""
    # Parts of one suite share their axis, and are about equally tall.
    parts = -(-len(rows) // ROWS_IN_CHART)
    size = -(-len(rows) // parts)
    pieces = [rows[i : i + size] for i in range(0, len(rows), size)]
    ends = charts.limits_of(rows, [0.5, *([top] if top is not None else [])])
    return [
        Picture(
            title if len(pieces) == 1 else f"{title}, {number} of {len(pieces)}",
            charts.dot_whisker_svg(
                piece, label=f"Accuracy on {title}: {_read_out(run, piece)}", ceiling=top, limits=ends
            ),
            note if number == len(pieces) else "",
        )
        for number, piece in enumerate(pieces, 1)
    ]


def _read_out(run: Run, rows: Sequence[Row]) -> str:
    names = [scorer["name"] for scorer in run["scorers"]]
    return "; ".join(
        f"{row.label}: " + ", ".join(f"{names[m.series]} {digits(m.value)}" for m in row.marks) for row in rows
    )


def _accuracy_table(run: Run, suite: str) -> Table:
    found = entries(run, suite)
    places = dict.fromkeys(name for _, _, result in found for name in result["subsets"])
    rows = [[_name("all"), *_accuracy_cells([result["overall"] for _, _, result in found])]]
    for place in places if len(places) > 1 else ():
        rows.append([_name(place), *_accuracy_cells([result["subsets"].get(place) for _, _, result in found])])
    head = ("", "Pairs", *(scorer["name"] for _, scorer, _ in found))
    return Table(title_of(run, suite), head, tuple(map(tuple, rows)))


def _accuracy_cells(metrics: Sequence[Mapping[str, Any] | None]) -> list[Cell]:
    n = max((one["accuracy"]["n"] for one in metrics if one), default=0)
    return [Cell(f"{n:,}"), *(_cell(one and one["accuracy"]) for one in metrics)]


def _counts_table(run: Run, suites: Sequence[str], *, baselines: bool) -> Table:
    names = {
        "comparisons": "Comparisons",
        "prompts": "Prompts",
        "pairs": "Pairs",
        "ties": "Tied labels",
        "score_ties": "Equal scores",
        "failures": "Failed scores",
        "failed_pairs": "Pairs they lost",
        "cut_prompts": "Cut prompts",
        "cut_replies": "Cut replies",
    }
    rows = []
    for suite in suites:
        for scorer, result in [(s, r) for _, s, r in entries(run, suite) if (s["kind"] == "baseline") == baselines]:
            counts = result["overall"]["counts"]
            failed = [key for key in ("failures", "failed_pairs") if counts[key]]
            cells = [Cell(f"{counts[key]:,}", tone="bad" if key in failed else "") for key in names]
            lost = _cell(result["overall"].get("accuracy_ties_lost"))
            rows.append((_name(scorer["name"], title_of(run, suite)), *cells, lost))
    head = ("Scorer", *names.values(), "Accuracy, equal scores lost")
    return Table("What the accuracies rest on", head, tuple(rows), tight=True)


def own_figures(run: Run) -> Section | None:
    """Each suite's own figures by its protocol, the headline first; those that a chart shows are folded away."""
    blocks: list[Block] = []
    for suite in run["suites"]:
        found = entries(run, suite)
        names = list(dict.fromkeys(name for _, _, result in found for name in result["figures"]))
        drawn = {name for chart in run["suites"][suite]["charts"] for name in chart["figures"]}
        blocks += [_figure_table(title_of(run, suite), [n for n in names if n not in drawn], found)] if names else []
        if drawn & set(names):
            inner = _figure_table("Figures behind the chart", [n for n in names if n in drawn], found)
            blocks.append(Fold(f"{title_of(run, suite)}: the figures that the charts below show", (inner,)))
    words = Words("As each benchmark's own protocol counts them, by its own rule for equal scores; the headline first.")
    return Section("figures", "Each suite's own figures", (words, *blocks)) if blocks else None


def _figure_table(caption: str, names: Sequence[str], found: Sequence[Entry]) -> Table:
    headlines = {result["headline"] for _, _, result in found}
    rows = []
    for name in names:
        estimates = [result["figures"].get(name) for _, _, result in found]
        known = next((one for one in estimates if one), None)
        section, _, rest = name.rpartition("/")
        label = Cell(rest, section, tone="strong" if name in headlines else "head")
        rows.append((label, Cell(count(known) if known else "-"), *(_cell(one) for one in estimates)))
    return Table(caption, ("", "n", *(scorer["name"] for _, scorer, _ in found)), tuple(rows))


def matrices(run: Run) -> Section | None:
    """Heat maps, one for each model and suite that has one."""
    pictures = []
    for suite, chart in _charts(run, "matrix"):
        for _, scorer, result in models(run, suite):
            cells = [_figure_mark(result, name) for name in chart["figures"]]
            spoken = ", ".join(
                f"{name} {digits(mark.value, 2)}" for name, mark in zip(chart["figures"], cells, strict=True)
            )
            label = f"{chart['title']}, {scorer['name']}: {spoken}"
            columns = [str(column) for column in chart["columns"]]
            svg = charts.matrix_svg(chart["rows"], columns, cells, label=label)
            pictures.append(Picture(f"{title_of(run, suite)} · {scorer['name']}", svg, chart["title"]))
    words = Words("Each cell is a share of comparisons won: blue above one half, orange below.")
    return Section("matrix", "Matrices", (words, Pictures(tuple(pictures)))) if pictures else None


def curves(run: Run) -> Section | None:
    """Curves, such as best of n, also against the KL divergence that choosing the best of n costs."""
    pictures = []
    for suite, chart in _charts(run, "curves"):
        for _, scorer, result in models(run, suite):
            lines, title = _lines(chart, result), f"{title_of(run, suite)} · {scorer['name']}"
            key = tuple((charts.marker_svg(line.series), line.name) for line in lines)
            label = f"{chart['title']}, {scorer['name']}: " + "; ".join(map(_line_read_out, lines))
            whole = all(float(place).is_integer() and place >= 1 for line in lines for place in line.places)
            doubling = whole and max((place for line in lines for place in line.places), default=1) >= 8
            svg = charts.curves_svg(lines, label=label, x_label=chart["x_label"], y_label="value", doubling=doubling)
            pictures.append(Picture(title, svg, chart["title"], key))
            if doubling:
                at_kl = [Line(line.name, tuple(map(_kl, line.places)), line.marks, line.series) for line in lines]
                svg = charts.curves_svg(at_kl, label=label, x_label="KL of best of n, in nats", y_label="value")
                pictures.append(Picture(title, svg, f"{chart['title']}, against KL = ln n − (n − 1)/n", key))
    return Section("curves", "Curves", (Pictures(tuple(pictures)),)) if pictures else None


def _kl(n: float) -> float:
    """Of the best of n from the policy it is drawn from (Gao et al., arXiv 2210.10760, section 2)."""
    return float(np.log(n) - (n - 1) / n)


def _charts(run: Run, kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (name, chart) for name, suite in run["suites"].items() for chart in suite["charts"] if chart["kind"] == kind
    ]


def _figure_mark(result: Mapping[str, Any], name: str, series: int = 0) -> Mark:
    return mark_of(result["figures"][name], series) if name in result["figures"] else Mark(None)


def _lines(chart: Mapping[str, Any], result: Mapping[str, Any]) -> list[Line]:
    places, lines = tuple(float(column) for column in chart["columns"]), []
    for i, name in enumerate(chart["rows"]):
        names = chart["figures"][i * len(places) : (i + 1) * len(places)]
        lines.append(Line(name, places, tuple(_figure_mark(result, one, i) for one in names), i))
    return lines


def _line_read_out(line: Line) -> str:
    points = zip(line.places, line.marks, strict=True)
    return f"{line.name} " + ", ".join(f"{place:g}: {digits(mark.value)}" for place, mark in points)


def calibration(run: Run) -> Section | None:
    """Reliability before and after a temperature, and the figures of both."""
    pictures, rows = _by_model(run, _reliability_picture), []
    for suite in run["suites"]:
        for _, scorer, result in models(run, suite):
            found = result.get("calibration") or {}
            for which in ("raw", "scaled"):
                if found.get(which):
                    label = "as it is" if which == "raw" else f"temperature {digits(found['temperature'])}"
                    rows.append(_calibration_row(scorer["name"], f"{title_of(run, suite)}, {label}", found[which]))
    if not rows:
        return None
    words = Words(
        "A lead of d says that the preferred reply wins with probability 1 / (1 + exp(−d / T)). Of pairs called with"
        " confidence 0.8, a share of 0.8 should be right. T = 1 is the model as it is; the scaled figures use a"
        " temperature that was fitted on other prompts."
    )
    head = ("Scorer", "Pairs", "ECE", "ECE, equal mass", "Largest gap", "Log loss", "Brier", "AUROC of confidence")
    return Section(
        "calibration", "Calibration", (words, *pictures, Table("Calibration", head, tuple(rows), tight=True))
    )


def _calibration_row(name: str, sub: str, found: Mapping[str, Any]) -> tuple[Cell, ...]:
    numbers = [_number(found[key]) for key in ("ece", "ece_equal_mass", "mce")]
    ends = [_cell(found["log_loss"]), _cell(found["brier"]), _number(found["auroc"], "one class")]
    return (_name(name, sub), Cell(f"{found['n']:,}"), *numbers, *ends)


def _reliability_picture(run: Run, suite: str, entry: Entry) -> Picture | None:
    _, scorer, result = entry
    found = result.get("calibration")
    if not found or not found["raw"]["bins"]:
        return None
    scaled = found.get("scaled")
    lines = [_reliability_line("as it is", found["raw"]["bins"], 1)]
    lines += [_reliability_line(f"T = {digits(found['temperature'], 2)}", scaled["bins"], 0)] if scaled else []
    title = f"{title_of(run, suite)} · {scorer['name']}"
    change = f" → {digits(scaled['ece'])}" if scaled else "; not scaled"
    fitted = f". T fitted on {found['fitted_on']}" if scaled and found.get("fitted_on") else ""
    note = f"Expected calibration error {digits(found['raw']['ece'])}{change}{fitted}."
    svg = charts.reliability_svg(lines, label=f"Reliability of {title}. {note}")
    return Picture(title, svg, note, tuple((charts.marker_svg(line.series), line.name) for line in lines))


def _reliability_line(name: str, bins: Sequence[Mapping[str, Any]], series: int) -> Line:
    marks = tuple(Mark(one["accuracy"], one["low"], one["high"], series) for one in bins)
    return Line(name, tuple(one["confidence"] for one in bins), marks, series)


def abstention(run: Run) -> Section | None:
    """Accuracy on the pairs a model is surest of."""
    pictures, key = [], set()
    for suite in run["suites"]:
        lines = []
        for number, scorer, result in models(run, suite):
            points = [one for one in result.get("abstention") or () if one["accuracy"] is not None]
            marks = tuple(Mark(one["accuracy"], one["low"], one["high"], number) for one in points)
            lines += [Line(scorer["name"], tuple(one["coverage"] for one in points), marks, number)] if points else []
        if lines:
            key |= {line.series for line in lines}
            label = f"Accuracy by coverage on {title_of(run, suite)}: " + "; ".join(map(_line_read_out, lines))
            svg = charts.curves_svg(lines, label=label, x_label="share of pairs judged", y_label="accuracy")
            pictures.append(Picture(title_of(run, suite), svg))
    words = Words(
        "If a model judges only the pairs with its largest score differences, how often is it right on those?"
    )
    return (
        Section("abstention", "Abstention", (words, Pictures(tuple(pictures), legend(run, key)))) if pictures else None
    )


def scores(run: Run) -> Section | None:
    """Histograms of preferred and other replies' scores."""
    pictures = _by_model(run, _scores_picture)
    words = Words("Every decided pair's two scores. Scores of different models are not on one scale.")
    return Section("scores", "Scores of preferred and other replies", (words, *pictures)) if pictures else None


def _scores_picture(run: Run, suite: str, entry: Entry) -> Picture | None:
    sample = _sample(run, entry[1]["name"], suite)
    if sample is None:
        return None
    kept = sample.pairs.decided
    sides = [sample.values[rows[kept]] for rows in (sample.pairs.ahead, sample.pairs.behind)]
    preferred, other = (side[np.isfinite(side)] for side in sides)
    if not len(preferred) or not len(other):
        return None
    failed = sum(len(side) for side in sides) - len(preferred) - len(other)
    title = f"{title_of(run, suite)} · {entry[1]['name']}"
    middles = f"Median {digits(float(np.median(preferred)))} preferred, {digits(float(np.median(other)))} other"
    note = f"{middles}; {kept.sum():,} pairs" + (f", {failed:,} failed scores left out." if failed else ".")
    key = ((_swatch(charts.COLORS[0]), "preferred"), (_swatch(charts.COLORS[1]), "other"))
    return Picture(title, charts.histogram_svg(preferred, other, label=f"Scores, {title}. {note}"), note, key)


def _swatch(color: str) -> str:
    return f'<svg aria-hidden="true" width="14" height="14"><rect width="14" height="14" rx="3" fill="{color}"/></svg>'


def style(run: Run) -> Section | None:
    """What length and layout have to do with the scores."""
    rows = [
        _style_row(scorer["name"], title_of(run, suite), result["style"])
        for suite in run["suites"]
        for _, scorer, result in models(run, suite)
        if result.get("style")
    ]
    if not rows:
        return None
    words = Words(
        "A reward model should not care for length as such. Lead is the score of the preferred reply minus the other's;"
        " a circle's area counts pairs, and those in the shaded half are lost. Where length decides, circles fill the"
        " upper right and the lower left. Balanced accuracy is the mean of the two sides."
    )
    head = ("Scorer", "Pairs, longer / shorter", "Preferred is longer", "Preferred is shorter", "Balanced")
    head += ("Lead and length, Pearson", "Lead and length, Spearman", "Score and length in a prompt")
    blocks: list[Block] = [words, *_by_model(run, _length_picture), Table("Length", head, tuple(rows))]
    buckets = [picture for suite in run["suites"] for picture in _bucket_picture(run, suite)]
    if buckets:
        key = legend(run, {number for suite in run["suites"] for number, _, _ in models(run, suite)})
        blocks.append(Words("Accuracy by how much longer the preferred reply is, as (preferred − other) / (both)."))
        blocks.append(Pictures(tuple(buckets), key))
    regression = _regression_table(run)
    if regression is not None:
        blocks.append(regression)
    return Section("style", "Length and style", tuple(blocks))


def _style_row(name: str, suite: str, found: Mapping[str, Any]) -> tuple[Cell, ...]:
    keys = ("longer", "shorter", "balanced", "pearson", "spearman", "within_prompt")
    pairs = Cell(f"{found['longer']['n']:,} / {found['shorter']['n']:,}")
    return (_name(name, suite), pairs, *(_cell(found[key]) for key in keys))


def _regression_table(run: Run) -> Table | None:
    """Coefficients of the models' scores and of style, one row for each suite."""
    found = [
        (scorer["name"], title_of(run, suite), result["style"]["regression"])
        for suite in run["suites"]
        for _, scorer, result in models(run, suite)
        if result.get("style") and result["style"].get("regression")
    ]
    names = list(dict.fromkeys(term["name"] for _, _, one in found for term in one["terms"]))
    if not names:
        return None
    head = ("Scorer", "Pairs", *names, "Gain over style alone", "Accuracy at equal style")
    return Table(
        "Which reply people prefer, by score and style", head, tuple(_regression_row(*one, names) for one in found)
    )


def _regression_row(name: str, suite: str, found: Mapping[str, Any], terms: Sequence[str]) -> tuple[Cell, ...]:
    known = {
        term["name"]: term | {"value": term["coefficient"], "n": found["n"], "prompts": 0} for term in found["terms"]
    }
    gain = found.get("gain")
    told = Cell(f"χ² {digits(gain['statistic'], 1)}", f"p {p_value(gain['p'])}") if gain else Cell("-", "not fitted")
    cells = [_cell(known.get(term)) for term in terms]
    return (_name(name, suite), Cell(f"{found['n']:,}"), *cells, told, _cell(found.get("at_equal_style")))


def _length_picture(run: Run, suite: str, entry: Entry) -> Picture | None:
    sample = _sample(run, entry[1]["name"], suite)
    if sample is None:
        return None
    ahead, behind = sample.lengths[sample.pairs.ahead], sample.lengths[sample.pairs.behind]
    finite = np.isfinite(sample.lead)
    kept = sample.pairs.decided & finite
    if not kept.any():
        return None
    gap = (ahead - behind) / np.maximum(ahead + behind, 1.0)
    title = f"{title_of(run, suite)} · {entry[1]['name']}"
    failed = int((sample.pairs.decided & ~finite).sum())
    note = f"{kept.sum():,} pairs" + (f"; {failed:,} with a failed score left out." if failed else ".")
    label = f"Lead of the preferred reply against relative length difference, {title}, {note}"
    return Picture(title, charts.lead_by_length_svg(sample.lead[kept], gap[kept], label=label), note)


def _bucket_picture(run: Run, suite: str) -> list[Picture]:
    found = [(i, result["style"]["buckets"]) for i, _, result in models(run, suite) if result.get("style")]
    if not found or not found[0][1]:
        return []
    rows = []
    for place, bucket in enumerate(found[0][1]):
        label = f"{digits(bucket['from'], 2)} to {digits(bucket['to'], 2)}"
        marks = tuple(mark_of(buckets[place]["accuracy"], i) for i, buckets in found if place < len(buckets))
        rows.append(Row(label, marks, f"n {bucket['accuracy']['n']:,}"))
    title = title_of(run, suite)
    label = f"Accuracy by length difference on {title}: {_read_out(run, rows)}"
    return [Picture(title, charts.dot_whisker_svg(rows, label=label))]


def slices(run: Run) -> Section | None:
    """Accuracy of the models on parts of the data, the worst ones marked."""
    by_suite = {suite: [one for one in models(run, suite) if one[2].get("slices")] for suite in run["suites"]}
    by_suite = {suite: found for suite, found in by_suite.items() if found}
    if not by_suite:
        return None
    pictures = tuple(_slices_picture(run, title_of(run, suite), found) for suite, found in by_suite.items())
    worst = tuple(
        (_name(scorer["name"], title_of(run, suite)), Cell(_slice_name(one)), Cell(f"{one['accuracy']['n']:,}"), *cells)
        for suite, found in by_suite.items()
        for _, scorer, result in found
        for one in result["slices"]
        if one["worst"]
        for cells in [(_cell(one["accuracy"]), _cell(result["overall"]["accuracy"]))]
    )
    head = ("Scorer", "Slice", "n", "Accuracy there", "Accuracy on all")
    table = Table("Worst slices", head, worst) if worst else Words("No slice is worse than chance explains.")
    digits_too = Fold("In digits", tuple(_slices_table(title_of(run, suite), by_suite[suite]) for suite in by_suite))
    key = legend(run, {number for found in by_suite.values() for number, _, _ in found})
    return Section("slices", "Slices", (table, Pictures(pictures, key, flow=True), digits_too))


def _slice_name(one: Mapping[str, Any]) -> str:
    return f"{one['slice']}: {one['value'] or 'none'}"


def _by_slice(found: Sequence[Entry]) -> dict[str, list[tuple[Entry, Mapping[str, Any]]]]:
    """The slices' names in order -> who was measured on it, and what they got."""
    kept: dict[str, list[tuple[Entry, Mapping[str, Any]]]] = {}
    for entry in found:
        for one in entry[2]["slices"]:
            kept.setdefault(_slice_name(one), []).append((entry, one))
    return kept


def _slices_picture(run: Run, title: str, found: Sequence[Entry]) -> Picture:
    rows = []
    for name, those in _by_slice(found).items():
        worst = ", worst" if any(one["worst"] for _, one in those) else ""
        marks = tuple(mark_of(one["accuracy"], entry[0]) for entry, one in those)
        rows.append(Row(name, marks, f"n {those[0][1]['accuracy']['n']:,}{worst}", alert=bool(worst)))
    return Picture(title, charts.dot_whisker_svg(rows, label=f"Accuracy by slice on {title}: {_read_out(run, rows)}"))


def _slices_table(title: str, found: Sequence[Entry]) -> Table:
    rows = []
    for name, those in _by_slice(found).items():
        known = {entry[0]: one["accuracy"] for entry, one in those}
        n = max(one["n"] for one in known.values())
        rows.append((_name(name), Cell(f"{n:,}"), *(_cell(known.get(number)) for number, _, _ in found)))
    return Table(title, ("Slice", "n", *(scorer["name"] for _, scorer, _ in found)), tuple(rows))


def probes(run: Run) -> Section | None:
    """Which kinds of reward hacking win against a good reply."""
    found = entries(run, PROBES) if PROBES in run["suites"] else []
    if not found:
        return None
    _, scorer, result = models(run, PROBES)[0]
    kinds = [name for name in result["figures"] if name != result["headline"]]
    kinds.sort(key=lambda name: (result["figures"][name]["value"] is None, result["figures"][name]["value"] or 0.0))
    rows = [
        Row(kind, tuple(_figure_mark(r, kind, i) for i, _, r in found), f"n {result['figures'][kind]['n']:,}")
        for kind in kinds
    ]
    below = [kind for kind in kinds if (result["figures"][kind]["value"] or 1.0) < 0.5]
    told = "; ".join(f"{kind} ({in_words(result['figures'][kind])})" for kind in below)
    words = (
        f"Against {scorer['name']} these win more often than they lose: {told}."
        if below
        else f"No kind of hack wins more often than it loses against {scorer['name']}."
    )
    label = f"Share of good replies that beat each kind of hack: {_read_out(run, rows)}"
    svg = charts.dot_whisker_svg(rows, label=label, reference_name="as often as not", limits=(0.0, 1.0))
    picture = Picture("Good replies that beat the hack", svg, f"Sorted by {scorer['name']}, the weakest first.")
    blocks = (Words(words), Pictures((picture,), legend(run, [i for i, _, _ in found])))
    return Section("probes", "Probes: hacks against good replies", blocks)


def contamination(run: Run) -> Section | None:
    """What of the test data stands in the training data."""
    blocks: list[Block] = []
    for suite, one in run["suites"].items():
        if one.get("contamination"):
            blocks += [Words(title_of(run, suite)), Facts(tuple(_flat(one["contamination"])))]
    return Section("contamination", "Contamination", tuple(blocks)) if blocks else None


def _flat(value: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    """Names and values of whatever a check recorded; an estimate is one value, a long list its first few."""
    for key, one in value.items():
        name = f"{before}{key.replace('_', ' ')}"
        if isinstance(one, Mapping) and {"value", "low", "high", "n", "unit"} <= one.keys():
            yield name, in_words(one)
        elif isinstance(one, Mapping):
            yield from _flat(one, f"{name}: ")
        elif isinstance(one, list):
            more = f", and {len(one) - 8:,} more" if len(one) > 8 else ""
            yield name, f"{len(one):,}" + (f": {', '.join(map(_plain, one[:8]))}{more}" if one else "")
        else:
            yield name, "-" if one is None else f"{one:,.4g}" if isinstance(one, float) else _plain(one)


def audit(run: Run) -> Section | None:
    """The same model under other input formats."""
    blocks: list[Block] = []
    for scorer in run["scorers"]:
        found = scorer.get("audit")
        if not found:
            continue
        rows = tuple(
            (
                _name(str(one["format"]), str(one["engine"])),
                Cell(str(one["padding_side"])),
                Cell(str(one["dtype"])),
                Cell(str(one["batch_size"])),
                *(Cell("-" if one[key] is None else f"{one[key]:.2g}") for key in ("max_difference", "rms_difference")),
                Cell(
                    "-" if one["flips"] is None else f"{one['flips']:,} of {one['pairs']:,}",
                    one["reason"] or "",
                    tone="bad" if one["flips"] else "",
                ),
            )
            for one in found["combinations"]
        )
        told = found["summary"] if isinstance(found["summary"], str) else " ".join(map(_plain, found["summary"]))
        told += f" Reference: {found['reference']}; {found['rows']:,} rows, {found['pairs']:,} pairs."
        head = ("Format", "Padding", "Type", "Batch", "Largest difference", "Root mean square", "Flipped decisions")
        blocks += [Words(told), Table(scorer["name"], head, rows)]
    return Section("audit", "Input formats", tuple(blocks)) if blocks else None


def comparison(run: Run) -> Section | None:
    """Differences of two scorers on the same items, paired."""
    pairs = (run.get("comparison") or {}).get("pairs") or ()
    if not pairs:
        return None
    marks = [mark_of(pair["difference"]) for pair in pairs]
    ends = [abs(end) for mark in marks for end in (mark.value, mark.low, mark.high) if end is not None]
    reach = max(ends, default=1.0) or 1.0
    rows = []
    for pair, mark in zip(pairs, marks, strict=True):
        svg = charts.track_svg(mark, low=-reach, high=reach, reference=0.0)
        tone = {"better": "good", "worse": "bad"}.get(pair["verdict"], "")
        suite = title_of(run, pair["suite"]) if pair["suite"] in run["suites"] else pair["suite"]
        rows.append(
            (
                _name(f"{pair['a']} − {pair['b']}", f"{suite}, {pair['figure']}"),
                Cell(
                    digits(pair["difference"]["value"]),
                    f"{interval(pair['difference'])} · {count(pair['difference'])}",
                    svg,
                ),
                Cell(p_value(pair["p"])),
                Cell(p_value(pair["p_holm"])),
                Cell(pair["verdict"], tone=tone),
                _number(pair["detectable"], "not known"),
            )
        )
    words = Words(
        "Paired on the same items: the interval is of the difference itself, p comes from swapping the two scorers"
        " prompt by prompt, and Holm's p allows for the number of comparisons; the verdict uses it at 0.05. Detectable:"
        " the least true difference that so many items would show four times out of five."
    )
    head = ("First − second", "Difference", "p", "p, Holm", "Verdict on the first", "Detectable")
    return Section("comparison", "Comparison", (words, Table("Paired differences", head, tuple(rows))))


def errors(run: Run) -> Section | None:
    """The pairs a model got most wrong, to read."""
    blocks: list[Block] = []
    for suite in run["suites"]:
        for _, scorer, result in models(run, suite):
            found = result.get("errors") or []
            if found:
                kept = found[:ERRORS_SHOWN]
                title = f"{title_of(run, suite)} · {scorer['name']}: the worst {len(kept)} of {len(found)} kept"
                blocks.append(Fold(title, (Cases(tuple(map(_case, kept))),)))
    words = Words("Where the other reply led by most. Texts are cut. Read them: labels are wrong at times, too.")
    return Section("errors", "Worst errors to read", (words, *blocks)) if blocks else None


def _case(error: Mapping[str, Any]) -> tuple[str, str, str, str, str, str]:
    texts = [_cut(error[key]) for key in ("prompt", "preferred", "other")]
    first, second = (digits(score) if score is not None else "failed" for score in error["scores"])
    margin = "a score failed" if error["margin"] is None else f"lead {digits(error['margin'])}"
    return (f"{error['subset']} · {error['id']} · {margin}", *texts, first, second)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + " …"


def _sample(run: Run, scorer: str, suite: str) -> Sample | None:
    return sample_of_run(run, scorer, suite) if run["suites"][suite]["items"] else None


def _by_model(run: Run, draw: Any) -> list[Block]:
    """The first model's pictures of every suite, and the other models' folded away."""
    by_name: dict[str, list[Picture]] = {}
    for suite in run["suites"]:
        for entry in models(run, suite):
            picture = draw(run, suite, entry)
            if picture is not None:
                by_name.setdefault(entry[1]["name"], []).append(picture)
    blocks: list[Block] = []
    for number, (name, pictures) in enumerate(by_name.items()):
        shown = Pictures(tuple(pictures))
        blocks.append(Fold(f"The same of {name}", (shown,)) if number else shown)
    return blocks


SECTIONS = (
    accuracy,
    own_figures,
    matrices,
    curves,
    calibration,
    abstention,
    scores,
    style,
    slices,
    probes,
    contamination,
    audit,
    comparison,
    errors,
)
"""In the page's order, after what was run."""
