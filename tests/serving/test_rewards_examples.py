"""The examples for trainers, loaded and called as the trainers do."""

import importlib.util
import inspect
import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.fake_server import FINGERPRINT, FakeServe, worth

FOLDER = Path(__file__).parents[2] / "examples"
SCORE = worth("What is yeast?", "A fungus that makes dough rise.")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServe]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = FakeServe()
    monkeypatch.setenv("REWARD_URL", server.url)
    yield server
    server.close()


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    return runpy.run_path(str(path), run_name="__main__")


def loaded(name: str) -> Any:
    """A module as OpenRLHF and verl load it."""
    spec = importlib.util.spec_from_file_location("reward", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_server_is_asked(
    fake: FakeServe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("ask_server", monkeypatch, fake.url, "Why?", "Because.", "So.", "poison")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"demo ({FINGERPRINT[:12]})"
    assert [line.split("'")[1] for line in lines[1:]] == ["Because.", "So.", "poison"]


def test_openrlhf(fake: FakeServe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run("openrlhf_reward", monkeypatch)["reward_func"].source.close()
    assert json.loads(capsys.readouterr().out) == [SCORE]
    assert callable(loaded("openrlhf_reward").reward_func)


def test_verl(fake: FakeServe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run("verl_reward", monkeypatch)["compute_score"].__self__.source.close()
    assert json.loads(capsys.readouterr().out) == worth("What is yeast?", "A fungus.")
    module = loaded("verl_reward")
    assert inspect.iscoroutinefunction(module.compute_score)
    assert callable(module.manager(config=None, tokenizer=None, compute_score=None).run_single)


def test_slime(fake: FakeServe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reward = run("slime_reward", monkeypatch)["reward"]
    reward.source.close()
    assert json.loads(capsys.readouterr().out) == SCORE


def test_trlx(fake: FakeServe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run("trlx_reward", monkeypatch, fake.url)
    assert json.loads(capsys.readouterr().out) == [SCORE, worth("What is yeast?", "No idea.")]


def test_trl_pins_the_model_that_the_server_has(fake: FakeServe) -> None:
    reward = runpy.run_path(str(FOLDER / "trl_reward.py"))["make_reward"](fake.url)
    assert (reward.options.model, reward.options.fingerprint) == ("demo", FINGERPRINT)
    assert reward(prompts=["Why?"], completions=["So."]) == [worth("Why?", "So.")]
    reward.source.close()
