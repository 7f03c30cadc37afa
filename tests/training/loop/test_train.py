import hashlib
import json
import math
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from prefrank import RewardModel
from prefrank.data import load_comparisons
from prefrank.errors import BadData, BadModel, BadRecipe, CannotWrite, Diverged, Interrupted, NotFound
from prefrank.io.hidden import MARKER
from prefrank.training import dry_run, train
from prefrank.training.feed.examples import Examples
from prefrank.training.feed.order import Order, make_order, seed_step
from prefrank.training.loop.measure import measure
from prefrank.training.loop.strategies import Replicated
from prefrank.training.records.events import Encoding, EvaluationDone, Event, PassedOver, Saved, Started, StepDone
from prefrank.training.records.output import step_checkpoints
from prefrank.training.records.runs import find_runs
from prefrank.types import Comparison, Preference, Turn
from tests.training.conftest import make_comparisons, write_jsonl


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def events_of(kind: type, events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def stop_after(step: int, number: int = signal.SIGINT) -> Any:
    """A report that sends this process a signal after a step."""

    def report(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            os.kill(os.getpid(), number)

    return report


def test_training_learns_to_tell_the_marked_reply(recipe):
    events: list[Event] = []
    trained = train(recipe(num_train_epochs=5, dropout=0.0, eval_steps=10), callback=events.append)
    steps = events_of(StepDone, events)
    assert trained.steps == len(steps) == events_of(Started, events)[0].steps
    assert [step.step for step in steps] == list(range(1, trained.steps + 1))
    assert sum(step.loss for step in steps[-5:]) < 0.5 * sum(step.loss for step in steps[:5])
    (metrics,) = trained.metrics.values()
    assert metrics.accuracy == 1.0
    assert metrics.log_loss < 0.4


def test_a_checkpoint_is_a_reward_model_with_a_record_of_its_training(recipe, pairs):
    wanted = recipe(turns="labels", seed=3)
    trained = train(wanted)
    model = RewardModel.load(trained.last)
    assert model.encoder.settings.labels
    assert model.encoder.settings.max_length == 64
    assert model.training is not None
    assert model.training["recipe"] == wanted.model_dump(mode="json")
    assert model.training["step"] == trained.steps
    assert model.training["data"]["read"][0]["read"]["rows"] == 30
    assert model.training["data"]["encoded"]["training"]["dropped_replies_equal_after_cutting"] == 0
    assert model.training["metrics"]["sets"][f"{pairs}:validation"]["comparisons"] > 0
    assert model.training["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_in_run_metrics_are_those_of_the_saved_model(recipe, pairs, decay):
    trained = train(recipe(dropout=0.4, ema_decay=decay))
    model = RewardModel.load(trained.last)
    loss = 0.0
    comparisons = load_comparisons(pairs, split="validation").comparisons
    for comparison in comparisons:
        winner, loser = model.score(comparison.prompt, comparison.replies)
        loss += math.log(1 + math.exp(loser.value - winner.value)) / len(comparisons)
    assert trained.metrics[f"{pairs}:validation"].log_loss == pytest.approx(loss, rel=1e-4)


def test_the_same_recipe_and_seed_give_the_same_bits(recipe, tmp_path):
    runs = [train(recipe(output_dir=str(tmp_path / name), dropout=0.2, new_head=True)) for name in "ab"]
    assert_equal(weights(runs[0].last), weights(runs[1].last))
    other = train(recipe(output_dir=str(tmp_path / "c"), dropout=0.2, new_head=True, seed=1))
    assert not torch.equal(weights(other.last)["classifier.weight"], weights(runs[0].last)["classifier.weight"])


def test_micro_batches_do_not_change_the_run(recipe, tmp_path):
    runs = []
    for max_tokens in (1, 60, 10_000):
        events: list[Event] = []
        train(
            recipe(output_dir=str(tmp_path / str(max_tokens)), max_tokens=max_tokens, dropout=0.0),
            callback=events.append,
        )
        runs.append([(step.loss, step.grad_norm, step.tokens) for step in events_of(StepDone, events)])
    for other in runs[1:]:
        assert other == [pytest.approx(each, rel=1e-3) for each in runs[0]]


def test_accumulation_and_devices_count_prompts(recipe, tmp_path):
    same = [
        {"per_device_train_batch_size": 4},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 2, "num_devices": 2},
    ]
    runs = [train(recipe(output_dir=str(tmp_path / str(n)), **each)) for n, each in enumerate(same)]
    for run in runs[1:]:
        assert_equal(weights(run.last), weights(runs[0].last))


@pytest.mark.parametrize("extra", [{}, {"ema_decay": 0.9}, {"average_last": 2}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_resumed_runs_end_bit_for_bit_like_straight_ones(recipe, tmp_path, extra, number):
    keys = {"dropout": 0.2, "num_train_epochs": 2, "warmup_steps": 3, "eval_steps": 4, "new_head": True} | extra
    straight = train(recipe(output_dir=str(tmp_path / "straight"), **keys))
    halves = recipe(output_dir=str(tmp_path / "halves"), **keys)
    with pytest.raises(Interrupted, match=r"stopped after step 5 of .*saved in .*last; go on with resume: true"):
        train(halves, callback=stop_after(5, number))
    events: list[Event] = []
    resumed = train(halves.model_copy(update={"resume": True}), callback=events.append)
    assert events_of(Started, events)[0].first_step == 5
    assert [step.step for step in events_of(StepDone, events)] == list(range(6, straight.steps + 1))
    assert_equal(weights(resumed.last), weights(straight.last))
    assert_equal(weights(resumed.best), weights(straight.best))
    assert resumed.metrics == straight.metrics


def test_resuming_from_a_step_checkpoint_gives_the_same_bits_too(recipe, tmp_path):
    keys = {"dropout": 0.2, "num_train_epochs": 2, "save_steps": 4, "eval_steps": 4}
    straight = train(recipe(output_dir=str(tmp_path / "run"), **keys))
    expected = weights(straight.last)
    for name in ("last", "best"):
        (straight.last.with_name(name) / "config.json").unlink()
        straight.last.with_name(name).rename(tmp_path / name)
    events: list[Event] = []
    again = train(recipe(output_dir=str(tmp_path / "run"), resume=True, **keys), callback=events.append)
    assert events_of(Started, events)[0].first_step == 8
    assert [evaluation.step for evaluation in events_of(EvaluationDone, events)] == [
        straight.steps
    ]  # that of step 8 is not repeated
    assert_equal(weights(again.last), expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_evaluation_stops_after_it_and_saves(recipe, number):
    def report(event: Event) -> None:
        if isinstance(event, EvaluationDone):
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="stopped after step 2 of"):
        train(recipe(eval_steps=2), callback=report)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once_and_says_so(recipe, tmp_path, first, second):
    def report(event: Event) -> None:
        if isinstance(event, StepDone):
            os.kill(os.getpid(), first)
            os.kill(os.getpid(), second)

    with pytest.raises(Interrupted, match="stopped at once by a second signal, without saving") as raised:
        train(recipe(), callback=report)
    assert raised.value.exit_code == 128 + first
    assert [(run.state, run.error) for run in find_runs([tmp_path]).runs] == [("stopped", str(raised.value))]
    assert not list(tmp_path.rglob("last"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_exit_code_tells_which_signal_stopped_a_run(recipe, number):
    with pytest.raises(Interrupted) as raised:
        train(recipe(), callback=stop_after(1, number))
    assert raised.value.exit_code == 128 + number


def test_handlers_of_signals_are_as_before_afterwards(recipe):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(recipe())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_resuming_a_finished_run_trains_no_more(recipe):
    done = train(recipe())
    before = weights(done.last)
    events: list[Event] = []
    again = train(recipe(resume=True), callback=events.append)
    assert not events_of(StepDone, events)
    assert again.steps == done.steps
    assert again.metrics == done.metrics
    assert_equal(weights(again.last), before)


def test_resuming_where_there_is_nothing_starts_anew(recipe):
    events: list[Event] = []
    train(recipe(resume=True), callback=events.append)
    assert events_of(Started, events)[0].first_step == 0


def test_a_folder_with_a_run_is_not_overwritten_unasked(recipe, tmp_path):
    train(recipe())
    with pytest.raises(BadRecipe, match="holds a run already; set resume: true, overwrite: true, or another folder"):
        train(recipe())
    events: list[Event] = []
    train(recipe(overwrite=True), callback=events.append)
    assert events_of(StepDone, events)[0].step == 1


def test_a_run_that_cannot_start_deletes_nothing(recipe):
    done = train(recipe())
    with pytest.raises(NotFound):
        train(recipe(overwrite=True, datasets=["./no-such-file.jsonl"]))
    with pytest.raises(BadRecipe, match="max_length"):
        train(recipe(overwrite=True, max_length=999))
    assert RewardModel.load(done.last).training["step"] == done.steps


def test_a_run_may_overwrite_the_model_it_starts_from(recipe):
    first = train(recipe())
    again = train(recipe(overwrite=True, model_name=str(first.last)))
    assert again.steps == first.steps


def test_step_checkpoints_are_ordered_by_number(tmp_path):
    for name in ("checkpoint-000900", "checkpoint-1000000", "checkpoint-999999", "checkpoint-old"):
        (tmp_path / name).mkdir()
    assert [path.name[11:] for path in step_checkpoints(tmp_path)] == ["000900", "999999", "1000000"]


def test_a_resumed_run_keeps_its_recipe(recipe):
    train(recipe())
    with pytest.raises(BadRecipe, match=r"learning_rate is 0.002 but the run in .* was started with 0.001"):
        train(recipe(resume=True, learning_rate=2e-3))
    train(recipe(resume=True, max_tokens=7, eval_steps=3))  # neither changes a gradient


def test_a_saved_state_that_cannot_be_the_runs_is_refused_before_the_first_step(recipe):
    done = train(recipe(max_steps=2, ema_decay=0.9))
    place, listed = done.last / "state" / "state.pt", done.last / "state" / "files.json"
    whole, digests = place.read_bytes(), json.loads(listed.read_text())
    for change in (
        lambda state: state["average"].update(updates=None),
        lambda state: state["average"]["live"].update(dict.fromkeys(state["average"]["live"], torch.zeros(1))),
        lambda state: next(iter(state["optimizer"].values())).pop("exp_avg_sq"),
        lambda state: next(iter(state["optimizer"].values())).update(exp_avg=1e308),
        lambda state: next(iter(state["optimizer"].values())).update(step={1}),
    ):
        place.write_bytes(whole)
        state = torch.load(place, weights_only=True)
        change(state)
        torch.save(state, place)
        digests["state/state.pt"] = hashlib.sha256(place.read_bytes()).hexdigest()
        listed.write_text(json.dumps(digests))
        with pytest.raises(BadModel, match="is not from this run"):
            train(recipe(max_steps=2, ema_decay=0.9, resume=True))


def test_a_resumed_run_notices_other_data(recipe, tmp_path):
    data = write_jsonl(tmp_path / "data.jsonl", make_comparisons(12))
    train(recipe(datasets=[str(data)]))
    write_jsonl(data, make_comparisons(12, seed=1))
    with pytest.raises(BadData, match="the training data are not those the run was started with"):
        train(recipe(datasets=[str(data)], resume=True))


@pytest.mark.parametrize("torn", ["state/state.pt", "model.safetensors", "state/files.json", "prefrank.json"])
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(recipe, tmp_path, torn):
    whole = train(recipe(num_train_epochs=2, evaluation=[], save_steps=3, output_dir=str(tmp_path / "whole")))
    train(recipe(num_train_epochs=2, evaluation=[], save_steps=3))
    file = tmp_path / "run" / "last" / torn
    file.write_bytes(file.read_bytes()[:-20])
    events: list[Event] = []
    again = train(recipe(num_train_epochs=2, evaluation=[], save_steps=3, resume=True), callback=events.append)
    assert [(event.folder.name, event.torn.split()[0]) for event in events_of(PassedOver, events)] == [("last", torn)]
    assert events_of(Started, events)[0].first_step == 15
    assert_equal(weights(again.last), weights(whole.last))


def test_a_run_whose_checkpoints_are_all_torn_is_neither_resumed_nor_overwritten(recipe):
    done = train(recipe(num_train_epochs=0.5))
    (done.last / "state" / "state.pt").write_bytes(b"torn")
    with pytest.raises(BadModel, match=r"no checkpoint in .* is whole; start over with overwrite: true"):
        train(recipe(num_train_epochs=0.5, resume=True))
    with pytest.raises(BadRecipe, match="holds a run already"):
        train(recipe(num_train_epochs=0.5))


def test_what_a_killed_process_left_of_saving_is_named_or_removed(recipe, tmp_path):
    """Killed between the two renames of a replacement, or while writing."""
    done = train(recipe(num_train_epochs=0.5))
    run = tmp_path / "run"
    for number, target in enumerate(("last", "best", "checkpoint-000002")):
        hidden = run / f".prefrank-0a1b2c3{number}.tmp"
        hidden.mkdir()
        (hidden / MARKER).write_text(json.dumps({"target": target}))
    done.last.rename(run / ".prefrank-0a1b2c30.tmp" / "new")
    (run / "best").rename(run / ".prefrank-0a1b2c31.tmp" / "old")
    (run / ".prefrank-0a1b2c32.tmp" / "new" / "state").mkdir(parents=True)
    with pytest.raises(BadRecipe, match="holds a run already"):
        train(recipe(num_train_epochs=0.5))
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == ["best", "last"]
    assert (run / "best" / "model.safetensors").is_file()
    assert (run / "last" / "state" / "state.pt").is_file()


def test_checkpoints_are_kept_up_to_the_limit(recipe, tmp_path):
    events: list[Event] = []
    train(recipe(num_train_epochs=2, save_steps=2, save_total_limit=2, evaluation=[]), callback=events.append)
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir()) == [
        "checkpoint-000012",
        "checkpoint-000014",
        "last",
    ]
    assert [saved.folder.name for saved in events_of(Saved, events)][-2:] == ["checkpoint-000014", "last"]


def test_best_is_the_evaluation_of_least_log_loss(recipe, tmp_path):
    events: list[Event] = []
    trained = train(recipe(num_train_epochs=3, eval_steps=3, learning_rate=3e-3), callback=events.append)
    evaluations = events_of(EvaluationDone, events)
    assert len(evaluations) > 3
    least = min(evaluations, key=lambda evaluation: evaluation.overall.log_loss)
    assert trained.best is not None
    record = RewardModel.load(trained.best).training
    assert record is not None
    assert record["step"] == least.step
    assert [evaluation.best for evaluation in evaluations][evaluations.index(least)]
    assert not (trained.best / "state").exists()


def test_evaluation_may_be_handed_in_and_accuracy_may_choose_the_best(recipe):
    asked: list[int] = []

    def evaluate(score: Any, sets: dict[str, Examples]) -> Any:
        asked.append(len(asked))
        sign = 1.0 if len(asked) == 2 else -1.0  # only the second evaluation finds the right order
        scores = [sign * torch.arange(len(examples.reply_starts)).neg().float() for examples in sets.values()]
        assert all(score(examples).shape == each.shape for examples, each in zip(sets.values(), scores, strict=True))
        return {name: measure(each, examples) for (name, examples), each in zip(sets.items(), scores, strict=True)}

    events: list[Event] = []
    train(recipe(eval_steps=2, best_metric="accuracy"), callback=events.append, evaluate=evaluate)
    assert [evaluation.best for evaluation in events_of(EvaluationDone, events)] == [
        True,
        True,
        *[False] * (len(asked) - 2),
    ]


def test_early_stopping_ends_after_so_many_evaluations_without_a_better_one(recipe):
    def evaluate(score: Any, sets: dict[str, Examples]) -> Any:
        return {name: measure(torch.zeros(len(examples.reply_starts)), examples) for name, examples in sets.items()}

    trained = train(recipe(num_train_epochs=10, eval_steps=2, early_stop=2), evaluate=evaluate)
    assert trained.steps == 6  # best at 2, then 4 and 6


def test_without_evaluation_sets_there_is_no_best(recipe):
    trained = train(recipe(evaluation=[]))
    assert trained.best is None
    assert trained.metrics == {}


def test_the_rate_follows_the_schedule_and_epochs_may_be_fractions(recipe):
    events: list[Event] = []
    train(recipe(num_train_epochs=0.5, scheduler="linear", learning_rate=1.0e-3), callback=events.append)
    steps = events_of(StepDone, events)
    assert [step.learning_rate for step in steps] == pytest.approx(
        [1e-3 * (1 - n / len(steps)) for n in range(len(steps))]
    )


def test_a_learning_rate_that_explodes_stops_and_names_comparisons(recipe, bert, tmp_path):
    with pytest.raises(Diverged, match=r"step \d+: .*not finite.* pairs/.*learning_rate \(now 1e\+30\)"):
        train(recipe(learning_rate=1e30, max_grad_norm=0.0))
    assert not list((tmp_path / "run").glob("*/model.safetensors"))


def test_a_gradient_that_is_not_finite_stops_even_if_the_scores_are(recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(Replicated, "clip", lambda *args: math.nan)
    with pytest.raises(Diverged, match=r"step 1: the gradient is not finite; it came from pairs/\d+, .*learning_rate"):
        train(recipe())
    assert not (tmp_path / "run" / "last").exists()


def test_weights_that_are_no_numbers_are_refused_before_the_first_step(recipe, bert, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(bert, folder)
    tensors = weights(folder)
    tensors["bert.encoder.layer.0.output.dense.bias"][0] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadModel, match=r"the tensor bert.encoder.layer.0.output.dense.bias has entries that are NaN"):
        train(recipe(model_name=str(folder)))


def test_scores_that_are_not_finite_stop_the_run_and_name_their_comparisons(recipe, monkeypatch):
    monkeypatch.setattr(Replicated, "forward", lambda self, batch: self.network(batch) * math.nan)
    with pytest.raises(Diverged, match=r"step 1: scores are not finite for pairs/\d+.*learning_rate"):
        train(recipe())


@pytest.mark.parametrize("room", [0.1, 1.5], ids=["for no weights", "for no optimiser state"])
def test_a_full_disk_keeps_the_checkpoint_before_and_says_so(recipe, bert, tmp_path, room):
    """A limit on the size of files stands in for the full disk: the writes fail as they do there."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = int(room * (bert / "model.safetensors").stat().st_size)

    def report(event: Event) -> None:
        if isinstance(event, Saved):
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))

    try:
        with pytest.raises(CannotWrite, match=r"cannot write .*\(the checkpoint .*checkpoint-000002 is kept\)"):
            train(recipe(evaluation=[], save_steps=2), callback=report)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "run").iterdir() if path.is_dir()] == ["checkpoint-000002"]
    assert train(recipe(evaluation=[], save_steps=2, resume=True)).steps > 2


def test_an_output_folder_that_cannot_be_is_an_error_before_anything_else(recipe, tmp_path):
    (tmp_path / "file").touch()
    events: list[Event] = []
    with pytest.raises(CannotWrite, match="cannot write output_dir"):
        train(recipe(output_dir=str(tmp_path / "file" / "run")), callback=events.append)
    assert not events


def test_rows_longer_than_the_models_positions_are_refused(recipe):
    with pytest.raises(BadRecipe, match=r"max_length is 129, but .* has positions for 128"):
        train(recipe(max_length=129))


def test_comparisons_all_equal_after_cutting_are_refused(recipe, tmp_path):
    same = "bread " * 50
    data = write_jsonl(
        tmp_path / "same.jsonl",
        tuple(
            Comparison((Turn("user", f"q{n}"),), (same + "a", same + "b"), (Preference(0, 1),), "s", str(n))
            for n in range(9)
        ),
    )
    with pytest.raises(BadData, match="have replies that are equal within 16 tokens; raise max_length"):
        train(recipe(datasets=[str(data)], max_length=16))


def test_a_tracker_that_is_not_installed_is_refused(recipe, monkeypatch):
    monkeypatch.setattr("prefrank.training.records.run_log.find_spec", lambda name: None)
    with pytest.raises(BadRecipe, match=r"trackers names wandb, which is missing; pip install 'prefrank\[wandb\]'"):
        train(recipe(trackers=["wandb"]))


def test_tensorboard_gets_the_run(recipe, tmp_path):
    trained = train(recipe(trackers=["tensorboard"], logging_steps=2))
    log = EventAccumulator(str(tmp_path / "run" / "logs" / "prefrank")).Reload()
    assert {"train/loss", "train/learning_rate", "eval/overall/log_loss"} <= set(log.Tags()["scalars"])
    assert [scalar.step for scalar in log.Scalars("train/loss")] == list(range(2, trained.steps + 1, 2))


def test_a_reward_model_keeps_its_head_and_another_model_gets_one(recipe, bert, tmp_path):
    kept = train(recipe(learning_rate=1e-12, output_dir=str(tmp_path / "kept")))
    torch.testing.assert_close(weights(kept.last)["classifier.weight"], weights(bert)["classifier.weight"])
    folder = tmp_path / "backbone"
    shutil.copytree(bert, folder)
    tensors = {name: tensor for name, tensor in weights(folder).items() if not name.startswith("classifier")}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    fresh = train(recipe(learning_rate=1e-12, model_name=str(folder), output_dir=str(tmp_path / "fresh")))
    assert weights(fresh.last)["classifier.weight"].abs().max() > 0
    assert not torch.allclose(weights(fresh.last)["classifier.weight"], weights(bert)["classifier.weight"], atol=1e-3)


def test_frozen_layers_do_not_move_and_others_do(recipe, bert):
    trained = weights(train(recipe(freeze_layers=1)).last)
    for name, tensor in weights(bert).items():
        still = ".embeddings." in name or ".layer.0." in name
        assert torch.equal(trained[name], tensor) == still, name


def test_bf16_runs_on_a_cpu_when_asked(recipe):
    assert train(recipe(bf16=True, num_train_epochs=0.3)).steps > 0


def test_ranked_groups_and_ties_train(recipe, tmp_path):
    data = write_jsonl(tmp_path / "ranked.jsonl", make_comparisons(12, replies=4))
    events: list[Event] = []
    train(
        recipe(datasets=[str(data)], weigh="pair", label_smoothing=0.1, score_l2=0.01, centering=0.01),
        callback=events.append,
    )
    assert events_of(Encoding, events)[0].name == "training"
    assert all(0 < step.loss < 5 for step in events_of(StepDone, events))


def test_an_epoch_visits_every_comparison_once_in_a_new_order():
    order = Order(10, per_step=4, seed=0)
    epochs = [[order.chosen(epoch * 3 + n) for n in range(3)] for epoch in range(2)]
    for steps in epochs:
        assert [len(step) for step in steps] == [4, 4, 2]
        assert sorted(c for step in steps for c in step) == list(range(10))
    assert epochs[0] != epochs[1]
    assert Order(10, per_step=4, seed=0).chosen(4) == epochs[1][1]
    assert Order(10, per_step=4, seed=1).chosen(0) != epochs[0][0]


def test_random_numbers_are_a_function_of_seed_step_and_process():
    drawn = []
    for seed, step, process in [(0, 5, 0), (0, 5, 0), (1, 5, 0), (0, 6, 0), (0, 5, 1)]:
        seed_step(seed, step=step, process=process)
        drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1]
    assert len(set(map(tuple, drawn))) == 4


def test_evaluating_more_often_does_not_change_the_run(recipe, tmp_path):
    runs = [train(recipe(output_dir=str(tmp_path / str(n)), eval_steps=n, dropout=0.2)) for n in (1, 100)]
    assert_equal(weights(runs[0].last), weights(runs[1].last))


def test_the_order_follows_the_recipes_batch(recipe):
    assert make_order(recipe(gradient_accumulation_steps=3), comparisons=99, num_processes=2).per_step == 24


@pytest.mark.parametrize("way", [train, dry_run])
def test_a_warm_up_that_outlasts_the_run_is_refused(recipe, way):
    with pytest.raises(
        BadRecipe, match="warmup_steps is 6, but the run has 6 steps: its rate would never peak; lower it"
    ):
        way(recipe(warmup_steps=6))


def test_flash_kernels_without_a_gpu_are_refused(recipe):
    with pytest.raises(BadRecipe, match="kernels is flash, but it runs on a GPU and the model is on cpu"):
        train(recipe(kernels="flash"))


def test_keeping_graphs_does_not_change_the_run(recipe, tmp_path):
    keys = {"dropout": 0.2, "max_tokens": 20, "num_train_epochs": 1}
    runs = [train(recipe(output_dir=str(tmp_path / str(n)), max_memory=n, **keys)) for n in (None, "auto", 64.0)]
    for other in runs[1:]:
        assert_equal(weights(other.last), weights(runs[0].last))
