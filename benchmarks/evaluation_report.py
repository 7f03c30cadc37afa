"""Can the evaluation tell a reward model from one that only measures length? Both and the baselines in one report.

Trains the MiniLM recipe on the HH train files of a folder, and the same recipe on the same pairs with the longer reply
always preferred. The test files choose nothing: the runs evaluate on nothing and their last weights are taken.

Then both, length, chance and a bag of words score HH's test files, human comparisons of other kinds, best-of-n
candidates and the probes; the run file, the report and the model card are in the output folder.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_report.py
"""

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from common import finish, run, say, write_comparisons

from prefrank.data import load_comparisons
from prefrank.evaluation.run_file import read_run
from prefrank.io.schema import plain
from prefrank.reports.picture import accuracy_png
from prefrank.training import load_recipe
from prefrank.types import Comparison, Preference

REPOSITORY = Path(__file__).resolve().parents[1]

DATA = Path(os.path.relpath(REPOSITORY.parent / "shared/data"))
"""The data sets, relative to the working folder, as the report shows them."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--output", type=Path, default=Path("runs/evaluation"), help="folder of models and results")
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--audit", action="store_true", help="also the models in other formats and precisions")
    parser.add_argument("--train-only", action="store_true", help="stop when the models are there")
    return parser.parse_args()


def longer_preferred(comparison: Comparison) -> Comparison | None:
    """The same replies, the longer one always better; None for replies of equal length."""
    lengths = list(map(len, comparison.replies))
    if len(set(lengths)) < len(lengths):
        return None
    order = sorted(range(len(lengths)), key=lambda reply: -lengths[reply])
    pairs = tuple(Preference(a, b) for place, a in enumerate(order) for b in order[place + 1 :])
    return replace(comparison, preferences=pairs, ratings=())


def train_models(data: Path, output: Path) -> dict[str, Path]:
    """The recipe's model, and the length-biased one; each is trained once and kept."""
    hh = data / "hh-rlhf"
    pairs = load_comparisons(hh, split="train").comparisons
    biased = [pair for pair in map(longer_preferred, pairs) if pair is not None]
    datasets = {
        "minilm": str(hh),
        "length-biased": str(write_comparisons(output / "longer-preferred", biased, biased[:1])),
    }
    for name, source in datasets.items():
        if not (output / name / "last").exists():
            recipe = load_recipe(
                REPOSITORY / "recipes/minilm-hh.yaml", [f"output_dir={output / name}", f"datasets={source}"]
            )
            trained = run(recipe.model_copy(update={"evaluation": ()}))
            say(f"{name}: {trained.comparisons:,} comparisons, {trained.cpu_s:,.0f} CPU seconds")
    return {name: output / name / "last" for name in datasets}


SUITES = {
    "open-assistant": "oasst1-en",
    "llmbar": "llmbar",
    "hhh": "hhh-alignment",
    "pandalm": "pandalm",
    "bon-alpacaeval": "bon-alpacaeval",
}
"""Suite -> its folder among the data; the probes ship with prefrank."""


def evaluate(data: Path, output: Path, models: dict[str, Path], resamples: int, audit: bool) -> Path:
    """`prefrank evaluate` on all of it; the run file's path."""
    hh, run_file = data / "hh-rlhf", output / "run.json.gz"
    command = [
        "evaluate",
        "--data",
        f"{hh}:test",
        "--train",
        f"{hh}:train",
        "--resamples",
        str(resamples),
        *(["--audit"] if audit else []),
    ]
    command += [part for name, path in models.items() for part in ("--model", f"{name}={path}")]
    command += [part for name, folder in SUITES.items() for part in ("--suite", f"{name}={data / folder}")]
    command += ["--suite", "probes", "--json", str(run_file), "--html", str(output / "report.html")]
    subprocess.run([sys.executable, "-m", "prefrank", *command], check=True)
    return run_file


def main() -> None:
    options = arguments()
    models = train_models(options.data, options.output)
    if options.train_only:
        finish({name: str(path) for name, path in models.items()})
        return
    run = read_run(evaluate(options.data, options.output, models, options.resamples, options.audit))
    accuracy_png(run, options.output / "accuracy.png")
    finish(
        {
            "benchmark": "evaluation_report",
            "versions": run.versions,
            "data": {name: suite.data for name, suite in run.suites.items()},
            "scorers": {
                scorer.name: {
                    "model": scorer.model,
                    "scoring_s": round(scorer.scoring_s, 2),
                    "evaluating_s": round(scorer.evaluating_s, 2),
                    "headlines": {name: plain(result.value) for name, result in scorer.results.items()},
                }
                for scorer in run.scorers
            },
            "comparison": [plain(test) for test in (run.comparison.pairs if run.comparison else ()) if test.headline],
        }
    )


if __name__ == "__main__":
    main()
