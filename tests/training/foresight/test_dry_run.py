import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pytest

from prefrank.cli import tables
from prefrank.data import load_comparisons
from prefrank.errors import BadRecipe, CannotWrite, NotFound, PrefrankError
from prefrank.model import load_network
from prefrank.text import TextEncoder, TextSettings, plan_batches
from prefrank.training import dry_run, train
from prefrank.training.feed.examples import encode
from prefrank.training.feed.feeds import MemoryFeed
from prefrank.training.feed.order import Order
from prefrank.training.foresight.step_plans import plan_steps
from prefrank.training.loop.extent import extent_of
from prefrank.training.loop.parts import plan_comparisons, rows_of
from prefrank.training.records.events import Started
from prefrank.types import Causal
from tests.tiny import decoder_folder
from tests.training.conftest import make_comparisons, write_jsonl


def test_what_is_forecast_is_what_training_does(recipe, pairs):
    forecast = dry_run(recipe(num_train_epochs=2.5))
    events = []
    trained = train(recipe(num_train_epochs=2.5), callback=events.append)
    started = next(event for event in events if isinstance(event, Started))
    assert forecast.steps == trained.steps
    assert forecast.comparisons == started.comparisons
    assert forecast.prompts_per_step == started.prompts_per_step == 4
    assert forecast.evaluation_rows == 2 * trained.metrics[f"{pairs}:validation"].comparisons


def test_nothing_is_written(recipe, tmp_path):
    dry_run(recipe())
    assert not (tmp_path / "run").exists()


def test_rows_tokens_and_their_histogram_agree(recipe, bert, tmp_path):
    comparisons = make_comparisons(20, replies=4, words=30)
    data = write_jsonl(tmp_path / "ranked.jsonl", comparisons)
    forecast = dry_run(recipe(datasets=[{"source": str(data), "split": "train"}], evaluation=[], max_length=64))
    assert forecast.rows == 4 * forecast.comparisons
    assert forecast.pairwise_rows == 12 * forecast.comparisons
    assert sum(rows for _, rows in forecast.histogram) == forecast.rows
    assert forecast.histogram[-1][0] == 64
    assert forecast.tokens <= sum(edge * rows for edge, rows in forecast.histogram)
    assert forecast.encoding["training"]["rows_with_cut_prompt"] > 0


def test_padding_is_that_of_plain_batches(recipe, bert, tmp_path):
    comparisons = make_comparisons(9, words=20)
    data = write_jsonl(tmp_path / "data.jsonl", comparisons)
    keys = {"datasets": [{"source": str(data)}], "evaluation": []}
    each_alone = dry_run(recipe(**keys, per_device_train_batch_size=1))
    encoder = TextEncoder.load(bert, TextSettings("pair", 64))
    examples, _ = encode(comparisons, encoder)
    alone = {examples.names[c][5:]: 2 * examples.longest(c) for c in range(len(examples))}
    kept = load_comparisons(data).comparisons
    padded = sum(alone[one.id] for one in kept)
    assert each_alone.padding_saved == pytest.approx(1 - each_alone.tokens / padded)
    together = dry_run(recipe(**keys, per_device_train_batch_size=len(kept)))
    padded = len(kept) * max(alone[one.id] for one in kept)
    assert together.padding_saved == pytest.approx(1 - together.tokens / padded)


def test_memory_counts_parameters_and_what_the_backward_pass_needs(recipe, bert):
    size = 4 * sum(p.numel() for p in load_network(bert).parameters())
    memory = dry_run(recipe(dropout=0.0)).memory
    counters = 4 * len(list(load_network(bert).parameters()))  # AdamW's count of steps, a number for each
    assert (memory.weights, memory.gradients, memory.optimizer) == (size, size, 2 * size + counters)
    assert memory.averages == 0
    frozen = dry_run(recipe(dropout=0.0, freeze_layers=2, ema_decay=0.9)).memory
    assert frozen.weights == size
    assert frozen.averages == frozen.gradients < size
    assert frozen.activations < memory.activations


def test_the_peak_is_at_least_what_stands_through_the_run(recipe):
    memory = dry_run(recipe(average_last=2, eval_steps=1)).memory
    assert memory.measured
    assert memory.averages == 4 * memory.gradients  # the average, two snapshots, and a new one before an old one goes
    assert memory.peak > memory.process + memory.weights + memory.optimizer + memory.averages


def test_activations_grow_with_the_micro_batch_and_shrink_with_checkpointing(recipe):
    small, large = (dry_run(recipe(max_tokens=n, dropout=0.0)).memory for n in (40, 400))
    checkpointed = dry_run(recipe(max_tokens=400, dropout=0.0, gradient_checkpointing=True)).memory
    assert small.activations < large.activations / 3
    assert checkpointed.activations < large.activations / 2


