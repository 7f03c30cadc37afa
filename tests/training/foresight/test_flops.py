import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from prefrank.training.foresight.activations import without_weights
from prefrank.training.foresight.flops import flops_of
from prefrank.training.loop.extent import extent_of
from tests.training.foresight.small import BERT, DEBERTA, LLAMA, MPNET, QWEN3, batch_of, recipe_of


@pytest.mark.parametrize(
    ("config", "frozen", "checkpointing"),
    [(BERT, 0, False), (DEBERTA, 0, True), (DEBERTA, 2, False), (MPNET, 0, False), (MPNET, 2, True)],
)
def test_operations_are_those_torch_counts(config, frozen, checkpointing):
    recipe = recipe_of(freeze_layers=frozen)
    network = without_weights({**config, "num_hidden_layers": 12}, recipe)
    network.gradient_checkpointing = checkpointing
    batch = batch_of(100, 200)
    extent = extent_of(batch, None)
    with FlopCounterMode(display=False) as counter:
        network(batch)
    flops = flops_of(network)
    assert flops.forward(extent) == pytest.approx(counter.get_total_flops(), rel=0.12)
    network.train()
    with FlopCounterMode(display=False) as counter:
        network(batch).sum().backward()
    assert flops.training(extent) == pytest.approx(counter.get_total_flops(), rel=0.12)


@pytest.mark.parametrize("config", [LLAMA, QWEN3])
def test_operations_of_a_decoder_are_those_torch_counts_of_its_matrices_and_half_of_its_attention(config):
    """Torch counts attention as if every token saw every other one."""
    network = without_weights({**config, "num_hidden_layers": 12, "hidden_size": 256}, recipe_of())
    batch = batch_of(100, 200)
    extent, lengths = extent_of(batch, network.causal), np.diff(batch.starts)
    flops, squares = flops_of(network), int((lengths**2).sum())
    assert flops.pairs == 12 * 4 * network.spec.num_heads * network.spec.head_width
    unseen = squares - extent.pairs
    with FlopCounterMode(display=False) as counter:
        network(batch)
    assert flops.forward(extent) + flops.pairs * unseen == pytest.approx(counter.get_total_flops(), rel=0.12)
    network.train()
    with FlopCounterMode(display=False) as counter:
        network(batch).sum().backward()
    wanted = flops.training(extent) + flops.training_pairs * unseen
    assert wanted == pytest.approx(counter.get_total_flops(), rel=0.12)
