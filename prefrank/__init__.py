"""Prefrank: reward models, end to end. Human comparisons in, a reward model out, replies ranked.

The public names load what they need when they are first used, so that `import prefrank` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefrank.data import describe, load_comparisons
    from prefrank.errors import PrefrankError
    from prefrank.evaluation import evaluate
    from prefrank.scoring import Ranked, RewardModel, card_rank_model_fn, win_probability
    from prefrank.training import load_recipe, train
    from prefrank.types import Comparison, Preference, Score, Turn

_WHERE = {
    "Comparison": "types",
    "Preference": "types",
    "PrefrankError": "errors",
    "Ranked": "scoring",
    "RewardModel": "scoring",
    "Score": "types",
    "Turn": "types",
    "card_rank_model_fn": "scoring",
    "describe": "data",
    "evaluate": "evaluation",
    "load_comparisons": "data",
    "load_recipe": "training",
    "train": "training",
    "win_probability": "scoring",
}

__all__ = [
    "Comparison",
    "Preference",
    "PrefrankError",
    "Ranked",
    "RewardModel",
    "Score",
    "Turn",
    "card_rank_model_fn",
    "describe",
    "evaluate",
    "load_comparisons",
    "load_recipe",
    "train",
    "win_probability",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'prefrank' has no name {name!r}")
    return getattr(import_module(f"prefrank.{_WHERE[name]}"), name)
