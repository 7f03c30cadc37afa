"""How fast does each way of scoring run on one core, how exact is it, and how near is the machine's limit?

Makes an environment for each peer and the model folders (under build/bench, on first use), gives every variant a
process pinned to one core, tunes each on a part of the rows, then asks them in turn: rounds are interleaved, in
rotating order, and only one process runs at a time, the others are stopped. Rows are real comparisons in arrival order.
Seconds are CPU seconds of the process. A whole run rewrites the figures of docs/performance.md.

    python benchmarks/score.py
    python benchmarks/score.py --trained runs/minilm-hh
    python benchmarks/score.py --models minilm --variants card onnxruntime ours_float32 --rounds 3
    python benchmarks/score.py --sweep          # does the cost grow with tokens only?
    python benchmarks/score.py --report build/bench/score.json   # tables, plot and page from a record
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common import finish, say, show
from peers import Failed, Worker, make_environment, offline
from score_models import Model, make_models, many, multiply_adds, of_length, read_rows, spread_blocks, write_rows
from score_report import Measured, ModelResult, machine, report
from score_worker import VARIANTS, Rows, one_line

REPOSITORY = Path(__file__).resolve().parents[1]
REQUIREMENTS = Path(__file__).with_name("score-requirements")
MODELS = {"v3-base": 32, "xxlarge-cut": 16, "minilm": 48, "trained": 48}
"""Rows each model scores by default."""
ELSEWHERE = (
    "torch_compile", "zentorch", "cross_encoder", "infinity", "torch_bfloat16", "torch_int8", "onnxruntime_blocks",
    "openvino_int8", "openvino_weights", "ours_autograd",
)  # fmt: skip
LEFT_OUT = {"xxlarge-cut": ELSEWHERE, "trained": ELSEWHERE}
"""What a whole run measures on the other model of the family alone, to end within the hour."""
CURVE_MODELS = ("v3-base", "minilm")
CURVE_LENGTHS = (16, 32, 64, 128, 256, 512)
CURVE_TOKENS = 1024
TUNING_ROWS = 8
CALIBRATION_ROWS = 48
SWEEP_ROWS = {100: 9, 1_000: 7, 10_000: 3, 100_000: 1}
"""Rows of the sweep, and passes over them."""
SWEEP_VARIANTS = ("ours_float32", "ours_int16")
COMPILERS = ("torch_compile", "zentorch")
MEMORY_LEFT_MB = 2_500


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    variants = [name for name in VARIANTS if name != "rate"]
    parser.add_argument("--data", type=Path, default=default_data(), help="HH folder")
    parser.add_argument("--models", nargs="+", choices=MODELS, help="default: all, `trained` where --trained is given")
    parser.add_argument("--trained", type=Path, help="folder of a model trained on HH")
    parser.add_argument("--variants", nargs="+", choices=variants, help="default: all, some on one model of a family")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, help=f"rows of each model; default {MODELS}")
    parser.add_argument("--core", type=int, default=1, help="the core that every variant is pinned to")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "build/bench")
    parser.add_argument("--tune", action="store_true", help="tune again; else settings found earlier are kept")
    parser.add_argument("--no-curve", action="store_true", help="leave out the curve against row length")
    parser.add_argument("--sweep", action="store_true", help="only ours, from 100 to 100,000 rows")
    parser.add_argument(
        "--report", type=Path, nargs="+", metavar="JSON", help="report the records of earlier runs again, together"
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs", help="folder of performance.md and images")
    options = parser.parse_args()
    options.whole = not options.variants and not options.models and options.rounds >= 5
    options.variants = options.variants or (SWEEP_VARIANTS if options.sweep else variants)
    return options


def default_data() -> Path:
    return Path(os.environ.get("PREFRANK_SHARED_DATA", REPOSITORY.parent / "shared/data")) / "hh-rlhf"


def one_core(cache: Path) -> dict[str, str]:
    """The environment variables of a process that computes on one thread and fetches nothing."""
    places = {"TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"), "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    return offline(threads=1) | places


def command(python: Path, variant: str, folder: Path, core: int) -> list[str]:
    program = str(Path(__file__).with_name("score_worker.py"))
    return [str(python), program, "--variant", variant, "--folder", str(folder), "--core", str(core)]


def start_worker(python: Path, variant: str, model: Model, options: argparse.Namespace) -> Worker:
    log = options.cache / "logs" / f"{model.name}-{variant}.log"
    return Worker(variant, command(python, variant, model.folder, options.core), log, one_core(options.cache))


def export(python: Path, model: Model, calibration: Path, options: argparse.Namespace) -> str | None:
    """The files for ONNX Runtime and OpenVINO; the reason where there are none."""
    words = [*command(python, "export", model.folder, options.core), "--calibration", str(calibration)]
    log = options.cache / "logs" / f"{model.name}-export.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        code = subprocess.run(words, stdout=output, stderr=output, env=one_core(options.cache), check=False).returncode
    lines = log.read_text(encoding="utf-8").strip().splitlines()
    return f"cannot be exported: {lines[-1][:200] if lines else code}" if code else None


class Tuned:
    """The fastest setting of each variant and model, kept in a file between runs."""

    def __init__(self, path: Path, again: bool) -> None:
        self.path, self.again = path, again
        self.settings: dict[str, list[Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def find(self, worker: Worker, model: Model, rows: Path) -> tuple[str, int]:
        """The setting; whatever it was known before, a pass over some rows warms up, and compiles what compiles.

        Raises:
            Failed: no setting works.
        """
        key = f"{model.folder.name} {worker.name}"
        if key in self.settings and not self.again:
            choice, budget = self.settings[key]
            worker.ask(rows=str(rows), choice=choice, budget=budget)
        else:
            choice, budget = tune(worker, rows)
            self.settings[key] = [choice, budget]
            self.path.write_text(json.dumps(self.settings, indent=1), encoding="utf-8")
        return choice, budget


def tune(worker: Worker, rows: Path) -> tuple[str, int]:
    """The fastest (choice, budget) on some rows. Of a choice, budgets beyond one that is a tenth slower are not tried.

    Raises:
        Failed: no setting works.
    """
    settings = VARIANTS[worker.name].settings
    seconds: dict[tuple[str, int], float] = {}
    reasons: list[str] = []
    for choice in dict.fromkeys(choice for choice, _ in settings):
        best = math.inf
        for number, budget in enumerate(budget for name, budget in settings if name == choice):
            request = {"rows": str(rows), "choice": choice, "budget": budget}
            try:
                if number == 0 or worker.name in COMPILERS:
                    worker.ask(**request)
                taken = worker.ask(**request)["cpu_s"] if len(settings) > 1 else 0.0
            except Failed as failure:
                reasons.append(str(failure))
                break
            seconds[choice, budget] = taken
            if taken > 1.1 * best:
                break
            best = min(best, taken)
    if not seconds:
        raise Failed(reasons[0])
    return min(seconds, key=lambda setting: seconds[setting])


def memory_left_mb() -> float:
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) / 1024


def start(
    model: Model, tuning: Path, exported: str | None, pythons: dict[str, Path | str], options: argparse.Namespace,
    stack: ExitStack,
) -> tuple[dict[str, Worker], dict[str, Measured], dict[str, str]]:  # fmt: skip
    """A tuned process for every variant that runs this model, and the reasons of those that do not."""
    workers: dict[str, Worker] = {}
    measured: dict[str, Measured] = {}
    skipped: dict[str, str] = {}
    family = model.config["model_type"]
    tuned = Tuned(options.cache / "tuned.json", options.tune)
    for name in options.variants:
        variant = VARIANTS[name]
        if family not in variant.families:
            continue
        if options.whole and name in LEFT_OUT.get(model.name, ()):
            skipped[name] = f"left to {'DeBERTa-v3-base' if family == 'deberta-v2' else 'MiniLM'} for time"
            continue
        python = pythons[variant.environment]
        try:
            if isinstance(python, str):
                raise Failed(python)
            if exported and name.startswith(("onnxruntime", "openvino")):
                raise Failed(exported)
            if memory_left_mb() < MEMORY_LEFT_MB:
                raise Failed("there was too little memory left for its process")
            worker = start_worker(python, name, model, options)
            stack.callback(worker.close)
            begun = time.perf_counter()
            choice, budget = tuned.find(worker, model, tuning)
            worker.ask(forget_peak=True)
            say(f"  {variant.label}: {choice} {budget}, ready in {time.perf_counter() - begun:.0f} s")
        except Failed as failure:
            skipped[name] = reason_file(model, name) or str(failure)
            say(f"  {variant.label}: {skipped[name]}")
            continue
        workers[name] = worker
        measured[name] = Measured(choice=choice, budget=budget, versions=worker.first["versions"])
    return workers, measured, skipped


def reason_file(model: Model, name: str) -> str | None:
    """Why a converter could not make the file that a variant needs, if that was it."""
    places = {choice for choice, _ in VARIANTS[name].settings}
    reasons = [path for path in (model.folder / "onnx").glob("*.reason") if path.stem.split("-")[-1] in places]
    if len(reasons) < len(places):
        return None
    return reasons[0].read_text(encoding="utf-8")


def measure_model(model: Model, options: argparse.Namespace, pythons: dict[str, Path | str]) -> ModelResult:
    """Tune, then the rounds, then the curve against row length."""
    say(f"{model.title}")
    everything = read_rows(options.data, "test")
    rows = spread_blocks(everything, options.rows or MODELS[model.name])
    folder = options.cache / "rows"
    packed = write_rows(rows, folder / f"{model.name}.npz")
    write_rows(rows[:: max(1, len(rows) // TUNING_ROWS)], folder / f"{model.name}-tuning.npz")
    write_rows(spread_blocks(read_rows(options.data, "train"), CALIBRATION_ROWS), folder / "calibration.npz")
    converted = any(name.startswith(("onnxruntime", "openvino")) for name in options.variants)
    peers = pythons.get("peers")
    exported = (
        export(peers, model, folder / "calibration.npz", options) if converted and isinstance(peers, Path) else None
    )
    with ExitStack() as stack:
        workers, measured, skipped = start(
            model, folder / f"{model.name}-tuning.npz", exported, pythons, options, stack
        )
        rates = start_worker(Path(sys.executable), "rate", model, options)
        stack.callback(rates.close)
        result = ModelResult(
            name=model.name,
            title=model.title,
            family=model.config["model_type"],
            lengths=[int(length) for length in packed.lengths],
            cut=sum(row.cut_prompt + row.cut_reply > 0 for row in rows),
            all_lengths=[len(row.ids) for row in everything],
            multiply_adds=multiply_adds(model.config, packed.lengths.tolist()),
            rates=[],
            measured=measured,
            skipped=skipped,
            curve={},
        )
        for number in range(options.rounds):
            result.rates.append(rates.ask(rates=True)["rates"])
            one_round(number, folder / f"{model.name}.npz", workers, result)
        if model.name in CURVE_MODELS and not options.no_curve:
            curve(model, everything, workers, result, folder)
    return result


def one_round(number: int, rows: Path, workers: dict[str, Worker], result: ModelResult) -> None:
    """Every variant once, each round beginning with another."""
    begun = time.perf_counter()
    names = list(workers)
    turn = number % max(1, len(names))
    for name in [*names[turn:], *names[:turn]]:
        variant = result.measured[name]
        try:
            answer = workers[name].ask(rows=str(rows), choice=variant.choice, budget=variant.budget)
        except Failed as failure:
            result.skipped[name] = f"failed in round {number + 1}: {failure}"
            workers.pop(name).close()
            del result.measured[name]
            continue
        variant.cpu_s.append(answer["cpu_s"])
        variant.wall_s.append(answer["wall_s"])
        variant.peak_mb = max(variant.peak_mb, answer["peak_mb"])
        variant.scores = answer["scores"]
    say(f"  round {number + 1}: {time.perf_counter() - begun:.0f} s")


def curve(model: Model, rows: Sequence[Any], workers: dict[str, Worker], result: ModelResult, folder: Path) -> None:
    """Tokens a second at each row length, one pass, after one that compiles where something does."""
    for length in CURVE_LENGTHS:
        path = folder / f"{model.name}-{length}.npz"
        packed = write_rows(of_length(rows, length, CURVE_TOKENS), path)
        for name, worker in workers.items():
            variant = result.measured[name]
            request = {"rows": str(path), "choice": variant.choice, "budget": variant.budget}
            try:
                if name in COMPILERS:
                    worker.ask(**request)
                seconds = worker.ask(**request)["cpu_s"]
            except Failed as failure:
                say(f"  {VARIANTS[name].label} at {length} tokens: {failure}")
                continue
            result.curve.setdefault(name, {})[str(length)] = len(packed.ids) / seconds


def sweep(options: argparse.Namespace) -> None:
    """CPU microseconds per token for ours, against the number of rows and against their length."""
    (model,) = make_models(["sweep"], options.cache / "models", None)
    real = read_rows(options.data, "train")
    names = [name for name in options.variants if name.startswith("ours")]
    by_rows: dict[str, dict[str, float]] = {}
    by_length: dict[str, dict[str, float]] = {}
    for name in names:
        worker = start_worker(Path(sys.executable), name, model, options)
        try:
            by_rows[name] = {
                str(count): per_token(worker, write_rows(many(real, count), path), path, passes)
                for count, passes in SWEEP_ROWS.items()
                for path in [options.cache / "rows" / f"sweep-{count}.npz"]
            }
            by_length[name] = {
                str(length): per_token(worker, write_rows(of_length(real, length, 20_000), path), path, 3)
                for length in CURVE_LENGTHS
                for path in [options.cache / "rows" / f"sweep-length-{length}.npz"]
            }
        except Failed as failure:
            say(f"{VARIANTS[name].label}: {failure}")
            by_rows.pop(name, None)
        finally:
            worker.close()
    names = [name for name in names if name in by_rows and name in by_length]
    for title, costs, keys in (("rows", by_rows, SWEEP_ROWS), ("tokens a row", by_length, CURVE_LENGTHS)):
        cells = [[VARIANTS[name].label, *(f"{costs[name][str(key)]:.2f}" for key in keys)] for name in names]
        show(f"{model.title}: CPU microseconds per token", [title, *(f"{key:,}" for key in keys)], cells)
    spread = {name: max(by_rows[name].values()) / min(by_rows[name].values()) - 1 for name in names}
    finish(
        {
            "benchmark": "score_sweep",
            "microseconds_per_token_by_rows": {name: by_rows[name] for name in names},
            "microseconds_per_token_by_length": {name: by_length[name] for name in names},
            "spread_percent": {name: round(100 * value, 1) for name, value in spread.items()},
            "machine": machine(),
        }
    )


def per_token(worker: Worker, rows: Rows, path: Path, passes: int) -> float:
    """The median of some passes, after one to warm up where they are short; CPU microseconds."""
    request = {"rows": str(path), "choice": "", "budget": 1024}
    if passes > 1:
        worker.ask(**request)
    seconds = [worker.ask(**request)["cpu_s"] for _ in range(passes)]
    return 1e6 * statistics.median(seconds) / len(rows.ids)


def main() -> None:
    options = arguments()
    options.cache = options.cache.resolve()
    if options.sweep:
        sweep(options)
        return
    if options.report:
        records = [json.loads(path.read_text(encoding="utf-8")) for path in options.report]
        results = [ModelResult.from_json(result) for record in records for result in record["models"]]
        report(results, records[0]["machine"], "` and `".join(record["command"] for record in records), options.output)
        return
    names = options.models or [name for name in MODELS if name != "trained" or options.trained]
    environments = {VARIANTS[variant].environment for variant in options.variants}
    pythons = {name: make_environment(name, REQUIREMENTS, options.cache) for name in environments}
    models = make_models(names, options.cache / "models", options.trained)
    begun = time.perf_counter()
    results = [measure_model(model, options, pythons) for model in models]
    say(f"measured in {(time.perf_counter() - begun) / 60:.0f} minutes")
    words = " ".join(["python benchmarks/score.py", *sys.argv[1:]])
    record = {"command": words, "machine": machine(), "models": [result.to_json() for result in results]}
    (options.cache / "score.json").write_text(json.dumps(record), encoding="utf-8")
    report(results, record["machine"], words, options.output if options.whole else None)


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(one_line(failure))
