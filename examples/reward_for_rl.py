"""A reward function for a trainer that hands over prompts and completions. Usage: reward_for_rl.py MODEL

Rewards are the model's scores less the mean of their prompt's group, the baseline that group-relative methods use.
Prompts and completions are strings, or lists of messages as conversational trainers have them.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from prefrank import RewardModel


class GroupRewards:
    def __init__(self, name: str) -> None:
        self.model = RewardModel.load(name)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
        scores = [score.value for score in self.model.score_pairs(zip(prompts, completions, strict=True))]
        keys = list(map(repr, prompts))
        groups: dict[str, list[float]] = defaultdict(list)
        for key, score in zip(keys, scores, strict=True):
            groups[key].append(score)
        return [score - sum(groups[key]) / len(groups[key]) for key, score in zip(keys, scores, strict=True)]


if __name__ == "__main__":
    rewards = GroupRewards(sys.argv[1])
    print(rewards(["What is yeast?"] * 2, ["A fungus that makes dough rise.", "No idea."]))
