import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from prefrank.model.families.bert import BertNetwork
from prefrank.model.families.deberta import DebertaNetwork
from prefrank.model.families.decoder import DecoderNetwork
from prefrank.model.families.mpnet import MPNetNetwork
from prefrank.training.foresight.activations import without_weights
from prefrank.training.foresight.layouts import forecast_layouts, largest_micro_batch
from prefrank.training.foresight.memory import size_of
from prefrank.training.loop.optim import make_optimizer
from tests.training.foresight.small import BERT, DEBERTA, LLAMA, MPNET, QWEN3, batch_of, recipe_of


def test_layouts_divide_what_they_share():
    recipe = recipe_of(max_tokens=512)
    config = {**DEBERTA, "num_hidden_layers": 3}
    forecasts = forecast_layouts(config, recipe, devices=8)
    memory = {(forecast.layout, forecast.checkpointing): forecast.memory for forecast in forecasts}
    network = without_weights(config, recipe)
    size = size_of(network.parameters())
    whole, zero2, full = (memory[layout, False] for layout in ("none", "zero2", "full"))
    eighth = -(-size // 8)
    assert (whole.weights, whole.gradients, whole.optimizer) == (size, size, 2 * size)
    assert (full.weights, full.gradients, full.optimizer) == (eighth, eighth, -(-size // 4))
    assert (zero2.weights, zero2.gradients, zero2.optimizer) == (size, eighth, -(-3 * size // 8))  # with its own copy
    assert memory["zero3", False].optimizer == zero2.optimizer
    assert memory["none", True].activations < whole.activations / 3
    assert memory["full", True].peak < memory["zero3", True].peak < memory["none", True].peak < whole.peak


def test_the_largest_micro_batch_is_full_of_the_longest_rows():
    assert largest_micro_batch(recipe_of(max_tokens=600)) == (4, 128)
    assert largest_micro_batch(recipe_of(max_tokens=50)) == (1, 128)


def test_adapters_are_counted_without_the_gradient_of_what_is_frozen():
    recipe = recipe_of(lora_rank=2, max_tokens=256)
    config = {**BERT, "num_hidden_layers": 2}
    network = without_weights(config, recipe)
    whole, checkpointed = forecast_layouts(config, recipe, devices=1)
    memory = whole.memory
    assert (whole.layout, checkpointed.layout) == ("none", "none")
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert memory.gradients == 4 * trained < memory.weights / 5
    assert memory.optimizer == 8 * trained


def allocated(run: Callable[[], None], folder: Path) -> int:
    """The most bytes that new tensors had at once, as torch's allocator tells its profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    now = most = 0
    for event in sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"]):
        now += event["args"]["Bytes"]
        most = max(most, now)
    return most


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("make", "config"),
    [
        (BertNetwork, BERT),
        (DebertaNetwork, DEBERTA),
        (MPNetNetwork, MPNET),
        (DecoderNetwork, LLAMA),
        (DecoderNetwork, QWEN3),
    ],
)
def test_a_forecast_is_what_the_allocator_gives_to_real_passes(make, config, checkpointing, tmp_path, monkeypatch):
    monkeypatch.setattr("prefrank.model.linear.ONEDNN", False)  # which copies what it multiplies; a GPU has none
    config = {**config, "hidden_size": 256, "intermediate_size": 1024}
    recipe = recipe_of(max_tokens=512, bf16=False)
    network = make(config).train()
    network.gradient_checkpointing = checkpointing
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    rows, length = largest_micro_batch(recipe)
    batch = batch_of(*rows * [length])
    network(batch).sum().backward()
    passes = allocated(lambda: network(batch).sum().backward(), tmp_path)
    memory = forecast_layouts(config, recipe, devices=1)[checkpointing].memory
    assert memory.activations + memory.temporary == pytest.approx(passes, rel=0.1)


def test_an_update_takes_no_memory_but_the_state(tmp_path):
    recipe = recipe_of()
    network = BertNetwork(BERT).train()
    optimizer = make_optimizer(network, recipe)
    network(batch_of(60, 100)).sum().backward()
    optimizer.step()
    assert allocated(optimizer.step, tmp_path) < size_of(network.parameters()) / 100
