"""Our packed encoders give transformers' scores and gradients."""

from pathlib import Path

import pytest
import torch
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from prefrank.errors import BadModel
from prefrank.model import load_network
from prefrank.model.families.mpnet import DISTANCES, MPNetNetwork
from tests.parity.reference import (
    CONFIGS,
    ENCODERS,
    SMALL,
    TABLE,
    V3,
    alone,
    batch_of,
    model_of,
    reference_scores,
    saved,
)

KEY_BIASES = ("key.bias", "key_proj.bias", "k_proj.bias", "attn.k.bias", "encoder.LayerNorm.bias")
NAMES = [name for name in CONFIGS if name in ENCODERS or name not in TABLE]
LENGTHS = [1, 2, 3, 3, 3, 5, 9, 9, 17, 31, 33, 64]


def gradients(loss: torch.Tensor, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    loss.backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }


@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    reference = model_of(*CONFIGS[name])
    network = load_network(saved(reference, tmp_path))
    batch = batch_of(LENGTHS)
    with torch.no_grad():
        theirs = torch.cat([reference_scores(reference, row) for row in alone(batch)])
        ours = network(batch)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_every_parameter_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    reference = model_of(*CONFIGS[name])
    network = load_network(saved(reference, tmp_path), dropout=0.0)
    batch, weights = batch_of(LENGTHS), torch.linspace(-1, 2, len(LENGTHS))
    theirs = gradients((reference_scores(reference, batch) * weights).sum(), reference)
    ours = gradients((network.train()(batch) * weights).sum(), network)
    assert ours.keys() == theirs.keys()
    largest = max(gradient.abs().max() for gradient in theirs.values())
    for parameter, gradient in theirs.items():
        # A bias added to every key changes no softmax: that gradient is 0, and what both compute is rounding noise.
        noise = 2e-3 * largest if parameter.endswith(KEY_BIASES) else 1e-12
        scale = max(gradient.abs().max(), noise)
        assert (ours[parameter] - gradient).abs().max() <= 1e-5 * scale, parameter


@pytest.mark.parametrize("name", NAMES)
def test_gradients_in_double_precision_agree_to_the_last_digits(name: str, tmp_path: Path) -> None:
    reference = model_of(*CONFIGS[name])
    network = load_network(saved(reference, tmp_path), dropout=0.0, dtype=torch.float64)
    reference.double()
    batch, weights = batch_of(LENGTHS), torch.linspace(-1, 2, len(LENGTHS))
    theirs = gradients((reference_scores(reference, batch) * weights).sum(), reference)
    ours = gradients((network.train()(batch) * weights).sum(), network)
    for parameter, gradient in theirs.items():
        torch.testing.assert_close(ours[parameter], gradient, rtol=1e-5, atol=1e-6 * gradient.abs().max().item() + 1e-9)


@pytest.mark.parametrize("options", [{}, {"share_att_key": False, "conv_kernel_size": 3}, {"position_buckets": -1}])
def test_rows_past_the_relative_range_score_as_in_transformers(options: dict, tmp_path: Path) -> None:
    size = {"max_position_embeddings": 512, "position_buckets": 256}
    reference = model_of("DebertaV2", V3 | size | options)
    network = load_network(saved(reference, tmp_path))
    assert network.max_positions is None
    batch = batch_of([127, 128, 129, 130, 255, 257, 511, 512, 513, 600])
    with torch.no_grad():
        theirs = torch.cat([reference_scores(reference, row) for row in alone(batch)])
        torch.testing.assert_close(network(batch), theirs, atol=1e-5, rtol=0)


def test_mpnets_distances_are_put_into_transformers_buckets() -> None:
    ours = DISTANCES.rows(3000)
    assert torch.equal(ours, MPNetEncoder.relative_position_bucket(torch.arange(3000, -3001, -1)))


def test_mpnets_rows_as_long_as_its_table_allows_score_as_in_transformers(tmp_path: Path) -> None:
    reference = model_of("MPNet", {"max_position_embeddings": 602})
    network = load_network(saved(reference, tmp_path), dropout=0.0)
    assert network.max_positions == 600
    batch = batch_of([600, 130, 1, 512, 127, 127])
    theirs = torch.cat([reference_scores(reference, row) for row in alone(batch)])
    with torch.no_grad():
        torch.testing.assert_close(network(batch), theirs, atol=1e-5, rtol=0)
    scores = network.train()(batch)
    torch.testing.assert_close(scores, theirs, atol=1e-5, rtol=0)
    ours, wanted = (gradients(each.square().sum(), model) for each, model in ((scores, network), (theirs, reference)))
    table = "mpnet.encoder.relative_attention_bias.weight"
    torch.testing.assert_close(ours[table], wanted[table], rtol=1e-5, atol=1e-5 * wanted[table].abs().max().item())
    assert torch.equal(wanted[table].any(1), torch.arange(32) != 16), "of row 16 the key were after and at the query"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"relative_attention_num_buckets": 31}, "relative_attention_num_buckets is 31; wanted 32"),
        ({"relative_attention_num_buckets": 64}, "relative_attention_num_buckets is 64; wanted 32"),
        ({"relative_attention_num_buckets": "32"}, "relative_attention_num_buckets is '32'; wanted a whole number"),
        ({"max_position_embeddings": 2}, "max_position_embeddings is 2; wanted more than 2"),
        ({"vocab_size": 1}, "vocab_size is 1; wanted more than 1"),
    ],
)
def test_an_mpnet_that_transformers_could_not_run_is_refused(keys: dict, words: str) -> None:
    MPNetNetwork({"model_type": "mpnet", **SMALL})
    with pytest.raises(BadModel, match=words):
        MPNetNetwork({"model_type": "mpnet", **SMALL, **keys})
