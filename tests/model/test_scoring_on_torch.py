"""torch's engine: the forward pass of a network gives transformers' scores, whatever a row is scored beside."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prefrank.errors import BadInput, BadModel
from prefrank.model import Network, linear, load_network, make_engine, score_batches
from prefrank.model.engine import NetworkEngine, rows_alone
from prefrank.model.families import scorer, tiles
from prefrank.model.families.disentangled import DisentangledAttention
from prefrank.text.batches import pack
from prefrank.types import Batch, Row, Tree
from tests.parity.reference import CONFIGS, TABLE, V3, batch_of, model_of, reference_scores, saved

LENGTHS = [1, 2, 3, 3, 3, 5, 9, 9, 17, 31, 33, 64]
ONE_OF_EACH = [
    "bert", "roberta", "electra projected", "deberta-v2", "deberta v2 xxlarge", "deberta absolute, types",
    "deberta c2p", "deberta p2c, own projection", "deberta convolution on the only layer",
]  # fmt: skip
WIDE = {"hidden_size": 96, "intermediate_size": 200}  # sums long enough for their order to show in the last bits


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Network]:
    def network(name: str) -> Network:
        kind, options = CONFIGS[name]
        return load_network(saved(model_of(kind, options | WIDE), tmp_path_factory.mktemp("m")))

    return {name: network(name) for name in ONE_OF_EACH}


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def on_torch(network: Network, *, deterministic: bool = False) -> NetworkEngine:
    engine = make_engine(network, kernels="torch", deterministic=deterministic)
    assert isinstance(engine, NetworkEngine)
    return engine


def rows_of(batch: Batch) -> list[Row]:
    edges = zip(batch.starts[:-1], batch.starts[1:], strict=True)
    return [Row(batch.ids[a:b], batch.types[a:b], 0, 0, 0) for a, b in edges]


def draw_batches(data: st.DataObject) -> tuple[Batch, list[list[int]]]:
    """Some rows, and batches of them: any rows beside each other, in any order, once or often."""
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    rows = st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8)
    return batch_of(lengths, seed=sum(lengths)), data.draw(st.lists(rows, min_size=1, max_size=3))


def scores_alone(engine: NetworkEngine, batch: Batch) -> Tensor:
    return torch.cat([engine(row) for row in rows_alone(batch)])


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_equal_those_with_gradient_and_transformers(name: str, tmp_path: Path) -> None:
    reference = model_of(*CONFIGS[name])
    network = load_network(saved(reference, tmp_path))
    batch = batch_of(LENGTHS)
    with torch.no_grad():
        theirs = torch.cat([reference_scores(reference, row) for row in rows_alone(batch)])
    scores = on_torch(network)(batch)
    assert theirs.std() > 0.01
    torch.testing.assert_close(scores, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(scores, network(batch).detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores, score_batches(network, [batch]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{}, {"share_att_key": False, "conv_kernel_size": 3}, {"position_buckets": -1}])
def test_rows_past_the_relative_range_score_as_in_transformers(options: dict[str, Any], tmp_path: Path) -> None:
    size = {"max_position_embeddings": 512, "position_buckets": 256}
    reference = model_of("DebertaV2", V3 | size | options)
    engine = on_torch(load_network(saved(reference, tmp_path)))
    batch = batch_of([127, 128, 129, 130, 255, 257, 511, 512, 513, 600])
    with torch.no_grad():
        theirs = torch.cat([reference_scores(reference, row) for row in rows_alone(batch)])
    torch.testing.assert_close(engine(batch), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("scores", "distances", "rows"), [(1, 1, 1), (50, 4, 7), (700, 5, 30)])
@pytest.mark.parametrize("name", ["bert", "deberta v2 xxlarge", "deberta c2p", "deberta p2c, own projection"])
def test_a_score_does_not_depend_on_how_work_is_cut(
    name: str, scores: int, distances: int, rows: int, networks: dict[str, Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, batch = on_torch(networks[name]), batch_of(LENGTHS)
    whole = engine(batch)
    monkeypatch.setattr(tiles, "TILE_SCORES", scores)
    monkeypatch.setattr(tiles, "TILE_DISTANCES", distances)
    monkeypatch.setattr(linear, "BLOCK_ROWS", rows)
    torch.testing.assert_close(engine(batch), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["bert", "deberta-v2"])
def test_a_score_does_not_depend_on_whose_matrix_products_it_uses(
    name: str, networks: dict[str, Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, batch, scores = on_torch(networks[name]), batch_of(LENGTHS), []
    for onednn in {False, linear.ONEDNN}:
        monkeypatch.setattr(linear, "ONEDNN", onednn)
        scores.append(engine(batch))
    torch.testing.assert_close(scores[0], scores[-1], atol=1e-5, rtol=0)
    assert not scores[0].isnan().any()


@pytest.mark.parametrize("name", ONE_OF_EACH)
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_a_score_is_the_same_in_any_batch_and_order(
    name: str, networks: dict[str, Network], data: st.DataObject
) -> None:
    engine = on_torch(networks[name])
    batch, orders = draw_batches(data)
    wanted, rows = scores_alone(engine, batch), rows_of(batch)
    for order in orders:
        torch.testing.assert_close(engine(pack(rows, order)), wanted[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ONE_OF_EACH)
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_a_deterministic_score_is_the_same_to_the_bit(
    name: str, networks: dict[str, Network], data: st.DataObject
) -> None:
    engine = on_torch(networks[name], deterministic=True)
    batch, orders = draw_batches(data)
    wanted, rows = scores_alone(engine, batch), rows_of(batch)
    for order in orders:
        assert torch.equal(engine(pack(rows, order)), wanted[order])


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_score_is_the_same_on_two_threads(name: str, networks: dict[str, Network]) -> None:
    batch = batch_of([300, 40, 300, 7] if "deberta" in name and "abs" not in name else LENGTHS)
    engines = [on_torch(networks[name], deterministic=deterministic) for deterministic in (False, True)]
    two = [engine(batch) for engine in engines]
    torch.set_num_threads(1)
    for engine, scores in zip(engines, two, strict=True):
        torch.testing.assert_close(engine(batch), scores, atol=1e-5, rtol=0)


def test_rows_of_a_tree_stand_alone_whole_and_in_one_segment() -> None:
    """Two rows share 7 8, of which one is a third row; 9 is a row by itself."""
    batch = Batch(
        ids=np.array([7, 8, 1, 2, 3, 9]),
        types=np.array([0, 0, 1, 1, 1, 0], np.int8),
        rows=np.array([3, 0, 2, 1]),
        starts=np.array([0, 2, 3, 5, 6]),
        tree=Tree(parents=np.array([-1, 0, 1, -1]), leaves=np.array([2, 0, 3, 1]), lengths=np.array([5, 4, 1, 3])),
    )
    alone = list(rows_alone(batch))
    assert [row.ids.tolist() for row in alone] == [[7, 8, 1, 2, 3], [7, 8], [9], [7, 8, 1]]
    assert [row.types.tolist() for row in alone] == [[0, 0, 1, 1, 1], [0, 0], [0], [0, 0, 1]]
    for row, length in zip(alone, [5, 4, 1, 3], strict=True):
        assert row.starts.tolist() == [0, len(row.ids)]
        assert row.tree is not None
        assert [row.tree.parents.tolist(), row.tree.leaves.tolist(), row.tree.lengths.tolist()] == [[-1], [0], [length]]
    plain = list(rows_alone(batch_of([2, 3])))
    assert [len(row.ids) for row in plain] == [2, 3]
    assert plain[0].tree is None


@pytest.mark.parametrize("name", ["deberta-v2", "deberta c2p", "deberta p2c, own projection"])
def test_positions_are_projected_once_for_all_batches(
    name: str, networks: dict[str, Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    projected = []
    project = DisentangledAttention.project

    def spy(attention: DisentangledAttention, table: Tensor) -> list[Tensor]:
        projected.append(len(table))
        return project(attention, table)

    monkeypatch.setattr(DisentangledAttention, "project", spy)
    network, batch = networks[name], batch_of(LENGTHS)
    score = scorer(network)
    assert projected == [16, 16], "two layers"
    with torch.no_grad():
        torch.testing.assert_close(score(batch), network(batch), atol=0, rtol=0)
    assert len(projected) == 4, "the network's own pass projects them again"


@pytest.mark.parametrize("name", ["bert", "deberta v2 xxlarge"])
def test_weights_of_any_float_type_are_scored_in_it(name: str, tmp_path: Path) -> None:
    folder = saved(model_of(*CONFIGS[name]), tmp_path)
    batch = batch_of(LENGTHS)
    wanted = load_network(folder, dtype=torch.float64)(batch).detach()
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float16, 0.01), (torch.bfloat16, 0.1)):
        engine = on_torch(load_network(folder, dtype=dtype))
        scores = engine(batch)
        assert engine.precision == str(dtype).removeprefix("torch.")
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, wanted, atol=tolerance, rtol=0)


def test_scores_can_take_part_in_a_later_backward_pass(networks: dict[str, Network]) -> None:
    scores = on_torch(networks["bert"])(batch_of([3, 4])).requires_grad_()
    (scores**2).sum().backward()
    torch.testing.assert_close(scores.grad, 2 * scores.detach())


def test_a_score_that_is_not_a_number_is_returned(tmp_path: Path) -> None:
    for name in TABLE:
        network = load_network(saved(model_of(*CONFIGS[name]), tmp_path / name))
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                if key.endswith(("intermediate.dense.bias", "mlp.down_proj.weight")):
                    parameter.fill_(torch.nan)
        assert on_torch(network)(batch_of([3])).isnan().all(), name


@pytest.mark.parametrize("deterministic", [False, True])
def test_long_rows_and_unknown_tokens_are_refused(deterministic: bool, networks: dict[str, Network]) -> None:
    engine = on_torch(networks["bert"], deterministic=deterministic)
    with pytest.raises(BadInput, match="a row has 65 tokens, the model takes 64"):
        engine(batch_of([3, 65]))
    batch = batch_of([3, 4])
    for wrong in (100, -1):
        batch.ids[5] = wrong
        with pytest.raises(BadInput, match="the model knows 0 to 99; is this its own tokenizer"):
            engine(batch)


def test_weights_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    network: Any = load_network(saved(model_of(*CONFIGS["deberta-v2"]), tmp_path))
    layer = network.deberta.encoder.layer[1]
    layer.output.dense.weight = torch.nn.Parameter(torch.zeros(32, 7))
    with pytest.raises(BadModel, match=r"the model cannot be run .*; do its config.json and its weights fit"):
        on_torch(network)(batch_of([3]))
    layer.attention.self.key_proj.weight = torch.nn.Parameter(torch.zeros(32, 7))
    with pytest.raises(BadModel, match="the model cannot be run"):
        on_torch(network)
