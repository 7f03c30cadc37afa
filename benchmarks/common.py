"""What the benchmarks share: a training run with its clocks, a table, and the closing JSON line."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from prefrank.cli import progress
from prefrank.training import Recipe, Trained, train
from prefrank.training.records.events import Event, Started, StepDone
from prefrank.types import Comparison


@dataclass(slots=True)
class Run:
    """A training run and what it took, from the first step to the last (not loading or encoding)."""

    trained: Trained
    recipe: Recipe
    comparisons: int
    tokens: int
    cpu_s: float
    wall_s: float

    def to_json(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.model_dump(mode="json", exclude_defaults=True),
            "comparisons": self.comparisons,
            "steps": self.trained.steps,
            "tokens": self.tokens,
            "cpu_s": round(self.cpu_s, 1),
            "wall_s": round(self.wall_s, 1),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


class _Clock:
    """Listens to a run; all threads of this process count."""

    def __init__(self) -> None:
        self.start = self.end = (0.0, 0.0)
        self.comparisons = self.tokens = 0

    def listen(self, event: Event) -> None:
        match event:
            case Started():
                self.start, self.comparisons = (time.process_time(), time.perf_counter()), event.comparisons
            case StepDone():
                self.end = (time.process_time(), time.perf_counter())
                self.tokens += event.tokens


def run(recipe: Recipe) -> Run:
    """Train, with progress on standard error."""
    clock = _Clock()
    with progress.training() as show:

        def report(event: Event) -> None:
            clock.listen(event)
            show(event)

        trained = train(recipe, callback=report)
    cpu, wall = (after - before for before, after in zip(clock.start, clock.end, strict=True))
    return Run(trained, recipe, clock.comparisons, clock.tokens, cpu, wall)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; the first column is of names, the others of figures."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row, end_section=True)
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=160)).print(table)


def say(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, markup=False)


def finish(record: dict[str, Any]) -> None:
    """The last line: everything measured, as one line of strict JSON."""
    print(json.dumps(record, allow_nan=False))


def write_comparisons(folder: Path, train: Sequence[Comparison], validation: Sequence[Comparison]) -> Path:
    """A folder in prefrank's own format. With a file for each split, none is made by prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, comparisons in (("train", train), ("validation", validation)):
        lines = "".join(json.dumps(as_row(comparison)) + "\n" for comparison in comparisons)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def as_row(comparison: Comparison) -> dict[str, Any]:
    """A row of prefrank's own format."""
    return {
        "id": comparison.id,
        "prompt": [{"role": turn.role, "content": turn.text} for turn in comparison.prompt],
        "replies": list(comparison.replies),
        "preferences": [[p.winner, p.loser, p.probability] for p in comparison.preferences],
    }
