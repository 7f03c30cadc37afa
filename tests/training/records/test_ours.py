"""What is not a run's own stays as it is: foreign files in the output folder, two runs in one, full disks."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prefrank.errors import BadModel, BadRecipe, CannotWrite, Interrupted, PrefrankError
from prefrank.io.lock import locked
from prefrank.training import dry_run, train
from prefrank.training.recipe_file import RecipeValues
from prefrank.training.records.curve import Curve, read_curve
from prefrank.training.records.events import Encoding, Event, Kept, StepDone
from prefrank.training.records.output import open_output, remove_old, step_checkpoints
from prefrank.training.tools.sweep import run_sweep


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, bert: Path, pairs: Path) -> Path:
    """The folder of a run."""
    from prefrank.training import make_recipe

    folder = tmp_path_factory.mktemp("finished") / "run"
    values: dict[str, Any] = {
        "model_name": str(bert),
        "datasets": [str(pairs)],
        "learning_rate": 1e-3,
        "max_length": 64,
    }
    values |= {"output_dir": str(folder), "per_device_train_batch_size": 4, "trackers": "none"}
    train(make_recipe({**values, "max_steps": 4, "save_steps": 2, "eval_steps": 2}))
    return folder


def snapshot(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def put(folder: Path, name: str) -> None:
    path = folder / name
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")


FOREIGN = [
    "best/thesis.txt",
    "checkpoint-7/mine",
    "checkpoint-000002/mine",
    "last/state/mine",
    "last/adapter/mine",
    "last/.hidden",
    "logs/prefrank/mine",
    "logs/prefrank/1.5/mine",
    "best",
    "last",
    "checkpoint-9",
    "logs",
    "run.json",
    "curve.jsonl",
    "run.lock",
]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("before", [True, False])
def test_a_foreign_file_in_place_of_a_runs_own_refuses_the_run_and_stays(recipe, tmp_path, finished, name, before):
    run = tmp_path / "run"
    if before:
        shutil.copytree(finished, run)
    put(run, name)
    there = snapshot(run)
    for call, changes in (
        (train, {}),
        (train, {"overwrite": True}),
        (train, {"resume": True}),
        (dry_run, {"overwrite": True}),
    ):
        if call is dry_run and name == "run.lock":
            continue  # it holds nothing
        if before and name.startswith("checkpoint") and "overwrite" not in changes:
            continue  # a run that goes on passes over what it does not need; see the next test
        with pytest.raises(CannotWrite, match=Path(name).name) as caught:
            call(recipe(**changes))
        assert "\n" not in str(caught.value)
        assert snapshot(run) == there


@pytest.mark.parametrize("name", ["checkpoint-7/mine", "checkpoint-000002/mine", "checkpoint-9"])
def test_what_stands_in_place_of_a_step_that_is_done_stays_when_a_run_goes_on(recipe, tmp_path, finished, name):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    put(run, name)
    there = snapshot(run)
    with pytest.raises(BadRecipe, match="holds a run already"):
        train(recipe())
    assert snapshot(run) == there
    train(recipe(resume=True, max_steps=4, save_steps=2, eval_steps=2))
    assert (run / name).read_text() == "mine"


@pytest.mark.parametrize(
    "name", [".photos.raw.tmp/a", ".thesis.v1.old/a", ".prefrank-00000000.tmp/a", "README", "logs/a"]
)
def test_other_files_in_an_output_folder_stay(recipe, tmp_path, name):
    run = tmp_path / "run"
    put(run, name)
    for changes in ({}, {"overwrite": True}):
        dry_run(recipe(max_steps=1, **changes))
        train(recipe(max_steps=1, **changes))
        assert (run / name).read_text() == "mine"


def test_names_that_are_nearly_those_of_checkpoints_are_left_alone(recipe, tmp_path):
    run = tmp_path / "run"
    for name in ("checkpoint-²", "checkpoint-", "checkpoint-٣", "checkpoint--1", "checkpoint-1.5"):
        put(run, f"{name}/mine")
    assert step_checkpoints(run) == []
    train(recipe(max_steps=2, save_steps=1, save_total_limit=1))
    assert (run / "checkpoint-²" / "mine").exists()


@pytest.mark.parametrize("name", ["best", "last", "checkpoint-000002", "last/more", "curve.jsonl"])
def test_links_are_never_followed_to_delete(recipe, tmp_path, finished, name):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(finished, run)
    put(elsewhere, "mine")
    path = run / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)
    with pytest.raises(CannotWrite, match=r"link|other files"):
        train(recipe(overwrite=True))
    assert (elsewhere / "mine").read_text() == "mine"
    assert path.is_symlink()


def test_an_output_folder_may_be_a_link(recipe, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    train(recipe(max_steps=1))
    assert (tmp_path / "elsewhere" / "last" / "model.safetensors").is_file()


def test_old_checkpoints_with_a_foreign_file_are_kept_and_named_once(recipe, tmp_path):
    events: list[Kept] = []

    def report(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            put(tmp_path / "run" / "checkpoint-000002", "mine")
        if isinstance(event, Kept):
            events.append(event)

    train(recipe(max_steps=8, save_steps=2, save_total_limit=1), callback=report)
    assert (tmp_path / "run" / "checkpoint-000002" / "mine").read_text() == "mine"
    assert [event.folder.name for event in events] == ["checkpoint-000002"]
    assert "other files (mine)" in events[0].why
    assert [checkpoint.name for checkpoint in step_checkpoints(tmp_path / "run")] == [
        "checkpoint-000002",
        "checkpoint-000006",
    ]
    assert remove_old(tmp_path / "run", keep=1) == events


@pytest.mark.parametrize("changes", [{"datasets": ["./none.jsonl"]}, {"model_name": "./none"}, {"max_length": 999}])
def test_a_refused_run_leaves_nothing(recipe, tmp_path, changes):
    with pytest.raises(PrefrankError):
        train(recipe(output_dir=str(tmp_path / "new" / "run"), **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_changes_nothing(recipe, tmp_path, finished):
    dry_run(recipe(output_dir=str(tmp_path / "new" / "run")))
    assert list(tmp_path.iterdir()) == []
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    there = snapshot(run)
    dry_run(recipe(overwrite=True))
    dry_run(recipe(resume=True, max_steps=4, eval_steps=2, save_steps=2))
    assert snapshot(run) == there


def test_a_second_run_in_a_folder_is_refused_and_names_the_first(recipe, tmp_path):
    refusals: list[str] = []

    def report(event: Event) -> None:
        if isinstance(event, Encoding | StepDone) and not refusals:
            for changes in ({}, {"overwrite": True}, {"resume": True}):
                there = snapshot(tmp_path)
                with pytest.raises(CannotWrite) as caught:
                    train(recipe(**changes))
                refusals.append(str(caught.value))
                assert snapshot(tmp_path) == there

    train(recipe(max_steps=2), callback=report)
    assert len(refusals) == 3
    assert f"is in use: process {os.getpid()} on {socket.gethostname()} holds it since" in refusals[0]
    assert train(recipe(resume=True, max_steps=2)).steps == 2


def test_a_sweep_and_a_run_exclude_each_other(recipe, tmp_path):
    base = RecipeValues(recipe().model_dump(mode="json"), {}, "")
    with open_output(recipe()), pytest.raises(CannotWrite, match="is in use: process"):
        run_sweep(base, [{"seed": 1}])


def hold(folder: str, ready: Any) -> None:
    with locked(Path(folder)) as sign:
        sign()
        ready.set()
        time.sleep(100)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path, number):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(str(tmp_path), ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(CannotWrite, match=f"process {process.pid} on "), locked(tmp_path):
        pass
    os.kill(process.pid, number)
    process.join(60)
    with locked(tmp_path) as sign:
        sign()
    assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()


def test_a_lock_that_another_machine_left_keeps_nobody_out(tmp_path):
    (tmp_path / "run.lock").write_text('{"prefrank": "lock", "host": "gone", "pid": 1, "since": "2001"}')
    with locked(tmp_path):
        assert '"gone"' in (tmp_path / "run.lock").read_text()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, Interrupted])
def test_the_lock_is_free_after_every_error(recipe, tmp_path, error):
    def report(event: Event) -> None:
        if isinstance(event, StepDone):
            raise error

    with pytest.raises(error):
        train(recipe(), callback=report)
    with locked(tmp_path / "run"):
        pass


def full(*args: Any, **options: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_last_state_and_curve_whole(recipe, tmp_path, monkeypatch):
    run = tmp_path / "run"
    seen: dict[str, bytes] = {}

    def report(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 2:
            seen.update({name: (run / name).read_bytes() for name in ("run.json", "curve.jsonl")})
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if isinstance(event, StepDone) and event.step == 4:
            assert (run / "run.json").read_bytes() == seen["run.json"]
            assert (run / "curve.jsonl").read_bytes().startswith(seen["curve.jsonl"])
            assert len(read_curve(run)) >= 1
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        train(recipe(max_steps=5, logging_steps=1), callback=report)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [entry["step"] for entry in read_curve(run) if "loss" in entry] == [1, 2, 3, 4, 5]


def test_a_curve_that_cannot_be_rewritten_stays(tmp_path, monkeypatch):
    kept = Curve(tmp_path, first_step=0)
    for step in (1, 2):
        kept.add({"step": step, "loss": 1.0, "learning_rate": 1.0})
    before = (tmp_path / "curve.jsonl").read_bytes()
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CannotWrite, match="the disk is full"):
        Curve(tmp_path, first_step=1)
    assert (tmp_path / "curve.jsonl").read_bytes() == before


def test_a_sweeps_results_replace_no_other_file(recipe, tmp_path):
    base = RecipeValues(recipe().model_dump(mode="json"), {}, "")
    put(tmp_path / "run", "sweep.json")
    with pytest.raises(CannotWrite, match=r"sweep\.json is not from a sweep"):
        run_sweep(base, [{"seed": 1}])
    assert snapshot(tmp_path / "run") == {"sweep.json": b"mine"}


def change_state(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a checkpoint's state as somebody would who also fits the list of files to it."""
    import hashlib

    path = folder / "state" / "state.pt"
    state = torch.load(path, weights_only=True)
    torch.save(change(state), path)
    listed = json.loads((folder / "state" / "files.json").read_text())
    listed["state/state.pt"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "state" / "files.json").write_text(json.dumps(listed))


