"""Our decoders give transformers' scores and gradients, one unpadded row at a time; alone, shared, and in any batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prefrank.errors import BadInput, BadModel
from prefrank.model import load_network, score_batches
from prefrank.model.families import FAMILIES, attending, lay_out
from prefrank.model.families.decoder import DecoderNetwork
from prefrank.model.heads import HeadLinear
from prefrank.model.layout import DecoderLayout
from prefrank.text import plan_batches
from prefrank.types import Batch, Row
from tests.parity.reference import TABLE, batch_of, model_of, saved
from tests.text.test_sharing import families

GROUPED = {"num_key_value_heads": 2, "pad_token_id": None}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1e4}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 5e5,
    "original_max_position_embeddings": 16,
}  # fmt: skip
LONG = {"rope_type": "longrope", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 16}
WINDOWS = {"use_sliding_window": True, "sliding_window": 6}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    model_type: line for model_type, line in TABLE.items() if FAMILIES[model_type].decoder
} | {
    "llama, each head its own": ("Llama", {"pad_token_id": None}),
    "llama, one layer, wide heads": ("Llama", GROUPED | {"head_dim": 14, "num_hidden_layers": 1}),
    "llama, all biases": ("Llama", GROUPED | {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "llama, padding": ("Llama", GROUPED | {"pad_token_id": 7}),
    "llama linear": ("Llama", GROUPED | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    "llama dynamic": (
        "Llama",
        GROUPED
        | {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}
        | {"max_position_embeddings": 16},
    ),
    "llama3": ("Llama", GROUPED | {"rope_parameters": LLAMA3}),
    "qwen2 yarn": ("Qwen2", GROUPED | {"rope_parameters": YARN}),
    "mistral longrope": (
        "Mistral",
        GROUPED | {"rope_parameters": LONG | {"short_factor": [1.0, 1.2, 1.5, 2.0], "long_factor": [2.0, 3.0, 4, 9.0]}},
    ),
    "mistral without a window": ("Mistral", GROUPED | {"sliding_window": None}),
    "qwen2, windows above": ("Qwen2", GROUPED | WINDOWS | {"max_window_layers": 1}),
    "qwen3, windows below, biases": (
        "Qwen3",
        GROUPED
        | WINDOWS
        | {"head_dim": 8, "attention_bias": True, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "phi3 longrope, window": (
        "Phi3",
        GROUPED
        | {
            "rope_parameters": LONG
            | {"short_factor": [1.5, 2.0], "long_factor": [4, 9.0], "partial_rotary_factor": 0.5}
        }
        | {"partial_rotary_factor": 0.5, "original_max_position_embeddings": 16, "sliding_window": 20},
    ),
}
SHARED = ["llama, padding", "llama dynamic", "mistral", "mistral longrope", "qwen3, windows below, biases"]
LENGTHS = [1, 2, 3, 9, 16, 17, 17, 31, 40, 64]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attending, "CPU_BLOCK", 7)


def reference_scores(model: Any, batch: Batch) -> Tensor:
    """transformers' scores, each row as if it were the first that the model sees."""
    scores = []
    for start, end in zip(batch.starts, batch.starts[1:], strict=False):
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)  # it remembers the longest row
        scores.append(model(input_ids=torch.from_numpy(batch.ids[start:end])[None]).logits.view(1))
    return torch.cat(scores)


def ending_in(batch: Batch, token: int | None) -> Batch:
    """Rows with padding at the end, inside, and one of nothing else."""
    if token is not None:
        batch.ids[batch.starts[1:] - 1] = token
        batch.ids[batch.starts[5:] - 2] = token
        batch.ids[batch.starts[2] : batch.starts[3]] = token
    return batch


def gradients(model: Any) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor], *, tolerance: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    largest = max(gradient.abs().max() for gradient in theirs.values())
    for name, gradient in theirs.items():
        # A bias added to every key changes no softmax but for the rotation; rounding noise may be all there is.
        noise = 2e-3 * largest if name.endswith("k_proj.bias") else 1e-12
        scale = max(gradient.abs().max(), noise)
        assert (ours[name] - gradient).abs().max() <= tolerance * scale, name


def loaded(name: str, folder: Path, **options: Any) -> DecoderNetwork:
    network = load_network(saved(model_of(*DECODERS[name]), folder), dropout=0.0, **options)
    assert isinstance(network, DecoderNetwork)
    return network


@cache
def network_of(name: str) -> DecoderNetwork:
    with TemporaryDirectory() as folder:
        return loaded(name, Path(folder))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", DECODERS)
