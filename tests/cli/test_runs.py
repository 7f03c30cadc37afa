"""Runs, sweeps and the learning-rate finder from the command line, on a model that trains in a second."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.training.conftest import bert, pairs  # noqa: F401


@pytest.fixture
def recipe_file(bert: Path, pairs: Path, tmp_path: Path) -> str:  # noqa: F811
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"model_name: {bert}\ndatasets: {pairs}\nlearning_rate: 1e-3\noutput_dir: {tmp_path / 'runs' / 'one'}\n"
        "per_device_train_batch_size: 4\nmax_length: 64\neval_steps: 3\nlogging_steps: 1\ntrackers: none\n"
    )
    return str(path)


def test_runs_are_listed_and_compared_with_a_picture(run: Run, recipe_file: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert run(
            "train", recipe_file, "--set", f"output_dir={tmp_path / 'runs' / name}", "--set", f"seed={len(name)}"
        )
    code, out, _ = run("runs", str(tmp_path / "runs"))
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines() if "finished" in line] == [
        ["one", "finished", "6/6"],
        ["two", "finished", "6/6"],
    ]
    both = [str(tmp_path / "runs" / name) for name in ("one", "two")]
    assert run("train", recipe_file, "--overwrite", "--set", "seed=7")[0] == 0
    code, out, err = run("runs", *both, "--plot", str(tmp_path / "curves.png"))
    assert code == 0
    assert next(line.split() for line in out.splitlines() if "seed" in line) == ["seed", "7", "3"]
    assert "learning_rate" not in out
    assert "curves.png" in "".join(err.split())
    assert (tmp_path / "curves.png").is_file()
    code, out, _ = run("runs", *both, "--json")
    record = json.loads(out)
    assert record["differing"] == {"seed": [7, 3]}
    assert {one["state"] for one in record["runs"]} == {"finished"}


def test_a_sweep_prints_its_table_and_goes_on_where_it_was(run: Run, recipe_file: str, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text("- {learning_rate: 3e-3}\n- {max_length: 999}\n")
    arguments = ("train", recipe_file, "--sweep", str(tmp_path / "grid.yaml"))
    code, out, err = run(*arguments, "--plot", str(tmp_path / "sweep.png"))
    assert code == 0
    assert "0.003" in out
    assert "failed" in out
    assert "has positions for 128" in " ".join(err.split())
    assert (tmp_path / "sweep.png").is_file()
    code, out, err = run(*arguments, "--json")
    assert "run 1 of 2" not in err
    assert "run 2 of 2" in err
    assert [row["changes"] for row in json.loads(out)] == [{"learning_rate": 0.003}, {"max_length": 999}]


def test_the_finder_prints_a_rate_and_leaves_no_run(run: Run, recipe_file: str, tmp_path: Path) -> None:
    code, out, err = run("train", recipe_file, "--find-lr", "--plot", str(tmp_path / "rate.png"))
    assert code == 0
    assert "1.0e-07" in out
    assert "range test" in err or "no suggestion" in err
    assert (tmp_path / "rate.png").is_file()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--find-lr", "--dry-run"), "--dry-run, --find-lr and --sweep exclude each other"),
        (("--plot", "x.png"), "--plot goes with --find-lr or --sweep"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    run: Run,
    recipe_file: str,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    code, _, err = run("train", recipe_file, *arguments)
    assert code == 2
    assert message in " ".join(err.split())


def test_a_folder_without_runs_is_not_found(run: Run, tmp_path: Path) -> None:
    code, _, err = run("runs", str(tmp_path))
    assert code == 2
    assert "no run in" in err


def test_sources_of_one_name_are_told_apart_and_kept_short_in_every_table(
    run: Run,
    recipe_file: str,
    pairs: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    rows = pairs.read_text().splitlines(keepends=True)
    for name, half in (("first", rows[::2]), ("second", rows[1::2])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text("".join(half))
    both = f"datasets=[{tmp_path / 'first' / 'train.jsonl'}, {tmp_path / 'second' / 'train.jsonl'}]"
    tables = [run("train", recipe_file, "--set", both, "--dry-run")]
    assert run("train", recipe_file, "--set", both)[0] == 0
    assert run("train", recipe_file, "--set", both, "--set", f"output_dir={tmp_path / 'runs' / 'two'}")[0] == 0
    tables += [run("runs", str(tmp_path / "runs"))]
    tables += [run("runs", *(str(tmp_path / "runs" / name) for name in ("one", "two")))]
    for code, out, err in tables:
        assert code == 0, err
        assert "first/train.jsonl" in out
        assert "second/train.jsonl" in out
        assert str(tmp_path) not in "".join(out.split())
