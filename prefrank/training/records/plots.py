"""Pictures of runs as PNG: their curves side by side, and a learning-rate search.

The colors are safe for color-blind readers (after Okabe & Ito 2008); from the ninth run on, line styles distinguish
runs too. Logged losses are faint, their running means bold.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from prefrank.io.atomic import write_file
from prefrank.palette import COLORS
from prefrank.training.records.curve import evaluations_of, steps_of
from prefrank.training.records.runs import TrainingRun
from prefrank.training.tools.find_rate import RateSearch

_STYLES = ("-", "--", ":", "-.")
_GRID = "#e6e6e6"
_SMOOTHED_OVER = 15
"""A running mean over about this share of the entries: 1 / 15."""


def plot_runs(runs: Sequence[TrainingRun], names: Sequence[str], path: Path) -> None:
    """Training loss, held-out log loss and accuracy with 95 % bands, and the learning rate, against steps.

    Args:
        names: what each run is called in the picture.

    Raises:
        CannotWrite: the file cannot be written.
    """
    figure = Figure(figsize=(12.4, 8.0))
    loss, rate, held_out, accuracy = figure.subplots(2, 2, sharex=True).flat
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        look = {"color": COLORS[number % len(COLORS)], "linestyle": _STYLES[number // len(COLORS) % len(_STYLES)]}
        _draw_training(loss, rate, run, name, look)
        _draw_evaluations(held_out, run, "log_loss", "log_loss_interval", look)
        _draw_evaluations(accuracy, run, "accuracy", "interval", look)
    _finish(loss, "Training loss", "nats a comparison")
    _finish(rate, "Learning rate", "")
    _finish(held_out, "Held-out log loss", "nats a comparison")
    _finish(accuracy, "Held-out accuracy", "pairs in the right order")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    accuracy.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    for axis in (held_out, accuracy):
        axis.set_xlabel("optimizer steps")
    handles, labels = loss.get_legend_handles_labels()
    columns = 1 if max(map(len, names)) > 50 else min(len(names), 2 if max(map(len, names)) > 25 else 4)
    rows = -(-len(names) // columns)
    bottom = 0.05 + 0.028 * rows
    figure.legend(handles, labels, loc="lower left", bbox_to_anchor=(0.01, 0.025), ncols=columns, frameon=False)
    figure.text(
        0.015, 0.012, "Bands: 95 % intervals. Rings: the evaluation that chose the best checkpoint.", fontsize=9
    )
    figure.tight_layout(rect=(0, bottom, 1, 1), w_pad=2.5, h_pad=2)
    _save(figure, path)


def plot_rate_search(search: RateSearch, path: Path) -> None:
    """The losses of a learning-rate search against the rate, and its suggestion.

    Raises:
        CannotWrite: the file cannot be written.
    """
    figure = Figure(figsize=(7.6, 5.0))
    axis = figure.subplots()
    axis.plot(search.rates, search.losses, color=COLORS[4], linewidth=0.9, alpha=0.6)
    axis.plot(search.rates, search.smoothed, color=COLORS[0], linewidth=2.2)
    low, high = min(search.smoothed), max(search.smoothed[: len(search.smoothed) // 2])
    axis.set_ylim(low - 0.35 * (high - low) - 1e-3, high + 0.8 * (high - low) + 1e-3)  # the blow-up may leave the frame
    axis.set_xscale("log")
    if search.suggestion is not None:
        axis.axvline(search.suggestion, color=COLORS[1], linewidth=1.4, linestyle="--")
        axis.annotate(
            f" {search.suggestion:.1e}", (search.suggestion, 0.03), xycoords=("data", "axes fraction"), color=COLORS[1]
        )
    _finish(axis, "Loss while the learning rate rises", "nats a comparison")
    axis.set_xlabel("learning rate")
    figure.text(0.015, 0.015, f"Suggested: {search.rule}", fontsize=8.5)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    _save(figure, path)


def _draw_training(loss: Axes, rate: Axes, run: TrainingRun, name: str, look: dict[str, Any]) -> None:
    entries = steps_of(run.curve)
    steps = [entry["step"] for entry in entries]
    losses = np.array([entry["loss"] for entry in entries])
    loss.plot(steps, losses, linewidth=0.8, alpha=0.3, **look)
    loss.plot(steps, _running_mean(losses), linewidth=2.0, label=name, **look)
    rate.plot(steps, [entry["learning_rate"] for entry in entries], linewidth=1.6, **look)


def _draw_evaluations(axis: Axes, run: TrainingRun, metric: str, interval: str, look: dict[str, Any]) -> None:
    evaluations = evaluations_of(run.curve)
    points = [(entry["step"], entry["judged"]) for entry in evaluations]
    steps = [step for step, _ in points]
    axis.plot(steps, [judged[metric] for _, judged in points], linewidth=2.0, marker=".", markersize=5, **look)
    banded = [(step, *judged[interval]) for step, judged in points if judged.get(interval)]
    if banded:
        at, low, high = zip(*banded, strict=True)
        axis.fill_between(at, low, high, color=look["color"], alpha=0.10, linewidth=0)
    if run.best is not None:
        axis.plot(run.best.step, getattr(run.best, metric), "o", markersize=9, fillstyle="none", color=look["color"])


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Means over the entries before each one, itself included."""
    width = max(1, len(values) // _SMOOTHED_OVER)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    firsts = np.maximum(0, np.arange(1, len(values) + 1) - width)
    ends = np.arange(1, len(values) + 1)
    return (sums[ends] - sums[firsts]) / (ends - firsts)


def _finish(axis: Axes, title: str, label: str) -> None:
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_ylabel(label)
    axis.grid(axis="y", color=_GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    with matplotlib.rc_context({"savefig.dpi": 130}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font lacks is shown as boxes
        figure.savefig(picture, format="png")
    write_file(path, picture.getvalue())
