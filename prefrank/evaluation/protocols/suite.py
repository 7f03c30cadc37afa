"""A suite is a published protocol as a value: a name, where the data are, a reader, the figures with their weights.

A suite's data come from a local folder in the published layout or from the hub by id. Reading gives items; measuring is
a function of a scored sample and knows nothing of texts, so a run file can be measured again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prefrank.evaluation.items import Item
from prefrank.evaluation.samples import Sample
from prefrank.stats.figures import Figure


@dataclass(frozen=True, slots=True)
class SuiteData:
    """What a reader found.

    Args:
        items: in the data's order.
        read: rows.
        dropped: reason -> rows that gave no item.
    """

    items: tuple[Item, ...]
    read: int
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chart:
    """How a report draws some of a suite's figures.

    Args:
        title: above the chart.
        rows: of a matrix, top to bottom; of curves, the name of each line.
        columns: of a matrix, left to right; of curves, the places on the x axis, ascending.
        figures: name of the figure in each cell, row by row.
        kind: a matrix of percentages, or curves.
        x_label: of curves.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str | int | float, ...]
    figures: tuple[str, ...]
    kind: Literal["matrix", "curves"]
    x_label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A published protocol.

    Args:
        name: as in `--suite NAME`.
        title: as in tables.
        hub: id of the data set on the hub; "" where it is not there.
        layout: the files it reads there or in a local folder, as glob patterns.
        read: a folder to items. Raises NotFound where none of the files is there, BadData with file and line.
        measure: a scored sample to figures by name, the headline first; names of a section's parts are written
            "Section/part".
        source: paper and code the protocol follows.
        ties: how equal scores count in it: "half", "wrong" or "shared".
        revision: branch on the hub; None is the main one.
        charts: how some of the figures are drawn.
    """

    name: str
    title: str
    hub: str
    layout: tuple[str, ...]
    read: Callable[[Path], SuiteData]
    measure: Callable[[Sample], dict[str, Figure]]
    source: str
    ties: str
    revision: str | None = None
    charts: tuple[Chart, ...] = ()
