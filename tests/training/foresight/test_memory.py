import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prefrank.model.families.bert import BertNetwork
from prefrank.model.families.deberta import DebertaNetwork
from prefrank.model.families.decoder import DecoderNetwork
from prefrank.model.weights import write_tensors
from prefrank.training.foresight.memory import average_bytes, forget_peak, optimizer_bytes, peak, size_of
from prefrank.training.loop.optim import WeightAverage
from prefrank.types import Comparison, Preference, Turn
from tests.tiny import wordpiece_folder
from tests.training.conftest import WORDS, write_jsonl
from tests.training.foresight.small import BERT, DEBERTA, LLAMA, recipe_of


def test_eight_bit_moments_take_a_byte_and_a_scale_for_each_block():
    parameters = [torch.empty(4096, device="meta"), torch.empty(4095, device="meta"), torch.empty(4097, device="meta")]
    sizes = [2 * 4096 + 8 * 16, 8 * 4095, 2 * 4097 + 8 * 17]
    assert optimizer_bytes(parameters, recipe_of(optimizer="adamw_8bit")) == sum(sizes)
    assert optimizer_bytes(parameters, recipe_of()) == 8 * (4096 + 4095 + 4097)


@pytest.mark.parametrize("keys", [{}, {"ema_decay": 0.9}, {"average_last": 2}, {"average_last": 9}])
def test_averages_are_counted_as_they_are_kept(keys):
    recipe = recipe_of(eval_steps=2, **keys)
    layer = nn.Linear(30, 20)
    average = WeightAverage(layer.named_parameters(), recipe.ema_decay, last=recipe.average_last, every=2, final=9)
    for _ in range(9):
        average.update()
    state = average.state_dict()
    kept = size_of(tensor for copy in (state["average"], *state["snapshots"]) for tensor in copy.values())
    replaced = size_of(layer.parameters()) if recipe.average_last == 2 else 0  # stands until the new one is made
    assert average_bytes(layer.parameters(), recipe, steps=9) == kept + replaced


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
    kind = {"bert": "Bert", "deberta-v2": "DebertaV2", "llama": "Llama"}[config["model_type"]]
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
        (
            DecoderNetwork,
            {**LLAMA, "vocab_size": 30_000, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 1536},
            ranked(4, replies=6, words=100),
            {"per_device_train_batch_size": 2, "max_tokens": 512},
        ),
    ],
    ids=["long rows", "a group beyond max_tokens, checkpointed", "frozen layers and an average", "adapters", "decoder"],
)
def test_the_peak_of_a_run_is_within_15_percent_of_its_forecast(tmp_path, network, config, data, keys):
    torch.manual_seed(0)
    values = {
        "model_name": str(made(tmp_path / "model", network(config), config)),
        "datasets": [{"source": str(write_jsonl(tmp_path / "data.jsonl", data)), "split": "train"}],
        "evaluation": [], "learning_rate": 1e-4, "output_dir": str(tmp_path / "run"), "trackers": "none",
        "max_steps": 3, "max_length": 256, **keys,
    }  # fmt: skip
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    memory = {}
    for task in ("dry_run", "train"):  # each in its own process: a peak is that of all a process did
        command = [sys.executable, "-m", "tests.training.foresight.peak_worker", task, str(tmp_path / "recipe.json")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
        memory[task] = json.loads(done.stdout.splitlines()[-1])
    model = memory["dry_run"]["peak"] - memory["dry_run"]["process"]
    assert model > 0.3 * memory["dry_run"]["peak"]
    assert memory["dry_run"]["peak"] == pytest.approx(memory["train"]["peak"], rel=0.15)
    # and without what both processes hold anyway
    assert model == pytest.approx(memory["train"]["peak"] - memory["dry_run"]["process"], rel=0.25)
