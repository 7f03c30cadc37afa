"""How well does the MiniLM recipe agree with people on Anthropic HH, beside scorers that know next to nothing?

Trains the recipe on the train files of a folder with the hub's layout (or takes a model), scores its test files, and
prints accuracy for each subset, the helpful ones together, the harmless one and all, with n and 95 % intervals. The
test files choose nothing: the run evaluates on nothing and its last weights are taken. `--tune` leaves the test files
alone altogether: it trains on four fifths of the training prompts and scores the fifth, which is where settings are to
be compared.

    python benchmarks/hh_quality.py
    python benchmarks/hh_quality.py --tune --set learning_rate=1e-4
    python benchmarks/hh_quality.py --model runs/minilm-hh/last
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common import Run, finish, run, say, show

from prefrank.data import load_comparisons, split_of
from prefrank.evaluation import Estimate, Evaluation, Metrics, Scorer, baselines, evaluate, measure, tfidf_scorer
from prefrank.evaluation.metrics import metric_figures
from prefrank.io.schema import plain
from prefrank.scoring import RewardModel
from prefrank.stats.estimates import estimate_all
from prefrank.stats.figures import minus
from prefrank.training import DataSource, Recipe, load_recipe
from prefrank.training.feed.corpus import read_corpus
from prefrank.types import Comparison

REPOSITORY = Path(__file__).resolve().parents[1]
TUNING_SHARE, FRACTION_SEED = 0.8, 1
"""A recipe's `fraction: 0.8` keeps the prompts below 0.8 by the hash of seed 1; `--tune` scores the others."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared/data/hh-rlhf", help="HH folder")
    parser.add_argument("--model", help="score this model folder or hub id instead of training one")
    parser.add_argument("--recipe", type=Path, default=REPOSITORY / "recipes/minilm-hh.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key")
    parser.add_argument("--output", default="runs/hh-quality", help="folder of the training run")
    parser.add_argument("--tune", action="store_true", help="score a fifth of the training prompts, not the test files")
    return parser.parse_args()