def first_moment(state: dict[str, Any], value: Any) -> dict[str, Any]:
    name = next(iter(state["optimizer"]))
    state["optimizer"][name]["exp_avg"] = value
    return state


STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda state: [state],
    "no optimizer": lambda state: {key: value for key, value in state.items() if key != "optimizer"},
    "another parameter": lambda state: state | {"optimizer": {"x": {}}},
    "another shape": lambda state: first_moment(state, torch.zeros(3)),
    "expanded": lambda state: first_moment(state, torch.zeros(1).expand(10**9)),
    "sparse": lambda state: first_moment(state, torch.zeros(4, 32).to_sparse()),
    "progress of text": lambda state: state | {"progress": state["progress"] | {"step": "4"}},
    "negative progress": lambda state: state | {"progress": state["progress"] | {"step": -4}},
    "no step": lambda state: state | {"progress": {k: v for k, v in state["progress"].items() if k != "step"}},
    "odd metrics": lambda state: state | {"progress": state["progress"] | {"metrics": {"a": {"b": 1}}}},
    "an average of nothing": lambda state: state | {"average": {}},
    "a loss of another kind": lambda state: state | {"loss": {"cuts": torch.zeros(3)}},
}


@pytest.mark.parametrize("kind", STATES)
def test_a_state_that_is_no_runs_is_one_line(recipe, tmp_path, finished, kind):
    shutil.copytree(finished, tmp_path / "run")
    change_state(tmp_path / "run" / "last", STATES[kind])
    changes = {"max_steps": 4, "save_steps": 2, "eval_steps": 2, "resume": True}
    with pytest.raises(BadModel, match="remove that checkpoint") as caught:
        train(recipe(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../../secret", "/etc/hostname", "state/../../../secret", "over/secret", "", "x\0y", "x" * 5000]
)
def test_a_list_of_files_leads_nowhere_out_of_its_checkpoint(recipe, tmp_path, finished, name):
    from prefrank.training.records.run_checkpoints import what_is_torn

    last = shutil.copytree(finished, tmp_path / "run") / "last"
    (tmp_path / "secret").write_text("x")
    (last / "over").symlink_to(tmp_path)
    path = last / "state" / "files.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: 3}))
    torn = what_is_torn(last)
    assert torn is not None
    assert "which is not a file of it" in torn or "missing" in torn or "cannot be read" in torn


@pytest.mark.parametrize("files", [{}, {"state/state.pt": None}, {"state/state.pt": [1]}, {"state/state.pt": True}])
def test_digests_of_odd_types_are_torn(tmp_path, finished, files):
    from prefrank.training.records.run_checkpoints import what_is_torn

    last = shutil.copytree(finished, tmp_path / "run") / "last"
    (last / "state" / "files.json").write_text(json.dumps(files))
    assert what_is_torn(last) is not None


def test_resuming_with_a_torn_curve_is_one_line_and_changes_nothing(recipe, tmp_path, finished):
    run = shutil.copytree(finished, tmp_path / "run")
    lines = (run / "curve.jsonl").read_text().splitlines()
    (run / "curve.jsonl").write_text("\n".join([lines[0][:20], *lines[1:]]) + "\n")
    there = snapshot(run)
    with pytest.raises(CannotWrite, match=r"curve\.jsonl:1 cannot be read as JSON"):
        train(recipe(max_steps=4, save_steps=2, eval_steps=2, resume=True))
    assert snapshot(run) == there


def test_the_lock_needs_no_training_packages():
    code = "import sys; sys.modules['psutil'] = sys.modules['pydantic'] = None; import prefrank.io.lock"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_without_overwrite_is_still_said_to_be_there(recipe, tmp_path, finished):
    shutil.copytree(finished, tmp_path / "run")
    there = snapshot(tmp_path)
    with pytest.raises(BadRecipe, match="holds a run already"):
        train(recipe())
    assert snapshot(tmp_path) == there
