"""From a run to the sections of its report: tables, charts and sentences as plain values, ready for the page.

A section that the run has nothing for is None, and the page says so at its end. Surprising: nothing here is computed
that the run file does not hold, but for the counts behind the two charts of single pairs (scores, and lead against
length), which come from the stored scores.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from prefrank.evaluation.protocols import missing_in_words
from prefrank.evaluation.run_file import Run
from prefrank.evaluation.run_schema import LARGEST
from prefrank.io.names import short_names
from prefrank.reports import charts
from prefrank.reports.blocks import (
    Block,
    Cases,
    Cell,
    Facts,
    Fold,
    Picture,
    Pictures,
    Section,
    Table,
    Words,
    count,
    digits,
    figure_cell,
    in_words,
    name_cell,
    number_cell,
    p_value,
    per_scorer,
)
from prefrank.reports.charts import Line, Mark, Real, Row, mark_of
from prefrank.types import RankedPairs

ROWS_IN_CHART = 12  # a taller chart does not fit a printed page
ERRORS_SHOWN, TEXT_SHOWN = 8, 1200

PROBES = "probes"
"""The suite whose subsets are kinds of reward hacking."""

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


# Sections, in the page's order


def what_was_run(run: Run) -> Section:
    """Scorers, data, and how intervals were made, in a compact block."""
    scorers = tuple(
        (
            name_cell(scorer["name"], "" if (path := scorer.get("path", "")) == scorer["name"] else path),
            Cell(scorer["kind"]),
            Cell(scorer["model"][:12], tone="code", title=scorer["model"]),
            Cell(_format(scorer["format"]), _control(scorer), tone="text"),
            Cell(_speed(scorer)),
        )
        for scorer in run["scorers"]
    )
    places = short_names([str(suite["from"]) for suite in run["suites"].values()])
    suites = tuple(
        (
            name_cell(suite["title"] or name, name),
            Cell(f"{len(suite['items']):,}"),
            Cell(f"{suite['rows']['read']:,}", _left_out(suite["rows"]), tone="text"),
            Cell({"half": "half a win", "wrong": "lost", "shared": "shared"}.get(suite["ties"], suite["ties"])),
            Cell(place, title=str(suite["from"])),
            Cell(suite["data"][:12], tone="code", title=suite["data"]),
            Cell(suite["source"], tone="text"),
        )
        for (name, suite), place in zip(run["suites"].items(), places, strict=True)
    )
    tables = [
        Table("Scorers", ("Scorer", "Kind", "Fingerprint", "Format", "Scoring"), scorers),
        Table("Data", ("Suite", "Items", "Rows read", "Equal scores", "From", "Hash", "Protocol"), suites),
    ]
    return Section("run", "What was run", (*(one for one in tables if one.rows), Facts(_about(run))))


def _about(run: Run) -> tuple[tuple[str, str], ...]:
    """How it was made; where several runs are shown together, each way once, a line for each."""
    each = [_made(one) for one in run.get("made") or [run]]
    names = dict.fromkeys(name for one in each for name in one)
    facts = {name: "\n".join(dict.fromkeys(one[name] for one in each)) for name in names}
    facts["Command"] = run["command"] or "called from Python"
    facts["Time"] = facts.pop("Time")
    return tuple(facts.items())


def _made(run: Mapping[str, Any]) -> dict[str, str]:
    made, machine = run["intervals"], run["hardware"]
    cores, usable, memory = (machine.get(key) for key in ("cores", "usable_cores", "memory_bytes"))
    parts = [
        machine.get("cpu"),
        f"{usable or cores} of {cores} cores used" if cores else None,
        f"{memory / 2**30:.1f} GiB" if memory else None,
        *machine.get("gpus", ()),
        machine.get("system"),
    ]
    return {
        "Intervals": f"{made['confidence'] * 100:g} %, {made['resamples']:,} resamples of prompts, seed {made['seed']}",
        "Versions": ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
        "Hardware": ", ".join(str(part) for part in parts if part) or "not recorded",
        "Time": run["created"],
    }


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return {None: "none", True: "yes", False: "no"}.get(value, str(value)) if not value or value is True else str(value)


def _format(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in settings.items()) or "-"


def _control(scorer: Mapping[str, Any]) -> str:
    """A remark on texts that hold control strings of the model and were scored as text."""
    count = scorer.get("control_strings")
    return f"{count:,} text{'s hold' if count > 1 else ' holds'} control strings of this model" if count else ""


def _speed(scorer: Mapping[str, Any]) -> str:
    seconds, tokens = scorer["scoring_s"], scorer["tokens"]
    return f"{seconds:,.1f} s" + (f", {tokens / seconds:,.0f} tokens/s" if tokens and seconds >= 0.1 else "")


def _left_out(rows: Mapping[str, Any]) -> str:
    """Rows dropped by reason, and published rows that were not there."""
    found = [f"{n:,} dropped: {reason}" for reason, n in rows["dropped"].items() if n]
    found += missing_in_words(rows["missing"])
    return "; ".join(found) or "none dropped"


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
    counts, of_baselines = (_counts_tables(run, suites, baselines=which) for which in (False, True))
    folded = [Fold("The same of the baselines", tuple(of_baselines))] if counts and of_baselines else of_baselines
    return Section(
        "accuracy",
        "Accuracy",
        (words, Pictures(tuple(pictures), key, flow=True), Fold("In digits", tuple(tables)), *counts, *folded),
    )


def _accuracy_rows(run: Run, suite: str) -> list[Row]:
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
    rows, title = _accuracy_rows(run, suite), title_of(run, suite)
    ceiling = run["suites"][suite].get("noise_ceiling")
    top = ceiling["value"] if ceiling else None
    told = f"Noise ceiling: {in_words(ceiling)}, the most any scorer can agree with these votes." if ceiling else ""
    note = "" if top is None else told
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
    rows = [[name_cell("all"), *_accuracy_cells([result["overall"] for _, _, result in found])]]
    for place in places if len(places) > 1 else ():
        rows.append([name_cell(place), *_accuracy_cells([result["subsets"].get(place) for _, _, result in found])])
    head = ("", "Pairs", *(scorer["name"] for _, scorer, _ in found))
    return Table(title_of(run, suite), head, tuple(map(tuple, rows)))


def _accuracy_cells(metrics: Sequence[Mapping[str, Any] | None]) -> list[Cell]:
    n = max((one["accuracy"]["n"] for one in metrics if one), default=0)
    return [Cell(f"{n:,}"), *(figure_cell(one and one["accuracy"]) for one in metrics)]


def _counts_tables(run: Run, suites: Sequence[str], *, baselines: bool) -> list[Table]:
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
            lost = figure_cell(result["overall"].get("accuracy_ties_lost"))
            rows.append((scorer["name"], (name_cell(title_of(run, suite)), *cells, lost)))
    head = ("Suite", *names.values(), "Accuracy, equal scores lost")
    return per_scorer("What the accuracies rest on", head, rows, tight=True)


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
        rows.append((label, Cell(count(known) if known else "-"), *(figure_cell(one) for one in estimates)))
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


def _kl(n: Real) -> float:
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
                    label = "as it is" if which == "raw" else f"T = {digits(found['temperature'])}"
                    rows.append((scorer["name"], _calibration_row(title_of(run, suite), label, found[which])))
    if not rows:
        return None
    words = Words(
        "A lead of d says that the preferred reply wins with probability 1 / (1 + exp(−d / T)). Of pairs called with"
        " confidence 0.8, a share of 0.8 should be right. T = 1 is the model as it is; the scaled figures use a"
        " temperature that was fitted on other prompts. Each point holds as many pairs as the next."
    )
    head = ("Suite", "Pairs", "ECE", "ECE, equal mass", "Largest gap", "Log loss", "Brier", "AUROC of confidence")
    tables = per_scorer("Calibration", head, rows, tight=True)
    return Section("calibration", "Calibration", (words, *pictures, *tables))


def _calibration_row(name: str, sub: str, found: Mapping[str, Any]) -> tuple[Cell, ...]:
    cells = [figure_cell(found[key]) for key in ("ece", "ece_equal_mass", "mce", "log_loss", "brier", "auroc")]
    return (name_cell(name, sub), Cell(f"{found['n']:,}"), *cells)


def _reliability_picture(run: Run, suite: str, entry: Entry) -> Picture | None:
    _, scorer, result = entry
    found = result.get("calibration")
    if not found or not found["raw"]["bins_equal_mass"]:
        return None
    scaled = found.get("scaled")
    lines = [_reliability_line("as it is", found["raw"]["bins_equal_mass"], 1)]
    lines += (
        [_reliability_line(f"T = {digits(found['temperature'], 2)}", scaled["bins_equal_mass"], 0)] if scaled else []
    )
    title = f"{title_of(run, suite)} · {scorer['name']}"
    change = f" → {digits(scaled['ece']['value'])}" if scaled else ", not scaled"
    fitted = f" T: {found['fitted_on']}." if scaled and found.get("fitted_on") else ""
    reason = f" {found['note']}" if found.get("note") else ""
    note = f"Expected calibration error {digits(found['raw']['ece']['value'])}{change}.{fitted}{reason}"
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
    pairs = _decided(run, suite, entry)
    preferred, other = (side[np.isfinite(side)] for side in pairs[:2])
    if not len(preferred) or not len(other):
        return None
    failed = 2 * pairs.shape[1] - len(preferred) - len(other)
    title = f"{title_of(run, suite)} · {entry[1]['name']}"
    middles = f"Median {digits(float(np.median(preferred)))} preferred, {digits(float(np.median(other)))} other"
    note = f"{middles}; {pairs.shape[1]:,} pairs" + (f", {failed:,} failed scores left out." if failed else ".")
    key = ((_swatch(charts.COLORS[0]), "preferred"), (_swatch(charts.COLORS[1]), "other"))
    return Picture(title, charts.histogram_svg(preferred, other, label=f"Scores, {title}. {note}"), note, key)


def _decided(run: Run, suite: str, entry: Entry) -> Float64[np.ndarray, "4 P"]:
    """Of each decided pair the scores of the preferred reply and the other, NaN for a failure, and their lengths."""
    found = [np.zeros((4, 0))]
    for item, scores in zip(run["suites"][suite]["items"], entry[2]["scores"], strict=True):
        if "ranks" in item:
            winner, loser, tie = RankedPairs(tuple(item["ranks"])).arrays()
            decided = np.stack([winner, loser])[:, ~tie]
        else:
            rows = [(a, b) if p > 0.5 else (b, a) for a, b, p, _ in item["preferences"] if p != 0.5]
            decided = np.array(rows, np.int64).reshape(-1, 2).T
        found += [np.concatenate([np.array(each, np.float64)[decided] for each in (scores, item["lengths"])])]
    pairs = np.concatenate(found, 1)
    pairs[:2][np.abs(pairs[:2]) > LARGEST] = np.nan  # no axis reaches that far
    return pairs


def _swatch(color: str) -> str:
    return f'<svg aria-hidden="true" width="14" height="14"><rect width="14" height="14" rx="3" fill="{color}"/></svg>'


def style(run: Run) -> Section | None:
    """What length and layout have to do with the scores."""
    rows = [
        (scorer["name"], _style_row(title_of(run, suite), result["style"]))
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
    sides = ("Pairs, longer / shorter", "Preferred is longer", "Preferred is shorter", "Balanced")
    relations = ("Lead and length, Pearson", "Lead and length, Spearman", "Score and length in a prompt")
    head = ("Suite", *sides, *relations)
    blocks: list[Block] = [words, *_by_model(run, _length_picture), *per_scorer("Length", head, rows)]
    blocks += [Words(one) for one in _style_notes(run)]
    buckets = [picture for suite in run["suites"] for picture in _bucket_picture(run, suite)]
    if buckets:
        key = legend(run, {number for suite in run["suites"] for number, _, _ in models(run, suite)})
        blocks.append(Words("Accuracy by how much longer the preferred reply is, as (preferred − other) / (both)."))
        blocks.append(Pictures(tuple(buckets), key))
    return Section("style", "Length and style", (*blocks, *_regression_tables(run)))


def _style_notes(run: Run) -> list[str]:
    """Why there is no regression, where there is none."""
    return [
        f"{scorer['name']} on {title_of(run, suite)}: {result['style']['note']}"
        for suite in run["suites"]
        for _, scorer, result in models(run, suite)
        if (result.get("style") or {}).get("note")
    ]


def _style_row(suite: str, found: Mapping[str, Any]) -> tuple[Cell, ...]:
    keys = ("longer", "shorter", "balanced", "pearson", "spearman", "within_prompt")
    pairs = Cell(f"{found['longer']['n']:,} / {found['shorter']['n']:,}")
    return (name_cell(suite), pairs, *(figure_cell(found[key]) for key in keys))


def _regression_tables(run: Run) -> list[Table]:
    """Coefficients of the models' scores and of style, one row for each suite."""
    found = [
        (scorer["name"], title_of(run, suite), result["style"]["regression"])
        for suite in run["suites"]
        for _, scorer, result in models(run, suite)
        if result.get("style") and result["style"].get("regression")
    ]
    terms = list(dict.fromkeys(term["name"] for _, _, one in found for term in one["terms"]))
    names = [term.replace("_", " ") for term in terms]
    head = ("Suite", "Pairs", *names, "Gain over style alone", "Accuracy at equal style")
    rows = [(name, _regression_row(suite, one, terms)) for name, suite, one in found]
    return per_scorer("Which reply people prefer, by score and style", head, rows)