def test_scores_and_gradients_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    reference, network = model_of(*DECODERS[name]), loaded(name, tmp_path)
    network.pass_over_padding()
    batch = ending_in(batch_of(LENGTHS), DECODERS[name][1]["pad_token_id"])
    weights = torch.linspace(-1, 2, len(LENGTHS))
    theirs, ours = reference_scores(reference, batch), network.train()(batch)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    (theirs * weights).sum().backward()
    (ours * weights).sum().backward()
    assert_same_gradients(gradients(network), gradients(reference))


def shuffled_pairs() -> list[Row]:
    """Prompts of different lengths with replies: some of nothing, some alike from their beginning, some twice."""
    generator = np.random.default_rng(3)
    rows = []
    for length in (1, 12, 33):
        prompt = generator.integers(8, 100, length).tolist()
        first = generator.integers(8, 100, 20).tolist()
        rows += [prompt, prompt + first, prompt + first[:11], prompt + first[:11] + [9] * 9, prompt + first]
    return [row(rows[place]) for place in generator.permutation(len(rows))]


def row(ids: list[int]) -> Row:
    return Row(np.array(ids, np.int64), np.zeros(len(ids), np.int8), 0, 0, 0)


def weighted_gradients(network: DecoderNetwork, batches: list[Batch], weights: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    for batch in batches:
        (network(batch) * weights[torch.from_numpy(batch.rows)]).sum().backward()
    return {name: gradient.clone() for name, gradient in gradients(network).items()}


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_beginning_gets_the_gradients_of_all_its_rows(name: str) -> None:
    network, rows = network_of(name), shuffled_pairs()
    weights = torch.linspace(-1, 2, len(rows))
    single = plan_batches(rows, max_tokens=1, causal=network.causal)
    assert len(single) >= len(rows) - 6
    together = plan_batches(rows, max_tokens=10_000, causal=network.causal)
    assert sum(len(batch.ids) for batch in together) < 0.8 * sum(len(row.ids) for row in rows)
    apart = weighted_gradients(network, plan_batches(rows, max_tokens=1), weights)
    assert_same_gradients(weighted_gradients(network, together, weights), apart)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(SHARED), families(), st.integers(1, 200))
