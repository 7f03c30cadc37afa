"""Runs, sweeps and learning-rate searches as tables on standard output."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from prefrank.cli.progress import clock
from prefrank.cli.screen import say, show
from prefrank.errors import printable
from prefrank.io.names import short_names
from prefrank.reports.rich_tables import Part, add_row, joined, new_table

if TYPE_CHECKING:
    from prefrank.training.records.runs import Best, TrainingRun
    from prefrank.training.tools.find_rate import RateSearch
    from prefrank.training.tools.sweep import SweepRow

_COLORS = {"finished": "green", "running": "cyan", "stopped": "yellow", "failed": "red"}
_LONGEST_VALUE = 60
_WIDTH = 160
"""Of a pipe or a log: names of runs are long, and a folded row is hard to read by eye and by program."""


def runs(training_runs: "Sequence[TrainingRun]") -> None:
    """One line a run: how it stands, how good it got, and what it cost."""
    table = new_table(None, "run", "state", "steps", "data", "log loss", "accuracy", "n", "time", "energy", left=2)
    table.columns[3].justify = "left"
    sources = list(dict.fromkeys(source for run in training_runs for source in run.data))
    short = dict(zip(sources, short_names(sources), strict=True))
    for run, name in zip(training_runs, run_names(training_runs), strict=True):
        add_row(
            table,
            name,
            _state(run),
            f"{run.step:,}/{run.steps:,}",
            ", ".join(short[source] for source in run.data),
            *_cells(run),
        )
    show(table, width=_WIDTH)
    _say_errors(
        {
            name: run.error
            for run, name in zip(training_runs, run_names(training_runs), strict=True)
            if run.state == "failed"
        }
    )


def comparison(training_runs: "Sequence[TrainingRun]", differing: Mapping[str, Sequence[Any]]) -> None:
    """Runs side by side: what differs in their recipes, and every figure."""
    table = new_table(None, "", *run_names(training_runs))
    for key, values in differing.items():
        add_row(table, key, *(_value(value) for value in values))
    table.add_section()
    rows = {
        name: [_best_cell(run, name) for run in training_runs]
        for name in ("log loss", "accuracy", "comparisons", "step")
    }
    for name, cells in rows.items():
        add_row(table, f"best: {name}", *cells)
    sets = dict.fromkeys(
        name for run in training_runs for name in _last_sets(run) if len(_last_sets(run)) > 2 or name != "overall"
    )
    for name, shown in zip(sets, short_names(list(sets)), strict=True):
        add_row(table, f"last: {shown}", *(_figures(_last_sets(run).get(name)) for run in training_runs))
    table.add_section()
    add_row(table, "state", *map(_state, training_runs))
    add_row(table, "steps", *(f"{run.step:,}/{run.steps:,}" for run in training_runs))
    add_row(table, "time", *(_time(run) for run in training_runs))
    add_row(table, "energy", *(_energy(run) for run in training_runs))
    add_row(table, "peak memory", *(_memory(run) for run in training_runs))
    show(table, width=_WIDTH)


def sweep(rows: "Sequence[SweepRow]") -> None:
    """A sweep's runs, best first; those that cannot be told from the best are marked."""
    keys = list(dict.fromkeys(key for row in rows for key in row.changes))
    table = new_table(None, "", *keys, "state", "log loss", "accuracy", "n", "time", "energy", left=len(keys) + 2)
    marked = sum(row.undecided for row in rows)
    for row in rows:
        values = [_value(row.changes[key]) if key in row.changes else "" for key in keys]
        none: list[Part] = [joined("failed", style="red"), *[""] * 5]
        cells = none if row.run is None or row.error else [_state(row.run), *_cells(row.run)]
        add_row(table, "≈" if row.undecided and marked > 1 else "", *values, *cells)
    show(table, width=_WIDTH)
    _say_errors({row.name: row.error for row in rows if row.error})
    if marked > 1:
        others = "another run" if marked == 2 else f"{marked - 1} others"
        say(f"≈ marks the best and {others} within 1.96 standard errors of it")


def rate_search(search: "RateSearch") -> None:
    """What a range test suggests, and its losses in some steps."""
    table = new_table("Learning rate against loss", "learning rate", "loss", "smoothed", left=0)
    last = len(search.rates) - 1
    for n in dict.fromkeys(round(place * last / 14) for place in range(15)):
        add_row(table, f"{search.rates[n]:.1e}", f"{search.losses[n]:.3f}", f"{search.smoothed[n]:.3f}")
    show(table, width=_WIDTH)
    if search.suggestion is None:
        say(f"no suggestion; {search.rule}")
    else:
        say("suggested: ", joined(f"learning_rate={search.suggestion:.2g}", style="bold"), f"; {search.rule}")


def run_names(training_runs: "Sequence[TrainingRun]") -> list[str]:
    """Paths without the part that all have in common."""
    paths = [str(run.folder) for run in training_runs]
    if len(paths) < 2:
        return paths
    common = os.path.commonpath([os.path.abspath(path) for path in paths])
    return [os.path.relpath(path, common) for path in paths]


def in_picture(names: Sequence[str]) -> list[str]:
    """Names as matplotlib shows them and does not typeset them."""
    return [printable(name).replace("$", r"\$") for name in names]


def _cells(run: "TrainingRun") -> list[str]:
    best = run.best
    if best is None:
        return ["-", "-", "-", _time(run), _energy(run)]
    n = f"{best.comparisons:,}"
    return [_loss(best), _accuracy(best), n, _time(run), _energy(run)]


def _loss(best: "Best") -> str:
    low_high = "" if best.log_loss_interval is None else " [{:.3f}, {:.3f}]".format(*best.log_loss_interval)
    return f"{best.log_loss:.3f}{low_high}"


def _accuracy(best: "Best") -> str:
    low, high = best.interval
    return f"{best.accuracy:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def _best_cell(run: "TrainingRun", name: str) -> str:
    best = run.best
    if best is None:
        return "-"
    match name:
        case "log loss":
            return _loss(best)
        case "accuracy":
            return _accuracy(best)
        case "comparisons":
            return f"{best.comparisons:,}"
    return f"{best.step:,}"


def _last_sets(run: "TrainingRun") -> dict[str, Any]:
    """Metrics of the last evaluation, by set."""
    evaluations = [line for line in run.curve if "evaluation" in line]
    return evaluations[-1]["evaluation"] if evaluations else {}


def _figures(metrics: Mapping[str, Any] | None) -> str:
    return "-" if metrics is None else f"{metrics['log_loss']:.3f}, {metrics['accuracy']:.1%}"


def _state(run: "TrainingRun") -> Text:
    return joined(run.state, style=_COLORS[run.state])


def _time(run: "TrainingRun") -> str:
    return clock(run.spent["wall_s"]) if "wall_s" in run.spent else "-"


def _energy(run: "TrainingRun") -> str:
    used = run.spent.get("energy_kwh")
    return "-" if used is None else f"{1000 * used:,.3g} Wh"


def _memory(run: "TrainingRun") -> str:
    peak = run.spent.get("peak_gpu_memory_bytes") or run.spent.get("peak_memory_bytes")
    return "-" if peak is None else f"{peak / 2**30:.2f} GiB"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _say_errors(errors: Mapping[str, str | None]) -> None:
    for name, error in errors.items():
        say(f"{name}: {error or 'failed'}", style="red")
