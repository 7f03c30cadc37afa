"""A run's curve: JSON lines in `OUTPUT/curve.jsonl`, flushed as they come, so that a killed run has its curve too.

    {"step": 20, "loss": 0.61, "accuracy": 0.7, "grad_norm": 1.2, "learning_rate": 1e-05, "tokens_per_s": 900.0, ...}
    {"step": 20, "best": true, "judged": {"log_loss": 0.6, ...}, "evaluation": {"overall": {...}, "hh:test": {...}}}

Surprising: a disk that takes nothing does not stop the run for a line of its log. What could not be written is written
with the next line; a line torn by that, or by a kill, is cut off first.
"""

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefrank.errors import BadData, CannotWrite

FILE = "curve.jsonl"
_MOST_POINTS = 200
"""Of each kind in a checkpoint's record; the file keeps all."""

Entry = dict[str, Any]


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
        found = read_curve(folder) if first_step else []
        self.entries = [one for one in found if one["step"] <= first_step]
        self.lost = found[len(self.entries) :]
        """The entries that were dropped."""
        kept = "".join(map(_line, self.entries)).encode()
        self._size = len(kept)
        try:
            write_whole(self._path, kept)
        except OSError as error:
            raise CannotWrite(
                f"cannot write {self._path}: {error.strerror}; make room or choose another place"
            ) from error

    def add(self, entry: Entry) -> None:
        """Append one entry, to the file as well if the disk takes it."""
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


def write_whole(path: Path, content: bytes) -> None:
    """Replace a small file in one move, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_curve(folder: Path) -> list[Entry]:
    """The entries of a run's folder, in order; none where there is no curve. A torn last line is left out.

    Raises:
        BadData: a line that is no entry.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    entries: list[Entry] = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last line's end is torn, or nothing
        try:
            entry = json.loads(line)
            entries.append({**entry, "step": int(entry["step"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            raise BadData(f"{path}:{number}: not an entry of a curve; remove that line") from None
    return entries


def steps_of(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that tell of training steps."""
    return [one for one in entries if "evaluation" not in one]


def evaluations_of(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that tell of evaluations."""
    return [one for one in entries if "evaluation" in one]


def thin(entries: Sequence[Entry], *, most: int = _MOST_POINTS) -> list[Entry]:
    """At most so many entries of each kind, evenly spread, the first, the last and the best evaluation among them."""
    kept = {id(one) for part in (steps_of(entries), evaluations_of(entries)) for one in _spread(part, most)}
    best = [one for one in entries if one.get("best")]
    kept |= {id(one) for one in best[-1:]}
    return [one for one in entries if id(one) in kept]


def _spread(entries: Sequence[Entry], most: int) -> list[Entry]:
    if len(entries) <= most:
        return list(entries)
    return [entries[round(n * (len(entries) - 1) / (most - 1))] for n in range(most)]
