"""The likelihoods behind the losses: win, tie and loss as functions of the difference of two scores.

Each is a function of the difference alone (the likelier order of two replies depends on nothing else), works in
log-probabilities, and starts its own parameters where equal scores would give the training labels' shares. Rao-Kupper's
model of ties is the ordinal model with one level, so it has no class of its own.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from prefrank.training.losses.labels import UNKNOWN


class Outcomes(NamedTuple):
    """Log-probabilities of P outcomes; `tie` is None for a model without ties."""

    win: Float[Tensor, " P"]
    tie: Float[Tensor, " P"] | None
    loss: Float[Tensor, " P"]


class Likelihood(nn.Module, ABC):
    """How P(win), P(tie) and P(loss) follow from the difference of two scores."""

    @abstractmethod
    def outcomes(
        self, difference: Float[Tensor, " P"], strength: Int64[Tensor, " P"], head: Int64[Tensor, " P"]
    ) -> Outcomes:
        """Log-probabilities of a win by this strength, of a tie, and of a loss by this strength."""

    @abstractmethod
    def values(self) -> Mapping[str, list[list[float]]]:
        """The parameters as their papers name them: name -> head -> numbers."""

    def probabilities(
        self, difference: Float[Tensor, " P"], *, head: int = 0
    ) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"], Float[Tensor, " P"]]:
        """P(win), P(tie), P(loss) at a score difference, by whatever strength; they sum to 1."""
        heads = torch.full(difference.shape, head, dtype=torch.int64, device=difference.device)
        win, tie, loss = self.outcomes(difference, torch.full_like(heads, UNKNOWN), heads)
        return win.exp(), torch.zeros_like(difference) if tie is None else tie.exp(), loss.exp()


class BradleyTerry(Likelihood):
    """P(win) = sigmoid(difference): Bradley & Terry 1952, with pi = exp(score). Also what Plackett-Luce says of a
    pair (Luce 1959: a choice between two does not depend on the others)."""

    def outcomes(
        self, difference: Float[Tensor, " P"], strength: Int64[Tensor, " P"], head: Int64[Tensor, " P"]
    ) -> Outcomes:
        return Outcomes(logsigmoid(difference), None, logsigmoid(-difference))

    def values(self) -> Mapping[str, list[list[float]]]:
        return {}


class Thurstone(Likelihood):
    """P(win) = Phi(difference / sqrt 2): two ratings with independent normal errors of variance 1, compared (Thurstone
    1927, case V). It is what squared error on ratings implies: 0.5 (score - target)^2 is -log of that normal density.

    A head's target is (rating - offset) / scale.
    """

    def __init__(self, offset: np.ndarray, scale: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def outcomes(
        self, difference: Float[Tensor, " P"], strength: Int64[Tensor, " P"], head: Int64[Tensor, " P"]
    ) -> Outcomes:
        z = difference / math.sqrt(2.0)
        return Outcomes(torch.special.log_ndtr(z), None, torch.special.log_ndtr(-z))

    def targets(self, rating: Float[Tensor, " R"], head: Int64[Tensor, " R"]) -> Float[Tensor, " R"]:
        """Ratings in units of score."""
        return (rating - self.get_buffer("offset")[head]) / self.get_buffer("scale")[head]

    def values(self) -> Mapping[str, list[list[float]]]:
        return {name: self.get_buffer(name)[:, None].tolist() for name in ("offset", "scale")}


class Davidson(Likelihood):
    """P(tie) = nu sqrt(pi_w pi_l) / (pi_w + pi_l + nu sqrt(pi_w pi_l)), pi = exp(score): Davidson 1970.

    With the difference d: win, tie, loss in the proportions exp(d/2) : nu : exp(-d/2). A win's odds against a loss stay
    exp(d).
    """

    def __init__(self, nu: np.ndarray, *, learned: bool = True) -> None:
        super().__init__()
        self.log_nu = nn.Parameter(torch.tensor(np.log(nu), dtype=torch.float32), requires_grad=learned)

    def outcomes(
        self, difference: Float[Tensor, " P"], strength: Int64[Tensor, " P"], head: Int64[Tensor, " P"]
    ) -> Outcomes:
        shares = torch.stack([difference / 2, self.log_nu[head].to(difference.dtype), -difference / 2]).log_softmax(0)
        return Outcomes(shares[0], shares[1], shares[2])

    def values(self) -> Mapping[str, list[list[float]]]:
        return {"nu": self.log_nu.detach().exp()[:, None].tolist()}


class Ordinal(Likelihood):
    """Levels of strength as intervals of a logistic variable around the difference, with learned cut-points.

    P(better by level k or more) = sigmoid(difference - c_k), 0 <= c_1 < c_2 < ...: the cumulative logit of McCullagh
    1980, made symmetric for pairs by Agresti 1992: the loser's cut-points are the winner's with the sign turned. What
    lies between -c_1 and c_1 is a tie; without ties c_1 is 0. With one level and ties it is Rao & Kupper 1967, P(win) =
    pi_w / (pi_w + theta pi_l), c_1 = log theta; with one level and none, Bradley-Terry. A stated strength above the
    last level counts as the last; an unknown one as any.

    Args:
        cut_points: [H S] positive and increasing, of c_1 to c_S with ties, of c_2 to c_S without.
        ties: whether there is a tie between -c_1 and c_1.
        learned: whether the cut-points are trained; kept as logarithms of their gaps, so they stay in order.
    """

    def __init__(self, cut_points: np.ndarray, *, ties: bool, learned: bool = True) -> None:
        super().__init__()
        gaps = np.diff(cut_points, axis=1, prepend=0.0)
        self.ties = ties
        self.log_gaps = nn.Parameter(torch.tensor(np.log(gaps), dtype=torch.float32), requires_grad=learned)

    def cut_points(self) -> Float[Tensor, "H S"]:
        """c_1, c_2, ... of each head; c_1 is 0 without ties."""
        cuts = self.log_gaps.exp().cumsum(1)
        return cuts if self.ties else torch.cat([cuts.new_zeros(len(cuts), 1), cuts], 1)

    def outcomes(
        self, difference: Float[Tensor, " P"], strength: Int64[Tensor, " P"], head: Int64[Tensor, " P"]
    ) -> Outcomes:
        cuts = self.cut_points().to(difference.dtype)
        levels = cuts.shape[1]
        edges = torch.cat([cuts, torch.full_like(cuts[:, :1], math.inf)], 1)
        level = strength.clamp(1, levels)
        low = pick(edges, head, level - 1)
        high = pick(edges, head, torch.where(strength == UNKNOWN, levels, level))
        first = pick(cuts, head, torch.zeros_like(head))
        tie = _between(difference, -first, first) if self.ties else None
        return Outcomes(_between(difference, low, high), tie, _between(-difference, low, high))

    def values(self) -> Mapping[str, list[list[float]]]:
        return {"cut_points": self.cut_points().detach().tolist()}


def pick(table: Float[Tensor, "R C"], row: Int64[Tensor, " P"], column: Int64[Tensor, " P"]) -> Float[Tensor, " P"]:
    """`table[row, column]`, whose gradient is added up many times faster this way."""
    return table.flatten().index_select(0, row * table.shape[1] + column)


def _between(
    difference: Float[Tensor, " P"], low: Float[Tensor, " P"], high: Float[Tensor, " P"]
) -> Float[Tensor, " P"]:
    """log(sigmoid(difference - low) - sigmoid(difference - high)), low < high <= inf.

    By sigmoid(x) - sigmoid(y) = sigmoid(x) sigmoid(-y) (1 - exp(y - x)): no difference of two numbers near 1 or 0.
    """
    return logsigmoid(difference - low) + logsigmoid(high - difference) + torch.log(-torch.expm1(low - high))


def start_cut_points(counts: np.ndarray, *, ties: bool) -> np.ndarray:
    """The cut-points [H _] that give equal scores the shares of these labels; their maximum likelihood there.

    Args:
        counts: [H S] training labels of each head by strength, from 0 (ties).

    Half a label is added to each level, so that a level that one head lacks has a place all the same.
    """
    smoothed = counts + 0.5
    if not ties:
        smoothed = smoothed[:, 1:]
    below = np.cumsum(smoothed, 1)[:, :-1] / smoothed.sum(1, keepdims=True)
    return np.log((1 + below) / (1 - below))


def start_nu(counts: np.ndarray) -> np.ndarray:
    """Davidson's nu [H] at which equal scores tie as often as the labels [H 2] (ties, others) do."""
    ties, decided = counts[:, 0] + 0.5, counts[:, 1:].sum(1) + 0.5
    return 2 * ties / decided
