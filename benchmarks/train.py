"""How fast, and in how much memory, does each library train a reward model, for the same updates of the weights?

Makes an environment for the peers and the models' folders (under build/bench, on first use). Every contender gets the
same token ids, the same comparisons in each optimizer step, the same initial weights, AdamW, schedule and clipping, and
trains once through its own loop, in a process of its own pinned to the same cores. The loops stop every few steps:
rounds are interleaved, in rotating order, and only one process runs at a time, the others are stopped. Before anything
is timed, the gradient of the first step is held against that of one padded batch in transformers; afterwards the losses
of all steps are, and the final weights are scored on held-out comparisons by prefrank. A whole run rewrites the figures
of docs/performance.md.

    python benchmarks/train.py
    python benchmarks/train.py --quick                   # under three minutes, no figures to keep
    python benchmarks/train.py --tasks minilm-hh --contenders trl plain ours --rounds 5
    python benchmarks/train.py --report build/bench/train.json   # tables and page from a record
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import say
from peers import Failed, Worker, make_environment, offline
from score_report import machine
from train_data import DATA, Data, Made, Model, make_model, make_task
from train_report import GRADIENT, QUIET, REFERENCE, HeldOut, Measured, Stretch, TaskResult, report
from train_worker import CONTENDERS

from prefrank.evaluation import evaluate
from prefrank.scoring import RewardModel
from prefrank.types import Comparison

REPOSITORY = Path(__file__).resolve().parents[1]
REQUIREMENTS = Path(__file__).with_name("train-requirements")
SETTINGS = {"learning_rate": 1e-4, "weight_decay": 0.01, "adam_epsilon": 1e-8, "max_grad_norm": 1.0}
"""Of AdamW, whose other settings are everybody's default; linear to 0 without warm-up."""
ROUNDS = 3
HELD_OUT = 300
"""Most comparisons that the final weights are scored on."""
QUICK_STEP, QUICK_HELD_OUT = 4, 40
"""Groups of a step in a quick run, and held-out comparisons."""


@dataclass(frozen=True, slots=True)
class Task:
    """Some data and a model.

    Args:
        per_step: groups of an optimizer step.
        steps: of a round.
        left_out: contenders that a whole run measures on other tasks alone, to end in time.
    """

    data: str
    model: str
    per_step: int
    steps: int
    left_out: tuple[str, ...] = ()


ELSEWHERE = ("trl_accumulating", "trl_checkpointing")
TASKS = {
    "minilm-hh": Task("hh", "minilm", 16, 2),
    "minilm-finegrained": Task("finegrained", "minilm", 16, 2),
    "minilm-oasst": Task("oasst", "minilm", 8, 2, ELSEWHERE),
    "deberta-hh": Task("hh", "deberta", 8, 2, ELSEWHERE),
    "deberta-finegrained": Task("finegrained", "deberta", 8, 2, ELSEWHERE),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=default_data(), help="folder of hh-rlhf, finegrained-rlhf and so on"
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, help="default: all")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, help="default: all, the slowest on MiniLM alone")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, help="optimiser steps of a round; default: each task's own")
    parser.add_argument("--per-step", type=int, help="groups of an optimizer step; default: each task's own")
    parser.add_argument("--cores", type=int, nargs="+", default=sorted(os.sched_getaffinity(0)), help="default: all")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "build/bench")
    parser.add_argument("--quick", action="store_true", help="two tasks, one round of one small step")
    parser.add_argument("--report", type=Path, metavar="JSON", help="report the record of an earlier run again")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs", help="folder of performance.md")
    options = parser.parse_args()
    options.whole = not (options.tasks or options.contenders or options.steps or options.per_step or options.quick)
    options.whole = options.whole and options.rounds >= ROUNDS
    if options.quick:
        options.tasks = options.tasks or ["minilm-hh", "minilm-finegrained"]
        options.contenders = options.contenders or ["trl", "sentence_transformers", "plain", "ours"]
        options.rounds, options.steps, options.per_step = 1, 1, QUICK_STEP
    return options


def default_data() -> Path:
    return Path(os.environ.get("PREFRANK_SHARED_DATA", REPOSITORY.parent / "shared/data"))


def contenders_of(task: Task, options: argparse.Namespace) -> list[str]:
    return options.contenders or [name for name in CONTENDERS if name not in task.left_out]


