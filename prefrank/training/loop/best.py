"""Which checkpoint of a run is the best, and when to stop looking for a better one.

`best` takes any improvement. Early stopping alone asks for a minimum improvement, counted from the last evaluation that
had one, so that many small improvements add up.
"""

import hashlib
from collections.abc import Collection, Mapping

from prefrank.errors import BadRecipe, suggest
from prefrank.training.loop.measure import pool
from prefrank.training.recipe import Recipe
from prefrank.training.records.events import SetMetrics


def check_best(recipe: Recipe, sets: Collection[str]) -> None:
    """Refuse a best_set that this run does not evaluate on.

    Args:
        sets: names of the evaluation sets that have comparisons.

    Raises:
        BadRecipe: it is none of them.
    """
    heads = recipe.heads if len(recipe.heads) > 1 else ()
    known = [*sets, *(f"{name}/{head}" for name in sets for head in heads)]
    if recipe.best_set is not None and recipe.best_set not in known:
        hint = suggest(recipe.best_set, known) if known else "; there is none"
        raise BadRecipe(f"best_set is {recipe.best_set!r}, which is not an evaluation set of this run{hint}")


def evaluation_digest(digests: Mapping[str, str]) -> str:
    """One hash of the evaluation sets' hashes, so that a resumed run can tell whether its best is still comparable."""
    text = repr(sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def judged(recipe: Recipe, metrics: Mapping[str, SetMetrics]) -> SetMetrics:
    """The metrics that choose the best: those of best_set (all of its heads), or of all comparisons together."""
    best = recipe.best_set
    return pool(
        set_metrics
        for name, set_metrics in metrics.items()
        if best is None or name == best or name.startswith(f"{best}/")
    )


def loss_of(recipe: Recipe, metrics: SetMetrics) -> float:
    """The number whose least value is best."""
    return metrics.log_loss if recipe.best_metric == "log_loss" else -metrics.accuracy
