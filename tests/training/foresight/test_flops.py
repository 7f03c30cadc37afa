import pytest
from torch.utils.flop_counter import FlopCounterMode

from prefrank.training.foresight.activations import without_weights
from prefrank.training.foresight.flops import flops_of
from prefrank.training.loop.extent import extent_of
from tests.training.foresight.small import BERT, DEBERTA, MPNET, batch_of, recipe_of


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