def _regression_row(suite: str, found: Mapping[str, Any], terms: Sequence[str]) -> tuple[Cell, ...]:
    known = {
        term["name"]: term | {"value": term["coefficient"], "n": found["n"], "prompts": 0} for term in found["terms"]
    }
    gain = found.get("gain")
    told = Cell(f"χ² {digits(gain['statistic'], 1)}", f"p {p_value(gain['p'])}") if gain else Cell("-", "not fitted")
    cells = [figure_cell(known[term]) if term in known else Cell("-", "left out") for term in terms]
    return (name_cell(suite), Cell(f"{found['n']:,}"), *cells, told, figure_cell(found.get("at_equal_style")))


def _length_picture(run: Run, suite: str, entry: Entry) -> Picture | None:
    preferred, other, its_length, other_length = _decided(run, suite, entry)
    with np.errstate(over="ignore"):
        lead = preferred - other
    kept = np.isfinite(lead)
    if not kept.any():
        return None
    gap = (its_length - other_length) / np.maximum(its_length + other_length, 1.0)
    title = f"{title_of(run, suite)} · {entry[1]['name']}"
    failed = int((~kept).sum())
    note = f"{kept.sum():,} pairs" + (f"; {failed:,} with a failed score left out." if failed else ".")
    label = f"Lead of the preferred reply against relative length difference, {title}, {note}"
    return Picture(title, charts.lead_by_length_svg(lead[kept], gap[kept], label=label), note)


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
    worst = [
        (scorer["name"], (name_cell(title_of(run, suite)), *_worst_cells(one, result["overall"])))
        for suite, found in by_suite.items()
        for _, scorer, result in found
        for one in result["slices"]
        if one["worst"]
    ]
    head = ("Suite", "Slice", "n", "Accuracy there", "Accuracy on all")
    tables: list[Block] = [*per_scorer("Worst slices", head, worst)]
    tables = tables or [Words("No slice is worse than chance explains.")]
    digits_too = Fold("In digits", tuple(_slices_table(title_of(run, suite), by_suite[suite]) for suite in by_suite))
    key = legend(run, {number for found in by_suite.values() for number, _, _ in found})
    return Section("slices", "Slices", (*tables, Pictures(pictures, key, flow=True), digits_too))


