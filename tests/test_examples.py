"""The examples stay short and run."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.tiny import bert_folder

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(bert_folder(tmp_path_factory.mktemp("examples")))


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    path = next(path for path in EXAMPLES if path.stem == name)
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_is_under_forty_lines_and_says_how_to_use_it(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 40
    assert path.name in text.split('"""')[1]


def test_best_of_n_prints_the_best_first(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("best_of_n", monkeypatch, model, "how do I bake", "mix flour", "water and salt")
    first, second = capsys.readouterr().out.splitlines()
    assert {first, second.split("'")[1]} == {"mix flour", "water and salt"}
    assert float(second.split()[-1]) >= 0.5


def test_keep_the_best_keeps_one_reply_of_each_prompt(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [{"prompt": "bake", "replies": ["a", "b flour"]}, {"prompt": "yeast", "replies": ["c", "d", "e salt"]}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("keep_the_best", monkeypatch, model, str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"))
    kept = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in kept] == ["bake", "yeast"]
    assert all(row["reply"] in original["replies"] for row, original in zip(kept, rows, strict=True))


def test_rewards_for_rl_are_centred_in_each_group(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("reward_for_rl", monkeypatch, model)
    rewards = json.loads(capsys.readouterr().out)
    assert sum(rewards) == pytest.approx(0, abs=1e-6)
    assert rewards[0] != 0


def test_rewards_for_rl_take_conversations(model: str) -> None:
    make = runpy.run_path(str(next(path for path in EXAMPLES if path.stem == "reward_for_rl")))["GroupRewards"](model)
    texts = ["mix flour", "no"]
    messages = make(
        [[{"role": "user", "content": "how do I bake"}]] * 2, [[{"role": "assistant", "content": t}] for t in texts]
    )
    assert messages == make(["how do I bake"] * 2, texts)


def test_loss_curves_are_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    run("loss_curves", monkeypatch, str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_scorer_of_ones_own_is_judged_beside_baselines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("judge_a_scorer", monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["mine less longer", "mine less random"]
    assert all(line.endswith("worse") for line in lines)
