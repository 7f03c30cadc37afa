"""Losses of scores and labels, as sums: a likelihood, and whatever else a recipe adds to it.

Nothing here averages. The loop divides once by the global count, so accumulating over micro-batches and processes is
exact however uneven they are. Every term involves scores of one comparison only, so comparisons can be split between
micro-batches freely. A loss is a module because it may have parameters of its own (cut points, a tie parameter), which
the optimizer trains along with the network. Scores are expected in float32 (float64 works, for checks).
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from prefrank.errors import BadRecipe
from prefrank.training.feed.examples import Examples
from prefrank.training.losses.labels import Choices, Preferences, RatedRows
from prefrank.training.losses.likelihoods import (
    BradleyTerry,
    Davidson,
    Likelihood,
    Ordinal,
    Thurstone,
    pick,
    start_cut_points,
    start_nu,
)
from prefrank.training.recipe import Recipe
from prefrank.types import RankedPairs

Scores = Float[Tensor, "N *H"]
"""Of N rows: one score each, or one for each head."""


def plackett_luce(scores: Float[Tensor, "N H"], choices: Choices, *, top_k: int | None = None) -> Float[Tensor, ""]:
    """Sum over rankings of weight * mean over places of -log P(the reply at that place | those left).

    P = exp(r_i) / sum over the replies left of exp(r_j): Plackett 1975, Luce 1959; with `top_k` only the first places
    (the top-k form, Xia et al. 2009, which states no order below them). Tied replies by Efron's rule (1977, the log
    likelihood's mean over their orders with the mean inside the logarithm), so that with two replies this is
    Bradley-Terry, ties included.
    """
    count = len(choices.place)
    entry = pick(scores, choices.row, choices.head[choices.stage])
    blank = torch.zeros(count, dtype=entry.dtype, device=entry.device)
    best = (blank - torch.inf).scatter_reduce(0, choices.stage, entry.detach(), "amax")
    left = blank.index_add(0, choices.stage, choices.odds.to(entry.dtype) * torch.exp(entry - best[choices.stage]))
    chosen = blank.index_add(0, choices.stage, choices.share.to(entry.dtype) * entry)
    counted = choices.places.clamp(max=sys.maxsize if top_k is None else top_k)
    weight = torch.where(choices.place < counted, choices.weight / counted, 0.0)
    return (weight * (left.log() + best - chosen)).sum()


def squared_error(scores: Float[Tensor, "N H"], rated: RatedRows, likelihood: Thurstone) -> Float[Tensor, ""]:
    """Sum of weight * 0.5 * (r - (rating - offset) / scale)^2 over the rated rows."""
    target = likelihood.targets(rated.rating, rated.head)
    return (rated.weight * 0.5 * (scores[rated.row, rated.head] - target) ** 2).sum()


def sides(scores: Float[Tensor, "N H"], preferences: Preferences) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """The winners' and the losers' scores, each of its preference's head."""
    return pick(scores, preferences.winner, preferences.head), pick(scores, preferences.loser, preferences.head)


def by_head(scores: Scores) -> Float[Tensor, "N H"]:
    """Scores of one head as a table too."""
    return scores.unsqueeze(1) if scores.ndim == 1 else scores


@dataclass(frozen=True, slots=True)
class LossSettings:
    """What a loss adds to its likelihood; see the recipe's fields of the same names."""

    label_smoothing: float = 0.0
    margin: float = 0.0
    score_l2: float = 0.0
    centering: float = 0.0
    top_k: int | None = None


class PreferenceLoss(nn.Module):
    """A likelihood's loss, and the score terms whose coefficient is not 0; 0 where there is no label.

    With Bradley-Terry and `score_l2` = beta this is Open Assistant's published RMLoss: in each group the mean over its
    pairs i < j of -log sigmoid(r_i - r_j) + beta * 0.5 * (r_i^2 + r_j^2), beta = 0.001, and the mean of the groups.
    """

    def __init__(
        self, likelihood: Likelihood, settings: LossSettings = LossSettings(), *, ranked: bool = False
    ) -> None:
        """`ranked`: learn from whole rankings (Plackett-Luce) rather than from pairs."""
        super().__init__()
        self.likelihood, self.settings, self.ranked = likelihood, settings, ranked

    def forward(self, scores: Scores, preferences: Preferences) -> Float[Tensor, ""]:
        """The sum over comparisons."""
        table, settings = by_head(scores), self.settings
        if self.ranked:
            loss = plackett_luce(table, preferences.choices, top_k=settings.top_k)
        elif isinstance(self.likelihood, Thurstone):
            loss = squared_error(table, preferences.rated, self.likelihood)
        else:
            loss = (preferences.weight * self._nll(table, preferences)).sum()
        winner, loser = sides(table, preferences)
        if settings.score_l2:
            loss = loss + settings.score_l2 * squared_scores(winner, loser, preferences.weight)
        if settings.centering:
            loss = loss + settings.centering * squared_centre(winner, loser, preferences.weight)
        return loss

    def _nll(self, table: Float[Tensor, "N H"], preferences: Preferences) -> Float[Tensor, " P"]:
        """-log P of each preference, the score difference less its margins, the label smoothed."""
        winner, loser = sides(table, preferences)
        side = torch.sign(preferences.probability - 0.5)
        margin = preferences.margin + self.settings.margin * side * preferences.strength.clamp(min=0)
        return nll(self.likelihood, winner - loser - margin, preferences, self.settings.label_smoothing)

    def log_loss(self, scores: Scores, preferences: Preferences) -> Float[Tensor, " P"]:
        """-log P of each preference, without margins and label smoothing, which are for training only."""
        winner, loser = sides(by_head(scores), preferences)
        return nll(self.likelihood, winner - loser, preferences)

    def probabilities(
        self, difference: Float[Tensor, " P"], *, head: int = 0
    ) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"], Float[Tensor, " P"]]:
        """P(win), P(tie), P(loss) of a reply whose score is above another's by so much; they sum to 1."""
        return self.likelihood.probabilities(difference, head=head)

    def add_to(self, optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
        """Let the optimizer train the loss's own parameters too, at their own rate and without weight decay."""
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad and parameter.numel()]
        if learned:
            rate = recipe.loss_learning_rate
            optimizer.add_param_group({"params": learned, "lr": rate, "peak": rate, "weight_decay": 0.0})

    def record(self) -> dict[str, Any]:
        """What prefrank.json records: the likelihood, and its parameters by head, named as in their papers."""
        return {"likelihood": type(self.likelihood).__name__, "values": self.likelihood.values()}