def _worst_cells(one: Mapping[str, Any], overall: Mapping[str, Any]) -> tuple[Cell, ...]:
    n = Cell(f"{one['accuracy']['n']:,}")
    return (Cell(_slice_name(one)), n, figure_cell(one["accuracy"]), figure_cell(overall["accuracy"]))


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
        rows.append((name_cell(name), Cell(f"{n:,}"), *(figure_cell(known.get(number)) for number, _, _ in found)))
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
    known = [kind for kind in kinds if result["figures"][kind]["value"] is not None]
    below = [kind for kind in known if result["figures"][kind]["value"] < 0.5]
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
    """What of the test data stands in the training data, and whether that matters."""
    checked = {suite: one["contamination"] for suite, one in run["suites"].items() if one.get("contamination")}
    if not checked:
        return None
    ways = {way: told for found in checked.values() for way, told in found["ways"].items()}
    means = Facts((*((way, told) for way, told in ways.items()), ("any", "each item once")))
    rows = tuple(_found_row(title_of(run, suite), found, [*ways, "any"]) for suite, found in checked.items())
    head = ("Suite", "Training comparisons", "Items", *ways, "any", "Which")
    clean = [
        (scorer["name"], (name_cell(title_of(run, suite)), *_clean_cells(result["contamination"])))
        for suite in checked
        for _, scorer, result in models(run, suite)
        if checked[suite]["dirty"] and result.get("contamination")
    ]
    kinds = ("Suite", "Accuracy on clean items", "On the found ones", "Found minus clean")
    tables = [Table("Items found in the training data", head, rows), *per_scorer("Does it matter?", kinds, clean)]
    return Section("contamination", "Contamination", (means, *tables))


