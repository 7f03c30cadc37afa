"""Linear layers and what follows them: the same numbers and gradients, with less work where a result is only read."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prefrank.model import linear
from prefrank.model.linear import ONEDNN, Linear, activated, in_blocks, only_read
from prefrank.model.packed_encoder import ACTIVATIONS

HARD = [-torch.inf, -1e30, -20.0, -3.0, -0.0, 0.0, 1e-3, 3.0, 20.0, 1e30, torch.inf, torch.nan]


@pytest.mark.parametrize("frozen", [(), ("weight",), ("x",), ("bias", "x")])
def test_a_linear_layer_and_its_gradients_are_torchs(frozen: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    ours, theirs = Linear(24, 40), nn.Linear(24, 40)
    theirs.load_state_dict(ours.state_dict())
    results = []
    for layer in (ours, theirs):
        x = torch.linspace(-1, 1, 33 * 24).view(33, 24).requires_grad_("x" not in frozen)
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(name not in frozen)
        y = layer(x)
        (y * torch.linspace(0, 1, 40)).sum().backward()
        with torch.no_grad():
            assert torch.equal(layer(x), y)
        results.append([y, x.grad, layer.weight.grad, layer.bias.grad])
    for mine, wanted in zip(*results, strict=True):
        assert (mine is None) == (wanted is None)
        if mine is not None:
            torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_in_the_product_is_torchs_also_of_what_is_no_number(name: str) -> None:
    layer, activation = Linear(1, 17, bias=False).eval(), ACTIVATIONS[name]
    nn.init.ones_(layer.weight)
    x = torch.tensor(HARD)[:, None]
    with torch.no_grad():
        wanted = activation(layer(x))
        torch.testing.assert_close(activated(layer, x, activation), wanted, rtol=1e-6, atol=1e-7, equal_nan=True)


def test_an_activation_is_part_of_the_product_where_it_is_only_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    multiply = linear._multiply

    def spy(x: Tensor, weight: Tensor, bias: Tensor | None, epilogue: tuple[str, str] = ("none", "")) -> Tensor:
        asked.append(epilogue[0])
        return multiply(x, weight, bias, epilogue)

    monkeypatch.setattr(linear, "_multiply", spy)
    x, layer, elsewhere = torch.ones(3, 8), Linear(8, 8).eval(), Linear(8, 8).eval()
    elsewhere.whole = False
    activated(layer, x, F.gelu).sum().backward()
    with torch.no_grad():
        for other in (layer, nn.Sequential(layer), elsewhere):
            activated(other, x, F.gelu)
        activated(layer, x, F.relu)
        activated(layer.train(), x, F.gelu)
        activated(layer.eval().double(), x.double(), F.gelu)
    # The first two are the layer's and its weights' gradient.
    assert asked == (["none", "none", "gelu", "none", "none", "none", "none"] if ONEDNN else [])


def test_what_is_only_read_runs_in_blocks_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "BLOCK_ROWS", 4)
    part, sizes = nn.Sequential(Linear(3, 3), nn.Dropout(0.5)).eval(), []

    def function(x: Tensor, y: Tensor) -> Tensor:
        sizes.append(len(x))
        return 2 * x + y

    x, y = torch.randn(10, 3), torch.randn(10, 3)
    with torch.no_grad():
        assert torch.equal(in_blocks(part, function, x, y), 2 * x + y)
        assert sizes == [4, 4, 2]
        in_blocks(part, function, x[:4], y[:4])
        in_blocks(part.train(), function, x, y)
        part.eval()[0].whole = False
        in_blocks(part, function, x, y)
    part[0].whole = True
    in_blocks(part, function, x, y)
    assert sizes[3:] == [4, 10, 10, 10], "few tokens, dropout, weights that are fetched, a gradient"
    assert not only_read(part)
