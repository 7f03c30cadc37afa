"""The decoder kernels give transformers' scores, and the same bits alone, shared, and in any batch."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prefrank import native
from prefrank.errors import BadInput
from prefrank.model import load_network, make_engine, run
from prefrank.model.families import lay_out
from prefrank.model.integer_weights import QuantisedLinear, quantise_weight
from prefrank.model.layout import DecoderLayer, DecoderLayout, Linear
from prefrank.model.native_decoder import NativeDecoderEngine, check_shapes, unfit
from prefrank.model.rope import Rope
from prefrank.text import plan_batches
from prefrank.types import Row
from tests.parity.reference import VOCAB, batch_of, model_of, saved
from tests.parity.test_decoders import DECODERS, ending_in, network_of, shuffled_pairs

HERE = native.available()
pytestmark = pytest.mark.skipif(not HERE, reason="the native kernels are not built: no C++ compiler")
LENGTHS = [1, 2, 3, 3, 3, 5, 9, 17, 31, 33, 64]
WIDE = {
    "hidden_size": 60, "intermediate_size": 100, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 24,
    "num_hidden_layers": 3, "max_position_embeddings": 2048, "pad_token_id": None,
}  # fmt: skip
DYNAMIC = {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, "max_position_embeddings": 40}
LONGROPE = {
    "rope_parameters": {
        "rope_type": "longrope", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 40,
        "short_factor": [1 + n / 9 for n in range(12)], "long_factor": [2 + n / 3 for n in range(12)],
    },
}  # fmt: skip
SHARED = {
    "qwen3": ("Qwen3", WIDE),
    "mistral, a window, padding": ("Mistral", WIDE | {"sliding_window": 21, "pad_token_id": 5}),
    "llama dynamic": ("Llama", WIDE | DYNAMIC),
    "qwen3 longrope": ("Qwen3", WIDE | LONGROPE),
}


@cache
def laid_out(name: str) -> DecoderLayout:
    with TemporaryDirectory() as folder:
        network = load_network(saved(model_of(*SHARED[name]), Path(folder)))
    layout = lay_out(network)
    assert isinstance(layout, DecoderLayout)
    return layout


def small(name: str = "llama") -> DecoderLayout:
    """One of the table's own, with weights that may be changed."""
    layout = lay_out(network_of(name))
    assert isinstance(layout, DecoderLayout)
    return cast(layout, torch.float64, torch.float32)


def changed(layout: DecoderLayout, **change: Any) -> DecoderLayout:
    """A layout whose every layer has been through `linear`, and its other tensors through `tensor`."""
    linear, tensor = change["linear"], change.get("tensor", lambda tensor: tensor)

    def layer(part: DecoderLayer) -> DecoderLayer:
        linears = ("query", "key", "value", "output", "gate", "up", "down")
        norms = ("attention_norm", "feed_forward_norm", "query_norm", "key_norm")
        return replace(
            part,
            **{name: linear(getattr(part, name)) for name in linears},
            **{name: None if getattr(part, name) is None else tensor(getattr(part, name)) for name in norms},
        )

    return replace(
        layout, words=tensor(layout.words), norm=tensor(layout.norm), layers=tuple(map(layer, layout.layers))
    )


def quantised(layout: DecoderLayout, precision: str) -> DecoderLayout:
    def linear(part: Linear) -> Linear:
        integers, scale = quantise_weight(part.weight, precision)
        return Linear(integers, part.bias, scale)

    return changed(layout, linear=linear)


def cast(layout: DecoderLayout, *dtypes: torch.dtype) -> DecoderLayout:
    def through(tensor: Tensor) -> Tensor:
        for dtype in dtypes:
            tensor = tensor.to(dtype)
        return tensor

    def linear(part: Linear) -> Linear:
        return Linear(through(part.weight), None if part.bias is None else through(part.bias))

    return changed(layout, linear=linear, tensor=through)


