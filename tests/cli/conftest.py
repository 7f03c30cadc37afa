"""A tiny model, a few pairs, and the command line called as a user calls it."""

import json
import sys
from pathlib import Path

import pytest

from prefrank import RewardModel
from prefrank.cli import main
from tests.tiny import bert_folder

ROWS = [
    {"prompt": "how do I bake", "chosen": "mix flour water", "rejected": "no"},
    {"prompt": "what is yeast", "chosen": "a fungus", "rejected": "a kind of bread with long words in it"},
    {"prompt": "and salt", "chosen": "some", "rejected": "never"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cli")
    return str(RewardModel.load(bert_folder(folder / "plain"), max_length=64).save(folder / "model"))


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


class Run:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()  # what making the test's models printed
        self._monkeypatch.setattr(sys, "argv", ["prefrank", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        output = self._capsys.readouterr()
        return int(stop.value.code or 0), output.out, output.err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("COLUMNS", "120")
    return Run(monkeypatch, capsys)
