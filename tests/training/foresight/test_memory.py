import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prefrank.model.families.bert import BertNetwork
from prefrank.model.families.deberta import DebertaNetwork
from prefrank.model.weights import write_tensors
from prefrank.training import Recipe, make_recipe
from prefrank.training.foresight.flops import row_flops
from prefrank.training.foresight.foresee import foresee, largest_batch, without_weights
from prefrank.training.foresight.memory import (
    LiveBytes,
    average_bytes,
    count_passes,
    forget_peak,
    optimizer_bytes,
    peak,
    size_of,
)
from prefrank.training.loop.optim import WeightAverage
from prefrank.types import Batch, Comparison, Preference, Turn, reply_types
from tests.tiny import wordpiece_folder
from tests.training.conftest import WORDS, write_jsonl

BERT = {
    "model_type": "bert", "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "intermediate_size": 128, "max_position_embeddings": 512, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
DEBERTA = {
    **BERT, "model_type": "deberta-v2", "relative_attention": True, "position_buckets": 64, "pos_att_type": "p2c|c2p",
    "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_biased_input": False, "type_vocab_size": 0,
    "max_relative_positions": -1,
}  # fmt: skip


def recipe_of(**keys: Any) -> Recipe:
    return make_recipe({"model_name": "minilm", "datasets": "starter", "learning_rate": 1e-4, "max_length": 128} | keys)


def batch_of(*lengths: int) -> Batch:
    starts = np.cumsum([0, *lengths])
    return Batch(
        ids=np.arange(starts[-1]) % 900,
        starts=starts,
        types=reply_types(lengths, np.array(lengths) // 2),
        rows=np.arange(len(lengths)),
    )


def test_live_bytes_are_those_that_can_still_be_reached():
    inputs = torch.zeros(11, 7)
    with LiveBytes([inputs]) as live:
        first = inputs * 2
        view = first[1:]
        assert (live.now, live.peak) == (4 * 77, 4 * 77)
        second = view + 1
        del first
        assert live.now == 4 * (77 + 70)
        del view, second
        assert (live.now, live.peak) == (0, 4 * (77 + 70))


@pytest.mark.parametrize("make", [lambda: BertNetwork(BERT), lambda: DebertaNetwork(DEBERTA)])
def test_a_count_without_memory_is_that_of_real_tensors(make):
    batch = batch_of(60, 100, 100)
    with torch.device("meta"):
        hollow = make()
    counted = count_passes(hollow, batch, bf16=False, sharing=True)
    network = make().train()
    with LiveBytes(network.parameters()) as live, network.sharing(batch.ids):
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        before = live.now
        scores = network(batch)
        activations = live.now - before
        scores.sum().backward()
        # on a CPU the last layer needs no values for all tokens, and BERT's no keys
        assert counted.activations == pytest.approx(activations, rel=0.1)
        assert counted.peak == pytest.approx(live.peak, rel=0.1)


def test_dropout_costs_a_byte_an_element_and_bfloat16_saves_on_what_is_not_softmax():
    batch = batch_of(128, 128)
    dropped = {**BERT, "hidden_dropout_prob": 0.1}
    with torch.device("meta"):
        network, with_dropout = BertNetwork(BERT), BertNetwork(dropped)
    plain = count_passes(network, batch, bf16=False, sharing=True)
    masked = count_passes(with_dropout, batch, bf16=False, sharing=True)
    narrow = count_passes(network, batch, bf16=True, sharing=True)
    tokens, places = 256, 7  # embeddings, and after attention and feed-forward of all layers but the last
    assert masked.activations - plain.activations == pytest.approx(tokens * places * 64, rel=0.05)
    assert 0.5 < narrow.activations / plain.activations < 0.9


def test_layouts_divide_what_they_share():
    recipe = recipe_of(max_tokens=512)
    config = {**DEBERTA, "num_hidden_layers": 3}
    found = {(one.layout, one.checkpointing): one.memory for one in foresee(config, recipe, devices=8)}
    network = without_weights(config, recipe)
    size = size_of(network.parameters())
    whole, zero2, full = (found[layout, False] for layout in ("none", "zero2", "full"))
    eighth = -(-size // 8)
    assert (whole.weights, whole.gradients, whole.optimizer) == (size, size, 2 * size)
    assert (full.weights, full.gradients, full.optimizer) == (eighth, eighth, -(-size // 4))
    assert (zero2.weights, zero2.gradients, zero2.optimizer) == (size, eighth, -(-3 * size // 8))  # with its own copy
    assert found["zero3", False].optimizer == zero2.optimizer
    assert found["none", True].activations < whole.activations / 3
    assert found["full", True].peak < found["zero3", True].peak < found["none", True].peak < whole.peak


def test_the_largest_micro_batch_is_full_of_the_longest_rows():
    assert np.diff(largest_batch(recipe_of(max_tokens=600)).starts).tolist() == [128] * 4
    assert np.diff(largest_batch(recipe_of(max_tokens=50)).starts).tolist() == [128]


def test_adapters_are_counted_without_the_gradient_of_what_is_frozen():
    recipe = recipe_of(lora_rank=2, max_tokens=256)
    config = {**BERT, "num_hidden_layers": 2}
    network = without_weights(config, recipe)
    whole, checkpointed = foresee(config, recipe, devices=1)
    memory = whole.memory
    assert (whole.layout, checkpointed.layout) == ("none", "none")
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert memory.gradients == 4 * trained < memory.weights / 5
    assert memory.optimizer == 8 * trained


def test_eight_bit_moments_take_a_byte_and_a_scale_for_each_block():
    parameters = [torch.empty(4096, device="meta"), torch.empty(4095, device="meta"), torch.empty(4097, device="meta")]
    sizes = [2 * 4096 + 8 * 16, 8 * 4095, 2 * 4097 + 8 * 17]
    assert optimizer_bytes(parameters, recipe_of(optimizer="adamw_8bit")) == sum(sizes)
    assert optimizer_bytes(parameters, recipe_of()) == 8 * (4096 + 4095 + 4097)


@pytest.mark.parametrize("keys", [{}, {"ema_decay": 0.9}, {"average_last": 2}, {"average_last": 9}])
def test_averages_are_counted_as_they_are_kept(keys):
    recipe = recipe_of(eval_steps=2, **keys)
    layer = nn.Linear(30, 20)
    with LiveBytes(layer.parameters()) as live:
        average = WeightAverage(layer.named_parameters(), recipe.ema_decay, last=recipe.average_last, every=2, final=9)
        for _ in range(9):
            average.update()
        counted = average_bytes(layer.parameters(), recipe, steps=9)
        assert counted <= live.peak <= counted + 3 * 4 * 600  # and a few tensors while a mean is made


@pytest.mark.parametrize(
    ("config", "frozen", "checkpointing"), [(BERT, 0, False), (DEBERTA, 0, True), (DEBERTA, 2, False)]
)
def test_operations_are_those_torch_counts(config, frozen, checkpointing):
    recipe = recipe_of(freeze_layers=frozen)
    network = without_weights({**config, "num_hidden_layers": 12}, recipe)
    network.gradient_checkpointing = checkpointing
    batch = batch_of(100, 200)
    lengths = np.diff(batch.starts)
    with FlopCounterMode(display=False) as counter:
        network(batch)
    row = row_flops(network)
    assert row.forward(lengths) == pytest.approx(counter.get_total_flops(), rel=0.12)
    network.train()
    with FlopCounterMode(display=False) as counter:
        network(batch).sum().backward()
    assert row.training(lengths) == pytest.approx(counter.get_total_flops(), rel=0.12)


def test_a_peak_is_that_since_it_was_forgotten():
    cpu = torch.device("cpu")
    if peak(cpu) is None:
        pytest.skip("this system does not say")
    forget_peak()
    before = peak(cpu)
    block = torch.ones(20_000_000)
    del block
    assert peak(cpu) > before + 60_000_000
    forget_peak()
    assert peak(cpu) < before + 40_000_000


def made(folder: Path, network: nn.Module, config: dict[str, Any]) -> Path:
    """A folder of random weights."""
    wordpiece_folder(folder)
    kind = {"bert": "Bert", "deberta-v2": "DebertaV2"}[config["model_type"]]
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [f"{kind}ForSequenceClassification"]}))
    write_tensors(folder / "model.safetensors", network.state_dict())
    return folder


def ranked(count: int, *, replies: int, words: int) -> tuple[Comparison, ...]:
    """Long replies, best first."""
    draw = random.Random(0)
    texts = [[f"{n} " + " ".join(draw.choices(WORDS, k=words)) for n in range(replies)] for _ in range(count)]
    chain = tuple(Preference(n, n + 1) for n in range(replies - 1))
    return tuple(
        Comparison((Turn("user", f"question {number}"),), tuple(each), chain, "made", str(number))
        for number, each in enumerate(texts)
    )


SIZES = {"vocab_size": 30_000, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "config", "data", "keys"),
    [
        (
            BertNetwork,
            {**BERT, **SIZES, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536},
            ranked(6, replies=2, words=300),
            {"per_device_train_batch_size": 2, "max_length": 384},
        ),
        (
            DebertaNetwork,
            {**DEBERTA, **SIZES, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048},
            ranked(3, replies=12, words=100),
            {"per_device_train_batch_size": 1, "max_tokens": 256, "gradient_checkpointing": True},
        ),
        (
            BertNetwork,
            {**BERT, **SIZES, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048},
            ranked(6, replies=2, words=100),
            {"per_device_train_batch_size": 2, "freeze_layers": 1, "ema_decay": 0.99},
        ),
        (
            BertNetwork,
            {**BERT, **SIZES, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048},
            ranked(6, replies=2, words=100),
            {"per_device_train_batch_size": 2, "lora_rank": 4},
        ),
    ],
    ids=["long rows", "a group beyond max_tokens, checkpointed", "frozen layers and an average", "adapters"],
)
def test_the_peak_of_a_run_is_within_15_percent_of_the_one_foreseen(tmp_path, network, config, data, keys):
    torch.manual_seed(0)
    values = {
        "model_name": str(made(tmp_path / "model", network(config), config)),
        "datasets": [{"source": str(write_jsonl(tmp_path / "data.jsonl", data)), "split": "train"}],
        "evaluation": [], "learning_rate": 1e-4, "output_dir": str(tmp_path / "run"), "trackers": "none",
        "max_steps": 3, "max_length": 256, **keys,
    }  # fmt: skip
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    found = {}
    for task in ("dry_run", "train"):  # each in its own process: a peak is that of all a process did
        command = [sys.executable, "-m", "tests.training.foresight.peak_worker", task, str(tmp_path / "recipe.json")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
        found[task] = json.loads(done.stdout.splitlines()[-1])
    model = found["dry_run"]["peak"] - found["dry_run"]["process"]
    assert model > 0.3 * found["dry_run"]["peak"]
    assert found["dry_run"]["peak"] == pytest.approx(found["train"]["peak"], rel=0.15)
    # and without what both processes hold anyway
    assert model == pytest.approx(found["train"]["peak"] - found["dry_run"]["process"], rel=0.25)