def _found_row(title: str, found: Mapping[str, Any], ways: Sequence[str]) -> tuple[Cell, ...]:
    counts = [found["found"].get(way, 0) for way in ways]
    cells = [Cell(f"{n:,}", tone="bad" if n else "") for n in counts]
    dirty = [f"{one['subset']}/{one['id']}" for one in found["dirty"]]
    more = f" and {len(dirty) - 5:,} more" if len(dirty) > 5 else ""
    which = Cell(", ".join(dirty[:5]) + more if dirty else "none", tone="text")
    return (name_cell(title), Cell(f"{found['train']:,}"), Cell(f"{found['items']:,}"), *cells, which)


def _clean_cells(found: Mapping[str, Any]) -> list[Cell]:
    return [figure_cell(found.get(key)) for key in ("clean", "dirty", "difference")]


def audit(run: Run) -> Section | None:
    """The same model under other input formats: in sentences, and each combination folded away."""
    blocks: list[Block] = []
    for scorer in run["scorers"]:
        found = scorer.get("audit")
        if found:
            blocks += [Words(scorer["name"]), *(Words(sentence) for sentence in found["summary"])]
            head = ("Format", "Type", "Padding", "Batch", "Largest difference", "In spreads", "Flipped", "Rows cut")
            rows = tuple(map(_combination_row, found["combinations"]))
            title = f"{len(rows)} combinations against {found['reference']}"
            blocks.append(Fold(title, (Table(scorer["name"], head, rows),)))
    return Section("audit", "Input formats", tuple(blocks)) if blocks else None


