from typing import Any

import pytest
import torch

from prefrank.model.linear import Linear
from prefrank.training.foresight.activations import kept_bytes, without_weights
from prefrank.training.loop.step import saved_bytes
from tests.parity.reference import CONFIGS, TABLE
from tests.training.foresight.small import BERT, DEBERTA, batch_of, recipe_of

WIDE = {
    "num_hidden_layers": 5, "num_attention_heads": 8, "hidden_size": 64, "intermediate_size": 96,
    "max_position_embeddings": 64, "vocab_size": 900,
}  # fmt: skip


def kept_by_all(config: dict[str, Any], recipe: Any, rows: int, length: int, *, checkpointing: bool) -> int:
    """What a pass of the whole model keeps on the CPU, computed as on a GPU."""
    network = without_weights(config, recipe)
    network.to_empty(device="cpu").train()
    for tensor in network.state_dict().values():
        tensor.zero_()
    for module in network.modules():
        if isinstance(module, Linear):
            module.whole = False
    network.gradient_checkpointing = checkpointing
    batch = batch_of(*rows * [length])
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16 is not False):
        return saved_bytes(network.parameters(), lambda: network(batch))[1]


DECODERS = ["llama", "mistral", "qwen2", "qwen3", "phi3"]
KINDS = [*DECODERS, "roberta", "electra projected", "deberta v2 xxlarge", "deberta own position projections",
         "deberta c2p", "deberta no buckets", "deberta absolute, types", "mpnet"]  # fmt: skip


def config_of(name: str) -> dict[str, Any]:
    kind, keys = CONFIGS[name]
    family = next(name for name, (one, _) in TABLE.items() if one == kind)
    window = {"sliding_window": 64} if "sliding_window" in keys else {}  # more than any row has
    return {**WIDE, **keys, **window, "num_hidden_layers": 5, "model_type": family}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["bert", *KINDS])
def test_small_relatives_tell_what_the_whole_model_keeps(name, checkpointing):
    recipe, config = recipe_of(dropout=0.0, bf16=False), config_of(name)
    kept, _ = kept_bytes(config, recipe, rows=4, length=20, checkpointing=checkpointing)
    assert kept == pytest.approx(kept_by_all(config, recipe, 4, 20, checkpointing=checkpointing), rel=1e-3)


def test_a_config_that_names_the_kind_of_each_layer_has_relatives_with_fewer():
    recipe, config = recipe_of(dropout=0.0, bf16=False), config_of("qwen3")
    named = config | {"layer_types": ["full_attention"] * config["num_hidden_layers"], "head_dim": 10}
    kept, _ = kept_bytes(named, recipe, rows=4, length=20, checkpointing=False)
    assert kept == pytest.approx(kept_by_all(named, recipe, 4, 20, checkpointing=False), rel=1e-3)


@pytest.mark.parametrize("keys", [{"freeze_layers": 2}, {"freeze_layers": 5}, {"lora_rank": 2}, {"bf16": True}])
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_so_they_do_with_what_a_recipe_freezes_or_adds(keys, layers):
    keys = {**keys, "freeze_layers": min(layers, keys.get("freeze_layers", 0))}
    recipe, config = (
        recipe_of(**{"dropout": 0.0, "bf16": False, **keys}),
        {**config_of("bert"), "num_hidden_layers": layers},
    )
    kept, _ = kept_bytes(config, recipe, rows=4, length=20, checkpointing=False)
    assert kept == pytest.approx(kept_by_all(config, recipe, 4, 20, checkpointing=False), rel=1e-3)


@pytest.mark.parametrize(("rows", "length"), [(1, 20), (2, 9), (3, 4), (7, 30)])
def test_any_micro_batch_is_measured(rows, length):
    recipe, config = recipe_of(dropout=0.0, bf16=False), config_of("deberta v2 xxlarge")
    kept, _ = kept_bytes(config, recipe, rows=rows, length=length, checkpointing=False)
    assert kept == pytest.approx(kept_by_all(config, recipe, rows, length, checkpointing=False), rel=1e-3)


def test_dropout_costs_a_byte_an_element_and_bfloat16_saves_on_what_is_not_softmax():
    def kept(**keys: Any) -> int:
        return kept_bytes(BERT, recipe_of(**keys), rows=2, length=128, checkpointing=False)[0]

    plain, masked, narrow = kept(bf16=False), kept(bf16=False, dropout=0.1), kept()
    tokens, places = 256, 7  # embeddings, and after attention and feed-forward of all layers but the last
    assert masked - plain == pytest.approx(tokens * places * 64, rel=0.05)
    assert 0.5 < narrow / plain < 0.9


@pytest.mark.parametrize(
    ("keys", "size"), [({}, 4 + 2), ({"dropout": 0.1}, 4 + 1 + 2), ({"dropout": 0.1, "bf16": False}, 4 + 1 + 4)]
)
def test_scores_of_attention_keep_their_softmax_in_float32_a_mask_and_what_is_left(keys, size):
    layers = [kept_bytes(DEBERTA, recipe_of(**keys), rows=2, length=n, checkpointing=False)[1] for n in (20, 40, 60)]
    second_difference = layers[0] - 2 * layers[1] + layers[2]
    rows, heads = 2, 4
    assert second_difference == 2 * 20**2 * rows * heads * size
