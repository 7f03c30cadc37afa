"""Scoring: a checkpoint and texts in, scores with their facts out; or a server in place of the checkpoint.

The names load what they need when they are first used, so that scoring by a server loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefrank.scoring.info import checkpoint_info
    from prefrank.scoring.merge import merge_adapter
    from prefrank.scoring.remote import RemoteScorer, ServerOptions, open_server
    from prefrank.scoring.reward_model import Ranked, RewardModel, win_probability
    from prefrank.scoring.starter_card import card_rank_model_fn

_WHERE = {
    "Ranked": "reward_model",
    "RemoteScorer": "remote",
    "RewardModel": "reward_model",
    "ServerOptions": "remote",
    "card_rank_model_fn": "starter_card",
    "checkpoint_info": "info",
    "merge_adapter": "merge",
    "open_server": "remote",
    "win_probability": "reward_model",
}

__all__ = [
    "Ranked",
    "RemoteScorer",
    "RewardModel",
    "ServerOptions",
    "card_rank_model_fn",
    "checkpoint_info",
    "merge_adapter",
    "open_server",
    "win_probability",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'prefrank.scoring' has no name {name!r}")
    return getattr(import_module(f"prefrank.scoring.{_WHERE[name]}"), name)