def test_time_is_named_by_what_takes_it(recipe):
    seconds = dry_run(recipe(save_steps=1)).seconds
    parts = (seconds.preparing, seconds.steps, seconds.evaluating, seconds.saving)
    assert all(0 < low <= high for low, high in parts)
    assert seconds.total == (sum(low for low, _ in parts), sum(high for _, high in parts))
    assert dry_run(recipe(evaluation=[])).seconds.evaluating == (0, 0)


def test_evaluations_are_those_of_training(recipe):
    events = []
    train(recipe(eval_steps=4, num_train_epochs=1.5), callback=events.append)
    done = sum(type(event).__name__ == "EvaluationDone" for event in events)
    assert dry_run(recipe(eval_steps=4, num_train_epochs=1.5, overwrite=True)).evaluations == done == 3


def test_micro_batches_are_planned_as_a_step_makes_them(bert):
    encoder = TextEncoder.load(bert, TextSettings("pair", 64))
    examples, _ = encode(make_comparisons(10, replies=5, words=20), encoder)
    plans = plan_steps(MemoryFeed(examples, Order(10, per_step=4, seed=0), 3), max_tokens=100)
    assert [plan.number for plan in plans] == [0, 1, 2]
    for plan in plans:
        parts = plan_comparisons(examples, plan.chosen, max_tokens=100)
        made = [plan_batches(rows_of(examples, part), max_tokens=100) for part in parts]
        assert plan.batches == [extent_of(batch, None) for batches in made for batch in batches]
        assert sum(plan.twice) == sum(len(batches) - 1 for batches in made) > 0


def test_micro_batches_of_shared_prompts_are_planned_as_a_step_makes_them(tmp_path):
    encoder = TextEncoder.load(decoder_folder(tmp_path / "decoder"), max_length=128)
    examples, _ = encode(make_comparisons(10, replies=5, words=20), encoder)
    causal = Causal()
    for budget in (60, 800):
        (plan, *_) = plan_steps(
            MemoryFeed(examples, Order(10, per_step=4, seed=0), 3), max_tokens=budget, causal=causal
        )
        parts = plan_comparisons(examples, plan.chosen, max_tokens=budget, causal=causal)
        made = [plan_batches(rows_of(examples, part), max_tokens=budget, causal=causal) for part in parts]
        assert plan.batches == [extent_of(batch, causal) for batches in made for batch in batches]
        assert sum(plan.twice) == sum(len(batches) - 1 for batches in made)
        assert plan.computed == sum(len(batch.ids) for batches in made for batch in batches)
        assert plan.tokens == sum(map(examples.tokens, plan.chosen)) > plan.computed


def test_what_sharing_saves_is_shown_of_a_decoder_alone(recipe, tmp_path, capsys):
    shown = {}
    for name, keys in {"bert": {}, "decoder": {"model_name": str(decoder_folder(tmp_path / "decoder"))}}.items():
        forecast = dry_run(recipe(**keys))
        tables.dry_run(forecast)
        shown[name] = capsys.readouterr().out
        saved = 1 - forecast.computed_tokens / forecast.step_tokens
        assert (f"{saved:.0%} of the {forecast.step_tokens:,.0f} tokens" in shown[name]) == (name == "decoder")
    assert "sharing saved" in shown["decoder"]
    assert "sharing saved" not in shown["bert"]


def test_what_deserves_a_second_look_is_noted(recipe, tmp_path):
    data = write_jsonl(tmp_path / "data.jsonl", make_comparisons(12, words=40))
    notes = dry_run(recipe(datasets=[str(data)], evaluation=[], max_length=20)).notes
    assert any("nothing to evaluate on" in note for note in notes)
    assert any("replies are cut at 20 tokens" in note for note in notes)


def test_what_is_left_out_is_given_by_reason(recipe, tmp_path):
    data = write_jsonl(tmp_path / "data.jsonl", make_comparisons(30, words=40))
    forecast = dry_run(recipe(datasets=[{"source": str(data), "fraction": 0.5}], evaluation=[str(data)]))
    (training, evaluation) = forecast.data
    assert set(training["dropped"]) == {"not in the fraction"}
    assert training["dropped"]["not in the fraction"] + training["comparisons"] + evaluation["comparisons"] <= 30
    assert forecast.comparisons == training["comparisons"]


def test_a_forecast_is_json_with_shards_though_one_process_has_none(recipe):
    forecast = dry_run(recipe(num_devices=2, sharding="full", ema_decay=0.5))
    value = json.loads(json.dumps(forecast.to_json(), allow_nan=False))
    assert value["memory"]["peak"] > 0
    assert value["seconds"]["total"][0] > 0
    assert [layout["layout"] for layout in value["layouts"]] == 2 * ["none", "full"]  # DeepSpeed takes no averages
    assert any("sharding is full" in note for note in forecast.notes)


