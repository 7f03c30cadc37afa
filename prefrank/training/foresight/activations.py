"""What a GPU keeps of a forward pass for the backward pass: measured on small relatives of a model, on the CPU.

A relative has the model's config, but for two or three layers, a few heads with widths to match, and a tiny word table.
It makes real passes over a few short rows, and `saved_bytes` says what autograd keeps. Those bytes are a polynomial of
the sizes: linear in layers and rows, quadratic in heads (autocast keeps copies of the weights) and in the length of
rows (attention). A few small cases so give the bytes of the model itself, exactly, with neither its weights nor a GPU.

In three things a GPU differs from a CPU, and the relatives follow the GPU: dropout keeps a byte an element, autocast
leaves softmax in float32, and the last layer makes keys and values of all tokens.
"""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import product
from math import gcd, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prefrank.io.json_files import Fields
from prefrank.model.families import find_family
from prefrank.model.families.decoder import DecoderNetwork, SelfAttention
from prefrank.model.linear import Linear
from prefrank.model.network import PackedNetwork
from prefrank.training.loop.lora import add_adapters
from prefrank.training.loop.optim import freeze
from prefrank.training.loop.step import saved_bytes
from prefrank.training.recipe import Recipe
from prefrank.types import Batch

_HEADS, _ROWS, _LENGTHS = (2, 3, 4), (2, 3), (4, 8, 12)
"""Sizes that are measured. None is 1, where torch copies less than elsewhere."""


def without_weights(config: Mapping[str, Any], recipe: Recipe) -> PackedNetwork | None:
    """The network a recipe trains, on the meta device, with what it freezes; None if transformers would run it."""
    family = find_family(Fields.of(config))
    if family is None:
        return None
    with torch.device("meta"):
        network = family.network(config, dropout=recipe.dropout)
    freeze(network, recipe)
    if recipe.lora_rank:
        add_adapters(network, recipe)
    return network


def kept_bytes(
    config: Mapping[str, Any], recipe: Recipe, *, rows: int, length: int, checkpointing: bool
) -> tuple[int, int]:
    """What one of our networks keeps of a micro-batch: in all, and for each of its layers in the middle.

    Args:
        config: the model's raw config.json.
        recipe: trained in bfloat16 autocast unless its `bf16` is False.
        rows: of the micro-batch, which share nothing.
        length: of every row, in tokens.
        checkpointing: whether layers are computed again in the backward pass.
    """
    heads = config["num_attention_heads"]
    fixed: dict[str, Any] = {**config, "vocab_size": 8, "conv_groups": 1}
    widths = {key: config[key] for key in ("hidden_size", "intermediate_size", "embedding_size") if key in config}
    whole = without_weights(config, recipe)
    if isinstance(whole, DecoderNetwork):
        widths["num_key_value_heads"] = whole.spec.num_kv_heads
        fixed |= {"head_dim": whole.spec.head_width, "pad_token_id": None, "sliding_window": None}
        fixed.pop("layer_types", None)  # windows keep a mask, once for all layers, which is left out
    unit = heads // gcd(heads, *widths.values())
    target = heads, rows, length
    axes = zip(target, ([unit * n for n in _HEADS], _ROWS, _LENGTHS), strict=True)
    sizes = [small if wanted > small[-1] else [wanted] for wanted, small in axes]
    frozen = min(1, recipe.freeze_layers)
    trained, ends = config["num_hidden_layers"] - recipe.freeze_layers, 2 - frozen

    @cache
    def measure(layers: int) -> int:
        """With so many trained layers, and one below them where some are frozen."""
        total = 0.0
        for fewer in sizes[0]:
            shape = {key: width * fewer // heads for key, width in widths.items()}
            shape |= {"num_attention_heads": fewer, "num_hidden_layers": frozen + layers}
            network = _relative({**fixed, **shape}, recipe.model_copy(update={"freeze_layers": frozen}))
            network.gradient_checkpointing = checkpointing
            for case in product(*sizes[1:]):
                factor = prod(map(_lagrange, sizes, (fewer, *case), target))
                total += factor * _saved(network, *case, bf16=recipe.bf16 is not False)
        return round(total)

    layer = measure(ends + 1) - measure(ends)
    return measure(min(trained, ends)) + max(0, trained - ends) * layer, layer


def _lagrange(nodes: Sequence[int], node: int, place: int) -> float:
    """The polynomial that is 1 at one of some nodes and 0 at the others, at a place."""
    return prod(((place - other) / (node - other) for other in nodes if other != node), start=1.0)


def _relative(config: Mapping[str, Any], recipe: Recipe) -> PackedNetwork:
    """A small network on the CPU, of zeros, that keeps what it would keep on a GPU."""
    network = without_weights(config, recipe)
    assert network is not None
    network.get_submodule("").to_empty(device="cpu").train()
    for tensor in network.state_dict().values():
        tensor.zero_()
    for _, module in network.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(partial(_drop, rate=module.p))
            module.p = 0.0
        if isinstance(module, Linear):
            module.whole = False  # so that the last layer is computed as on a GPU
        if isinstance(module, SelfAttention):
            module.dropout = 0.0  # of which a GPU keeps the seed alone
    return network


def _drop(module: nn.Module, inputs: tuple[Tensor], output: Tensor, *, rate: float) -> Tensor:
    """Dropout as on a GPU; in autocast also the two bytes an element more that softmax, [n, H, a, b], keeps there."""
    if output.ndim == 4 and output.dtype == torch.bfloat16:
        output = output * torch.ones_like(output)
    return torch.native_dropout(output, rate, True)[0] if rate else output


def _saved(network: PackedNetwork, rows: int, length: int, *, bf16: bool) -> int:
    """The bytes that one real pass keeps."""
    tokens = rows * length
    batch = Batch(
        ids=np.zeros(tokens, np.int64),
        starts=length * np.arange(rows + 1),
        types=np.zeros(tokens, np.int8),
        rows=np.arange(rows),
    )
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return saved_bytes(network.parameters(), lambda: network(batch))[1]
