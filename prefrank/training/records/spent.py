"""What a run costs and what it runs on: time, energy, memory, hardware.

All figures are those of the main process from the first step on; encoding comes before that. Totals continue from
earlier sessions of the run, including work lost when one was killed. Energy needs the codecarbon package, which
estimates it from hardware counters or nominal power; without it the record says why there is no figure.
"""

import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

_ENERGY_EVERY_S = 15.0
"""Reading the counters costs some milliseconds, so it is not done at every logging step."""


class Meter:
    """Adds up what the sessions of one run cost.

    Args:
        before: `totals()` of the run's earlier sessions; empty for a new run.
    """

    def __init__(self, before: Mapping[str, Any]) -> None:
        self._before = before
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._energy = _Energy()
        _reset_peak()

    def totals(self) -> dict[str, Any]:
        """Wall and CPU seconds, kWh and kg of CO2 equivalents (None with a reason), peak memory in bytes."""
        kwh, co2e = self._energy.read()
        mine = {
            "wall_s": time.perf_counter() - self._wall,
            "cpu_s": time.process_time() - self._cpu,
            "energy_kwh": kwh,
            "co2e_kg": co2e,
        }
        total: dict[str, Any] = {name: _add(self._before.get(name, 0.0), value) for name, value in mine.items()}
        missing = self._energy.missing or self._before.get("energy_missing")
        if total["energy_kwh"] is None:
            total["energy_missing"] = missing or "codecarbon gave no reading"
        total["sessions"] = self._before.get("sessions", 0) + 1
        for name, value in _peaks().items():
            total[name] = max(value, self._before.get(name, 0))
        return total

    def stop(self) -> None:
        """End the measuring of energy; the totals keep their last reading."""
        self._energy.stop()


def _add(before: float | None, more: float | None) -> float | None:
    """A sum with an unknown part is unknown."""
    return None if before is None or more is None else before + more


class _Energy:
    """Codecarbon's reading so far, if it is installed."""

    def __init__(self) -> None:
        self.missing: str | None = None
        self._tracker: Any = None
        self._reading: tuple[float | None, float | None] = (None, None)
        self._read_at = -_ENERGY_EVERY_S
        if find_spec("codecarbon") is None:
            self.missing = "codecarbon is not installed"
            return
        try:
            from codecarbon import EmissionsTracker

            self._tracker = EmissionsTracker(
                save_to_file=False, log_level="error", allow_multiple_runs=True, output_handlers=[self]
            )
            self._tracker.start()
        except Exception as error:  # another package's measuring must never stop a run
            self._give_up(error)

    def read(self) -> tuple[float | None, float | None]:
        if self._tracker is not None and time.perf_counter() - self._read_at >= _ENERGY_EVERY_S:
            self._take(self._tracker.flush)
        return self._reading

    def stop(self) -> None:
        if self._tracker is not None:
            self._take(self._tracker.stop)
            self._tracker = None

    def out(self, total: Any, delta: Any) -> None:
        """Receive the totals so far; with the next two, the methods of codecarbon's `BaseOutput`."""
        self._reading = float(total.energy_consumed), float(total.emissions)

    def live_out(self, total: Any, delta: Any) -> None:
        """Measurements between our readings are not needed."""

    def task_out(self, data: Any, experiment_name: str) -> None:
        """We have no tasks."""

    def _take(self, measure: Callable[[], object]) -> None:
        """Have the tracker call `out`."""
        try:
            measure()
            self._read_at = time.perf_counter()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.missing = f"codecarbon failed: {' '.join(str(error).split()) or type(error).__name__}"
        self._tracker = None


def _reset_peak() -> None:
    """Forget earlier peaks of this process, where the system can: a sweep trains many models in one process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: the peak is then the process's
        return


def _peaks() -> dict[str, int]:
    """Most resident memory of the process, and most memory allocated on its GPU, in bytes."""
    peaks = {"peak_memory_bytes": _resident_peak()}
    if torch.cuda.is_available():
        peaks["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
    return peaks


def _resident_peak() -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return _peak_elsewhere()


def _peak_elsewhere() -> int:
    """Where there is no /proc: macOS and Windows, which lacks `resource`."""
    try:
        import resource
    except ModuleNotFoundError:
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