def nll(
    likelihood: Likelihood, difference: Float[Tensor, " P"], preferences: Preferences, label_smoothing: float = 0.0
) -> Float[Tensor, " P"]:
    """-log P of each preference: cross-entropy against soft labels.

    A probability between 0 and 1 is a mixture of a win and a loss of the stated strength; 0.5 is a tie, and where the
    model has none, the even mixture.

    Args:
        label_smoothing: chance, 0 to 0.5, that a label is the wrong way round; a tie has no other way.
    """
    outcomes = likelihood.outcomes(difference, preferences.strength, preferences.head)
    target = preferences.probability + label_smoothing * (1.0 - 2.0 * preferences.probability)
    mixed = -target * outcomes.win - (1.0 - target) * outcomes.loss
    return mixed if outcomes.tie is None else torch.where(preferences.probability == 0.5, -outcomes.tie, mixed)


def squared_scores(
    winner: Float[Tensor, " P"], loser: Float[Tensor, " P"], weight: Float[Tensor, " P"]
) -> Float[Tensor, ""]:
    """Sum of weight * 0.5 * (r_w^2 + r_l^2), which pulls scores toward 0 (Open Assistant's RMLoss, beta term)."""
    return (weight * 0.5 * (winner**2 + loser**2)).sum()


def squared_centre(
    winner: Float[Tensor, " P"], loser: Float[Tensor, " P"], weight: Float[Tensor, " P"]
) -> Float[Tensor, ""]:
    """Sum of weight * (r_w + r_l)^2, which centers each pair on 0 (Eisenstein et al. 2023, arXiv 2312.09244)."""
    return (weight * (winner + loser) ** 2).sum()


def count_correct(scores: Scores, preferences: Preferences) -> Float[Tensor, " P"]:
    """1 where the scores order the likelier winner first, 0 where last; 0.5 for equal scores and for ties."""
    winner, loser = sides(by_head(scores), preferences)
    return 0.5 + 0.5 * torch.sign(winner - loser) * torch.sign(preferences.probability - 0.5)


def ranked_places(recipe: Recipe) -> int | None:
    """How many places of a ranking the recipe's loss must know; None: it wants no ranking."""
    return (recipe.top_k or sys.maxsize) if recipe.loss == "plackett_luce" else None


def make_loss(recipe: Recipe, examples: Examples) -> PreferenceLoss:
    """The recipe's loss, its own parameters started from the training labels.

    Raises:
        BadRecipe: the labels are not those that the loss needs, or a key has no effect on it.
    """
    _check_keys(recipe)
    counts = _count_strengths(examples)
    _check_labels(recipe, examples, counts)
    settings = LossSettings(
        label_smoothing=recipe.label_smoothing,
        margin=recipe.margin,
        score_l2=recipe.score_l2,
        centering=recipe.centering,
        top_k=recipe.top_k,
    )
    likelihood = _make_likelihood(recipe, examples, counts)
    return PreferenceLoss(likelihood, settings, ranked=recipe.loss == "plackett_luce")


