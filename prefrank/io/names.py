"""Shortens paths to what distinguishes them, for display; records keep full paths."""

import re
from collections.abc import Sequence

LONGEST = 24
"""Characters of a name that is shown whole whatever it is."""
_EVERYWHERE = re.compile(r"best|last|adapter|model|checkpoint-\d+")
"""Names of folders that say nothing without their parent's."""
_LOCAL = re.compile(r"[/~]|\.{1,2}[/\\]|[A-Za-z]:[/\\]")
_WITH_FILE = re.compile(r"(.+) \(([^()]+)\)")


def short_names(names: Sequence[str]) -> list[str]:
    """Long local paths cut to their last parts, as many as it takes to be no other's end; all else as it is.

    Hub ids, addresses and given names stay. What was distinct stays distinct. In `NAME (FILE)` both are cut.

    >>> short_names(["/data/experiments/runs/small/best", "/data/experiments/runs/large/best", "longer reply"])
    ['small/best', 'large/best', 'longer reply']
    """
    inside = [_WITH_FILE.fullmatch(name) for name in names]
    outer = _cut([match[1] if match else name for match, name in zip(inside, names, strict=True)])
    files = iter(_cut([match[2] for match in inside if match]))
    shortened = [f"{name} ({next(files)})" if match else name for match, name in zip(inside, outer, strict=True)]
    return shortened if len(set(shortened)) == len(set(names)) else list(names)


def _cut(names: Sequence[str]) -> list[str]:
    parts = {name: re.split(r"[/\\]", name.rstrip("/\\").removeprefix("scores:")) for name in names}
    return [_last_parts(name, parts) for name in names]


def _last_parts(name: str, parts: dict[str, list[str]]) -> str:
    own = parts[name]
    path = name.removeprefix("scores:")
    local = "://" not in name and (_LOCAL.match(path) is not None or len(own) > 2)
    if len(name) <= LONGEST or not local or name.startswith("python:"):
        return name
    least = 2 if _EVERYWHERE.fullmatch(own[-1]) else 1
    for count in range(least, len(own)):
        if not any(other[-count:] == own[-count:] for parent, other in parts.items() if parent != name):
            return ("scores:" if path != name else "") + "/".join(own[-count:])
    return name
