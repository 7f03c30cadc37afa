"""torch's layers with less work on a CPU: the same function, the same gradients, the stated rate."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prefrank.model.packed_encoder import Dropout, Embedding


def test_dropout_drops_at_its_rate_and_keeps_the_expectation():
    torch.manual_seed(0)
    dropped = Dropout(0.1)(torch.ones(1000, 1000))
    share = (dropped == 0).double().mean().item()
    assert share == pytest.approx(0.1, abs=4 * (0.09 / 10**6) ** 0.5)
    (kept,) = dropped[dropped != 0].unique().tolist()
    limit = round(0.1 * 2**16)
    assert kept == pytest.approx(2**16 / (2**16 - limit))
    assert not torch.equal(dropped[0] == 0, dropped[1] == 0)


def test_dropout_of_nearly_everything_drops_nearly_everything():
    torch.manual_seed(0)
    assert (Dropout(1 - 1e-9)(torch.ones(1000)) == 0).double().mean() > 0.99
    assert not Dropout(1.0)(torch.ones(1000)).any()


def test_dropout_follows_torchs_generator_and_rests_outside_training():
    x = torch.randn(7, 5)
    layer, outputs = Dropout(0.5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(layer(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_rows_shared_by_a_step_give_the_tables_whole_gradient():
    """Two micro-batches; the padding row gets none, as in torch."""
    torch.manual_seed(0)
    ours, theirs = Embedding(50, 6, padding_idx=3), nn.Embedding(50, 6, padding_idx=3)
    theirs.load_state_dict(ours.state_dict())
    batches = [torch.tensor([3, 7, 7, 49]), torch.tensor([0, 7, 3])]
    slope = torch.linspace(-1, 1, 6)
    with ours.sharing(torch.cat(batches).numpy()):
        for ids in batches:
            (ours(ids) * slope).sum().backward()
        assert ours.weight.grad is None
    for ids in batches:
        (theirs(ids) * slope).sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    assert torch.equal(ours(batches[0]), F.embedding(batches[0], ours.weight))
