"""A run that is killed (SIGKILL) at any point and resumed ends with the bits of one that was not."""

import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefrank.training import make_recipe, train
from prefrank.training.records.events import Event, Started
from tests.tiny import decoder_folder


def run(values: dict[str, Any], kill_after: float | None, queue: Any) -> None:
    """Train in a process of its own; puts the step it starts from, and the seconds that steps, scores and saving took.

    Args:
        kill_after: of those seconds, the one in which the process kills itself.
    """
    torch.set_num_threads(1)
    began = 0.0

    def report(event: Event) -> None:
        nonlocal began
        if isinstance(event, Started):
            began = time.perf_counter()
            queue.put(event.first_step)
            if kill_after is not None:
                threading.Timer(kill_after, os.kill, (os.getpid(), signal.SIGKILL)).start()

    train(make_recipe(values), callback=report)
    queue.put(time.perf_counter() - began)


def in_a_process(values: dict[str, Any], kill_after: float | None = None) -> tuple[int, float | None, int]:
    """First step, seconds (None if it was killed before the end), exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["prefrank.training", "prefrank.training.loop.train", "tensorboard"])
    queue = context.SimpleQueue()
    process = context.Process(target=run, args=(values, kill_after, queue))
    process.start()
    process.join(100)
    assert process.exitcode is not None
    first = -1 if queue.empty() else queue.get()
    return first, None if queue.empty() else queue.get(), process.exitcode


@pytest.mark.parametrize(
    ("kind", "points"),
    [("bert", 3), pytest.param("bert", 20, marks=pytest.mark.slow), pytest.param("decoder", 5, marks=pytest.mark.slow)],
)
def test_a_run_killed_at_random_points_resumes_to_the_same_bits(recipe, tmp_path, kind, points):
    keys = {"num_train_epochs": 3, "save_steps": 2, "eval_steps": 3, "dropout": 0.2, "ema_decay": 0.8, "max_tokens": 60}
    if kind == "decoder":
        keys["model_name"] = str(decoder_folder(tmp_path / "decoder"))
    values = recipe(**keys).model_dump(mode="json")
    whole = tmp_path / "whole"
    _, seconds, code = in_a_process(values | {"output_dir": str(whole)})
    assert (code, seconds is not None) == (0, True)
    expected = load_file(whole / "last" / "model.safetensors"), load_file(whole / "best" / "model.safetensors")
    state = torch.load(whole / "last" / "state" / "state.pt")
    draw = random.Random(points)
    firsts, killed = [], 0
    for point in range(points):
        values["output_dir"] = str(tmp_path / str(point))
        _, _, code = in_a_process(values, kill_after=draw.uniform(0.0, seconds))
        killed += code == -signal.SIGKILL
        first, _, code = in_a_process(values | {"resume": True})
        assert code == 0
        firsts.append(first)
        for name, tensors in zip(("last", "best"), expected, strict=True):
            found = load_file(Path(values["output_dir"]) / name / "model.safetensors")
            assert all(torch.equal(found[key], tensors[key]) for key in tensors), (name, first)
        again = torch.load(Path(values["output_dir"]) / "last" / "state" / "state.pt")
        assert same(again, state)
        left = [path.name for path in Path(values["output_dir"]).iterdir() if path.name.startswith(".")]
        assert not left
    assert killed > 0.6 * points
    assert max(firsts) > 0


def same(one: Any, other: Any) -> bool:
    """Whether two saved states are equal, tensors bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
