import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prefrank.cli.commands import app
from prefrank.errors import BadData, CannotWrite, NotFound
from prefrank.training import train
from prefrank.training.records.plots import _running_mean, plot_rate_search, plot_runs
from prefrank.training.records.runs import Best, differing_keys, find_runs, rank_runs, read_run, undecided
from prefrank.training.tools.find_rate import RateSearch

A_BEST = Best(20, "overall", 0.7, (0.65, 0.75), 0.60, (0.55, 0.65), 300, "log_loss")


def write_run(folder: Path, *, losses: tuple[float, ...] = (0.7, 0.6, 0.65), **changes: Any) -> Path:
    """A run's files, as the log leaves them, with an evaluation every ten steps."""
    folder.mkdir(parents=True)
    recipe = {"datasets": [{"source": "starter"}], "learning_rate": 1e-5, "best_metric": "log_loss", "seed": 0}
    state = {
        "state": "finished",
        "step": 30,
        "steps": 30,
        "recipe": recipe | changes.pop("recipe", {}),
        "spent": {"wall_s": 61.0, "energy_kwh": 0.5},
        **changes,
    }
    (folder / "run.json").write_text(json.dumps(state))
    lines = []
    for number, loss in enumerate(losses, start=1):
        lines.append({"step": 10 * number, "loss": loss, "learning_rate": 1e-5 / number})
        metrics = {"accuracy": 1 - loss, "interval": [0.3, 0.5], "log_loss": loss, "comparisons": 40}
        metrics |= {"log_loss_interval": [loss - 0.1, loss + 0.1]}
        best = loss == min(losses[:number])
        lines.append({"step": 10 * number, "best": best, "judged": metrics, "evaluation": {"overall": metrics}})
    (folder / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_runs_are_found_in_a_folder_or_named(tmp_path):
    for name in ("b", "a", "deep/c"):
        write_run(tmp_path / name)
    (tmp_path / "no-run").mkdir()
    assert [Path(run.name).name for run in find_runs([tmp_path]).runs] == ["a", "b", "c"]
    assert [run.folder for run in find_runs([tmp_path / "b", tmp_path / "a"]).runs] == [tmp_path / "b", tmp_path / "a"]
    assert len(find_runs([tmp_path, tmp_path / "a"]).runs) == 3
    with pytest.raises(NotFound, match="there is no folder"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(NotFound, match="no run in"):
        find_runs([tmp_path / "no-run"])


def test_a_run_tells_its_best_evaluation_and_what_it_spent(tmp_path):
    run = read_run(write_run(tmp_path / "a"))
    assert (run.state, run.step, run.steps, run.data) == ("finished", 30, 30, ("starter",))
    assert run.best is not None
    assert (run.best.step, run.best.log_loss, run.best.log_loss_interval) == (20, 0.6, (0.5, 0.7))
    assert run.spent["wall_s"] == 61.0
    assert "curve" not in run.to_json()
    assert json.loads(json.dumps(run.to_json()))["best"]["accuracy"] == pytest.approx(0.4)
    named = read_run(write_run(tmp_path / "b", recipe={"best_set": "starter:dev", "best_metric": "accuracy"}))
    assert named.best is not None
    assert (named.best.name, named.best.loss) == ("starter:dev", pytest.approx(-0.4))


def test_a_run_says_running_only_while_its_process_lives(tmp_path):
    killed = {"host": socket.gethostname(), "pid": 2**22 + 1, "created": 0.0}
    assert read_run(write_run(tmp_path / "a", state="running", process=killed)).state == "stopped"
    elsewhere = killed | {"host": "elsewhere"}
    assert read_run(write_run(tmp_path / "b", state="running", process=elsewhere)).state == "running"


def test_a_finished_run_is_read_back_and_so_is_one_without_its_state(recipe, tmp_path):
    trained = train(recipe(eval_steps=2))
    run = read_run(tmp_path / "run")
    assert (run.state, run.step, run.steps) == ("finished", trained.steps, trained.steps)
    assert run.best is not None
    assert run.best.comparisons > 0
    (tmp_path / "run" / "run.json").unlink()
    (tmp_path / "run" / "curve.jsonl").unlink()
    bare = read_run(tmp_path / "run")
    assert (bare.state, bare.step, bare.best, bare.recipe) == ("finished", trained.steps, None, run.recipe)


def test_runs_differ_in_the_keys_that_matter(tmp_path):
    runs = [
        read_run(write_run(tmp_path / str(n), recipe={"seed": n, "output_dir": str(n), "warmup_steps": 3}))
        for n in range(2)
    ]
    assert differing_keys(runs) == {"seed": [0, 1]}
    assert differing_keys(runs[:1]) == {}


def test_runs_are_ranked_by_their_best(tmp_path):
    worse, better = (read_run(write_run(tmp_path / str(loss), losses=(loss,))) for loss in (0.7, 0.5))
    empty = replace(worse, best=None)
    assert rank_runs([empty, worse, better]) == [better, worse, empty]


@pytest.mark.parametrize(
    ("log_loss", "half", "expected"), [(0.60, 0.05, True), (0.66, 0.05, True), (0.68, 0.05, False), (0.68, 0.2, True)]
)
def test_a_run_is_undecided_within_the_error_of_the_difference(log_loss, half, expected):
    """Half widths 0.05 and 0.05 add to 0.0707."""
    other = replace(A_BEST, log_loss=log_loss, log_loss_interval=(log_loss - half, log_loss + half))
    assert undecided(other, A_BEST) is expected


def test_a_run_without_an_interval_is_never_called_undecided():
    assert not undecided(replace(A_BEST, log_loss_interval=None), A_BEST)
    accuracy = replace(A_BEST, metric="accuracy", log_loss_interval=None)
    assert undecided(replace(accuracy, accuracy=0.66), accuracy)


def test_curves_become_a_picture(tmp_path):
    runs = [read_run(write_run(tmp_path / str(n))) for n in range(10)]
    runs.append(replace(runs[0], curve=(), best=None))
    plot_runs(runs, [run.name for run in runs], tmp_path / "new" / "curves.png")
    assert (tmp_path / "new" / "curves.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="cannot write"):
        plot_runs(runs[:1], ["a"], tmp_path / "file" / "curves.png")


@pytest.mark.parametrize("suggestion", [None, 1e-4])
def test_a_rate_search_becomes_a_picture(tmp_path, suggestion):
    rates = tuple(10 ** (-6 + n / 10) for n in range(30))
    losses = tuple(1.0 - 0.01 * n for n in range(30))
    plot_rate_search(RateSearch(rates, losses, losses, suggestion, "rule"), tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")


def test_a_running_mean_is_over_what_came_before():
    values = [float(n) for n in range(30)]
    import numpy as np

    assert _running_mean(np.array(values)).tolist()[:3] == [0.0, 0.5, 1.5]
    assert _running_mean(np.array([])).tolist() == []


def wrecked(folder: Path, file: str, change: Any) -> Path:
    """A run, one of whose files is not as its log wrote it."""
    write_run(folder)
    path = folder / file
    path.write_text(change(path.read_text()))
    return folder


def with_key(key: str, value: Any) -> Any:
    """A change of a JSON object: a dotted key's value."""

    def change(text: str) -> str:
        whole = json.loads(text.splitlines()[-1])
        *outer, last = key.split(".")
        inside = whole
        for name in outer:
            inside = inside[name]
        inside[last] = value
        return "\n".join([*text.splitlines()[:-1], json.dumps(whole)]) + "\n"

    return change


DEEP = json.loads("[" * 60 + "]" * 60)
TORN = {
    "half a state": ("run.json", lambda text: text[: len(text) // 2], "cannot be read as JSON"),
    "an empty state": ("run.json", lambda text: "", "cannot be read as JSON"),
    "a list": ("run.json", lambda text: "[]", "holds a list"),
    "no state": ("run.json", lambda text: "{}", "state is missing"),
    "nested": ("run.json", lambda text: "[" * 100_000, "nested too deeply"),
    "not a number": ("run.json", with_key("spent.wall_s", float("nan")), "it holds NaN"),
    "another state": ("run.json", with_key("state", "resting"), "state is 'resting'"),
    "a list of errors": ("run.json", with_key("error", ["x"]), "error is ['x']"),
    "steps of text": ("run.json", with_key("step", "30"), "step is '30'"),
    "true steps": ("run.json", with_key("steps", True), "steps is True"),
    "endless steps": ("run.json", with_key("steps", 10**400), "steps is"),
    "a recipe of text": ("run.json", with_key("recipe", "x"), "recipe is 'x'"),
    "data sets of text": ("run.json", with_key("recipe.datasets", ["x"]), "recipe.datasets is ['x']"),
    "no source": ("run.json", with_key("recipe.datasets", [{}]), "recipe.datasets[0].source is missing"),
    "a deep recipe": ("run.json", with_key("recipe.seed", DEEP), "recipe.seed is"),
    "another metric": ("run.json", with_key("recipe.best_metric", "x"), "recipe.best_metric is 'x'"),
    "a set of lists": ("run.json", with_key("recipe.best_set", [1]), "recipe.best_set is [1]"),
    "times of text": ("run.json", with_key("spent", {"wall_s": "x"}), "spent.wall_s is 'x'"),
    "half a curve": ("curve.jsonl", lambda text: text[20:], "curve.jsonl:1"),
    "a curve of numbers": ("curve.jsonl", lambda text: "3\n", "curve.jsonl:1 holds a number"),
    "steps of nothing": ("curve.jsonl", lambda text: '{"loss": 1}\n', "curve.jsonl:1: step is missing"),
    "a loss of text": ("curve.jsonl", lambda text: '{"step": 1, "loss": "x"}\n', "loss is 'x'"),
    "a loss past pictures": (
        "curve.jsonl",
        lambda text: '{"step": 1, "loss": 1e308, "learning_rate": 1}\n',
        "loss is 1e+308",
    ),
    "a rate past pictures": (
        "curve.jsonl",
        lambda text: '{"step": 1, "loss": 1, "learning_rate": -8e307}\n',
        "learning_rate",
    ),
    "a log loss past pictures": ("curve.jsonl", with_key("judged.log_loss", 1e308), "judged.log_loss is 1e+308"),
    "no metrics": ("curve.jsonl", with_key("judged", None), "judged is null"),
    "a list of metrics": ("curve.jsonl", with_key("evaluation", []), "evaluation is []"),
    "a short interval": ("curve.jsonl", with_key("judged.interval", [0.1]), "judged.interval is [0.1]"),
    "a wide accuracy": ("curve.jsonl", with_key("judged.accuracy", 7), "judged.accuracy is 7"),
    "a maybe": ("curve.jsonl", with_key("best", "maybe"), "best is 'maybe'"),
    "sets of text": ("curve.jsonl", with_key("evaluation.overall", "x"), "evaluation.overall is 'x'"),
}


@pytest.mark.parametrize("kind", TORN)
def test_a_torn_run_is_left_out_of_a_list_and_named(tmp_path, kind):
    file, change, message = TORN[kind]
    write_run(tmp_path / "whole")
    folder = wrecked(tmp_path / "torn", file, change)
    found = find_runs([tmp_path])
    assert [run.folder.name for run in found.runs] == ["whole"]
    assert [skipped.folder.name for skipped in found.skipped] == ["torn"]
    assert message in found.skipped[0].reason
    assert file in found.skipped[0].reason
    assert "\n" not in found.skipped[0].reason
    assert len(find_runs([tmp_path / "whole", folder]).skipped) == 1
    with pytest.raises(BadData):
        find_runs([folder])


def test_the_command_lists_the_rest(tmp_path):
    write_run(tmp_path / "whole")
    wrecked(tmp_path / "[/red]", "run.json", lambda text: text[:30])
    result = CliRunner().invoke(app, ["runs", str(tmp_path), "--json"])
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    assert [Path(run["folder"]).name for run in listed["runs"]] == ["whole"]
    assert [skipped["folder"] for skipped in listed["skipped"]] == [str(tmp_path / "[/red]")]
    assert CliRunner().invoke(app, ["runs", str(tmp_path)]).exit_code == 0
    (tmp_path / "whole" / "run.json").write_text("{")
    assert CliRunner().invoke(app, ["runs", str(tmp_path)]).exit_code == 0
    assert CliRunner().invoke(app, ["runs", str(tmp_path / "whole")]).exit_code != 0
