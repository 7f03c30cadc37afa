"""Preference losses: pure functions of scores and preferences, as sums over comparisons.

Surprising: nothing here averages. The loop divides once by the global count, so accumulating over micro-batches and
processes is exact however ragged they are. Every term touches two scores of one comparison, so comparisons may be
split between micro-batches freely. Scores are expected in float32 (float64 works, for gradient checks).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn.functional import softplus

from prefrank.types import Preference

Weigh = Literal["comparison", "pair"]


@dataclass(frozen=True, slots=True, eq=False)
class Preferences:
    """P preferences between N scored rows.

    Args:
        winner: [P] row of the preferred reply.
        loser: [P] row of the other reply.
        probability: [P] of the winner winning; 0.5 is a tie.
        weight: [P] what each preference counts; those of one comparison sum to 1 unless pairs were asked for.
        margin: [P] by how much the winner's score should lead.
    """

    winner: Int64[Tensor, " P"]
    loser: Int64[Tensor, " P"]
    probability: Float32[Tensor, " P"]
    weight: Float32[Tensor, " P"]
    margin: Float32[Tensor, " P"]

    def to(self, device: torch.device) -> "Preferences":
        return Preferences(
            self.winner.to(device),
            self.loser.to(device),
            self.probability.to(device),
            self.weight.to(device),
            self.margin.to(device),
        )


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Coefficients of `reward_loss`; see the recipe's fields of the same names."""

    label_smoothing: float = 0.0
    score_l2: float = 0.0
    centering: float = 0.0


def number_rows(
    groups: Sequence[Sequence[Preference]],
    first_rows: Sequence[int],
    *,
    weigh: Weigh = "comparison",
    weights: Sequence[float] | None = None,
) -> Preferences:
    """Turn each comparison's reply indexes into row numbers, and its preference weights into shares.

    Args:
        groups: the preferences of each comparison.
        first_rows: the row of each comparison's reply 0.
        weigh: "comparison": a comparison's weights are scaled to sum to 1 (InstructGPT's mean over K-choose-2, Ouyang
            et al. 2022 eq. 1); "pair": they are taken as they are, so that every pair counts alike.
        weights: what each comparison counts on top of that; 1 each by default.
    """
    flat = [(p, first, c) for c, (group, first) in enumerate(zip(groups, first_rows, strict=True)) for p in group]
    outer = [1.0] * len(groups) if weights is None else list(weights)
    total = [1.0 if weigh == "pair" else sum(p.weight for p in group) for group in groups]
    return Preferences(
        winner=torch.tensor([first + p.winner for p, first, _ in flat], dtype=torch.int64),
        loser=torch.tensor([first + p.loser for p, first, _ in flat], dtype=torch.int64),
        probability=torch.tensor([p.probability for p, _, _ in flat], dtype=torch.float32),
        weight=torch.tensor([outer[c] * p.weight / total[c] for p, _, c in flat], dtype=torch.float32),
        margin=torch.tensor([p.margin for p, _, _ in flat], dtype=torch.float32),
    )


def bradley_terry(
    scores: Float[Tensor, " N"], preferences: Preferences, *, label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Cross-entropy of the Bradley-Terry model (1952) against soft labels: sum of weight * -log P(outcome).

    With probability 1 it is -log sigmoid(r_w - r_l - margin), Ouyang et al. 2022 eq. 1 with Llama 2's margin (Touvron
    et al. 2023, eq. 2); with 0.5 the even mixture of both outcomes.

    Args:
        label_smoothing: chance, 0 to 0.5, that a label is the wrong way round.
    """
    lead = scores[preferences.winner] - scores[preferences.loser] - preferences.margin
    target = preferences.probability + label_smoothing * (1.0 - 2.0 * preferences.probability)
    return (preferences.weight * (target * softplus(-lead) + (1.0 - target) * softplus(lead))).sum()


def squared_scores(scores: Float[Tensor, " N"], preferences: Preferences) -> Float[Tensor, ""]:
    """Sum of weight * 0.5 * (r_w^2 + r_l^2), which pulls scores towards 0 (Open Assistant's RMLoss, beta term)."""
    winner, loser = scores[preferences.winner], scores[preferences.loser]
    return (preferences.weight * 0.5 * (winner**2 + loser**2)).sum()


def squared_centre(scores: Float[Tensor, " N"], preferences: Preferences) -> Float[Tensor, ""]:
    """Sum of weight * (r_w + r_l)^2, which centres each pair on 0 (Eisenstein et al. 2023, arXiv 2312.09244)."""
    return (preferences.weight * (scores[preferences.winner] + scores[preferences.loser]) ** 2).sum()


def reward_loss(scores: Float[Tensor, " N"], preferences: Preferences, settings: LossSettings) -> Float[Tensor, ""]:
    """Bradley-Terry plus the score terms whose coefficient is not 0; 0 where there is no preference."""
    loss = bradley_terry(scores, preferences, label_smoothing=settings.label_smoothing)
    if settings.score_l2:
        loss = loss + settings.score_l2 * squared_scores(scores, preferences)
    if settings.centering:
        loss = loss + settings.centering * squared_centre(scores, preferences)
    return loss


LOSSES = {"bradley_terry": reward_loss}
"""Recipe name -> loss of scores, preferences and settings."""


def count_correct(scores: Float[Tensor, " N"], preferences: Preferences) -> Float[Tensor, " P"]:
    """1 where the scores order the likelier winner first, 0 where last; 0.5 for equal scores and for ties."""
    lead = scores[preferences.winner] - scores[preferences.loser]
    return 0.5 + 0.5 * torch.sign(lead) * torch.sign(preferences.probability - 0.5)