def test_rows_score_alone_as_in_any_company(name: str, rows: list[Row], budget: int) -> None:
    network = network_of(name)
    alone = score_batches(network, plan_batches(rows, max_tokens=1))
    apart = score_batches(network, plan_batches(rows, max_tokens=budget))
    shared = score_batches(network, plan_batches(rows, max_tokens=budget, causal=network.causal))
    torch.testing.assert_close(apart, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(shared, alone, atol=1e-5, rtol=0)


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("qwen3, windows below, biases")
    batches = plan_batches(shuffled_pairs(), max_tokens=10_000, causal=network.causal)
    blocks = score_batches(network, batches)
    monkeypatch.setattr(attending, "CPU_BLOCK", 1000)
    torch.testing.assert_close(score_batches(network, batches), blocks, atol=1e-5, rtol=0)


@contextmanager
def rows_seen(module: nn.Module) -> Iterator[list[int]]:
    """How many rows a module is given, call by call."""
    seen: list[int] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    yield seen
    hook.remove()


def test_layers_see_each_token_once_and_the_last_only_scored_ones() -> None:
    network: Any = network_of("llama3")
    (batch,) = plan_batches(shuffled_pairs(), max_tokens=10_000, causal=network.causal)
    first, last = network.model.layers
    with rows_seen(first.mlp.up_proj) as below, rows_seen(last.mlp) as above, rows_seen(last.self_attn.o_proj) as asked:
        score_batches(network, [batch])
    assert below == [len(batch.ids)]
    assert above == asked == [len(batch.rows)]


@pytest.mark.parametrize("name", ["llama3", "qwen3", "phi3"])
def test_checkpointed_layers_give_the_same_gradients(name: str, tmp_path: Path) -> None:
    network, rows = loaded(name, tmp_path).train(), shuffled_pairs()
    batches = plan_batches(rows, max_tokens=10_000, causal=network.causal)
    weights = torch.linspace(-1, 2, len(rows))
    plain = weighted_gradients(network, batches, weights)
    network.gradient_checkpointing = True
    for name, gradient in weighted_gradients(network, batches, weights).items():
        assert torch.equal(gradient, plain[name]), name


@pytest.mark.parametrize("name", ["llama, all biases", "qwen3", "phi3"])
def test_in_half_precision_scores_are_near(name: str, tmp_path: Path) -> None:
    network, rows = loaded(name, tmp_path, dtype=torch.bfloat16), shuffled_pairs()
    batches = plan_batches(rows, max_tokens=10_000, causal=network.causal)
    exact = score_batches(network_of(name), batches)
    for narrow in (score_batches(network, batches), score_batches(network, plan_batches(rows, max_tokens=1))):
        assert (narrow - exact).abs().max() < 0.15 * exact.std()
    network.train()(batches[0]).sum().backward()
    assert {gradient.dtype for gradient in gradients(network.model).values()} == {torch.bfloat16}
    assert network.score.weight.grad is not None
    assert network.score.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("name", ["llama, all biases", "qwen3", "phi3"])
def test_narrow_weights_computed_wide_score_to_the_bit_as_if_they_were_float32(name: str, tmp_path: Path) -> None:
    network = loaded(name, tmp_path, dtype=torch.bfloat16)
    network.wide = True
    widened = load_network(tmp_path)
    widened.load_state_dict({key: value.float() for key, value in network.state_dict().items()})
    rows = shuffled_pairs()
    batches = plan_batches(rows, max_tokens=100, causal=network.causal)
    assert torch.equal(score_batches(network, batches), score_batches(widened, batches))
    assert network.model.embed_tokens.weight.dtype == torch.bfloat16


def test_slopes_of_a_token_that_many_rows_read_are_added_in_float32() -> None:
    key = torch.ones(2, 1, 4, dtype=torch.bfloat16, requires_grad=True)
    attending._Gather.apply(key, torch.tensor([0] * 1000 + [1])).sum().backward()
    assert key.grad is not None
    assert key.grad[:, 0, 0].tolist() == [1000, 1]  # steps of 1 end at 256 in bfloat16


def test_attention_weights_are_dropped_in_training(tmp_path: Path) -> None:
    network = load_network(saved(model_of(*DECODERS["llama3"]), tmp_path), dropout=0.5)
    (batch,) = plan_batches(shuffled_pairs(), max_tokens=10_000, causal=network.causal)
    assert not torch.equal(network.train()(batch), network(batch))
    assert torch.equal(network.eval()(batch), network(batch))


@pytest.mark.parametrize("name", ["llama3", "qwen3, windows below, biases", "phi3 longrope, window"])
def test_a_layout_shares_the_weights(name: str) -> None:
    network = network_of(name)
    layout = lay_out(network)
    assert isinstance(layout, DecoderLayout)
    assert layout.causal == network.causal
    assert [layer.window for layer in layout.layers] == list(network.spec.windows)
    shapes = {tuple(matrix.weight.shape) for layer in layout.layers for matrix in (layer.key, layer.value)}
    assert shapes == {(layout.num_kv_heads * layout.head_width, 32)}
    stored = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    used = [layout.words, layout.norm, layout.output.weight]
    for layer in layout.layers:
        used += [layer.query.weight, layer.gate.weight, layer.up.weight, layer.down.weight, layer.attention_norm]
    assert {tensor.untyped_storage().data_ptr() for tensor in used} <= stored


def test_several_heads_score_at_once(tmp_path: Path) -> None:
    network: Any = loaded("llama3", tmp_path)
    network.score = HeadLinear(32, 3, bias=False)
    assert network(batch_of([4, 5])).shape == (2, 3)


def test_a_row_past_the_trained_positions_is_an_error_unless_they_stretch() -> None:
    batch = batch_of([65])
    with pytest.raises(BadInput, match="a row has 65 tokens, the model takes 64"):
        network_of("llama3")(batch)
    assert network_of("llama dynamic").max_positions is None
    assert network_of("llama dynamic")(batch).shape == (1,)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("llama", {"num_key_value_heads": 3}, "num_key_value_heads is 3; wanted a number that divides"),
        ("qwen2", {"num_attention_heads": 64, "num_key_value_heads": None}, "at most the hidden_size, 32"),
        ("llama", {"hidden_act": "sillu"}, "did you mean 'silu'"),
        ("mistral", {"sliding_window": 0}, "sliding_window is 0; wanted a whole number from 1"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types is ['full_attention']; wanted 2 of"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 2}, "wanted 2 of full_attention, one for each layer"),
        ("llama", {"attention_dropout": 1.0}, "attention_dropout is 1.0; wanted a number from 0 up to 1"),
    ],
)
def test_a_config_that_cannot_run_is_one_sentence(name: str, options: dict[str, Any], words: str) -> None:
    raw = model_of(*DECODERS[name]).config.to_dict() | options  # type: ignore[operator]
    with pytest.raises(BadModel) as error:
        DecoderNetwork(raw)
    assert words in str(error.value)