@pytest.mark.parametrize("name", DECODERS)
def test_float32_scores_are_those_of_the_network(name: str) -> None:
    network = network_of(name)
    batch = ending_in(batch_of(LENGTHS), DECODERS[name][1]["pad_token_id"])
    (tree,) = plan_batches(shuffled_pairs(), max_tokens=10_000, causal=network.causal)
    for kernels in HERE:
        engine = make_engine(network, kernels=kernels, num_threads=1)
        assert isinstance(engine, NativeDecoderEngine)
        assert (engine.precision, engine.kernels, engine.streams) == ("float32", kernels, 1)
        for each in (batch, tree):
            with torch.no_grad():
                wanted = network(each)
            assert wanted.std() > 0.01
            torch.testing.assert_close(engine(each), wanted, atol=1e-5, rtol=0)


@st.composite
def families(draw: st.DrawFn) -> list[Row]:
    """Rows that grow out of parts of each other: copies, rows that begin others, and rows of one token included."""
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    rows: list[np.ndarray] = []
    for _ in range(draw(st.integers(1, 9))):
        before = draw(st.sampled_from(rows)) if rows and draw(st.booleans()) else np.zeros(0, np.int64)
        kept = before[: draw(st.integers(0, len(before)))]
        own = generator.integers(1, VOCAB, draw(st.integers(0 if len(kept) else 1, 70)))
        rows.append(np.concatenate([kept, own]))
    return [Row(ids, np.zeros(len(ids), np.int8), 0, 0, 0) for ids in rows]


def scores_of(engine: NativeDecoderEngine, rows: Sequence[Row], budget: int) -> Tensor:
    return run(engine, plan_batches(rows, max_tokens=budget, causal=engine.layout.causal))


PRECISIONS = {
    "float32": lambda layout: layout,
    "bfloat16": lambda layout: cast(layout, torch.bfloat16),
    "float16": lambda layout: cast(layout, torch.float16),
    "int16": lambda layout: quantised(layout, "int16"),
    "int8": lambda layout: quantised(layout, "int8"),
}


@pytest.fixture(scope="module")
def engines() -> dict[str, NativeDecoderEngine]:
    made = {}
    for name in SHARED:
        layout = laid_out(name)
        for precision, change in PRECISIONS.items():
            for kernels in HERE:
                made[f"{name} {precision} {kernels}"] = NativeDecoderEngine(change(layout), kernels, streams=2)
    return made


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", SHARED)
@settings(deadline=None, max_examples=15)
@given(rows=families(), data=st.data())
def test_a_score_has_the_same_bits_alone_shared_and_in_any_batch_order_budget_and_thread_count(
    name: str, precision: str, engines: dict[str, NativeDecoderEngine], rows: list[Row], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(rows))))
    budget = data.draw(st.integers(1, 400))
    engine = engines[f"{name} {precision} {data.draw(st.sampled_from(HERE))}"]
    engine.streams = data.draw(st.sampled_from([1, 2, 4]))
    wanted = torch.cat([scores_of(engine, [row], 10_000) for row in rows])
    assert torch.equal(scores_of(engine, rows, 10_000), wanted)
    assert torch.equal(scores_of(engine, [rows[n] for n in order], budget), wanted[list(order)])
    assert torch.equal(run(engine, plan_batches(rows, max_tokens=budget)), wanted)


@pytest.mark.parametrize("name", ["llama dynamic", "qwen3 longrope"])
def test_rows_of_both_tables_of_positions_stand_in_one_batch(
    name: str, engines: dict[str, NativeDecoderEngine]
) -> None:
    prompt = np.arange(30) + 1
    rows = [Row(np.append(prompt, [n] * more), np.zeros(30 + more, np.int8), 0, 0, 0) for n, more in ((3, 9), (4, 12))]
    rows += [Row(np.append(prompt, [n] * 25), np.zeros(55, np.int8), 0, 0, 0) for n in (5, 6)]
    causal = laid_out(name).causal
    (batch,) = plan_batches(rows, max_tokens=10_000, causal=causal)
    assert {causal.table(int(length)) > 0 for length in batch.tree.lengths} == {False, True}
    assert len(batch.ids) > 2 * len(prompt) + sum(len(row.ids) - len(prompt) for row in rows) - 1
    for engine in (engine for named, engine in engines.items() if named.startswith(name)):
        wanted = torch.cat([scores_of(engine, [row], 10_000) for row in rows])
        assert torch.equal(run(engine, [batch]), wanted)


