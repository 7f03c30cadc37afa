import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from prefrank import RewardModel
from prefrank.errors import BadData
from prefrank.training import train
from prefrank.training.records import curve
from prefrank.training.records.curve import Curve, evaluations_of, read_curve, steps_of, thin
from prefrank.training.records.events import Event, SetMetrics, Started, StepDone
from prefrank.training.records.run_log import RunLog
from prefrank.training.records.run_state import RunState, read_run_state
from prefrank.training.records.spent import Meter


class Killed(Exception):
    """Stands in for a kill: nothing is saved."""


def killed_after(step: int) -> Any:
    def report(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            raise Killed

    return report


def a_step(number: int, loss: float = 0.5) -> StepDone:
    return StepDone(number, 9, loss, 0.5, 10, 1.0, 1.0, 1e-3, 1.0)


def started(first_step: int) -> Started:
    return Started(9, first_step, 20, 4, 100, 100, "cpu")


def state_of(folder: Path) -> RunState:
    state = read_run_state(folder)
    assert state is not None
    return state


METRICS = SetMetrics(4, 4, 4, 0, 0.5, (0.1, 0.9), 0.7)


def test_a_run_leaves_its_curve_and_its_state(recipe, tmp_path):
    events: list[Event] = []
    wanted = recipe(logging_steps=2, eval_steps=3, num_train_epochs=7 / 6)
    trained = train(wanted, callback=events.append)
    assert trained.steps == 7
    entries = read_curve(tmp_path / "run")
    done = [event for event in events if isinstance(event, StepDone)]
    assert [step["step"] for step in steps_of(entries)] == [2, 3, 4, 6, 7]  # an evaluation and the end close an entry
    assert entries[0]["loss"] == pytest.approx((done[0].loss + done[1].loss) / 2)
    assert [evaluation["step"] for evaluation in evaluations_of(entries)] == [3, 6, 7]
    (name,) = trained.metrics
    assert evaluations_of(entries)[-1]["evaluation"][name]["log_loss"] == trained.metrics[name].log_loss
    assert "interval" in entries[2]["evaluation"]["overall"]
    state = state_of(tmp_path / "run")
    assert (state.state, state.step, state.steps, state.error) == ("finished", 7, 7, None)
    assert state.recipe == wanted.model_dump(mode="json")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["process"]["pid"] == os.getpid()


def test_the_checkpoints_record_holds_hardware_time_digests_and_the_curve(recipe, pairs):
    trained = train(recipe(logging_steps=1))
    record = RewardModel.load(trained.last).training
    assert record is not None
    assert [step["step"] for step in steps_of(record["curve"])] == list(range(1, trained.steps + 1))
    assert record["spent"]["wall_s"] > 0
    assert record["spent"]["cpu_s"] > 0
    assert record["spent"]["peak_memory_bytes"] > 2**20
    assert record["spent"]["energy_kwh"] is not None or "codecarbon" in record["spent"]["energy_missing"]
    assert record["hardware"]["cores"] >= 1
    assert record["hardware"]["cpu"]
    assert set(record["data"]["digests"]) == {"training", f"{pairs}:validation"}


def test_a_killed_and_resumed_run_has_one_curve_and_its_times_add_up(recipe, tmp_path):
    keys = {"trackers": "tensorboard", "logging_steps": 1, "save_steps": 3, "eval_steps": 4}
    with pytest.raises(Killed):
        train(recipe(**keys), callback=killed_after(6))
    before = state_of(tmp_path / "run")
    assert (before.state, before.error) == ("failed", "Killed")
    assert [step["step"] for step in steps_of(read_curve(tmp_path / "run"))] == [1, 2, 3, 4, 5]
    trained = train(recipe(resume=True, **keys))
    entries = read_curve(tmp_path / "run")
    assert [step["step"] for step in steps_of(entries)] == list(range(1, trained.steps + 1))
    assert [evaluation["step"] for evaluation in evaluations_of(entries)] == [4, 6]
    after = state_of(tmp_path / "run")
    assert (after.state, after.spent["sessions"]) == ("finished", 2)
    assert after.started == before.started
    assert after.spent["cpu_s"] > before.spent["cpu_s"] > 0
    walls = [entry["wall_s"] for entry in entries]
    assert walls == sorted(walls)
    board = EventAccumulator(str(tmp_path / "run" / "logs" / "prefrank")).Reload()
    assert [scalar.step for scalar in board.Scalars("train/loss")] == list(range(1, trained.steps + 1))
    assert [scalar.step for scalar in board.Scalars("eval/overall/log_loss")] == [4, 6]


def test_a_run_that_overwrites_another_starts_a_new_curve_and_board(recipe, tmp_path):
    for _ in range(2):
        trained = train(recipe(trackers="tensorboard", logging_steps=1, overwrite=True))
    assert len(steps_of(read_curve(tmp_path / "run"))) == trained.steps
    assert len(list((tmp_path / "run" / "logs" / "prefrank").glob("events.*"))) == 1


def test_a_torn_last_line_is_left_out_and_any_other_is_an_error(tmp_path):
    path = tmp_path / curve.FILE
    one, two = ({"step": n, "loss": 1.0, "learning_rate": 1e-3} for n in (1, 2))
    path.write_text(json.dumps(one) + '\n{"step": 2, "lo')
    assert read_curve(tmp_path) == [one]
    Curve(tmp_path, first_step=1).add(two)
    assert read_curve(tmp_path) == [one, two]
    path.write_text(json.dumps(one) + "\nnonsense\n" + json.dumps(two) + "\n")
    with pytest.raises(BadData, match=r"curve.jsonl:2 cannot be read as JSON"):
        read_curve(tmp_path)
    assert read_curve(tmp_path / "nowhere") == []


def test_what_a_full_disk_refuses_is_written_later(tmp_path, monkeypatch):
    kept = Curve(tmp_path, first_step=0)
    kept.add({"step": 1})
    with monkeypatch.context() as full:
        full.setattr(Path, "open", lambda *args: (_ for _ in ()).throw(OSError("full")))
        kept.add({"step": 2})
    assert [entry["step"] for entry in kept.entries] == [1, 2]
    with (tmp_path / curve.FILE).open("a") as file:
        file.write('{"step": 2, "torn": "' + "x" * 100)  # what the disk took before it was full
    kept.add({"step": 3})
    assert (tmp_path / curve.FILE).read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_a_long_curve_is_thinned_to_its_ends_and_its_best():
    entries = [{"step": n, "loss": 1.0} for n in range(1000)]
    entries += [{"step": n, "evaluation": {}, "best": n == 37} for n in range(100)]
    thinned = thin(entries, most=10)
    assert len(steps_of(thinned)) == 10
    assert (steps_of(thinned)[0]["step"], steps_of(thinned)[-1]["step"]) == (0, 999)
    assert 37 in [evaluation["step"] for evaluation in evaluations_of(thinned)]
    assert len(evaluations_of(thinned)) <= 11
    assert thin(entries[:5]) == entries[:5]


def test_a_resumed_run_goes_on_with_the_trackers_own_runs(recipe, monkeypatch):
    """The trackers' packages are not needed: what Accelerate is asked for is held to what it documents."""
    asked: list[Any] = []
    sent: list[tuple[int, str]] = []

    class Run:
        class info:  # noqa: N801
            run_id = "mlflow-1"

    monkeypatch.setattr(
        Accelerator, "init_trackers", lambda self, name, config, init_kwargs: asked.append((config, init_kwargs))
    )
    monkeypatch.setattr(Accelerator, "get_tracker", lambda self, name, unwrap: Run())
    monkeypatch.setattr(Accelerator, "log", lambda self, values, step: sent.extend((step, name) for name in values))
    wanted = recipe(trackers=["wandb", "trackio", "mlflow"], logging_steps=1)
    Path(wanted.output_dir).mkdir()
    first = RunLog(wanted, Accelerator(cpu=True))
    with first.open(started(0)):
        for number in range(1, 5):
            first.step(a_step(number))
        first.evaluation(4, {"../odd//na#me:eval": METRICS}, best=True)
    again = RunLog(wanted, Accelerator(cpu=True))
    with again.open(started(2)):
        for number in range(3, 6):
            again.step(a_step(number))
        again.evaluation(4, {"../odd//na#me:eval": METRICS}, best=True)
    (config, new), (no_config, resumed) = asked
    assert config["learning_rate"] == 1e-3
    assert no_config is None
    assert (new["wandb"]["id"], new["trackio"]["name"]) == (resumed["wandb"]["id"], resumed["trackio"]["name"])
    assert (new["mlflow"], resumed["mlflow"]) == ({"run_name": "run"}, {"run_id": "mlflow-1"})
    assert [step for step, name in sent if name == "train/loss"] == [1, 2, 3, 4, 5]
    assert [name for _, name in sent if name.startswith("eval")] == [
        "eval/odd..na_me:eval/log_loss",
        "eval/odd..na_me:eval/accuracy",
    ]


def test_without_trackers_nothing_is_kept_waiting(recipe):
    """The first implementation kept every step of a run that had no trackers."""
    log = RunLog(recipe(logging_steps=2), Accelerator(cpu=True))
    Path(log.recipe.output_dir).mkdir()
    with log.open(started(0)):
        for number in range(1, 10):
            log.step(a_step(number))
            assert len(log._waiting) < 2


def test_a_run_whose_process_is_gone_was_stopped(recipe, tmp_path):
    train(recipe())
    path = tmp_path / "run" / "run.json"
    written = json.loads(path.read_text()) | {"state": "running"}
    process = written["process"]
    for changes, state in (
        ({}, "running"),
        ({"created": process["created"] - 60}, "stopped"),
        ({"pid": 2**31 - 1}, "stopped"),
        ({"host": "elsewhere"}, "running"),
    ):
        path.write_text(json.dumps(written | {"process": process | changes}))
        assert state_of(tmp_path / "run").state == state


def test_a_state_that_is_missing_is_none_and_a_torn_one_an_error(tmp_path):
    assert read_run_state(tmp_path) is None
    (tmp_path / "run.json").write_text('{"state": ')
    with pytest.raises(BadData, match=r"run\.json cannot be read as JSON"):
        read_run_state(tmp_path)


def test_a_meter_adds_to_what_was_spent_before():
    before = {"wall_s": 10.0, "cpu_s": 5.0, "energy_kwh": None, "sessions": 2, "peak_memory_bytes": 2**60}
    meter = Meter(json.loads(json.dumps(before)))
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    totals = meter.totals()
    assert 10 < totals["wall_s"] < 20
    assert 5.01 < totals["cpu_s"] < 15
    assert totals["energy_kwh"] is None
    assert totals["energy_missing"]
    assert (totals["sessions"], totals["peak_memory_bytes"]) == (3, 2**60)
