"""A reward function for a trainer that hands over prompts and completions. Usage: reward_for_rl.py MODEL

Rewards are the model's scores less the mean of their prompt's group, the baseline that group-relative methods use.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence

from prefrank import RewardModel


class GroupRewards:
    def __init__(self, name: str) -> None:
        self.model = RewardModel.load(name)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        scores = [score.value for score in self.model.score_pairs(list(zip(prompts, completions, strict=True)))]
        groups: dict[str, list[float]] = defaultdict(list)
        for prompt, score in zip(prompts, scores, strict=True):
            groups[prompt].append(score)
        return [score - sum(groups[p]) / len(groups[p]) for p, score in zip(prompts, scores, strict=True)]


if __name__ == "__main__":
    rewards = GroupRewards(sys.argv[1])
    print(rewards(["What is yeast?"] * 2, ["A fungus that makes dough rise.", "No idea."]))