def test_a_model_that_does_not_fit_still_gets_its_counts_and_a_count_of_its_memory(recipe, monkeypatch):
    def load(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(import_module("prefrank.training.foresight.dry_run"), "load_model", load)
    forecast = dry_run(recipe())
    assert forecast.memory is None
    assert forecast.seconds is None
    assert forecast.steps > 0
    assert forecast.flops > 0
    assert [(layout.layout, layout.checkpointing) for layout in forecast.layouts] == [("none", False), ("none", True)]
    assert "does not fit into memory" in forecast.notes[0]


def test_a_run_is_not_tried_where_its_state_alone_does_not_fit(recipe, monkeypatch):
    import psutil

    memory = psutil.virtual_memory()._replace(available=100_000)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert dry_run(recipe()).memory is None


def test_a_first_step_that_does_not_fit_leaves_the_counts(recipe, monkeypatch):
    def forward(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("prefrank.training.foresight.probe.Probe._forward", forward)
    forecast = dry_run(recipe())
    assert forecast.memory is None
    assert "does not fit into memory" in forecast.notes[0]


def test_streams_are_forecast_from_a_sample(recipe, tmp_path):
    data = write_jsonl(tmp_path / "data.jsonl", make_comparisons(300))
    keys = {"datasets": [{"source": str(data), "stream": True}], "evaluation": [], "max_steps": 200}
    forecast = dry_run(recipe(**keys))
    assert (forecast.steps, forecast.comparisons, forecast.rows) == (200, 800, 512)
    assert forecast.memory.peak > 0
    assert any("stream" in note for note in forecast.notes)


def test_adapters_are_forecast_with_their_own_gradients_alone(recipe, bert):
    memory = dry_run(recipe(lora_rank=2, new_head=True)).memory
    size = 4 * sum(p.numel() for p in load_network(bert).parameters())
    assert memory.gradients < size / 4
    assert memory.weights > size
    assert 2 * memory.gradients < memory.optimizer < 2.2 * memory.gradients


def refusal(run: Any, recipe: Any) -> tuple[type, str]:
    with pytest.raises(PrefrankError) as caught:
        run(recipe)
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("error", "keys"),
    [
        (BadRecipe, {"max_length": 999}),
        (NotFound, {"model_name": "./none"}),
        (NotFound, {"datasets": ["./none.jsonl"]}),
        (BadRecipe, {"per_device_train_batch_size": 500}),
        (BadRecipe, {"loss": "rao_kupper"}),
        (BadRecipe, {"heads": ["helpfulness"]}),
        (BadRecipe, {"early_stop": 2, "evaluation": []}),
        (BadRecipe, {"best_set": "none"}),
        (BadRecipe, {"lora_rank": 2, "lora_targets": ["nothing"]}),
        (BadRecipe, {"freeze_layers": 9}),
        (BadRecipe, {"lora_alpha": 3}),
        (CannotWrite, {"output_dir": "/proc/none"}),
    ],
)
def test_what_would_stop_training_stops_a_dry_run_with_the_same_words(recipe, error: type, keys: Mapping[str, Any]):
    kind, sentence = refusal(dry_run, recipe(**keys))
    assert kind is error
    assert (kind, sentence) == refusal(train, recipe(**keys))


def test_a_folder_that_holds_a_run_is_refused_too(recipe, tmp_path):
    train(recipe(max_steps=2))
    before = sorted((tmp_path / "run").rglob("*"))
    assert refusal(dry_run, recipe()) == refusal(train, recipe())
    assert "holds a run already" in refusal(dry_run, recipe())[1]
    dry_run(recipe(overwrite=True))
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_a_long_epoch_is_forecast_by_its_first_steps_and_the_forecast_says_so(recipe, monkeypatch):
    whole = dry_run(recipe(per_device_train_batch_size=1))
    monkeypatch.setattr(import_module("prefrank.training.foresight.step_plans"), "MOST_PLANNED", 3)
    part = dry_run(recipe(per_device_train_batch_size=1))
    assert not any("an epoch has" in note for note in whole.notes)
    assert f"an epoch has {whole.comparisons} steps" in part.notes[-1]
    assert "of the first 3" in part.notes[-1]
    assert (part.steps, part.tokens, part.histogram) == (whole.steps, whole.tokens, whole.histogram)
    assert part.flops == pytest.approx(whole.flops, rel=0.3)


def test_a_run_that_goes_on_is_forecast_from_where_it_stands(recipe, tmp_path):
    train(recipe(max_steps=4))
    whole, rest = dry_run(recipe(max_steps=4, overwrite=True)), dry_run(recipe(max_steps=4, resume=True))
    assert (rest.first_step, rest.steps, rest.flops, rest.seconds.steps) == (4, 4, 0, (0, 0))
    assert whole.first_step == 0 < whole.flops
    assert refusal(dry_run, recipe(max_steps=5, resume=True)) == refusal(train, recipe(max_steps=5, resume=True))
