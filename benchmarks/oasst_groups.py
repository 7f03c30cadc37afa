"""What does it save to encode each ranked reply once, and what does it cost in accuracy?

InstructGPT trains on all pairs of a prompt's ranked replies together (Ouyang et al. 2022, section 3.5): K encodings for
K (K - 1) / 2 pairs, where pairs on their own need two encodings each. This trains both ways on the same pairs of the
same prompts (those with more than two ranked replies), equally often and in about equally many steps, and scores both
models on the held-out prompts. Both get the recipe's settings, changed for a few dozen steps; only the batch is counted
in pairs instead of prompts.

    python benchmarks/oasst_groups.py
    python benchmarks/oasst_groups.py --seeds 3
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import Run, finish, run, show, write_comparisons

from prefrank.data import load_comparisons
from prefrank.evaluation import Metrics, evaluate, measure, sample_of
from prefrank.io.schema import plain
from prefrank.scoring import RewardModel
from prefrank.training import DataSource, Recipe, load_recipe
from prefrank.types import Comparison

REPOSITORY = Path(__file__).resolve().parents[1]
MEASURES = ("accuracy", "log_loss", "kendall_tau")
FEW_STEPS = ("warmup_steps=4", "per_device_train_batch_size=8", "learning_rate=1e-4", "head_learning_rate=1e-3")
"""The recipe is for all of OASST; some hundred prompts make a few dozen steps, which its warm-up alone would take."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared/data/oasst1-en", help="OASST folder")
    parser.add_argument("--recipe", type=Path, default=REPOSITORY / "recipes/oasst.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind; their accuracies are averaged")
    parser.add_argument("--output", type=Path, default=Path("runs/oasst-groups"), help="folder of the training runs")
    return parser.parse_args()


def pairwise(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Every preference as a comparison of its own, with its two replies."""
    return [
        Comparison(
            c.prompt,
            (c.replies[p.winner], c.replies[p.loser]),
            (replace(p, winner=0, loser=1),),
            c.source,
            f"{c.id}/{number}",
        )
        for c in comparisons
        for number, p in enumerate(c.preferences)
    ]


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to train on the same pairs: the comparisons it sees, and how many of them make a step."""

    name: str
    train: list[Comparison]
    per_step: int


def kinds(train: list[Comparison], per_step: int) -> list[Kind]:
    apart = pairwise(train)
    return [Kind("grouped", train, per_step), Kind("pairwise", apart, round(per_step * len(apart) / len(train)))]


def train_all(kind: Kind, data: Path, recipe: Recipe, options: argparse.Namespace) -> list[Run]:
    """One run for each seed."""
    runs = []
    for seed in range(options.seeds):
        changes = {
            "datasets": (DataSource(source=str(data), split="train"),),  # type: ignore[call-arg]
            "evaluation": (),
            "output_dir": str(options.output / f"{kind.name}-{seed}"),
            "overwrite": True,
            "seed": recipe.seed + seed,
            "per_device_train_batch_size": kind.per_step,
        }
        runs.append(run(recipe.model_copy(update=changes)))
    return runs


def average(runs: Sequence[Run], comparisons: list[Comparison]) -> Metrics:
    """Metrics over all seeds; a prompt's results are resampled together, so seeds do not count as more prompts."""
    scores = [
        scores
        for run in runs
        for scores in evaluate(RewardModel.load(run.trained.last).score_pairs, comparisons, name="run").sample.scores
    ]
    return measure(sample_of(comparisons * len(runs), scores))


def summary(kind: Kind, runs: Sequence[Run], metrics: Metrics) -> dict[str, Any]:
    """Costs are of one pass over the pairs, per pair."""
    pairs = sum(len(comparison.preferences) for comparison in kind.train)
    passes = sum(run.recipe.num_train_epochs for run in runs)
    rows = sum(len(comparison.replies) for comparison in kind.train)
    return {
        "pairs": pairs,
        "comparisons_per_step": kind.per_step,
        "encodings_per_pair": rows / pairs,
        "tokens_per_pair": sum(run.tokens for run in runs) / passes / pairs,
        "cpu_s_per_1000_pairs": 1000 * sum(run.cpu_s for run in runs) / passes / pairs,
        "runs": [run.to_json() for run in runs],
        "held_out": plain(metrics),
    }


def table(results: dict[str, dict[str, Any]], metrics: dict[str, Metrics], title: str) -> None:
    columns = ["", "steps", "encodings\nper pair", "tokens\nper pair", "CPU seconds per\n1,000 pairs"]
    rows = [
        [
            name,
            str(result["runs"][0]["steps"]),
            f"{result['encodings_per_pair']:.2f}",
            f"{result['tokens_per_pair']:.0f}",
            f"{result['cpu_s_per_1000_pairs']:.1f}",
            *(str(getattr(metrics[name], metric)).replace(" ", "\n", 1) for metric in MEASURES),
        ]
        for name, result in results.items()
    ]
    show(title, [*columns, "held-out\naccuracy", "log loss", "Kendall's tau\n(K > 2)"], rows)


def main() -> None:
    options = arguments()
    recipe = load_recipe(options.recipe, [*FEW_STEPS, *options.set])
    train = [c for c in load_comparisons(options.data, split="train").comparisons if len(c.replies) > 2]
    held_out = list(load_comparisons(options.data, split="validation").comparisons)
    results, metrics = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds(train, recipe.per_device_train_batch_size):
            data = write_comparisons(Path(folder) / kind.name, kind.train, held_out)
            runs = train_all(kind, data, recipe, options)
            metrics[kind.name] = average(runs, held_out)
            results[kind.name] = summary(kind, runs, metrics[kind.name])
    counts = metrics["grouped"].counts
    title = (
        f"{len(train):,} prompts of more than two ranked replies, {results['grouped']['pairs']:,} pairs;"
        f" held out: {len(held_out):,} prompts; {options.seeds} seeds"
    )
    table(results, metrics, title)
    finish({"benchmark": "oasst_groups", "seeds": options.seeds, "starts": counts.prompts, "results": results})


if __name__ == "__main__":
    main()