def _combination_row(one: Mapping[str, Any]) -> tuple[Cell, ...]:
    flips = "-" if one["flips"] is None else f"{one['flips']:,} of {one['pairs']:,}"
    failures = f"{one['failures']:,} failed scores" if one.get("failures") else ""
    cut = one.get("cut")
    return (
        name_cell(one["format"], one["engine"]),
        Cell(one["dtype"]),
        Cell(one["padding_side"] or "-"),
        Cell(f"{one['batch_size']}"),
        *(Cell("-" if one.get(key) is None else f"{one[key]:.2g}") for key in ("max_difference", "max_spreads")),
        Cell(flips, one["reason"] or failures, tone="bad" if one["flips"] or failures else ""),
        Cell("-" if cut is None else digits(cut)),
    )


def comparison(run: Run) -> Section | None:
    """Differences of two scorers on the same items, paired; those of subsets folded away."""
    found = run.get("comparison") or {}
    pairs, refused = found.get("pairs") or (), found.get("refused") or ()
    if not pairs and not refused:
        return None
    heads = [pair for pair in pairs if pair.get("headline", True)]
    parts = [pair for pair in pairs if not pair.get("headline", True)]
    words = Words(
        "Paired on the same items: the interval is of the difference itself, p comes from swapping the two scorers"
        " prompt by prompt, and Holm's p allows for the number of comparisons; the verdict uses it. McNemar's mid-p"
        " takes every decided pair for a trial of its own, with equal scores wrong; where pairs share prompts it is"
        " marked clustered, and too sure of itself. Detectable: the least true difference that so many items would show"
        " four times out of five."
    )
    blocks: list[Block] = [words, *(Words(f"Not compared. {one}") for one in refused)]
    blocks += _differences(run, heads)
    blocks += [Fold("Differences on subsets", tuple(_differences(run, parts)))] if parts else []
    return Section("comparison", "Comparison", tuple(blocks))


