"""Two processes on CPUs (gloo) against one: whole models and shards, unequal shares, and resuming in another layout."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefrank import RewardModel
from prefrank.errors import BadModel, BadRecipe
from prefrank.training import Recipe, train
from prefrank.training.loop.strategies import launched_sharding
from tests.training.conftest import make_comparisons, write_jsonl
from tests.training.loop.launched import run

ROOT = Path(__file__).parents[3]
STOP = 3


def launch(tmp_path: Path, jobs: list[tuple[Recipe, int | None]]) -> None:
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps([(recipe.model_dump(mode="json"), stop) for recipe, stop in jobs]))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "tests.training.loop.launched", str(file)],
        capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:6000]
    assert "returned a view" not in done.stderr, done.stderr[:6000]


def result(recipe: Recipe) -> tuple[list[list[float]], str | None]:
    found = json.loads((Path(recipe.output_dir) / "steps.json").read_text())
    return found["steps"], found["error"]


def assert_same_steps(steps: list[list[float]], expected: list[list[float]]) -> None:
    """Equal losses to 1e-6, and gradient norms to 2e-6."""
    one, other = torch.tensor(steps, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64)
    assert one.shape == other.shape
    torch.testing.assert_close(one[:, :2], other[:, :2], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(one[:, 2], other[:, 2], rtol=2e-6, atol=0.0)


def evaluated(recipe: Recipe) -> dict[str, Any]:
    """The metrics of the one evaluation set after the last step."""
    record = RewardModel.load(Path(recipe.output_dir) / "last").training
    assert record is not None
    (metrics,) = record["metrics"]["sets"].values()
    return metrics


def assert_close(ours: Path, theirs: Path) -> None:
    """Equal weights, but for those that no gradient but rounding moves: a shift of all keys, or of all scores."""
    one, other = (load_file(folder / "last" / "model.safetensors") for folder in (ours, theirs))
    moved = [name for name in one if not name.endswith(("key.bias", "classifier.bias"))]
    assert len(moved) > 20
    for name in moved:
        assert torch.allclose(one[name], other[name], atol=2e-6), f"{ours.name}: {name}"


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 prompts with three replies each: steps of five, so that processes get three and two, and one and none."""
    folder = tmp_path_factory.mktemp("groups")
    return write_jsonl(folder / "groups.jsonl", make_comparisons(27, replies=3, words=12))


@pytest.fixture
def make(recipe: Any, groups: Path, tmp_path: Path) -> Any:
    """A function from a run's name and changed keys to its recipe."""

    def make(name: str, **changes: Any) -> Recipe:
        return recipe(
            datasets=[str(groups)], output_dir=str(tmp_path / name), dropout=0.0, num_devices=1, eval_steps=4,
            per_device_train_batch_size=5, max_tokens=60, max_length=48, save_steps=1000, num_train_epochs=2,
            adam_epsilon=1e-4,  # else a gradient that is rounding alone moves its weight as far as any other
            **changes
        )  # fmt: skip

    return make


def test_two_processes_train_like_one_whole_or_in_shards_and_resume_each_other(make, tmp_path):
    alone = make("alone")
    run(alone.model_dump(mode="json"), None)
    run(make("from one").model_dump(mode="json"), STOP)
    launch(
        tmp_path,
        [
            (make("whole"), None),
            (make("shards", sharding="full"), None),
            (make("whole to shards"), STOP),
            (make("whole to shards", sharding="full", resume=True), None),
            (make("to one", sharding="full"), STOP),
            (make("from one", sharding="full", resume=True), None),
            (make("average", sharding="full", ema_decay=0.5), None),
        ],
    )
    run(make("to one", resume=True).model_dump(mode="json"), None)
    run(make("average alone", ema_decay=0.5).model_dump(mode="json"), None)
    expected, _ = result(alone)
    assert len(expected) > 6
    for name in ("whole", "shards", "whole to shards", "to one", "from one"):
        steps, error = result(make(name))
        assert error is None, name
        resumed = name in ("whole to shards", "to one", "from one")
        assert_same_steps(steps, expected[STOP if resumed else 0 :])
        one, other = evaluated(make(name)), evaluated(alone)
        assert one["log_loss"] == pytest.approx(other["log_loss"], rel=1e-5)
        assert one["accuracy"] == other["accuracy"]
        assert_close(tmp_path / name, tmp_path / "alone")
    assert_close(tmp_path / "average", tmp_path / "average alone")


def test_shards_without_processes_to_hold_them_are_refused(recipe):
    with pytest.raises(BadRecipe, match="sharding is full, but there is one process to hold the shards"):
        train(recipe(sharding="full"))


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
@pytest.mark.parametrize("sharding", ["zero2", "zero3"])
def test_deepspeed_trains_like_one_process_and_resumes(make, tmp_path, sharding, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")

    run(make("alone").model_dump(mode="json"), None)
    launch(
        tmp_path,
        [
            (make("straight", sharding=sharding), None),
            (make("stopped", sharding=sharding), STOP),
            (make("stopped", sharding=sharding, resume=True), None),
        ],
    )
    expected, _ = result(make("alone"))
    for name, first in (("straight", 0), ("stopped", STOP)):
        steps, error = result(make(name))
        assert error is None
        assert_same_steps(steps, expected[first:])
        assert_close(tmp_path / name, tmp_path / "alone")
    with pytest.raises(BadModel, match=r"the state in .* is DeepSpeed's; resume with DeepSpeed"):
        train(make("stopped", resume=True))


@pytest.mark.parametrize("name", ["whole", "fsdp2", "zero2", "zero3"])
def test_the_launchers_configurations_are_what_accelerate_reads(name):
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(ROOT / "recipes" / "launch" / f"{name}.yaml"))
    kinds = {"whole": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    assert found.distributed_type == kinds[name]
    assert found.num_processes == 8
    if name.startswith("zero"):
        assert found.deepspeed_config["zero_stage"] == int(name[-1])


@pytest.mark.parametrize(
    ("environment", "sharding"),
    [
        ({}, "none"),
        ({"ACCELERATE_USE_FSDP": "true"}, "full"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, "zero2"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "zero3"),
    ],
)
def test_the_launchers_environment_decides_where_the_recipe_does_not(monkeypatch, environment, sharding):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert launched_sharding() == sharding
