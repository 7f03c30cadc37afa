"""The C++ kernels give the autograd path's scores, the same bits in any batch, and no wrong sums in integers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrank import native
from prefrank.errors import BadInput
from prefrank.model import load_for_scoring, load_network, make_engine, run, score_batches
from prefrank.model.families import lay_out
from prefrank.model.integer_weights import QuantisedLinear, quantise_rows, quantise_weight
from prefrank.model.layout import Linear
from prefrank.model.native_engine import NativeEngine, unfit
from prefrank.model.network import Network
from prefrank.text import plan_batches
from prefrank.types import Batch, Row
from tests.parity.reference import CONFIGS, LAID_OUT, TABLE, V3, alone, batch_of, model_of, reference_scores, saved

HERE = native.available()
needs_kernels = pytest.mark.skipif(not HERE, reason="the native kernels are not built: no C++ compiler")
pytestmark = needs_kernels
LENGTHS = [1, 2, 3, 3, 3, 5, 9, 9, 17, 31, 33, 64]
UNFIT = {
    "deberta v2 xlarge, grouped tanh convolution of 5": "groups",
    "deberta convolution on the only layer": "only layer",
}
FIT = sorted(CONFIGS.keys() - UNFIT - (TABLE.keys() - LAID_OUT))
WIDE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "max_position_embeddings": 512}


@pytest.mark.parametrize("kernels", HERE)
@pytest.mark.parametrize("name", FIT)
def test_float32_scores_are_those_of_transformers(name: str, kernels: str, tmp_path: Path) -> None:
    reference = model_of(*CONFIGS[name])
    network = load_network(saved(reference, tmp_path))
    batch = batch_of(LENGTHS)
    with torch.no_grad():
        theirs = torch.cat([reference_scores(reference, row) for row in alone(batch)])
    assert theirs.std() > 0.01
    torch.testing.assert_close(NativeEngine(lay_out(network), kernels)(batch), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernels", HERE)
@pytest.mark.parametrize("options", [{}, {"share_att_key": False, "conv_kernel_size": 3}, {"position_buckets": -1}])
def test_rows_past_the_relative_range_score_as_on_the_autograd_path(
    options: dict, kernels: str, tmp_path: Path
) -> None:
    size = {"max_position_embeddings": 512, "position_buckets": 256}
    network = load_network(saved(model_of("DebertaV2", V3 | size | options), tmp_path))
    batch = batch_of([127, 130, 255, 511, 512, 513, 700])
    wanted = score_batches(network, [batch])
    torch.testing.assert_close(NativeEngine(lay_out(network), kernels)(batch), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernels", HERE)
def test_mpnets_rows_as_long_as_its_table_allows_score_as_in_transformers(kernels: str, tmp_path: Path) -> None:
    """Distances reach from the log steps to past their end, in several blocks of queries."""
    reference = model_of("MPNet", {"max_position_embeddings": 602})
    engine = NativeEngine(lay_out(load_network(saved(reference, tmp_path))), kernels)
    batch = batch_of([600, 130, 1, 512, 127])
    with torch.no_grad():
        theirs = torch.cat([reference_scores(reference, row) for row in alone(batch)])
    torch.testing.assert_close(engine(batch), theirs, atol=1e-5, rtol=0)
    with pytest.raises(BadInput, match="a row has 601 tokens, the model takes 600"):
        engine(batch_of([601]))


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu", "silu", "tanh", "linear", "quick_gelu", "sigmoid"])
def test_every_activation_is_the_one_of_transformers(act: str, tmp_path: Path) -> None:
    network = load_network(saved(model_of("DebertaV2", V3 | {"hidden_act": act, "pooler_hidden_act": act}), tmp_path))
    batch = batch_of(LENGTHS)
    wanted = score_batches(network, [batch])
    for kernels in HERE:
        torch.testing.assert_close(NativeEngine(lay_out(network), kernels)(batch), wanted, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Network]:
    sources = {
        "bert": ("Bert", WIDE),
        "deberta": ("DebertaV2", V3 | WIDE),
        "xxlarge": ("DebertaV2", V3 | WIDE | {"conv_kernel_size": 3}),
        "mpnet": ("MPNet", WIDE),
    }
    networks: dict[str, Network] = {}
    for name, source in sources.items():
        folder = saved(model_of(*source), tmp_path_factory.mktemp(name))
        for precision in ("float32", "int16", "int8"):
            networks[f"{name} {precision}"] = load_for_scoring(folder, precision=precision)
    return networks


@pytest.mark.parametrize("precision", ["float32", "int16", "int8"])
@pytest.mark.parametrize("name", ["bert", "deberta", "xxlarge", "mpnet"])
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_a_score_has_the_same_bits_alone_in_any_batch_order_budget_and_thread_count(
    name: str, precision: str, networks: dict[str, Network], data: st.DataObject
) -> None:
    lengths = data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=8))
    order = data.draw(st.permutations(range(len(lengths))))
    budget = data.draw(st.integers(1, 300))
    kernels = data.draw(st.sampled_from(HERE))
    batch = batch_of(lengths, seed=sum(lengths))
    engines = [make_engine(networks[f"{name} {precision}"], kernels=kernels, num_threads=n) for n in (1, 2)]
    wanted = torch.cat([engines[0](row) for row in alone(batch)])
    rows = [Row(part.ids, part.types, 0, 0, 0) for part in alone(batch)]
    plan = plan_batches([rows[n] for n in order], max_tokens=budget)
    for engine in engines:
        assert torch.equal(engine(batch), wanted)
        assert torch.equal(run(engine, plan), wanted[list(order)])


@pytest.mark.parametrize("precision", ["int16", "int8"])
@pytest.mark.parametrize("name", ["bert", "deberta", "xxlarge", "mpnet"])
def test_integer_scores_are_near_and_alike_on_every_instruction_set(
    name: str, precision: str, networks: dict[str, Network]
) -> None:
    batch = batch_of([2, 7, 30, 31, 64, 90, 130, 300], seed=5)
    exact = make_engine(networks[f"{name} float32"])(batch)
    scores = [make_engine(networks[f"{name} {precision}"], kernels=kernels)(batch) for kernels in HERE]
    allowed = {"int16": 1e-2, "int8": 0.3}[precision] * exact.std().item()
    assert 0 < (scores[0] - exact).abs().max() < allowed
    for other in scores[1:]:  # an activation that float32 rounds to another integer moves a score too
        torch.testing.assert_close(other, scores[0], atol=0.3 * allowed, rtol=0)


@pytest.mark.parametrize("kernels", HERE)
@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 1, 4), (7, 33, 20), (17, 50, 384), (9, 100, 1028)])
@pytest.mark.parametrize("precision", ["float32", "int16", "int8"])
def test_matrix_products_are_exact(kernels: str, rows: int, outputs: int, inputs: int, precision: str) -> None:
    torch.manual_seed(rows)
    x, weight, bias = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    engine = _any_engine(kernels)
    if precision == "float32":
        wanted, product = (x.double() @ weight.double().mT + bias).float(), engine.multiply(Linear(weight, bias), x)
    else:
        integers, scale = quantise_weight(weight, precision)
        product = engine.multiply(Linear(integers, bias, scale), x)
        wanted = QuantisedLinear(integers, scale, bias)(x)
    # A value that float32 rounds to the other integer moves a sum by one step of the activations.
    step = {"float32": 2e-6 * inputs**0.5, "int16": 2e-3, "int8": 0.05}[precision]
    torch.testing.assert_close(product, wanted, atol=step, rtol=1e-5)


@pytest.mark.parametrize("kernels", HERE)
@pytest.mark.parametrize("inputs", [4, 768, 3072])
def test_int16_sums_do_not_overflow_for_the_worst_input(kernels: str, inputs: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, inputs)
    weight[1] = 1.0
    integers, scale = quantise_weight(weight, "int16")
    x = torch.cat([weight, -weight, weight.sign() * 1e6, torch.zeros(1, inputs)])  # along the weights: the largest sums
    product = _any_engine(kernels).multiply(Linear(integers, None, scale), x)
    rows, row_scale = quantise_rows(x, integers)
    sums = rows @ integers.double().mT
    assert sums.abs().max() > 2**30
    torch.testing.assert_close(product.double(), sums * row_scale * scale, rtol=1e-4, atol=1e-5 * x.abs().max().item())


def _any_engine(kernels: str) -> NativeEngine:
    engine = object.__new__(NativeEngine)
    engine.kernels, engine._library, engine._kept = kernels, native.load(kernels), []
    return engine


def test_what_the_kernels_cannot_run_goes_to_torch_unless_they_are_named(tmp_path: Path) -> None:
    for name, reason in UNFIT.items():
        network = load_network(saved(model_of(*CONFIGS[name]), tmp_path / reason))
        assert reason in str(unfit(lay_out(network)))
        assert make_engine(network).kernels == "torch"
        with pytest.raises(BadInput, match=reason):
            make_engine(network, kernels=HERE[0])


def test_a_broken_weight_is_seen_in_the_score(tmp_path: Path) -> None:
    network = load_network(saved(model_of("DebertaV2", V3), tmp_path))
    names = dict(network.named_parameters())
    batch = batch_of([3, 20])
    for name in ("embeddings.LayerNorm.weight", "layer.0.attention.self.key_proj.weight", "layer.1.output.dense.bias"):
        parameter = names[f"deberta.{name}" if name.startswith("emb") else f"deberta.encoder.{name}"]
        with torch.no_grad():
            before = parameter.view(-1)[0].item()
            parameter.view(-1)[0] = torch.nan
            for kernels in HERE:
                assert NativeEngine(lay_out(network), kernels)(batch).isnan().all(), name
            parameter.view(-1)[0] = before


def test_a_broken_bias_is_seen_where_a_distance_reads_it(tmp_path: Path) -> None:
    network = load_network(saved(model_of(*CONFIGS["mpnet"]), tmp_path))
    with torch.no_grad():
        network.mpnet.encoder.relative_attention_bias.weight[16 + 8, 1] = torch.nan  # keys from 8 tokens on
    for kernels in HERE:
        assert NativeEngine(lay_out(network), kernels)(batch_of([8, 9])).isnan().tolist() == [False, True]


def test_names_and_batches_that_cannot_be_scored_are_refused(networks: dict[str, Network]) -> None:
    with pytest.raises(BadInput, match="did you mean 'avx2'"):
        make_engine(networks["bert float32"], kernels="avx")
    with pytest.raises(BadInput, match="'flash' cannot be used: it runs on a GPU and the model is on cpu"):
        make_engine(networks["bert float32"], kernels="flash")
    with pytest.raises(BadInput, match="run on the native kernels only"):
        make_engine(networks["bert int16"], kernels="torch")
    engine = make_engine(networks["bert float32"])
    with pytest.raises(BadInput, match="a row has 513 tokens, the model takes 512"):
        engine(batch_of([513]))
    ids, starts = np.array([5, 100], np.int64), np.array([0, 2], np.int64)
    with pytest.raises(BadInput, match="token ids reach 100"):
        engine(Batch(ids=ids, starts=starts, types=np.zeros(len(ids), np.int8), rows=starts[:1]))


def test_without_kernels_float32_runs_on_torch_and_integers_say_what_is_missing(
    networks: dict[str, Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRANK_NATIVE", "0")
    native._open.cache_clear()
    try:
        assert native.available() == ()
        assert make_engine(networks["deberta float32"]).kernels == "torch"
        with pytest.raises(BadInput, match=r"were not built.*no C\+\+ compiler"):
            make_engine(networks["deberta int16"])
    finally:
        monkeypatch.undo()
        native._open.cache_clear()