def _differences(run: Run, pairs: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One table for each two scorers; all drawn on one axis."""
    marks = [mark_of(pair["difference"]) for pair in pairs]
    ends = [abs(end) for mark in marks for end in (mark.value, mark.low, mark.high) if end is not None]
    reach = max(ends, default=1.0) or 1.0
    head = ("Suite", "Difference", "Verdict", "Drawn", "p", "p, Holm", "McNemar", "Detectable", "Counted")
    rows = [
        (f"{pair['a']} minus {pair['b']}", _difference_row(run, pair, mark, reach))
        for pair, mark in zip(pairs, marks, strict=True)
    ]
    return per_scorer("Difference", head, rows)


def _difference_row(run: Run, pair: Mapping[str, Any], mark: Mark, reach: float) -> tuple[Cell, ...]:
    suite = title_of(run, pair["suite"]) if pair["suite"] in run["suites"] else pair["suite"]
    return (
        name_cell(suite, pair["figure"]),
        figure_cell(pair["difference"]),
        Cell(pair["verdict"] or "-", tone={"better": "good", "worse": "bad"}.get(pair["verdict"], "")),
        Cell("", svg=charts.track_svg(mark, low=-reach, high=reach, reference=0.0)),
        Cell(p_value(pair["p"])),
        Cell(p_value(pair["p_holm"])),
        _mcnemar(pair["mcnemar"]),
        number_cell(pair["detectable"], "not known"),
        Cell(count(pair["difference"])),
    )


def _mcnemar(test: Mapping[str, Any] | None) -> Cell:
    """The mid-p, with the pairs that only the one and only the other scorer has right."""
    if test is None:
        return Cell("-")
    counts = f"{test['b']:,} : {test['c']:,} pairs" + (", clustered" if test["clustered"] else "")
    return Cell(p_value(test["mid_p"]), counts, title=f"exact p {p_value(test['exact'])}")


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
    first, second = (digits(score) if score is not None else "failed" for score in error["scores"])
    margin = "a score failed" if error["margin"] is None else f"lead {digits(error['margin'])}"
    title = f"{error['subset']} · {error['id']} · {margin}"
    return title, _cut(error["prompt"]), _cut(error["preferred"]), _cut(error["other"]), first, second


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + " …"


def _by_model(run: Run, draw: Callable[[Run, str, Entry], Picture | None]) -> list[Block]:
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
