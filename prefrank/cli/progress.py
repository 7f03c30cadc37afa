"""What is seen while something runs, on standard error: bars on a terminal, a line every few seconds elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from prefrank.cli.screen import talk
from prefrank.errors import printable
from prefrank.io.names import short_names
from prefrank.reports.rich_tables import Part, add_row, joined, new_table

if TYPE_CHECKING:
    from prefrank.evaluation.audit import Combination
    from prefrank.scoring.files import FileReport
    from prefrank.training.records.events import DataRead, Event, SetMetrics, StepDone
    from prefrank.types import Prompt, Score

SECONDS_BETWEEN_LINES = 10.0
CHUNK = 256


class _Display:
    """One bar at a time with a changing text; where there is no terminal, a line now and then in its place."""

    def __init__(self) -> None:
        self.console = talk()
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task: TaskID | None = None
        self._title = ""
        self._last = 0.0

    def show(self, title: str, done: int, total: int | None, text: str) -> None:
        title, text = printable(title), printable(text)
        if title != self._title:
            self.clear()
            self._title, self._task = title, self.bar.add_task(title, total=total, text="")
        assert self._task is not None
        text = f"{done:,}/{total:,}  {text}" if total else text
        self.bar.update(self._task, completed=done, total=total, text=text)
        now = time.monotonic()
        if self.bar.disable and (now - self._last > SECONDS_BETWEEN_LINES or done == total):
            self._last = now
            self.say(f"{title} {text}")

    def say(self, *parts: Part, style: str = "") -> None:
        """A remark above the bar."""
        self.console.print(joined(*parts, style=style), soft_wrap=not self.console.is_terminal)

    def clear(self) -> None:
        if self._task is not None:
            self.bar.remove_task(self._task)
        self._task, self._title = None, ""


@contextmanager
def training() -> "Iterator[Callable[[Event], None]]":
    """A function that shows a training run's events as they come."""
    display = _Display()
    with display.bar:
        yield lambda event: _show_event(display, event)


def _show_event(display: _Display, event: "Event") -> None:
    from prefrank.training.records import events

    say = display.say
    match event:
        case events.DataRead():
            say(_data_text(event))
        case events.PassedOver():
            say(f"{event.folder} is passed over: {event.torn}")
        case events.Kept():
            say(f"{event.folder} is not removed: {event.why}")
        case events.Encoding():
            display.show(f"encoding {event.name}", event.done, event.total, "")
        case events.Encoded():
            display.clear()
            for remark in event.remarks:
                say(f"{event.name}: {remark}")
        case events.Started():
            display.clear()
            say(
                f"{event.steps:,} steps of {event.prompts_per_step} prompts on {event.device};"
                f" {event.trainable / 1e6:.1f} of {event.parameters / 1e6:.1f} million parameters trained"
            )
        case events.StepDone():
            display.show("training", event.step, event.steps, _step_text(event))
        case events.EvaluationDone():
            display.clear()
            display.console.print(_evaluation_table(event.step, {**event.sets, "all": event.overall}, event.best))
        case events.Saved():
            say(f"step {event.step}: saved {event.folder}", style="dim")


def _data_text(event: "DataRead") -> str:
    """What is used of a data set, what is held out and by what rule, and what is left out."""
    if event.comparisons is None:
        return f"{event.name}: streams for {event.role}; {event.record['rule']}"
    held = event.record.get("held_out", 0)
    rule = event.record.get("rule", "") + (f" ({held:,} in the other part)" if held else "")
    lost = [f"{count:,} {reason}" for reason, count in event.record.get("dropped", {}).items() if count]
    counted = f"{event.name}: {event.comparisons:,} comparisons for {event.role}"
    return "; ".join([counted, *filter(None, [rule]), *(["left out: " + ", ".join(lost)] if lost else [])])


def _step_text(event: "StepDone") -> str:
    return (
        f"loss {event.loss:.3f}  accuracy {event.accuracy:.0%}"
        f"  {event.tokens_per_s:,.0f} tokens/s  {clock(event.seconds_left)} left"
    )


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _evaluation_table(step: int, sets: "dict[str, SetMetrics]", best: bool) -> Table:
    title = f"step {step}{', best so far' if best else ''}"
    table = new_table(title, "held out", "accuracy", "95 % interval", "log loss", "comparisons")
    shown = short_names(list(sets))
    for (name, metrics), short in zip(sets.items(), shown, strict=True):
        if name == "all" and len(sets) == 2:  # one set alone is the whole
            continue
        low, high = metrics.interval
        add_row(
            table,
            short,
            f"{metrics.accuracy:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{metrics.log_loss:.3f}",
            f"{metrics.comparisons:,}",
        )
    return table


@contextmanager
def scoring() -> "Iterator[Callable[[FileReport], None]]":
    """A function that shows how far a file job is."""
    display = _Display()
    start = time.monotonic()

    def report(done: "FileReport") -> None:
        rate = done.replies / max(time.monotonic() - start, 1e-9)
        display.show("scoring", done.rows, None, f"{done.rows:,} rows  {done.replies:,} replies  {rate:,.0f}/s")

    with display.bar:
        yield report


@contextmanager
def auditing() -> "Iterator[Callable[[Combination], None]]":
    """A function that shows which combination of an audit was the last."""
    display, done = _Display(), count(1)

    def report(combination: "Combination") -> None:
        display.show("audit", next(done), None, f"{combination.engine}, {combination.format}: {combination.setting}")

    with display.bar:
        yield report


def counted(
    name: str, score_pairs: "Callable[[Sequence[tuple[Prompt, str]]], Sequence[Score]]"
) -> "Callable[[Sequence[tuple[Prompt, str]]], list[Score]]":
    """The scorer, in chunks of pairs with a bar; scores do not depend on the chunks."""

    def score(pairs: "Sequence[tuple[Prompt, str]]") -> "list[Score]":
        display = _Display()
        scores: list[Score] = []
        start = time.monotonic()
        with display.bar:
            for first in range(0, len(pairs), CHUNK):
                scores += score_pairs(pairs[first : first + CHUNK])
                rate = len(scores) / max(time.monotonic() - start, 1e-9)
                display.show(f"scoring: {name}", len(scores), len(pairs), f"{rate:,.0f}/s")
        return scores

    return score