def others_share(seconds: float = 0.5) -> float:
    """Share of the machine's time that is not idle while none of our processes runs."""

    def ticks() -> np.ndarray:
        first = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0]
        return np.array(first.split()[1:9], np.int64)

    before = ticks()
    time.sleep(seconds)
    spent = ticks() - before
    idle = spent[3] + spent[4]  # waiting for a disk is idle too
    return float(1 - idle / max(1, spent.sum()))


def command(python: Path, contender: str, model: Model, task: Path, cores: Sequence[int]) -> list[str | Path]:
    folder = model.texts if CONTENDERS[contender].environment == "own" else model.words
    program = Path(__file__).with_name("train_worker.py")
    words: list[str | Path] = [python, program, "--contender", contender, "--folder", folder, "--task", task]
    return [*words, "--output", task / contender, "--cores", *map(str, cores)]


def start(
    names: Sequence[str], model: Model, made: Made, pythons: dict[str, Path | str], options: argparse.Namespace,
    stack: ExitStack, result: TaskResult,
) -> dict[str, Worker]:  # fmt: skip
    """A process for every contender that can be started, waiting before its first step."""
    workers: dict[str, Worker] = {}
    for name in names:
        python = pythons[CONTENDERS[name].environment]
        if isinstance(python, str):
            result.skipped[name] = python
            continue
        words = command(python, name, model, made.folder, options.cores)
        log = options.cache / "logs" / f"train-{result.name}-{name}.log"
        try:
            workers[name] = worker = Worker(name, words, log, offline(len(options.cores)))
        except Failed as failure:
            result.skipped[name] = str(failure)
            continue
        stack.callback(worker.close)
        result.measured[name] = Measured(base_mb=worker.first["base_mb"])
    return workers


def ask(name: str, workers: dict[str, Worker], result: TaskResult) -> dict[str, Any] | None:
    """A contender's next stretch; one that fails is left out from then on."""
    try:
        return workers[name].ask()
    except Failed as failure:
        leave_out(name, str(failure), workers, result)
        return None


def leave_out(name: str, reason: str, workers: dict[str, Worker], result: TaskResult) -> None:
    say(f"  {CONTENDERS[name].label}: {reason}")
    result.skipped[name] = reason
    workers.pop(name).close()
    del result.measured[name]


def warm_up(workers: dict[str, Worker], result: TaskResult) -> None:
    """The first step, then hold every gradient against the reference's."""
    for name in list(workers):
        answer = ask(name, workers, result)
        if answer:
            result.measured[name].warm_up = Stretch(**answer)


def check_gradients(workers: dict[str, Worker], folder: Path, result: TaskResult) -> None:
    """Leave out whoever computed another gradient than one padded batch in transformers.

    Raises:
        Failed: there is no reference to hold gradients against.
    """
    if REFERENCE not in workers:
        raise Failed(f"the {CONTENDERS[REFERENCE].label} failed, whose gradient the others are held against")
    with np.load(folder / REFERENCE / "gradient.npz") as reference:
        for name in list(workers):
            with np.load(folder / name / "gradient.npz") as gradient:
                gap = relative_difference(reference, gradient, CONTENDERS[name].factor)
            result.measured[name].gradient = gap
            say(f"  {CONTENDERS[name].label}: gradient of the first step differs by {gap:.1e}")
            if not gap <= GRADIENT:
                leave_out(name, f"computes another gradient: it differs by {gap:.1e}", workers, result)


def relative_difference(reference: Any, gradient: Any, factor: float) -> float:
    """The 2-norm of `gradient / factor - reference` over that of the reference; a parameter without one counts as 0."""
    apart = size = 0.0
    for name in reference:
        wanted = reference[name].astype(np.float64)
        scaled = gradient[name].astype(np.float64) / factor if name in gradient else np.zeros_like(wanted)
        apart += float(np.square(scaled - wanted).sum())
        size += float(np.square(wanted).sum())
    return (apart / size) ** 0.5


def one_round(number: int, workers: dict[str, Worker], result: TaskResult) -> None:
    """Every contender's next stretch, each round beginning with another."""
    begun, names = time.perf_counter(), list(workers)
    result.others.append(others_share())
    if result.others[-1] > QUIET:
        say(f"  other processes take {100 * result.others[-1]:.0f} % of the machine: figures will be off")
    turn = number % max(1, len(names))
    for name in [*names[turn:], *names[:turn]]:
        answer = ask(name, workers, result)
        if answer:
            result.measured[name].stretches.append(Stretch(**answer))
            if CONTENDERS[name].once:
                workers.pop(name).close()
    say(f"  round {number + 1}: {time.perf_counter() - begun:.0f} s")


