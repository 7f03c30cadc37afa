"""What the rest of prefrank asks of any network: scores in order, a fingerprint, parameters by depth."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrank.errors import BadInput
from prefrank.model import (
    Network,
    fingerprint,
    head_parameter_names,
    load_network,
    parameters_by_depth,
    score_batches,
)
from prefrank.model.distances import Buckets, bucket, skew
from prefrank.types import Batch, reply_types
from tests.parity.reference import CONFIGS, OTHERS, alone, batch_of, model_of, saved

ONE_OF_EACH = [
    "bert",
    "roberta",
    "electra projected",
    "mpnet",
    "deberta v2 xxlarge",
    "llama",
    "gpt2",
    "modernbert mean",
]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Network]:
    sources = CONFIGS | OTHERS
    return {name: load_network(saved(model_of(*sources[name]), tmp_path_factory.mktemp("m"))) for name in ONE_OF_EACH}


@pytest.mark.parametrize("name", ONE_OF_EACH)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_a_score_does_not_depend_on_what_it_is_scored_beside(
    name: str, networks: dict[str, Network], data: st.DataObject
) -> None:
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    order = data.draw(st.permutations(range(len(lengths))))
    cut = data.draw(st.integers(1, len(lengths)))
    batch = batch_of(lengths, seed=len(lengths))
    wanted = torch.cat([score_batches(networks[name], [row]) for row in alone(batch)])
    parts = [batch_of(lengths, seed=len(lengths), order=part) for part in (order[:cut], order[cut:]) if part]
    torch.testing.assert_close(score_batches(networks[name], parts), wanted, atol=1e-5, rtol=0)


def test_scores_come_back_in_the_callers_order_and_the_mode_is_restored(networks: dict[str, Network]) -> None:
    network = networks["bert"]
    network.train(True)
    batch = batch_of([3, 4, 5], order=[2, 0, 1])
    scores = score_batches(network, [batch])
    assert network.training
    network.train(False)
    assert not scores.requires_grad
    torch.testing.assert_close(scores[[2, 0, 1]], network(batch).detach())
    assert score_batches(network, []).shape == (0,)


def test_scores_can_take_part_in_a_later_backward_pass(networks: dict[str, Network]) -> None:
    scores = score_batches(networks["bert"], [batch_of([3, 4])]).requires_grad_()
    (scores**2).sum().backward()
    torch.testing.assert_close(scores.grad, 2 * scores.detach())


def test_a_score_that_is_not_a_number_is_returned(tmp_path: Path) -> None:
    network = load_network(saved(model_of(*CONFIGS["bert"]), tmp_path))
    with torch.no_grad():
        dict(network.named_parameters())["classifier.bias"].fill_(torch.nan)
    assert score_batches(network, [batch_of([3])]).isnan().all()


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "deberta v2 xxlarge", "deberta absolute, types"])
def test_checkpointed_layers_give_the_same_gradients(name: str, tmp_path: Path) -> None:
    folder = saved(model_of(*CONFIGS[name]), tmp_path)
    results = []
    for checkpointed in (False, True):
        network = load_network(folder).train()
        network.gradient_checkpointing = checkpointed
        torch.manual_seed(0)
        network(batch_of([3, 5, 5])).sum().backward()
        results.append([parameter.grad for parameter in network.parameters()])
    for plain, again in zip(*results, strict=True):
        torch.testing.assert_close(plain, again)


def test_a_row_beyond_the_position_table_is_refused(networks: dict[str, Network]) -> None:
    assert networks["bert"].max_positions == 64
    assert networks["roberta"].max_positions == 64, "66 rows, of which padding_idx + 1 are not positions"
    assert networks["mpnet"].max_positions == 64
    assert networks["deberta v2 xxlarge"].max_positions is None
    for name in ("bert", "roberta", "mpnet", "llama"):
        with pytest.raises(BadInput, match="a row has 65 tokens, the model takes 64"):
            networks[name](batch_of([3, 65]))


def test_a_token_id_the_model_has_no_embedding_for_is_refused(networks: dict[str, Network]) -> None:
    batch = batch_of([3, 4])
    batch.ids[5] = 100
    with pytest.raises(BadInput, match="token ids reach 100, the model knows 0 to 99; is this its own tokenizer"):
        networks["bert"](batch)


def test_token_types_begin_with_the_reply(networks: dict[str, Network]) -> None:
    batch = batch_of([6, 6])
    moved = Batch(ids=batch.ids, rows=batch.rows, types=reply_types([6, 6], [0, 6]), starts=batch.starts)
    assert not torch.equal(networks["bert"](batch), networks["bert"](moved))
    assert torch.equal(networks["roberta"](batch), networks["roberta"](moved))


def test_the_fingerprint_changes_with_weights_names_and_extra(tmp_path: Path) -> None:
    folder = saved(model_of(*CONFIGS["bert"]), tmp_path)
    network = load_network(folder)
    first = fingerprint(network, extra=b"text")
    assert first == fingerprint(load_network(folder), extra=b"text")
    assert len(first) == 64
    assert first != fingerprint(network, extra=b"other")
    assert first != fingerprint(load_network(folder, dtype=torch.bfloat16), extra=b"text")
    with torch.no_grad():
        dict(network.named_parameters())["classifier.bias"].add_(1e-6)
    assert first != fingerprint(network, extra=b"text")


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_parameter_has_one_depth(name: str, networks: dict[str, Network]) -> None:
    network = networks[name]
    depths = parameters_by_depth(network)
    everything = [parameter for depth in depths for parameter in depth]
    assert sorted(everything) == sorted(parameter for parameter, _ in network.named_parameters())
    layers = 3 if name == "electra projected" else 2
    assert len(depths) == layers + 2
    for number in range(layers):
        assert all(f".{number}." in parameter or ".conv." in parameter for parameter in depths[number + 1][:-2])
    assert head_parameter_names(network) == depths[-1]


def test_depths_hold_what_belongs_to_them(networks: dict[str, Network]) -> None:
    deberta = parameters_by_depth(networks["deberta v2 xxlarge"])
    assert {"deberta.encoder.rel_embeddings.weight", "deberta.encoder.LayerNorm.bias"} <= set(deberta[0])
    assert "deberta.encoder.conv.conv.weight" in deberta[1]
    assert deberta[-1] == ["pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias"]
    bert = parameters_by_depth(networks["bert"])
    assert bert[-1] == ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"]
    assert "mpnet.encoder.relative_attention_bias.weight" in parameters_by_depth(networks["mpnet"])[0]
    assert "electra.embeddings_project.weight" in parameters_by_depth(networks["electra projected"])[0]
    llama = parameters_by_depth(networks["llama"])
    assert llama[0] == ["model.embed_tokens.weight"]
    assert llama[-2][-1] == "model.norm.weight"
    assert llama[-1] == ["score.weight"]
    gpt = parameters_by_depth(networks["gpt2"])
    assert gpt[0] == ["model.transformer.wte.weight", "model.transformer.wpe.weight"]
    assert gpt[-1] == ["model.score.weight"]
    modern = parameters_by_depth(networks["modernbert mean"])
    assert "model.model.final_norm.weight" in modern[-2]
    assert "model.head.dense.weight" in modern[-1]


def test_buckets_by_hand() -> None:
    """8 buckets over 64 positions: distances up to 4 as they are, then ceil(log(d/4) / log(63/4) * 3) + 4."""
    distances = torch.tensor([0, 1, 4, 5, 10, 11, 25, 26, 63, 64, 200])
    wanted = torch.tensor([0, 1, 4, 5, 5, 6, 6, 7, 7, 8, 9])
    assert torch.equal(bucket(distances, buckets=8, max_distance=64), wanted)
    assert torch.equal(bucket(-distances, buckets=8, max_distance=64), -wanted)


def test_buckets_of_mpnet_by_hand() -> None:
    """16 for keys up to the query, 16 for keys after it: 8 of one distance each, then steps at 8 x 2^(n/2), the last of
    which is open.
    """
    steps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
    wanted = [bucket for bucket, (low, high) in enumerate(pairwise([*steps, 201])) for _ in range(low, high)]
    rows = Buckets(32, max_distance=128).rows(200).tolist()
    assert rows[200:] == wanted
    assert rows[:200] == [16 + bucket for bucket in wanted[:0:-1]]


@given(rows=st.integers(1, 6), width=st.integers(1, 6))
@settings(deadline=None, max_examples=30)
def test_skew_starts_each_row_one_distance_later(rows: int, width: int) -> None:
    by_distance = torch.arange(rows * (rows + width)).view(1, 1, rows, rows + width).float()
    skewed = skew(by_distance, width)
    for row in range(rows):
        start = rows - 1 - row
        assert torch.equal(skewed[0, 0, row], by_distance[0, 0, row, start : start + width])
