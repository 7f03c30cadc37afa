"""A run's curve: JSON lines in `OUTPUT/curve.jsonl`, flushed as they come, so that a killed run has its curve too.

    {"step": 20, "loss": 0.61, "accuracy": 0.7, "grad_norm": 1.2, "learning_rate": 1e-05, "tokens_per_s": 900.0, ...}
    {"step": 20, "best": true, "judged": {"log_loss": 0.6, ...}, "evaluation": {"overall": {...}, "hh:test": {...}}}

A full disk does not stop the run for a line of its log. What could not be written is written with the next line; a
line left incomplete by that, or by a kill, is cut off first.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefrank.errors import BadData
from prefrank.io.atomic import write_file
from prefrank.io.json_files import Fields, kind_of, parse_json
from prefrank.io.plain_files import read_bytes

FILE = "curve.jsonl"
_MOST_POINTS = 200
"""Of each kind in a checkpoint's record; the file keeps all."""

_OPENING = b'{"step": '
"""Of every line."""

Entry = dict[str, Any]


_MOST = 1e100
"""Size of a figure; pictures cannot span more, and no run's are so large."""


class Curve:
    """The entries of a run, in memory and in its file.

    Args:
        folder: the run's.
        first_step: steps already done; entries beyond are of a session that was lost, and are dropped.

    Raises:
        CannotWrite: the file cannot be made.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        self._path = folder / FILE
        self._unwritten: list[Entry] = []
        entries = read_curve(folder) if first_step else []
        self.entries = [entry for entry in entries if entry["step"] <= first_step]
        self.lost = entries[len(self.entries) :]
        """The entries that were dropped."""
        kept = "".join(map(_line, self.entries)).encode()
        self._size = len(kept)
        write_file(self._path, kept)

    def add(self, entry: Entry) -> None:
        """Append one entry, also to the file unless the disk is full."""
        self.entries.append(entry)
        self._unwritten.append(entry)
        text = "".join(map(_line, self._unwritten)).encode()
        try:
            with self._path.open("r+b") as file:
                file.truncate(self._size)
                file.seek(self._size)
                file.write(text)
        except OSError:
            return
        self._size += len(text)
        self._unwritten.clear()


def _line(entry: Entry) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"


def read_curve(folder: Path) -> list[Entry]:
    """The entries of a run's folder, in order; none where there is no curve. An incomplete last line is left out.

    Raises:
        BadData: a line that is no entry.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    lines = read_bytes(path, BadData).split(b"\n")
    torn = lines[-1]  # what follows the last line's end, if anything
    if not torn.startswith(_OPENING[: len(torn)]):
        raise BadData(f"{path}:{len(lines)} is not an entry of a curve")
    return [_entry(line, f"{path}:{number}") for number, line in enumerate(lines[:-1], start=1)]


def _entry(line: bytes, where: str) -> Entry:
    """One line's entry, with everything that pictures and tables show of it."""
    value = parse_json(line, where, BadData)
    if not isinstance(value, dict):
        raise BadData(f"{where} holds {kind_of(value)}; wanted an object")
    fields = Fields(value, where, error=BadData)
    fields.integer("step")
    fields.number("wall_s", None, least=0.0)
    if "evaluation" not in value:
        for key in ("loss", "learning_rate"):
            fields.number(key, least=-_MOST, most=_MOST)
        for key in ("accuracy", "grad_norm", "tokens_per_s"):
            fields.number(key, None, least=-_MOST, most=_MOST)
        return value
    fields.flag("best")
    sets = fields.object("evaluation")
    for metrics in (fields.object("judged"), *map(sets.object, sets)):
        _check_metrics(metrics)
    return value


def _check_metrics(metrics: Fields) -> None:
    metrics.number("accuracy", least=0.0, most=1.0)
    metrics.number("log_loss", least=-_MOST, most=_MOST)
    metrics.integer("comparisons")
    for key in ("interval", "log_loss_interval"):
        bounds = metrics.get(key)
        if bounds is None and key == "log_loss_interval":
            continue
        pair: list[Any] = bounds if isinstance(bounds, list) and len(bounds) == 2 else [None]
        if not all(type(bound) in (int, float) and abs(bound) <= _MOST for bound in pair):
            metrics.refuse(key, "a list of two numbers")


def steps_of(entries: Sequence[Entry]) -> list[Entry]:
    """The entries of training steps."""
    return [entry for entry in entries if "evaluation" not in entry]


def evaluations_of(entries: Sequence[Entry]) -> list[Entry]:
    """The entries of evaluations."""
    return [entry for entry in entries if "evaluation" in entry]


def thin(entries: Sequence[Entry], *, most: int = _MOST_POINTS) -> list[Entry]:
    """At most so many entries of each kind, evenly spread, the first, the last and the best evaluation among them."""
    kept = {id(entry) for part in (steps_of(entries), evaluations_of(entries)) for entry in _spread(part, most)}
    best = [entry for entry in entries if entry.get("best")]
    kept |= {id(entry) for entry in best[-1:]}
    return [entry for entry in entries if id(entry) in kept]


def _spread(entries: Sequence[Entry], most: int) -> list[Entry]:
    if len(entries) <= most:
        return list(entries)
    return [entries[round(n * (len(entries) - 1) / (most - 1))] for n in range(most)]
