"""Suites' data made by hand, written in the published layouts, and measured without a model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefrank.evaluation import Bootstrap, Estimate, Sample, sample_of
from prefrank.evaluation.items import Item
from prefrank.stats.estimates import estimate_all
from prefrank.stats.figures import Figure
from prefrank.types import Preference, as_prompt
from tests.evaluation.making import scored

Row = Mapping[str, Any]


def write_lines(path: Path, rows: Sequence[Row]) -> Path:
    """One JSON object per line; the folder that was given to the test comes back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_array(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1))
    return path


def an_item(subset: str, id: str, *, better: int = 1, worse: int = 1) -> Item:
    """Each of the better replies preferred to each of the worse ones; its prompt is its own."""
    replies = tuple(f"reply {i}" for i in range(better + worse))
    preferences = tuple(Preference(i, better + j) for i in range(better) for j in range(worse))
    return Item(as_prompt(f"{subset} {id}"), replies, preferences, subset, id)


def a_sample(items: Sequence[Item], scores: Sequence[Sequence[float]]) -> Sample:
    return sample_of(items, [scored(each) for each in scores])


def by_length(items: Sequence[Item]) -> Sample:
    """The longer reply is the better one."""
    return a_sample(items, [[len(reply) for reply in item.replies] for item in items])


def estimates(figures: Mapping[str, Figure]) -> dict[str, Estimate]:
    return estimate_all(figures, Bootstrap(resamples=50))


def values(figures: Mapping[str, Figure]) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in estimates(figures).items()}
