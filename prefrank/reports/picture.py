"""Accuracies as a picture for a README."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prefrank.errors import BadInput, NotFound, printable
from prefrank.evaluation.merging import merged
from prefrank.evaluation.results import Run
from prefrank.io.atomic import write_file
from prefrank.palette import COLORS
from prefrank.reports import charts
from prefrank.reports.entries import entries, title_of, with_short_names
from prefrank.stats.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    whole = with_short_names(merged([run] if isinstance(run, Run) else list(run)))
    suites = [suite for suite in whole.suites if entries(whole, suite)]
    if not suites:
        raise BadInput("the run has no results to draw; evaluate a scorer on a suite first")
    count = len(whole.scorers)
    figure = Figure(figsize=(8.4, 1.2 + len(suites) * (0.3 + 0.16 * count) + 0.24 * count))
    axes = figure.subplots()
    for number in range(count):
        _draw_scorer(axes, whole, suites, number)
    _finish(axes, [_in_picture(charts.shorten(title_of(whole, suite), 36)) for suite in suites])
    axes.set_xlabel(f"accuracy, {whole.intervals.confidence * 100:g} % intervals; dashed: chance")
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font lacks is shown as boxes
        figure.savefig(picture, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    write_file(path, picture.getvalue())


def _in_picture(text: str) -> str:
    """A text as matplotlib shows it and does not typeset it."""
    return printable(text).replace("$", r"\$")


def _draw_scorer(axes: "Axes", run: Run, suites: Sequence[str], number: int) -> None:
    """One scorer's accuracies, a little apart from the others' on each suite's line."""
    scorer, count = run.scorers[number], len(run.scorers)
    apart = 0.8 / count * (number - (count - 1) / 2)
    accuracies = [
        (place + apart, scorer.results[suite].overall.accuracy)
        for place, suite in enumerate(suites)
        if suite in scorer.results and scorer.results[suite].overall.accuracy.value is not None
    ]
    if not accuracies:
        return
    values, low, high = np.array([_ends(accuracy) for _, accuracy in accuracies], np.float64).T
    axes.errorbar(
        values,
        [place for place, _ in accuracies],
        xerr=np.abs([low - values, high - values]),
        fmt="osD^"[number % 4],
        color=COLORS[number % len(COLORS)],
        markersize=6,
        linewidth=2,
        label=_in_picture(charts.shorten(scorer.name, 60)),
    )


def _ends(accuracy: Estimate) -> tuple[float | None, ...]:
    """An estimate's value and the ends of its interval; the value itself if there is no interval."""
    value, low, high = accuracy.value, accuracy.low, accuracy.high
    return (value, value, value) if low is None else (value, low, high)


def _finish(axes: "Axes", titles: Sequence[str]) -> None:
    axes.axvline(0.5, color=charts.FAINT, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(titles)), titles)
    axes.set_ylim(len(titles) - 0.5, -0.5)
    axes.grid(axis="x", color=charts.GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), frameon=False, borderaxespad=0)
