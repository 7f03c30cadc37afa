"""The exact engine gives transformers' scores, whatever a row is scored beside, and skips only what it may skip."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prefrank.errors import BadInput
from prefrank.model import exact, load_network, score_batches
from prefrank.model.exact import TorchEngine, select_rows
from prefrank.model.families import lay_out
from prefrank.model.layout import Layout
from prefrank.types import Batch, reply_types
from tests.parity.reference import CONFIGS, LAID_OUT, TABLE, V3, alone, batch_of, model_of, reference_scores, saved

LENGTHS = [1, 2, 3, 3, 3, 5, 9, 9, 17, 31, 33, 64]
ONE_OF_EACH = [
    "bert", "roberta", "electra projected", "deberta-v2", "deberta v2 xxlarge", "deberta absolute, types",
    "deberta c2p", "deberta p2c, own projection", "deberta convolution on the only layer",
]  # fmt: skip
WIDE = {"hidden_size": 96, "intermediate_size": 200}  # sums long enough for their order to show in the last bits


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Layout]:
    def layout(name: str) -> Layout:
        kind, options = CONFIGS[name]
        return lay_out(load_network(saved(model_of(kind, options | WIDE), tmp_path_factory.mktemp("m"))))

    return {name: layout(name) for name in ONE_OF_EACH}


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def draw_batches(data: st.DataObject) -> tuple[Batch, list[list[int]]]:
    """Some rows, and batches of them: any rows beside each other, in any order, once or often."""
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    rows = st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8)
    return batch_of(lengths, seed=sum(lengths)), data.draw(st.lists(rows, min_size=1, max_size=3))


def scores_alone(engine: TorchEngine, batch: Batch) -> Tensor:
    return torch.cat([engine(row) for row in alone(batch)])


NO_BIASES = sorted(name for name in CONFIGS.keys() - (TABLE.keys() - LAID_OUT) if not name.startswith("mpnet"))


@pytest.mark.parametrize("name", NO_BIASES)
def test_scores_equal_those_of_the_network_and_of_transformers(name: str, tmp_path: Path) -> None:
    reference = model_of(*CONFIGS[name])
    network = load_network(saved(reference, tmp_path))
    batch = batch_of(LENGTHS)
    with torch.no_grad():
        theirs = torch.cat([reference_scores(reference, row) for row in alone(batch)])
    scores = TorchEngine(lay_out(network))(batch)
    assert theirs.std() > 0.01
    torch.testing.assert_close(scores, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(scores, score_batches(network, [batch]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{}, {"share_att_key": False, "conv_kernel_size": 3}, {"position_buckets": -1}])
def test_rows_past_the_relative_range_score_as_in_transformers(options: dict, tmp_path: Path) -> None:
    size = {"max_position_embeddings": 512, "position_buckets": 256}
    reference = model_of("DebertaV2", V3 | size | options)
    engine = TorchEngine(lay_out(load_network(saved(reference, tmp_path))))
    batch = batch_of([127, 128, 129, 130, 255, 257, 511, 512, 513, 600])
    with torch.no_grad():
        theirs = torch.cat([reference_scores(reference, row) for row in alone(batch)])
    torch.testing.assert_close(engine(batch), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("scores", "distances", "rows"), [(1, 1, 1), (50, 4, 7), (700, 5, 30)])
@pytest.mark.parametrize("name", ["bert", "deberta v2 xxlarge"])
def test_a_score_does_not_depend_on_how_work_is_cut(
    name: str, scores: int, distances: int, rows: int, layouts: dict[str, Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, batch = TorchEngine(layouts[name]), batch_of(LENGTHS)
    whole = engine(batch)
    monkeypatch.setattr(exact, "TILE_SCORES", scores)
    monkeypatch.setattr(exact, "TILE_DISTANCES", distances)
    monkeypatch.setattr(exact, "BLOCK_ROWS", rows)
    torch.testing.assert_close(engine(batch), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["bert", "deberta-v2"])
def test_a_score_does_not_depend_on_whose_matrix_products_it_uses(
    name: str, layouts: dict[str, Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, batch, scores = TorchEngine(layouts[name]), batch_of(LENGTHS), []
    for onednn in {False, exact.ONEDNN}:
        monkeypatch.setattr(exact, "ONEDNN", onednn)
        scores.append(engine(batch))
    torch.testing.assert_close(scores[0], scores[-1], atol=1e-5, rtol=0)
    assert not scores[0].isnan().any()


@pytest.mark.parametrize("name", ONE_OF_EACH)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_a_score_is_the_same_in_any_batch_and_order(name: str, layouts: dict[str, Layout], data: st.DataObject) -> None:
    engine = TorchEngine(layouts[name])
    batch, orders = draw_batches(data)
    wanted = scores_alone(engine, batch)
    for order in orders:
        torch.testing.assert_close(engine(select_rows(batch, order)), wanted[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ONE_OF_EACH)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_a_deterministic_score_is_the_same_to_the_bit(
    name: str, layouts: dict[str, Layout], data: st.DataObject
) -> None:
    engine = TorchEngine(layouts[name], deterministic=True)
    batch, orders = draw_batches(data)
    wanted = scores_alone(engine, batch)
    for order in orders:
        assert torch.equal(engine(select_rows(batch, order)), wanted[order])


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_score_is_the_same_on_two_threads(name: str, layouts: dict[str, Layout]) -> None:
    batch, engine = batch_of([300, 40, 300, 7] if "deberta" in name and "abs" not in name else LENGTHS), layouts[name]
    two = [TorchEngine(engine)(batch), TorchEngine(engine, deterministic=True)(batch)]
    torch.set_num_threads(1)
    for scores in two:
        torch.testing.assert_close(TorchEngine(engine)(batch), scores, atol=1e-5, rtol=0)


def test_identical_rows_are_scored_once(layouts: dict[str, Layout], monkeypatch: pytest.MonkeyPatch) -> None:
    packed = []
    pack_batch = exact.pack_batch

    def spy(batch: Batch, **limits: object) -> exact.Pack:
        packed.append(len(batch.ids))
        return pack_batch(batch, **limits)

    monkeypatch.setattr(exact, "pack_batch", spy)
    once = batch_of([9, 4])
    twice = select_rows(once, [0, 1, 0, 0, 1])
    moved = Batch(
        ids=twice.ids, rows=twice.rows, starts=twice.starts, types=reply_types([9, 4, 9, 9, 4], [1, 2, 1, 5, 2])
    )
    for name in ("bert", "roberta"):
        engine = TorchEngine(layouts[name])
        torch.testing.assert_close(engine(twice), engine(once)[[0, 1, 0, 0, 1]], atol=1e-5, rtol=0)
        engine(moved)
    assert packed == [13, 13, 22, 13, 13, 13], "the types count in BERT, which has token types"


def test_the_first_layer_projects_each_distinct_token_once(
    layouts: dict[str, Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    projected = []
    layer = exact._layer

    def spy(run: exact._Run, weights: exact.Layer, hidden: Tensor, places: Tensor | None) -> Tensor:
        projected.append(len(hidden))
        return layer(run, weights, hidden, places)

    monkeypatch.setattr(exact, "_layer", spy)
    batch = batch_of([64, 64])
    distinct = len(np.unique(batch.ids))
    assert distinct < 100
    for name, deterministic, rows in (
        ("deberta-v2", False, distinct), ("deberta-v2", True, 64), ("deberta absolute, types", False, 128),
        ("bert", False, 128),
    ):  # fmt: skip
        TorchEngine(layouts[name], deterministic=deterministic)(batch)
        assert set(projected) == {rows}, name
        projected.clear()


@pytest.mark.parametrize("name", ["bert", "deberta v2 xxlarge"])
def test_weights_of_any_float_type_are_scored_in_it(name: str, tmp_path: Path) -> None:
    folder = saved(model_of(*CONFIGS[name]), tmp_path)
    batch = batch_of(LENGTHS)
    wanted = score_batches(load_network(folder, dtype=torch.float64), [batch])
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float16, 0.01), (torch.bfloat16, 0.1)):
        engine = TorchEngine(lay_out(load_network(folder, dtype=dtype)))
        scores = engine(batch)
        assert engine.precision == str(dtype).removeprefix("torch.")
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, wanted, atol=tolerance, rtol=0)


def test_scores_can_take_part_in_a_later_backward_pass(layouts: dict[str, Layout]) -> None:
    scores = TorchEngine(layouts["bert"])(batch_of([3, 4])).requires_grad_()
    (scores**2).sum().backward()
    torch.testing.assert_close(scores.grad, 2 * scores.detach())


def test_a_score_that_is_not_a_number_is_returned(tmp_path: Path) -> None:
    network = load_network(saved(model_of(*CONFIGS["bert"]), tmp_path))
    with torch.no_grad():
        dict(network.named_parameters())["classifier.bias"].fill_(torch.nan)
    assert TorchEngine(lay_out(network))(batch_of([3])).isnan().all()


@pytest.mark.parametrize("deterministic", [False, True])
def test_long_rows_and_unknown_tokens_are_refused(deterministic: bool, layouts: dict[str, Layout]) -> None:
    engine = TorchEngine(layouts["bert"], deterministic=deterministic)
    with pytest.raises(BadInput, match="a row has 65 tokens, the model takes 64"):
        engine(batch_of([3, 65]))
    batch = batch_of([3, 4])
    for wrong in (100, -1):
        batch.ids[5] = wrong
        with pytest.raises(BadInput, match="the model knows 0 to 99; is this its own tokenizer"):
            engine(batch)
