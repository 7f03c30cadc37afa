"""How many cores a container or a service may use: torch counts those of the machine, and threads that wait for a share
of too few cores slow each other down."""

import math
from pathlib import Path


def allowed_cores(root: Path = Path("/")) -> int | None:
    """The processor time that Linux's control groups allow this process, in whole cores; None where they do not say.

    Args:
        root: of the file system.
    """
    groups = root / "sys" / "fs" / "cgroup"
    shares = [_version_2(groups / own / "cpu.max") for own in (_own_group(root), "")]
    shares.append(_version_1(groups / "cpu"))
    known = [share for share in shares if share is not None]
    return max(1, math.floor(min(known) + 1e-9)) if known else None


def _own_group(root: Path) -> str:
    lines = (_text(root / "proc" / "self" / "cgroup") or "").splitlines()
    return next((line.removeprefix("0::").lstrip("/") for line in lines if line.startswith("0::")), "")


def _version_2(path: Path) -> float | None:
    return _share((_text(path) or "").split())


def _version_1(folder: Path) -> float | None:
    return _share([_text(folder / name) or "" for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")])


def _share(parts: list[str]) -> float | None:
    """Of `quota period`, where the first may also be `max` or -1."""
    try:
        quota, period = map(int, parts)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return None