def _make_likelihood(recipe: Recipe, examples: Examples, counts: Float[np.ndarray, "H S"]) -> Likelihood:
    fixed = recipe.tie_parameter
    match recipe.loss:
        case "bradley_terry" | "plackett_luce":
            return BradleyTerry()
        case "rao_kupper":
            two = np.stack([counts[:, 0], counts[:, 1:].sum(1)], 1)
            cuts = start_cut_points(two, ties=True) if fixed is None else np.full((len(counts), 1), np.log(fixed))
            return Ordinal(cuts, ties=True, learned=fixed is None)
        case "davidson":
            return Davidson(start_nu(counts) if fixed is None else np.full(len(counts), fixed), learned=fixed is None)
        case "ordinal":
            ties = bool(counts[:, 0].any())
            return Ordinal(start_cut_points(counts, ties=ties), ties=ties)
        case "regression":
            assert examples.ratings is not None  # `_check_labels` refuses the recipe otherwise
            offset, scale = np.nanmean(examples.ratings, 0), np.nanstd(examples.ratings, 0)
            offset = offset if recipe.rating_offset is None else np.full_like(offset, recipe.rating_offset)
            return Thurstone(offset, scale if recipe.rating_scale is None else np.full_like(scale, recipe.rating_scale))


_ONLY_OF = {
    "top_k": ("plackett_luce",),
    "tie_parameter": ("rao_kupper", "davidson"),
    "rating_offset": ("regression",),
    "rating_scale": ("regression",),
    "label_smoothing": ("bradley_terry", "rao_kupper", "davidson", "ordinal"),
    "margin": ("bradley_terry", "rao_kupper", "davidson", "ordinal"),
}
"""Keys that only some losses read."""


def _check_keys(recipe: Recipe) -> None:
    for key, losses in _ONLY_OF.items():
        if getattr(recipe, key) != Recipe.model_fields[key].default and recipe.loss not in losses:
            raise BadRecipe(f"{key} has no effect with loss: {recipe.loss}; remove it, or use {' or '.join(losses)}")
    if recipe.loss == "rao_kupper" and recipe.tie_parameter is not None and recipe.tie_parameter <= 1:
        raise BadRecipe(f"tie_parameter is {recipe.tie_parameter:g}; wanted theta above 1 for loss: rao_kupper")
    if len(set(recipe.heads)) < len(recipe.heads):
        raise BadRecipe(f"heads is {list(recipe.heads)}; wanted each name once")


def _count_strengths(examples: Examples) -> Float[np.ndarray, "H S"]:
    """Training preferences of each head by strength, 0 a tie; those of unknown strength count as 1."""
    counts: Counter[tuple[str, int]] = Counter()
    for group in examples.preferences:
        if isinstance(group, RankedPairs):
            counts.update({(group.head, 0): group.ties, (group.head, 1): len(group) - group.ties})
            continue
        counts.update((p.head, 0 if p.tie else p.strength or 1) for p in group)
    levels = max([1, *(strength for _, strength in counts)])
    return np.array([[counts[head, level] for level in range(levels + 1)] for head in examples.heads], float)


def _check_labels(recipe: Recipe, examples: Examples, counts: Float[np.ndarray, "H S"]) -> None:
    """Refuse a loss that the training labels cannot teach."""
    start = f"loss is {recipe.loss}, but"
    unlabelled = [name for name, row in zip(examples.heads, counts, strict=True) if not row.any()]
    if unlabelled:
        others = [head for head in [*examples.heads, *examples.left_heads] if head not in unlabelled]
        raise BadRecipe(
            f"heads names {', '.join(unlabelled)}, but no training comparison is labeled so;"
            f" the data have {', '.join(others)}"
        )
    if recipe.loss in ("rao_kupper", "davidson") and recipe.tie_parameter is None and not counts[:, 0].any():
        raise BadRecipe(
            f"{start} none of the {int(counts.sum())} training preferences is a tie;"
            " set loss: bradley_terry, or give tie_parameter a value"
        )
    stated = any(p.strength for group in examples.preferences if not isinstance(group, RankedPairs) for p in group)
    if recipe.loss == "ordinal" and not stated:
        other = "rao_kupper" if counts[:, 0].any() else "bradley_terry"
        raise BadRecipe(f"{start} no training preference has a strength; set loss: {other}, or add strengths")
    if recipe.margin and not stated:
        raise BadRecipe("margin is set, but no training preference has a strength; set margin: 0, or add strengths")
    if recipe.loss == "regression":
        _check_ratings(examples, start, scaled=recipe.rating_scale is not None)
    check_ranked(recipe, examples)


def check_ranked(recipe: Recipe, examples: Examples) -> None:
    """Refuse comparisons that were to be ranked and cannot be.

    Raises:
        BadRecipe: naming some of them.
    """
    if examples.unordered:
        raise BadRecipe(
            f"loss is {recipe.loss}, but the preferences of {_some(examples.unordered)} do not order the replies"
            f"{f' down to place {recipe.top_k}' if recipe.top_k else ''} (a circle, or replies never compared);"
            " set loss: bradley_terry, or top_k: 1 where the best reply is known"
        )


def _check_ratings(examples: Examples, start: str, *, scaled: bool) -> None:
    for head, name in enumerate(examples.heads):
        column = np.zeros(0) if examples.ratings is None else examples.ratings[:, head]
        column = column[~np.isnan(column)]
        if not len(column):
            raise BadRecipe(f"{start} no training reply has a rating of {name}; set loss: bradley_terry")
        if not scaled and column.std() == 0:
            raise BadRecipe(f"{start} every rating of {name} is {column[0]:g}; set rating_scale, or use other data")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more comparisons" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
