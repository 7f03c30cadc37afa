"""What each loss makes of a score difference: the chances of win, tie and loss. Usage: loss_curves.py OUT.png"""

import sys

import numpy as np
import torch
from matplotlib import pyplot as plt

from prefrank.training.losses.likelihoods import BradleyTerry, Davidson, Ordinal, Thurstone, start_cut_points, start_nu

COUNTS = np.array([[200.0, 350.0, 250.0, 200.0]])  # labels: tie, slightly better, better, much better
TWO = np.stack([COUNTS[:, 0], COUNTS[:, 1:].sum(1)], 1)
MODELS = {
    "bradley_terry,\nplackett_luce": BradleyTerry(),
    "regression": Thurstone(np.zeros(1), np.ones(1)),
    "rao_kupper": Ordinal(start_cut_points(TWO, ties=True), ties=True),
    "davidson": Davidson(start_nu(TWO)),
    "ordinal,\nthree strengths": Ordinal(start_cut_points(COUNTS, ties=True), ties=True),
}


def main(path: str) -> None:
    difference = torch.linspace(-6, 6, 241)
    figure, axes = plt.subplots(1, len(MODELS), figsize=(15, 3.4), sharey=True)
    for axis, (name, model) in zip(axes, MODELS.items(), strict=True):
        win, tie, loss = (outcome.detach() for outcome in model.probabilities(difference))
        for values, label, color in ((win, "win", "#2a6fbb"), (tie, "tie", "#8a8a8a"), (loss, "loss", "#c0562f")):
            axis.plot(difference, values, label=label, color=color)
        head = torch.zeros(len(difference), dtype=torch.int64)
        for strength in (1, 2, 3) if name.startswith("ordinal") else ():
            level = model.outcomes(difference, torch.full_like(head, strength), head).win.exp().detach()
            axis.plot(difference, level, "--", color="#2a6fbb", linewidth=0.5 + 0.4 * strength)
        axis.set(title=name, xlabel="score difference", ylim=(0, 1.02))
    axes[2].legend(frameon=False)
    figure.savefig(path, dpi=100, bbox_inches="tight")


if __name__ == "__main__":
    main(*sys.argv[1:])
