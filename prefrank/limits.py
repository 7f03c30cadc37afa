"""What prefrank bounds of the input it reads, in one table, so that no file can take a machine's memory or time.

Each bound is far beyond what honest input needs, is named in the error of what passes it, and is changed by an
environment variable: `PREFRANK_MAX_LINE_BYTES=4e9 prefrank score ...`. docs/security.md shows the table.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from prefrank.errors import BadInput


class Limit(NamedTuple):
    """One bound.

    Args:
        most: the greatest value that passes.
        unit: of it, in the plural.
        what: it bounds, for the documentation.
    """

    most: int
    unit: str
    what: str


LIMITS: Mapping[str, Limit] = {
    "json_bytes": Limit(1 << 29, "bytes", "one JSON file of a model or run (not of data)"),
    "line_bytes": Limit(1 << 28, "bytes", "one line of a data file; a JSON array counts as one"),
    "step_prompts": Limit(100_000, "prompts", "one optimiser step, over all devices"),
    "sweep_runs": Limit(10_000, "runs", "the combinations that a sweep's file stands for"),
    "yaml_bytes": Limit(1 << 20, "bytes", "one YAML file: a recipe, a sweep, a card's facts"),
    "yaml_levels": Limit(100, "levels", "lists and mappings inside each other in a YAML file"),
    "yaml_values": Limit(100_000, "values", "everything in a YAML file, aliases written out"),
}
"""By name; the variable is `PREFRANK_MAX_` and the name in capitals."""


def limit(name: str) -> int:
    """The greatest value that passes: the environment's, else the table's.

    Raises:
        BadInput: the environment's is no number of at least 1.
    """
    variable = f"PREFRANK_MAX_{name.upper()}"
    given = os.environ.get(variable)
    if given is None:
        return LIMITS[name].most
    try:
        most = int(float(given))
    except (ValueError, OverflowError):
        most = 0
    if most < 1:
        raise BadInput(f"{variable} is {given!r}; wanted a number of {LIMITS[name].unit}, at least 1")
    return most


def past(name: str) -> str:
    """The words of an error for what passes a bound: how much there may be, and how to allow more."""
    return f"more than {limit(name):,} {LIMITS[name].unit}, which PREFRANK_MAX_{name.upper()} may raise"
