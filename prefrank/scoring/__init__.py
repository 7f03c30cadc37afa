"""Scoring: a checkpoint and texts in, scores with their facts out."""

from prefrank.scoring.info import checkpoint_info
from prefrank.scoring.merge import merge_adapter
from prefrank.scoring.reward_model import Ranked, RewardModel, win_probability
from prefrank.scoring.starter_card import card_rank_model_fn

__all__ = ["Ranked", "RewardModel", "card_rank_model_fn", "checkpoint_info", "merge_adapter", "win_probability"]
