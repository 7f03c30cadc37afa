"""Tiny random models of transformers (eager attention, float32) to hold our encoders against, and batches for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from prefrank.model.families import FAMILIES
from prefrank.types import Batch, reply_types

VOCAB = 100
SMALL = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
    "max_position_embeddings": 64,
}  # fmt: skip
V3 = dict(FAMILIES["deberta-v2"].tiny)
CONV = {"conv_kernel_size": 3, "conv_act": "gelu"}
TABLE: dict[str, tuple[str, dict[str, Any]]] = {
    model_type: (family.architecture.removesuffix("ForSequenceClassification"), dict(family.tiny))
    for model_type, family in FAMILIES.items()
}
"""A model of every line of the table of families, by model_type."""
ENCODERS = [model_type for model_type, family in FAMILIES.items() if not family.decoder]
LAID_OUT = [model_type for model_type in ENCODERS if FAMILIES[model_type].lay_out is not None]
"""Encoders that the engines which only score can run, and that can be quantised."""
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = TABLE | {
    "bert gelu_new, odd heads, one type": (
        "Bert", {"hidden_act": "gelu_new", "num_attention_heads": 5, "hidden_size": 35, "type_vocab_size": 1},
    ),
    "bert relu, one layer": ("Bert", {"hidden_act": "relu", "num_hidden_layers": 1, "layer_norm_eps": 1e-3}),
    "roberta with two types": ("Roberta", {"type_vocab_size": 2, "max_position_embeddings": 66, "pad_token_id": 1}),
    "electra projected": ("Electra", {"embedding_size": 20, "num_hidden_layers": 3, "hidden_act": "silu"}),
    "mpnet, 3 layers of 5 heads": ("MPNet", {"num_attention_heads": 5, "hidden_size": 35, "num_hidden_layers": 3,
                                            "max_position_embeddings": 80, "hidden_act": "relu", "layer_norm_eps": 1e-3,
                                            "pad_token_id": 4}),
    "mpnet, one layer": ("MPNet", {"num_hidden_layers": 1, "max_position_embeddings": 66}),
    "deberta v3, 3 layers of 3 heads": ("DebertaV2", V3 | {"num_attention_heads": 3, "hidden_size": 33,
                                                          "num_hidden_layers": 3}),
    "deberta v2 xxlarge": ("DebertaV2", V3 | CONV),
    "deberta v2 xlarge, grouped tanh convolution of 5": (
        "DebertaV2", V3 | {"conv_kernel_size": 5, "conv_groups": 4, "conv_act": "tanh"},
    ),
    "deberta convolution on the only layer": ("DebertaV2", V3 | CONV | {"num_hidden_layers": 1}),
    "deberta own position projections": ("DebertaV2", V3 | {"share_att_key": False}),
    "deberta c2p": ("DebertaV2", V3 | {"pos_att_type": "c2p"}),
    "deberta c2p, own projection": ("DebertaV2", V3 | {"pos_att_type": "c2p", "share_att_key": False}),
    "deberta p2c, own projection": ("DebertaV2", V3 | {"pos_att_type": ["p2c"], "share_att_key": False}),
    "deberta no position term": ("DebertaV2", V3 | {"pos_att_type": None}),
    "deberta absolute, types": ("DebertaV2", V3 | {"position_biased_input": True, "type_vocab_size": 2}),
    "deberta absolute only": (
        "DebertaV2", V3 | {"relative_attention": False, "position_biased_input": True, "norm_rel_ebd": "none"},
    ),
    "deberta one type": ("DebertaV2", V3 | {"type_vocab_size": 1}),
    "deberta no buckets": ("DebertaV2", V3 | {"position_buckets": -1, "max_relative_positions": 12}),
    "deberta unnormed relative embeddings": ("DebertaV2", V3 | {"norm_rel_ebd": "none", "pooler_hidden_act": "tanh"}),
    "deberta narrow embeddings": ("DebertaV2", V3 | {"embedding_size": 20}),
}  # fmt: skip
"""Every line of the table, and what else its encoders' code has branches for."""
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"num_key_value_heads": 2}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 8}),
    "gemma": ("Gemma", {"num_key_value_heads": 2, "head_dim": 8}),
    "gpt_neox": ("GPTNeoX", {}),
    "gpt2": ("GPT2", {}),
    "modernbert cls": ("ModernBert", {"classifier_pooling": "cls", "pad_token_id": 0, "local_attention": 8}),
    "modernbert mean": ("ModernBert", {"classifier_pooling": "mean", "pad_token_id": 0, "local_attention": 8}),
    "albert": ("Albert", {"embedding_size": 16}),
    "distilbert": ("DistilBert", {}),
    "ctrl": ("CTRL", {"vocab_size": VOCAB, "d_model": 32, "n_embd": 32, "dff": 40, "n_layer": 2, "n_head": 4}),
    "xlnet": ("XLNet", {"vocab_size": VOCAB, "d_model": 32, "n_head": 4, "n_layer": 2, "d_inner": 40}),
}


def model_of(kind: str, options: dict[str, Any], *, seed: int = 0, num_labels: int = 1, **ids: Any) -> nn.Module:
    """A random `{kind}ForSequenceClassification` in evaluation mode; norms and biases are random too."""
    size = {} if "d_model" in options else SMALL  # these have names of their own
    config = getattr(transformers, f"{kind}Config")(num_labels=num_labels, **size | options | ids)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    scramble(model, seed)
    return model.eval()


def scramble(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.15
            parameter.copy_(noise + 1.0 if "norm" in name.lower() and name.endswith("weight") else noise)


def saved(model: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def batch_of(lengths: Sequence[int], *, seed: int = 0, order: Sequence[int] | None = None) -> Batch:
    """Random rows of these lengths, the same ones in any `order`; ids from 3 on, so never padding."""
    generator = np.random.default_rng(seed)
    rows = [generator.integers(3, VOCAB, size=length) for length in lengths]
    replies = [int(generator.integers(0, length + 1)) for length in lengths]
    order = range(len(lengths)) if order is None else order
    starts = np.cumsum([0, *(lengths[row] for row in order)])
    return Batch(
        ids=np.concatenate([rows[row] for row in order]).astype(np.int64),
        starts=starts.astype(np.int64),
        types=reply_types([lengths[row] for row in order], [replies[row] for row in order]),
        rows=np.array(list(order), dtype=np.int64),
    )


def alone(batch: Batch) -> list[Batch]:
    """Each row as a batch of its own."""
    zero = np.zeros(1, dtype=np.int64)
    return [
        Batch(ids=batch.ids[a:b], types=batch.types[a:b], starts=np.array([0, b - a], dtype=np.int64), rows=zero)
        for a, b in zip(batch.starts[:-1], batch.starts[1:], strict=True)
    ]


def reference_scores(model: nn.Module, batch: Batch) -> Tensor:
    """transformers' scores, padded on the right, with the token types that a pair-encoding tokenizer gives."""
    lengths = np.diff(batch.starts)
    ids = torch.zeros(len(lengths), int(lengths.max()), dtype=torch.long)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (start, length) in enumerate(zip(batch.starts, lengths, strict=False)):
        ids[row, :length] = torch.tensor(batch.ids[start : start + length])
        mask[row, :length] = 1
        types[row, :length] = torch.tensor(batch.types[start : start + length])
    table = 2 if model.config.model_type == "xlnet" else getattr(model.config, "type_vocab_size", 0)
    typed = table > 1 and "oberta" not in type(model).__name__.lower()
    inputs = {"token_type_ids": types} if typed else {}
    return model(input_ids=ids, attention_mask=mask, **inputs).logits.squeeze(-1)
