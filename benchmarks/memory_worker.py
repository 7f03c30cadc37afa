"""The measured half of `memory.py`: one task in a process that imports no more than a scorer does.

python benchmarks/memory_worker.py first_score FOLDER
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefrank import RewardModel
from prefrank.model import atomic_folder
from prefrank.model.checkpoint import load_quantised
from prefrank.model.save import write_checkpoint
from prefrank.text import TextEncoder


def make_quantised(source: str, target: str, precision: str) -> dict[str, Any]:
    """The folder of `prefrank quantise`, without the comparison of scores."""
    start = time.perf_counter()
    with atomic_folder(Path(target)) as folder:
        write_checkpoint(folder, load_quantised(Path(source), precision), TextEncoder.load(Path(source)), None)
    return {"seconds": time.perf_counter() - start, "peak_bytes": peak_bytes()}


def measure(folder: str, precision: str, kernels: str, pairs_file: str) -> dict[str, Any]:
    """Load and score, in a process that has done nothing else."""
    pairs = [(prompt, reply) for prompt, reply in json.loads(Path(pairs_file).read_text())]
    imported = peak_bytes()
    start, cpu = time.perf_counter(), time.process_time()
    model = RewardModel.load(folder, precision=precision, kernels=kernels, device="cpu")
    load_s, load_cpu_s, loaded = time.perf_counter() - start, time.process_time() - cpu, peak_bytes()
    start, cpu = time.perf_counter(), time.process_time()
    scores = model.score_pairs(pairs)
    return {
        "imported_bytes": imported,
        "load_s": load_s,
        "load_cpu_s": load_cpu_s,
        "loaded_bytes": loaded,
        "peak_bytes": peak_bytes(),
        "anonymous_bytes": status("RssAnon"),  # not of a file: what it takes beside the mapped weights
        "rows": len(pairs),
        "tokens": sum(score.tokens for score in scores),
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - start,
        "scores": [score.value for score in scores],
    }


def first_score(folder: str) -> dict[str, Any]:
    """Seconds from a folder to a score; everything is imported already."""
    start = time.perf_counter()
    model = RewardModel.load(folder, device="cpu")
    loaded = time.perf_counter()
    model.score("What is yeast?", ["A fungus."])
    return {"load_s": loaded - start, "seconds": time.perf_counter() - start}


def peak_bytes() -> int:
    """Peak resident memory of this process so far."""
    return status("VmHWM")


def status(name: str) -> int:
    """One of the kernel's counts of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "quantise": make_quantised,
    "measure": measure,
    "first_score": first_score,
}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])))
