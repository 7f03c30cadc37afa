"""The output folder: many processes that start in it, signals outside of the steps, and torn files in it."""

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prefrank.errors import BadModel, CannotWrite, Interrupted
from prefrank.io.atomic import write_file
from prefrank.io.hidden import MARKER
from prefrank.training import dry_run, train
from prefrank.training.loop.signals import catch_signals, stop_cleanly
from prefrank.training.recipe_file import RecipeValues
from prefrank.training.records.events import DataRead, Encoding, Event, PassedOver
from prefrank.training.records.output import newest_checkpoint, open_output
from prefrank.training.tools.find_rate import find_rate
from prefrank.training.tools.sweep import run_sweep


def test_several_writers_of_one_small_file_leave_one_of_their_contents(tmp_path):
    def write(number: int) -> None:
        for _ in range(60):
            write_file(tmp_path / "run.json", f"{number}".encode() * 100)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert len(set((tmp_path / "run.json").read_text())) == 1


@pytest.mark.parametrize("place", ["file/run", "file", "pipe", "nowhere", "x" * 300])
@pytest.mark.parametrize("call", [train, dry_run])
def test_a_place_that_takes_no_file_is_refused(recipe, tmp_path, place, call):
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(CannotWrite, match="choose another place"):
        call(recipe(output_dir=str(tmp_path / place)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "nowhere", "pipe"]


def test_what_a_kill_left_of_a_log_is_removed(recipe, tmp_path):
    left = tmp_path / "run" / ".prefrank-0a1b2c3d.tmp"
    left.mkdir(parents=True)
    (left / MARKER).write_text('{"target": "run.json"}')
    (left / "new").write_text("{")
    with open_output(recipe()):
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]


@pytest.mark.parametrize("event", [DataRead, Encoding])
@pytest.mark.parametrize("call", [train, dry_run])
def test_sigterm_before_the_first_step_stops_as_ctrl_c_does(recipe, tmp_path, call, event):
    def report(events: Event) -> None:
        if isinstance(events, event):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        call(recipe(), callback=report)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_sigterm_while_the_dry_run_writes_its_checkpoint_leaves_none(recipe, tmp_path, monkeypatch):
    from prefrank.training.foresight import probe

    def save(folder: Path, *args: Any, **options: Any) -> None:
        folder.mkdir()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(probe, "save_checkpoint", save)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        dry_run(recipe())
    assert list(tmp_path.iterdir()) == []


def test_sigterm_stops_the_rate_finder_and_leaves_no_folder(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def report(events: Event) -> None:
        if isinstance(events, Encoding):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        find_rate(recipe(), callback=report)
    assert list(tmp_path.iterdir()) == []


def test_sigterm_stops_a_sweep_which_goes_on_later(recipe, tmp_path):
    base = RecipeValues(recipe(num_train_epochs=0.5).model_dump(mode="json"), {}, "")

    def report(events: Event) -> None:
        if isinstance(events, Encoding):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped in its run seed=1; the same command goes on"):
        run_sweep(base, [{"seed": 1}], callback=report)
    assert [row.error for row in run_sweep(base, [{"seed": 1}])] == [None]


def test_a_handler_of_the_process_for_sigterm_is_left_alone():
    events: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: events.append(number))
    try:
        with stop_cleanly():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert events == [signal.SIGTERM]


def test_an_ignored_hang_up_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_cleanly(), catch_signals() as flag:
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not flag.wanted


TORN = [
    "",
    "{",
    "[]",
    "3",
    '{"format": 1}',
    '{"format": 1, "text": {}, "fingerprint": "", "training": [1]}',
]


@pytest.mark.parametrize("torn", TORN)
def test_a_checkpoint_with_a_torn_record_or_file_list_is_passed_over(recipe, tmp_path, torn):
    train(recipe(max_steps=4, save_steps=2))
    run = tmp_path / "run"
    for name in ("prefrank.json", "state/files.json"):
        broken = run / "last" / name
        whole = broken.read_bytes()
        broken.write_text(torn)
        events: list[Event] = []
        assert newest_checkpoint(run, events.append) == run / "checkpoint-000002"
        assert [event.folder.name for event in events if isinstance(event, PassedOver)] == ["last"]
        broken.write_bytes(whole)
    assert newest_checkpoint(run) == run / "last"


def test_a_copy_that_broke_off_before_its_record_is_passed_over_and_stays(recipe, tmp_path):
    train(recipe(max_steps=4, save_steps=2))
    run = tmp_path / "run"
    copy = run / "checkpoint-000001"
    shutil.copytree(run / "checkpoint-000002", copy)
    (copy / "prefrank.json").unlink()
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    events: list[Event] = []
    train(recipe(max_steps=4, save_steps=2, save_total_limit=1, resume=True), callback=events.append)
    assert [event.folder for event in events if isinstance(event, PassedOver)] == [copy]
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_a_copy_that_broke_off_is_refused_where_its_name_is_needed(recipe, tmp_path):
    train(recipe(max_steps=4, save_steps=2))
    run = tmp_path / "run"
    (run / "last" / "prefrank.json").rename(run / "last" / "mine")
    shutil.copytree(run / "last", run / "checkpoint-000004")
    shutil.rmtree(run / "last")
    with pytest.raises(CannotWrite, match=r"checkpoint-000004: it holds other files"):
        train(recipe(max_steps=4, save_steps=2, resume=True))
    with pytest.raises(CannotWrite, match=r"checkpoint-000004: it holds other files"):
        train(recipe(max_steps=4, save_steps=2, overwrite=True))
    assert (run / "checkpoint-000004" / "mine").is_file()


@pytest.mark.parametrize("torn", TORN)
def test_training_on_from_a_folder_with_a_torn_record_is_one_line(recipe, bert, tmp_path, torn):
    model = train(recipe(max_steps=1)).last
    (model / "prefrank.json").write_text(torn)
    with pytest.raises(BadModel, match=r"prefrank\.json|text settings") as caught:
        train(recipe(model_name=str(model), output_dir=str(tmp_path / "more")))
    assert "\n" not in str(caught.value)


def test_a_run_of_an_earlier_version_resumes_under_new_keys(recipe, tmp_path):
    """Keys that it did not know yet count as their defaults, inside data sets as well."""
    train(recipe(max_steps=4, save_steps=2))
    for folder in ("last", "checkpoint-000002"):
        path = tmp_path / "run" / folder / "prefrank.json"
        record = json.loads(path.read_text())
        for source in record["training"]["recipe"]["datasets"]:
            del source["columns"]
        path.write_text(json.dumps(record))
        files = path.parent / "state" / "files.json"
        listed = json.loads(files.read_text())
        del listed["prefrank.json"]
        files.write_text(json.dumps(listed))
    assert train(recipe(max_steps=4, save_steps=2, resume=True)).steps == 4
