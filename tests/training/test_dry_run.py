import json
from importlib import import_module

import numpy as np
import pytest
import torch

from prefrank.data import load_comparisons
from prefrank.errors import BadRecipe, NotFound
from prefrank.model import load_network
from prefrank.text import TextEncoder, TextSettings, plan_batches
from prefrank.training import dry_run, train
from prefrank.training.events import Started
from prefrank.training.examples import encode
from prefrank.training.step import plan_comparisons, rows_of
from tests.training.conftest import make_comparisons, write_jsonl


def test_what_is_foreseen_is_what_training_does(recipe, pairs):
    estimate = dry_run(recipe(num_train_epochs=2.5))
    heard = []
    trained = train(recipe(num_train_epochs=2.5), report=heard.append)
    started = next(event for event in heard if isinstance(event, Started))
    assert estimate.steps == trained.steps
    assert estimate.comparisons == started.comparisons
    assert estimate.prompts_per_step == started.prompts_per_step == 4
    assert estimate.evaluation_rows == 2 * trained.metrics[f"{pairs}:validation"].comparisons


def test_nothing_is_written(recipe, tmp_path):
    dry_run(recipe())
    assert not (tmp_path / "run").exists()


def test_rows_tokens_and_their_histogram_agree(recipe, bert, tmp_path):
    comparisons = make_comparisons(20, replies=4, words=30)
    data = write_jsonl(tmp_path / "ranked.jsonl", comparisons)
    estimate = dry_run(recipe(datasets=[{"source": str(data), "split": "train"}], evaluation=[], max_length=64))
    assert estimate.rows == 4 * estimate.comparisons
    assert estimate.pairwise_rows == 12 * estimate.comparisons
    assert sum(rows for _, rows in estimate.histogram) == estimate.rows
    assert estimate.histogram[-1][0] == 64
    assert estimate.tokens <= sum(edge * rows for edge, rows in estimate.histogram)
    assert estimate.encoding["training"]["rows_with_cut_prompt"] > 0


def test_padding_is_that_of_plain_batches(recipe, bert, tmp_path):
    comparisons = make_comparisons(9, words=20)
    data = write_jsonl(tmp_path / "data.jsonl", comparisons)
    keys = {"datasets": [{"source": str(data)}], "evaluation": []}
    each_alone = dry_run(recipe(**keys, per_device_train_batch_size=1))
    encoder = TextEncoder.load(bert, TextSettings("pair", 64))
    examples, _ = encode(comparisons, encoder)
    alone = {examples.names[c][5:]: 2 * examples.longest(c) for c in range(len(examples))}
    kept = load_comparisons(data, split="train").comparisons
    assert each_alone.padded_tokens == sum(alone[one.id] for one in kept)
    assert dry_run(recipe(**keys, per_device_train_batch_size=len(kept))).padded_tokens == len(kept) * max(
        alone[one.id] for one in kept
    )


def test_memory_counts_parameters_and_what_autograd_keeps(recipe, bert):
    size = 4 * sum(p.numel() for p in load_network(bert).parameters())
    memory = dry_run(recipe(dropout=0.0)).memory
    assert (memory.weights, memory.gradients, memory.optimizer) == (size, size, 2 * size)
    assert memory.total == memory.weights + memory.gradients + memory.optimizer + memory.activations
    frozen = dry_run(recipe(dropout=0.0, freeze_layers=2, ema_decay=0.9)).memory
    assert frozen.weights == size
    assert frozen.optimizer == 3 * frozen.gradients < size
    assert frozen.activations < memory.activations


def test_activations_are_what_autograd_keeps_without_the_parameters():
    layers = torch.nn.Sequential(torch.nn.Linear(7, 5, bias=False), torch.nn.Linear(5, 3, bias=False))
    inputs = torch.zeros(11, 7)
    kept = import_module("prefrank.training.dry_run")._saved_bytes(layers.parameters(), lambda: layers(inputs))
    assert kept == 4 * (11 * 7 + 11 * 5)  # the input of each layer


def test_activations_grow_with_the_micro_batch_and_shrink_with_checkpointing(recipe):
    small, large = (dry_run(recipe(max_tokens=n, dropout=0.0)).memory for n in (40, 400))
    checkpointed = dry_run(recipe(max_tokens=400, dropout=0.0, gradient_checkpointing=True)).memory
    assert small.activations < large.activations / 3
    assert checkpointed.activations < large.activations / 2


def test_time_is_above_nothing_and_the_probe_leaves_no_trace(recipe):
    torch.manual_seed(0)
    assert dry_run(recipe()).seconds > 0


def test_what_deserves_a_second_look_is_noted(recipe, tmp_path):
    data = write_jsonl(tmp_path / "data.jsonl", make_comparisons(12, words=40))
    notes = dry_run(recipe(datasets=[str(data)], evaluation=[], warmup_steps=600, max_length=20)).notes
    assert any("warmup_steps is 600 but the run has 3 steps" in note for note in notes)
    assert any("nothing to evaluate on" in note for note in notes)
    assert any("replies are cut at 20 tokens" in note for note in notes)


def test_an_estimate_is_json(recipe):
    value = json.loads(json.dumps(dry_run(recipe()).to_json(), allow_nan=False))
    assert value["memory"]["total"] > 0
    assert value["steps"] > 0


def test_a_model_that_does_not_fit_still_gets_its_counts(recipe, monkeypatch):
    def load(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(import_module("prefrank.training.dry_run"), "load_model", load)
    estimate = dry_run(recipe())
    assert estimate.memory is None
    assert estimate.seconds is None
    assert estimate.steps > 0
    assert "does not fit into memory" in estimate.notes[0]


def test_what_cannot_work_is_refused(recipe):
    with pytest.raises(BadRecipe, match=r"max_length is 999, but .* has positions for 128"):
        dry_run(recipe(max_length=999))
    with pytest.raises(NotFound):
        dry_run(recipe(model_name="./none"))
    with pytest.raises(NotFound):
        dry_run(recipe(datasets=["./none.jsonl"]))


def test_the_longest_micro_batch_is_the_one_measured(bert):
    encoder = TextEncoder.load(bert, TextSettings("pair", 64))
    examples, _ = encode(make_comparisons(10, words=20), encoder)
    part = plan_comparisons(examples, range(10), max_tokens=100)[-1]
    batch = plan_batches(rows_of(examples, part), max_tokens=100)[-1]
    assert np.diff(batch.starts).max() == np.diff(examples.starts).max()
