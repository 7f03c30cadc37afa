"""Can the evaluation tell a reward model from one that only measures length? Both and the baselines in one report.

Trains the MiniLM recipe on the HH train files of a folder, and the same recipe on the same pairs with the longer reply
always preferred. The test files choose nothing: the runs evaluate on nothing and their last weights are taken.

    python benchmarks/evaluation_report.py --train-only
"""

import argparse
from dataclasses import replace
from pathlib import Path

from common import finish, run, say, write_comparisons

from prefrank.data import load_comparisons
from prefrank.training import load_recipe
from prefrank.types import Comparison, Preference

REPOSITORY = Path(__file__).resolve().parents[1]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared/data", help="folder of the data sets")
    parser.add_argument("--output", type=Path, default=Path("runs/evaluation"), help="folder of models and results")
    parser.add_argument("--train-only", action="store_true")
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
    biased = [one for one in map(longer_preferred, pairs) if one is not None]
    datasets = {"minilm": str(hh), "length-biased": str(write_comparisons(output / "longer-preferred", biased, biased[:1]))}
    for name, source in datasets.items():
        if not (output / name / "last").exists():
            recipe = load_recipe(
                REPOSITORY / "recipes/minilm-hh.yaml", [f"output_dir={output / name}", f"datasets={source}"]
            )
            trained = run(recipe.model_copy(update={"evaluation": ()}))
            say(f"{name}: {trained.comparisons:,} comparisons, {trained.cpu_s:,.0f} CPU seconds")
    return {name: output / name / "last" for name in datasets}


def main() -> None:
    options = arguments()
    models = train_models(options.data, options.output)
    if options.train_only:
        finish({name: str(path) for name, path in models.items()})


if __name__ == "__main__":
    main()