def local_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe on the local files, evaluating on nothing while it trains."""
    recipe = load_recipe(options.recipe, options.set)
    datasets = tuple(local_source(source, options.data, options.tune) for source in recipe.datasets)
    changes = {"datasets": datasets, "evaluation": (), "output_dir": options.output, "overwrite": True}
    return recipe.model_copy(update=changes)


def local_source(source: DataSource, data: Path, tune: bool) -> DataSource:
    """`anthropic_rlhf` is the whole folder, `hh/helpful-base` one subset of it; anything else stays."""
    known, _, subset = source.source.partition("/")
    place = str(data / subset) if known in ("anthropic_rlhf", "hh") else source.source
    fraction = min(source.fraction, TUNING_SHARE) if tune else source.fraction
    return source.model_copy(update={"source": place, "split": "train", "fraction": fraction})


def held_out(data: Path, tune: bool) -> tuple[Comparison, ...]:
    comparisons = load_comparisons(data, split="train" if tune else "test").comparisons
    return tuple(c for c in comparisons if not tune or split_of(c.prompt, seed=FRACTION_SEED) >= TUNING_SHARE)


def scorers(model: str, train: Sequence[Comparison]) -> dict[str, Scorer]:
    """The model and the baselines; the bag of words also trained on the helpful comparisons alone."""
    helpful = [comparison for comparison in train if "helpful" in comparison.source]
    both = 0 < len(helpful) < len(train)
    return (
        {"reward model": RewardModel.load(model).score_pairs}
        | baselines(train)
        | ({"tf-idf, helpful only": tfidf_scorer(helpful)} if both else {})
    )


def grouped(result: Evaluation, comparisons: Sequence[Comparison]) -> dict[str, Metrics]:
    """The helpful subsets and all of them together, the others, everything together."""
    subsets = {source.removeprefix("hh/"): metrics for source, metrics in sorted(result.subsets.items())}
    helpful = {name: metrics for name, metrics in subsets.items() if "helpful" in name}
    if len(helpful) > 1:
        places = [place for place, comparison in enumerate(comparisons) if "helpful" in comparison.source]
        helpful["helpful"] = measure(result.sample.take(places))
    return helpful | subsets | {"all": result.overall}


def percent(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{estimate.value:.1%}\n{estimate.low:.1%} to {estimate.high:.1%}"


def table(results: dict[str, dict[str, Metrics]]) -> None:
    first = next(iter(results.values()))
    sizes = [
        f"{name.replace('-', chr(10), 1)}\nn = {m.accuracy.n:,}\n{m.accuracy.prompts:,} prompts"
        for name, m in first.items()
    ]
    rows = [
        [name, *(percent(metrics.accuracy) for metrics in groups.values()), f"{groups['all'].log_loss.value:.3f}"]
        for name, groups in results.items()
    ]
    show("pairs in the right order, with 95 % intervals over prompts", ["", *sizes, "log loss\n(all)"], rows)


def difference(model: Evaluation, other: Evaluation, places: Sequence[int]) -> Estimate:
    """Accuracy of the model less that of another scorer on the same pairs; prompts are resampled for both at once."""
    mine, theirs = (metric_figures(evaluation.sample.take(places))["accuracy"] for evaluation in (model, other))
    return estimate_all({"difference": minus(mine, theirs)}, model.bootstrap)["difference"]


def differences(
    evaluations: dict[str, Evaluation], comparisons: Sequence[Comparison]
) -> dict[str, dict[str, Estimate]]:
    """By how much the model beats each baseline, on helpful pairs, on harmless ones, and on all."""
    words = {"helpful": "helpful", "harmless": "harmless", "all": ""}
    places = {name: [i for i, c in enumerate(comparisons) if word in c.source] for name, word in words.items()}
    model, *others = evaluations.values()
    return {other.name: {name: difference(model, other, at) for name, at in places.items() if at} for other in others}


def points(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{100 * estimate.value:+.1f}\n{100 * estimate.low:+.1f} to {100 * estimate.high:+.1f}"


def main() -> None:
    options = arguments()
    recipe = local_recipe(options)
    training: Run | None = None if options.model else run(recipe)
    model = options.model or str(training.trained.last if training else "")
    comparisons = held_out(options.data, options.tune)
    train = read_corpus(recipe).training
    say(f"evaluating on {len(comparisons):,} comparisons; the baselines learn from {len(train):,}")
    evaluations = {n: evaluate(s, comparisons, name=n) for n, s in scorers(model, train).items()}
    results = {name: grouped(result, comparisons) for name, result in evaluations.items()}
    table(results)
    ahead = differences(evaluations, comparisons)
    columns = [f"{name}\nn = {estimate.n:,}" for name, estimate in next(iter(ahead.values())).items()]
    rows = [[name, *map(points, groups.values())] for name, groups in ahead.items()]
    show("the reward model's accuracy less a baseline's in points, on the same pairs", ["baseline", *columns], rows)
    counts = evaluations["reward model"].overall.counts
    print(f"{counts.cut_prompts:,} of {counts.replies:,} prompts and {counts.cut_replies:,} replies were cut to fit")
    if training:
        print(f"training took {training.cpu_s:,.0f} CPU seconds, {training.wall_s:,.0f} s of waiting")
    finish(
        {
            "benchmark": "hh_quality",
            "tune": options.tune,
            "model": evaluations["reward model"].model,
            "data": evaluations["reward model"].data,
            "versions": evaluations["reward model"].versions,
            "training": training.to_json() if training else None,
            "difference": {n: {g: plain(estimate) for g, estimate in groups.items()} for n, groups in ahead.items()},
            "results": {n: {g: plain(metrics) for g, metrics in groups.items()} for n, groups in results.items()},
        }
    )


if __name__ == "__main__":
    main()
