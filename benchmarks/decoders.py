"""How fast do decoder reward models score and train on one core, beside their peers, and what do shared prompts give?

Makes an environment for the peers and the model folders (under build/bench, on first use; `make weights` first), gives
every library a process pinned to one core, holds every exact variant against transformers scoring one unpadded row at a
time, and then asks them in turn: rounds are interleaved, in rotating order, and only one process runs at a time, the
others are stopped. Rows are real replies in arrival order. Seconds are CPU seconds of the process, and a pass is
everything from token ids to scores. Peers are tuned on the very rows; what was found is kept between runs. Training
runs each library's own loop, as in train.py, after its first gradient was held against that of one padded batch.

    python benchmarks/decoders.py               # about 25 minutes on a quiet machine
    python benchmarks/decoders.py --quick       # one round on the first rows, no figures to keep
    python benchmarks/decoders.py --models smollm2 --data hh k4 --rounds 3 --skip-training
    python benchmarks/decoders.py --report build/bench/decoders.json   # the tables of a record
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from common import say
from decoders_data import DATA, MAX_LENGTH, TRAIN_DATA, Chosen, choose, limit_shapes, make_model
from decoders_report import EXACT, LANES, Measured, Result, is_exact, report
from decoders_worker import OWN_BUDGETS, PEERS, SORTED_BUDGETS, VARIANTS
from peers import Failed, Worker, make_environment, offline
from score_models import write_rows
from score_report import machine
from score_worker import CARD_ROWS, Rows, sorted_batches
from train import SETTINGS, Task, measure_task, others_share
from train_data import Model
from train_report import QUIET, TaskResult

from prefrank.text import TextEncoder

REPOSITORY = Path(__file__).resolve().parents[1]
REQUIREMENTS = Path(__file__).with_name("decoder-requirements")
MODELS = {"smollm2": tuple(DATA), "qwen3": ("hh", "k4")}
"""The data each model scores by default."""
ROUNDS = 5
FEWER_ROUNDS = {"oasst": 3, "alpaca": 3}
"""Of data that is measured beside the others, to end in time."""
TRAIN_ROUNDS = 3
TRAINING = {"hh": Task("hh", "", per_step=4, steps=1), "k4": Task("k4", "", per_step=1, steps=1)}
"""Groups of a step, and steps of a round."""
TRAINERS = ["trl", "plain", "ours"]
CHECKED_ROWS, CHECKED_TOKENS = 4, 1600
"""Of the first rows of each data set, on which variants warm up and are held against the reference."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("PREFRANK_SHARED_DATA", REPOSITORY.parent / "shared/data"))
    parser.add_argument("--source", type=Path, default=shared, help="folder of hh-rlhf, finegrained-rlhf and so on")
    parser.add_argument("--bases", type=Path, default=REPOSITORY / "runs/bases", help="what `make weights` wrote")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--data", nargs="+", choices=DATA, help="default: all for SmolLM2, HH and K = 4 for Qwen3")
    parser.add_argument("--lanes", nargs="+", choices=LANES, default=list(LANES), help="default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--core", type=int, default=max(os.sched_getaffinity(0)), help="that every process is pinned to"
    )
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "build/bench")
    parser.add_argument(
        "--tune", action="store_true", help="tune the peers again; else settings found earlier are kept"
    )
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=TRAINERS, help="default: all")
    parser.add_argument("--train-model", choices=MODELS, default="qwen3")
    parser.add_argument("--skip-training", action="store_true")
    parser.add_argument("--skip-scoring", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one round on the first rows of HH and K = 4")
    parser.add_argument("--report", type=Path, metavar="JSON", help="report the record of an earlier run again")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.data = 1, options.data or ["hh", "k4"]
    return options


def log_of(options: argparse.Namespace, *names: str) -> Path:
    return options.cache / "logs" / f"{'-'.join(names)}.log"


def command(python: Path, variant: str, model: Model, core: int) -> list[str | Path]:
    program = Path(__file__).with_name("decoders_worker.py")
    return [python, program, "--variant", variant, "--folder", model.texts, "--core", str(core)]


def export(python: Path, model: Model, rows: Path, options: argparse.Namespace) -> str | None:
    """The file for ONNX Runtime; the reason where there is none."""
    words = [*command(python, "export", model, options.core), "--rows", rows]
    log = log_of(options, model.name, "export")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        outcome = subprocess.run(words, stdout=output, stderr=output, env=offline(1), check=False)
    reason = model.texts / "onnx/model.reason"
    if reason.exists():
        return f"cannot be exported: {reason.read_text(encoding='utf-8')}"
    return f"cannot be exported: see {log}" if outcome.returncode else None


def start(
    model: Model, rows: Path, pythons: dict[str, Path | str], options: argparse.Namespace, stack: ExitStack,
    skipped: dict[str, str],
) -> dict[str, Worker]:  # fmt: skip
    """A process for every library that a lane needs, and why there is none for the others."""
    workers: dict[str, Worker] = {}
    for name in dict.fromkeys(["transformers", *(LANES[lane].variant for lane in options.lanes)]):
        python = pythons[VARIANTS[name].environment]
        try:
            if isinstance(python, str):
                raise Failed(python)
            if name == "onnxruntime" and (reason := export(python, model, rows, options)):
                raise Failed(reason)
            words = command(python, name, model, options.core)
            workers[name] = Worker(name, words, log_of(options, model.name, name), offline(1))
        except Failed as failure:
            skipped |= {lane: str(failure) for lane in options.lanes if LANES[lane].variant == name}
            continue
        stack.callback(workers[name].close)
    if "transformers" not in workers:
        raise Failed(f"transformers cannot run, which scores are held against: {list(skipped.values())[:1]}")
    return workers


class Budgets:
    """The fastest budget of every peer on some rows, kept in a file between runs."""

    def __init__(self, path: Path, again: bool) -> None:
        self.path, self.again = path, again
        self.known: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def find(self, lane: str, worker: Worker, model: Model, path: Path) -> int:
        """A budget; larger ones than one that is a tenth slower, or that make the same batches, are not tried."""
        if lane == "card":
            return CARD_ROWS
        own, rows = lane.startswith("ours"), Rows.read(str(path))
        key = f"{model.folder.name} {path.stem} {hashlib.sha256(rows.ids.tobytes()).hexdigest()[:8]} {lane}"
        if key not in self.known or self.again or own:
            seconds: dict[int, float] = {}
            tried: list[list[list[int]]] = []
            for budget in OWN_BUDGETS if own else (1, *SORTED_BUDGETS):
                plan = [batch.tolist() for batch in sorted_batches(rows.lengths, budget)]
                if plan in tried and not own:
                    continue
                tried.append(plan)
                seconds[budget] = worker.ask(rows=str(path), choice=LANES[lane].choice, budget=budget)["cpu_s"]
                if seconds[budget] > 1.1 * min(seconds.values()):
                    break
            self.known[key] = min(seconds, key=lambda budget: seconds[budget])
            self.path.write_text(json.dumps(self.known, indent=1), encoding="utf-8")
        return self.known[key]


def one_at_a_time(worker: Worker, rows: Path) -> list[float]:
    """transformers' scores of unpadded rows."""
    return worker.ask(rows=str(rows), choice="sorted", budget=1)["scores"]


def prepare(
    model: Model, name: str, chosen: Chosen, workers: dict[str, Worker], skipped: dict[str, str],
    options: argparse.Namespace,
) -> tuple[Result, Path]:  # fmt: skip
    """Warm up, hold all lanes against the reference, and find budgets, before anything is timed."""
    say(f"{model.title}: {DATA[name].title}")
    path, few = (options.cache / "rows" / f"{model.name}-{name}{part}.npz" for part in ("", "-first"))
    write_rows(chosen.rows, path)
    most = int(np.searchsorted(np.cumsum([len(row.ids) for row in chosen.rows]), CHECKED_TOKENS, side="right"))
    first = chosen.rows[: max(1, min(CHECKED_ROWS, most))]
    write_rows(first, few)
    reference = one_at_a_time(workers["transformers"], few)
    result = Result.of(model, name, chosen, dict(skipped))
    for lane in [lane for lane in options.lanes if lane not in skipped]:
        worker = workers[LANES[lane].variant]
        try:
            answer = worker.ask(rows=str(few), choice=LANES[lane].choice, budget=MAX_LENGTH)
        except Failed as failure:
            result.skipped[lane] = str(failure)
            continue
        apart = float(np.abs(np.subtract(answer["scores"], reference)).max())
        say(f"  {LANES[lane].label}: differs by {apart:.1e} on the first {len(first)} rows")
        if is_exact(lane) and not apart <= EXACT:
            result.skipped[lane] = f"computes other scores: they differ by {apart:.1e}"
            continue
        result.measured[lane] = Measured(budget=0, versions=worker.first["versions"])
    result.reference = one_at_a_time(workers["transformers"], path)
    budgets = Budgets(options.cache / "decoders-tuned.json", options.tune)
    for lane, measured in result.measured.items():
        if LANES[lane].tuned_by in (None, lane) or LANES[lane].tuned_by not in result.measured:
            measured.budget = budgets.find(lane, workers[LANES[lane].variant], model, path)
    for lane, measured in result.measured.items():
        measured.budget = measured.budget or result.measured[LANES[lane].tuned_by or lane].budget
    return result, path


def one_round(number: int, path: Path, workers: dict[str, Worker], result: Result) -> None:
    """Every lane once, each round beginning with another."""
    names = list(result.measured)
    turn = number % max(1, len(names))
    for lane in [*names[turn:], *names[:turn]]:
        measured = result.measured[lane]
        request = {"rows": str(path), "choice": LANES[lane].choice, "budget": measured.budget}
        try:
            answer = workers[LANES[lane].variant].ask(**request)
        except Failed as failure:
            result.skipped[lane] = f"failed in round {number + 1}: {failure}"
            del result.measured[lane]
            continue
        measured.cpu_s.append(answer["cpu_s"])
        measured.wall_s.append(answer["wall_s"])
        measured.peak_mb = max(measured.peak_mb, answer["peak_mb"])
        measured.scores = answer["scores"]


def measure_model(
    model: Model, names: list[str], options: argparse.Namespace, pythons: dict[str, Path | str]
) -> list[Result]:
    """All data sets of a model: first everything is prepared, then the rounds go over all of them."""
    encoder = TextEncoder.load(model.texts, max_length=MAX_LENGTH)
    skipped: dict[str, str] = {}
    prepared: list[tuple[Result, Path]] = []
    with ExitStack() as stack:
        chosen = {name: choose(DATA[name], options.source, encoder, quick=options.quick) for name in names}
        example = options.cache / "rows" / f"{model.name}-example.npz"
        write_rows(chosen[names[0]].rows[:2], example)
        workers = start(model, example, pythons, options, stack, skipped)
        for name in names:
            prepared.append(prepare(model, name, chosen[name], workers, skipped, options))
        for number in range(options.rounds):
            begun, others = time.perf_counter(), others_share()
            if others > QUIET:
                say(f"  other processes take {100 * others:.0f} % of the machine: figures will be off")
            ours = (worker for name, worker in workers.items() if VARIANTS[name].environment == "own")
            rates = next(ours, workers["transformers"]).ask(shapes=limit_shapes(model))["rates"]
            for result, path in prepared:
                if number >= FEWER_ROUNDS.get(result.data, options.rounds):
                    continue
                result.others.append(others)
                result.rates.append(rates)
                one_round(number, path, workers, result)
            say(f"  round {number + 1}: {time.perf_counter() - begun:.0f} s")
    return [result for result, _ in prepared]


def train_all(options: argparse.Namespace, pythons: dict[str, Path | str]) -> list[TaskResult]:
    model = make_model(options.train_model, options.bases, options.cache / "models")
    parts = argparse.Namespace(
        per_step=1 if options.quick else None, steps=None, rounds=min(options.rounds, TRAIN_ROUNDS),
        cache=options.cache, data=options.source, contenders=options.trainers, cores=[options.core],
    )  # fmt: skip
    own = {"train-peers": pythons[PEERS], "own": pythons["own"]}
    settings = SETTINGS | {"max_length": MAX_LENGTH}
    names = [name for name in TRAINING if name in (options.data or TRAINING)]
    return [
        measure_task(
            f"decoders-{name}", TRAINING[name], TRAIN_DATA[name], model, parts, own, most_held_out=0, settings=settings
        )
        for name in names
    ]


def main() -> None:
    options = arguments()
    options.cache = options.cache.resolve()
    if options.report:
        record = json.loads(options.report.read_text(encoding="utf-8"))
        results = [Result.from_json(result) for result in record["results"]]
        report(results, [TaskResult.from_json(task) for task in record["training"]], record["machine"])
        return
    if not (options.bases / "smollm2/config.json").exists():
        raise Failed(f"there is no {options.bases / 'smollm2'}; run: make weights")
    pythons = {name: make_environment(name, REQUIREMENTS, options.cache) for name in ("own", PEERS)}
    begun = time.perf_counter()
    results: list[Result] = []
    for name in [] if options.skip_scoring else options.models:
        model = make_model(name, options.bases, options.cache / "models")
        results += measure_model(model, list(options.data or MODELS[name]), options, pythons)
    training = [] if options.skip_training else train_all(options, pythons)
    say(f"measured in {(time.perf_counter() - begun) / 60:.1f} minutes")
    words = " ".join(["python benchmarks/decoders.py", *sys.argv[1:]])
    record = {
        "command": words,
        "machine": machine(),
        "results": [result.to_json() for result in results],
        "training": [task.to_json() for task in training],
    }
    (options.cache / "decoders.json").write_text(json.dumps(record), encoding="utf-8")
    report(results, training, record["machine"])


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(str(failure))