def finish_task(workers: dict[str, Worker], model: Model, made: Made, result: TaskResult) -> None:
    """Let everyone write its weights, and score them on the held-out comparisons."""
    for name in list(workers):
        answer = ask(name, workers, result)
        if answer:
            workers.pop(name).close()
            measured = result.measured[name]
            measured.versions = answer["versions"]
            if made.held_out:
                measured.held_out = held_out(model, made.folder / name, made.held_out)
                say(f"  {CONTENDERS[name].label}: held-out log loss {measured.held_out.log_loss:.4f}")


def held_out(model: Model, folder: Path, comparisons: Sequence[Comparison]) -> HeldOut:
    """What prefrank's evaluator says of the weights in a contender's folder."""
    final = folder / "final"
    shutil.copytree(model.texts, final, dirs_exist_ok=True)
    shutil.copyfile(folder / "model.safetensors", final / "model.safetensors")
    log_loss = evaluate(RewardModel.load(final).score_pairs, list(comparisons), name="held out").overall.log_loss
    assert None not in (log_loss.value, log_loss.low, log_loss.high)
    return HeldOut(log_loss.value, log_loss.low, log_loss.high, log_loss.n)


def measure_task(
    name: str, task: Task, data: Data, model: Model, options: argparse.Namespace, pythons: dict[str, Path | str],
    *, most_held_out: int, settings: Mapping[str, float] = SETTINGS,
) -> TaskResult:  # fmt: skip
    """Start, warm up, check the gradients, then the rounds, then the held-out comparisons if there are to be any."""
    per_step, steps = options.per_step or task.per_step, options.steps or task.steps
    stops = [1 + steps * n for n in range(options.rounds + 1)]
    folder = options.cache / "train" / name
    shutil.rmtree(folder, ignore_errors=True)
    made = make_task(
        data, model, options.data, folder, per_step=per_step, stops=stops, settings=settings,
        held_out=most_held_out,
    )  # fmt: skip
    result = TaskResult(
        name=name,
        title=f"{data.title}, {model.title}",
        per_step=per_step,
        group_size=made.group_size,
        lengths=made.lengths,
        pairs=made.per_stretch(made.pairs),
        distinct_tokens=made.per_stretch(made.tokens),
        others=[],
        measured={},
        skipped={},
    )
    say(result.title)
    with ExitStack() as stack:
        workers = start(contenders_of(task, options), model, made, pythons, options, stack, result)
        warm_up(workers, result)
        check_gradients(workers, folder, result)
        for number in range(options.rounds):
            one_round(number, workers, result)
        finish_task(workers, model, made, result)
    return result


def main() -> None:
    options = arguments()
    options.cache = options.cache.resolve()
    if options.report:
        record = json.loads(options.report.read_text(encoding="utf-8"))
        results = [TaskResult.from_json(task) for task in record["tasks"]]
        report(results, record["machine"], record["command"], record["cores"], options.output)
        return
    names = options.tasks or list(TASKS)
    wanted = {CONTENDERS[who].environment for name in names for who in contenders_of(TASKS[name], options)}
    pythons = {name: make_environment(name, REQUIREMENTS, options.cache) for name in wanted}
    begun = time.perf_counter()
    words = " ".join(["python benchmarks/train.py", *sys.argv[1:]])
    record: dict[str, Any] = {"command": words, "machine": machine(), "cores": options.cores, "tasks": []}
    results, path = [], options.cache / ("train.json" if options.whole else "train-part.json")
    for name in names:
        task = TASKS[name]
        model = make_model(task.model, options.cache / "models")
        most_held_out = QUICK_HELD_OUT if options.quick else HELD_OUT
        results.append(measure_task(name, task, DATA[task.data], model, options, pythons, most_held_out=most_held_out))
        record["tasks"].append(results[-1].to_json())
        path.write_text(json.dumps(record), encoding="utf-8")
    say(f"measured in {(time.perf_counter() - begun) / 60:.1f} minutes")
    report(results, record["machine"], words, options.cores, options.output if options.whole else None)


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(str(failure))