def test_long_rows_have_the_same_bits_in_blocks(engines: dict[str, NativeDecoderEngine]) -> None:
    prompt = np.arange(1500) % 89 + 1
    rows = [Row(np.append(prompt, reply), np.zeros(1501, np.int8), 0, 0, 0) for reply in (3, 9)]
    for name, engine in engines.items():
        if "float32" in name or "int8" in name:
            wanted = torch.cat([scores_of(engine, [row], 10_000) for row in rows])
            assert torch.equal(scores_of(engine, rows, 10_000), wanted), name
            assert wanted[0] != wanted[1]


@pytest.mark.parametrize("kernels", HERE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_score_as_the_same_weights_in_float32(dtype: torch.dtype, kernels: str) -> None:
    layout = small("qwen3, windows below, biases")
    layout.layers[0].up.weight[0, :4] = torch.tensor([1e-7, -6e-5, 0.0, 65504.0])  # subnormal in float16, and its last
    narrow, widened = cast(layout, dtype), cast(layout, dtype, torch.float32)
    batch = batch_of(LENGTHS)
    wanted = NativeDecoderEngine(widened, kernels)(batch)
    engine = NativeDecoderEngine(narrow, kernels)
    assert torch.equal(engine(batch), wanted)
    assert not torch.equal(NativeDecoderEngine(layout, kernels)(batch), wanted)
    x = torch.eye(32)
    up = Linear(narrow.layers[0].up.weight, None)
    assert torch.equal(engine.multiply(up, x), widened.layers[0].up.weight.mT)
    assert engine.precision == "float32"


@pytest.mark.parametrize("kernels", HERE)
def test_every_float16_is_widened_to_itself(kernels: str) -> None:
    engine = NativeDecoderEngine(small(), kernels)
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    weight = bits.view(torch.float16)[:, None]
    product = engine.multiply(Linear(weight, None), torch.ones(1, 1))[0]
    torch.testing.assert_close(product, weight[:, 0].float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("precision", ["int16", "int8"])
def test_integer_scores_are_near_and_alike_on_every_instruction_set(precision: str) -> None:
    layout = laid_out("qwen3")
    batch = batch_of([2, 7, 30, 31, 64, 90, 130, 300], seed=5)
    exact = NativeDecoderEngine(layout)(batch)
    scores = [NativeDecoderEngine(quantised(layout, precision), kernels)(batch) for kernels in HERE]
    allowed = {"int16": 1e-2, "int8": 0.3}[precision] * exact.std().item()
    assert 0 < (scores[0] - exact).abs().max() < allowed
    for other in scores[1:]:  # an activation that float32 rounds to another integer moves a score too
        torch.testing.assert_close(other, scores[0], atol=0.3 * allowed, rtol=0)
    assert NativeDecoderEngine(quantised(layout, precision)).precision == precision


@pytest.mark.parametrize("precision", ["int16", "int8"])
def test_integer_layers_are_those_that_the_reference_multiplies(precision: str) -> None:
    layout = quantised(laid_out("qwen3"), precision)
    torch.manual_seed(0)
    x = torch.randn(19, 60)
    part = layout.layers[0].gate
    wanted = QuantisedLinear(part.weight, part.scale, part.bias)(x)
    for kernels in HERE:
        product = NativeDecoderEngine(layout, kernels).multiply(part, x)
        torch.testing.assert_close(product, wanted, atol={"int16": 2e-3, "int8": 0.05}[precision], rtol=1e-5)


def test_a_copy_scores_alike() -> None:
    engine = NativeDecoderEngine(small(), streams=2)
    again = pickle.loads(pickle.dumps(engine))
    batch = batch_of(LENGTHS)
    assert torch.equal(again(batch), engine(batch))
    assert again.streams == 2


def test_a_broken_weight_is_seen_in_the_score() -> None:
    layout = small("qwen3")
    batch = batch_of([3, 20])
    last = layout.layers[-1]
    for tensor in (layout.norm, layout.layers[0].key.weight, last.value.weight, last.query_norm, last.gate.weight):
        assert tensor is not None
        before = tensor.flatten()[0].item()
        for value in (torch.nan, torch.inf):
            tensor.view(-1)[0] = value
            for kernels in HERE:
                assert not NativeDecoderEngine(layout, kernels)(batch).isfinite().any()
        tensor.view(-1)[0] = before


def _without_column(part: Linear) -> Linear:
    return Linear(part.weight[:, :-1], part.bias)


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "words": ({"words": torch.zeros(VOCAB, 31)}, {}, "the last norm is"),
    "flat words": ({"words": torch.zeros(VOCAB)}, {}, "words of"),
    "vocabulary": ({"vocab_size": VOCAB + 1}, {}, "the table of words is"),
    "heads": ({"num_kv_heads": 3}, {}, "heads of 8 with 3 of keys"),
    "no heads": ({"num_heads": 0}, {}, "0 heads"),
    "layers": ({"layers": ()}, {}, "0 layers"),
    "rope": ({"rope": Rope(np.ones(5, np.float32))}, {}, "5 pairs"),
    "norm": ({"norm": torch.ones(31)}, {}, "the last norm"),
    "head": ({"output": Linear(torch.ones(2, 32), None)}, {}, "the head is"),
    "narrow head": ({"output": Linear(torch.ones(1, 32, dtype=torch.bfloat16), None)}, {}, "the head is"),
    "query": ({}, {"query": Linear(torch.zeros(32, 31), None)}, "query of layer 0"),
    "down": ({}, {"down": Linear(torch.zeros(32, 41), None)}, "down of layer 0"),
    "scales": ({}, {"gate": Linear(torch.zeros(40, 32, dtype=torch.int8), None)}, "gate of layer 0"),
    "kinds": ({}, {"up": Linear(torch.zeros(40, 32, dtype=torch.int8), None, torch.ones(40))}, "of 2 kinds"),
    "bias": ({}, {"value": Linear(torch.zeros(16, 32), torch.zeros(15))}, "the bias of value"),
    "head norm": ({}, {"query_norm": torch.ones(7)}, "query_norm of layer 0"),
    "window": ({}, {"window": 0}, "a window of 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_layout_of_wrong_shapes_is_refused_before_the_kernels_see_it(name: str) -> None:
    layout = small()
    check_shapes(layout)
    of_model, of_layer, words = WRONG[name]
    layers = (replace(layout.layers[0], **of_layer), *layout.layers[1:])
    with pytest.raises(BadInput, match=words):
        NativeDecoderEngine(replace(layout, layers=layers, **of_model) if of_layer else replace(layout, **of_model))


def test_what_the_kernels_do_not_know_is_named() -> None:
    layout = small()
    assert unfit(layout) is None
    assert "activation" in str(unfit(replace(layout, activation=torch.nn.functional.mish)))
    assert "float64" in str(unfit(replace(layout, words=layout.words.double())))
    with pytest.raises(BadInput, match="use the kernels 'torch'"):
        NativeDecoderEngine(replace(layout, words=layout.words.double()))


def test_tokens_that_the_model_does_not_know_are_refused() -> None:
    engine = NativeDecoderEngine(small())
    batch = batch_of([5])
    with pytest.raises(BadInput, match="token ids reach 100"):
        engine(replace(batch, ids=batch.ids * 0 + VOCAB))
