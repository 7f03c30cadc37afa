"""What may be asked for beside plain training, of decoders that share prompts: adapters, checkpointing, bfloat16."""

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from prefrank.errors import Interrupted
from prefrank.model import load_network
from prefrank.model.families.decoder import DecoderNetwork
from prefrank.text import TextEncoder, plan_batches
from prefrank.training import dry_run, train
from prefrank.training.feed.examples import Examples, encode
from prefrank.training.loop.lora import add_adapters
from prefrank.training.loop.parts import rows_of
from prefrank.training.loop.step import accumulate_gradient
from prefrank.training.records.curve import read_curve
from prefrank.training.records.events import StepDone
from tests.parity.reference import model_of, saved
from tests.tiny import chat_folder
from tests.training.conftest import make_comparisons, write_jsonl
from tests.training.foresight.small import recipe_of
from tests.training.loop.test_step import LOSS, WHOLE, assert_same, gradients

KINDS = {"llama": ("Llama", {}), "qwen3": ("Qwen3", {"head_dim": 12, "tie_word_embeddings": True})}
SMALL = 40


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory) -> Path:
    """A tiny Llama, and a Qwen3 whose heads are wider than its states are."""
    kind, keys = KINDS[request.param]
    keys = {"vocab_size": 420, "num_key_value_heads": 2, "max_position_embeddings": 256} | keys
    made = chat_folder(tmp_path_factory.mktemp(request.param))
    return saved(model_of(kind, keys, pad_token_id=None), made)


@pytest.fixture(scope="module")
def examples(folder) -> Examples:
    return encode(make_comparisons(4, replies=3, words=12), TextEncoder.load(folder, max_length=128))[0]


def step(network: nn.Module, examples: Examples, *, max_tokens: int = SMALL, alone: bool = False) -> dict:
    """The gradient of one step."""
    causal = None if alone else network.causal
    accumulate_gradient(network, examples, range(4), LOSS, divide_by=4, max_tokens=max_tokens, causal=causal)
    return gradients(network)


def test_adapters_learn_from_shared_prompts_what_they_learn_from_whole_rows(folder, examples):
    torch.manual_seed(0)
    network = load_network(folder, dtype=torch.float64).train()
    assert isinstance(network, DecoderNetwork)
    add_adapters(network, recipe_of(lora_rank=2))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    whole, shared = step(network, examples, max_tokens=WHOLE, alone=True), step(network, examples)
    assert_same(shared, whole, 1e-6)
    adapted = {name.partition(".lora_")[0].rpartition(".")[2] for name in whole if "lora_" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert "score.weight" in whole


def test_checkpointing_changes_no_bit_of_the_gradient(folder, examples):
    network = load_network(folder).train()
    plain = step(network, examples)
    network.gradient_checkpointing = True
    again = step(network, examples)
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_weights_in_bfloat16_keep_head_and_loss_in_float32(folder, examples):
    """And shared prompts cost no precision beyond that of the type."""
    network = load_network(folder, dtype=torch.bfloat16).train()
    assert network.score.weight.dtype == torch.float32
    assert {p.dtype for p in network.model.parameters()} == {torch.bfloat16}
    (batch, *_) = plan_batches(rows_of(examples, [0]), max_tokens=WHOLE, causal=network.causal)
    assert network(batch).dtype == torch.float32
    exact = step(load_network(folder).train(), examples)
    whole, shared = step(network, examples, max_tokens=WHOLE, alone=True), step(network, examples)
    assert shared["score.weight"].dtype == torch.float32

    def error(found: dict) -> float:
        gaps = sum((found[name].float() - exact[name]).square().sum() for name in exact)
        return float((gaps / sum(gradient.square().sum() for gradient in exact.values())).sqrt())

    assert 0 < error(shared) < max(0.05, 1.5 * error(whole))


@pytest.mark.parametrize("folder", ["qwen3"], indirect=True)
def test_a_run_on_shared_prompts_is_forecast_trains_and_resumes_to_the_same_bits(folder, recipe, tmp_path):
    data = write_jsonl(tmp_path / "ranked.jsonl", make_comparisons(16, replies=4, words=12))
    keys = {
        "model_name": str(folder), "datasets": [{"source": str(data), "split": "train"}], "max_tokens": 100,
        "max_length": 128, "max_steps": 3, "lora_rank": 2, "gradient_checkpointing": True, "logging_steps": 1,
        "new_head": True,
    }  # fmt: skip
    steps: list[StepDone] = []

    def stop(event: object) -> None:
        if isinstance(event, StepDone) and event.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    forecast = dry_run(recipe(**keys))
    assert forecast.computed_tokens < forecast.step_tokens
    assert forecast.memory.activations > 0
    whole = train(
        recipe(output_dir=str(tmp_path / "whole"), **keys),
        callback=lambda event: steps.append(event) if isinstance(event, StepDone) else None,
    )
    assert all(0 < done.computed < done.tokens for done in steps)
    shared = [entry["tokens_shared"] for entry in read_curve(tmp_path / "whole") if "loss" in entry]
    assert shared == pytest.approx([1 - done.computed / done.tokens for done in steps])
    with pytest.raises(Interrupted):
        train(recipe(output_dir=str(tmp_path / "cut"), **keys), callback=stop)
    resumed = train(recipe(output_dir=str(tmp_path / "cut"), resume=True, **keys))
    after, before = load_file(resumed.last / "model.safetensors"), load_file(whole.last / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)
