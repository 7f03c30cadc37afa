"""Configs, recipes and batches of small encoders, for tests of what a run takes."""

from typing import Any

import numpy as np

from prefrank.training import Recipe, make_recipe
from prefrank.types import Batch, reply_types

BERT = {
    "model_type": "bert", "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "intermediate_size": 128, "max_position_embeddings": 512, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
DEBERTA = {
    **BERT, "model_type": "deberta-v2", "relative_attention": True, "position_buckets": 64, "pos_att_type": "p2c|c2p",
    "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_biased_input": False, "type_vocab_size": 0,
    "max_relative_positions": -1,
}  # fmt: skip
MPNET = {**BERT, "model_type": "mpnet"}
LLAMA = {
    "model_type": "llama", "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip
QWEN3 = {**LLAMA, "model_type": "qwen3", "head_dim": 32}


def recipe_of(**keys: Any) -> Recipe:
    return make_recipe({"model_name": "minilm", "datasets": "starter", "learning_rate": 1e-4, "max_length": 128} | keys)


def batch_of(*lengths: int) -> Batch:
    starts = np.cumsum([0, *lengths])
    return Batch(
        ids=np.arange(starts[-1]) % 900,
        starts=starts,
        types=reply_types(lengths, np.array(lengths) // 2),
        rows=np.arange(len(lengths)),
    )
