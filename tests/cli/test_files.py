"""`prefrank score` as a user calls it: columns by name, a prefix, and consoles that do not know every character."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prefrank.cli import main
from prefrank.errors import BadModel
from tests.cli.conftest import Run


def test_columns_by_name_and_a_prefix(run: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("question,answer,score,note\np,a,mine,1\n")
    arguments = ("score", str(tmp_path / "in.csv"), "--model", model, "--columns", "prompt=question,reply=answer")
    code, out, err = run(*arguments)
    assert code == 3
    assert "in.csv: there is a column 'score' already" in " ".join(err.split())
    assert "such as --prefix rm_" in " ".join(err.split())
    code, out, _ = run(*arguments, "--prefix", "rm_")
    assert code == 0
    row = json.loads(out)
    assert (row["score"], row["note"]) == ("mine", "1")
    assert isinstance(row["rm_score"], float)
    code, _, err = run("score", "in.csv", "--model", model, "--columns", "question")
    assert code == 2
    assert "wanted NAME=COLUMN" in " ".join(err.split())


def test_a_column_with_a_dot_in_its_name_can_be_given(run: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "p", "out.text": "a"}\n{"prompt": "p", "out": {"text": "a"}}\n')
    code, out, _ = run("score", str(tmp_path / "in.jsonl"), "--model", model, "--reply-column", "out.text")
    assert code == 0
    assert len({json.loads(line)["score"] for line in out.splitlines()}) == 1


def test_a_file_that_is_not_there_is_said_to_be(run: Run, model: str, tmp_path: Path) -> None:
    code, _, err = run("score", str(tmp_path / "absent.jsonl"), "--model", model)
    assert code == 2
    assert "there is no file" in " ".join(err.split())
    assert "whole" not in err


@pytest.mark.parametrize("as_json", [True, False])
def test_a_console_that_does_not_know_a_character_shows_its_number(
    model: str, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    """Simulated: the streams of a Windows console of Western Europe."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="cp1252") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    arguments = ["rank", "--model", model, "--prompt", "é", "--reply", "😀", "--reply", "größer"]
    monkeypatch.setattr(sys, "argv", ["prefrank", *arguments, *(["--json"] if as_json else [])])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    streams["stdout"].flush()
    shown = streams["stdout"].buffer.getvalue().decode("cp1252")
    if as_json:
        assert {entry["reply"] for entry in json.loads(shown)["replies"]} == {"😀", "größer"}
    else:
        assert "größer" in shown
        assert r"\U0001f600" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_no_library_takes_a_signal_for_a_fault_of_its_own(
    run: Run, model: str, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    """Loading a tokenizer goes on after any error of the libraries', and so do requests to a server."""

    def loading(*args: object, **options: object) -> None:
        try:
            os.kill(os.getpid(), signal.Signals[name])
        except Exception as error:
            raise BadModel("the tokenizer cannot be read") from error

    monkeypatch.setattr("prefrank.scoring.reward_model.RewardModel.load", loading)
    found, _, err = run("rank", "--model", model, "--prompt", "p", "--reply", "r")
    assert (found, err.strip()) == (code, f"error: stopped by {'Ctrl-C' if name == 'SIGINT' else name}")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("command", ["score", "rank", "info"])
def test_a_full_disk_behind_standard_output_is_one_error(tmp_path: Path, model: str, command: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "p", "reply": "r"}')
    arguments = {
        "score": [str(tmp_path / "in.jsonl"), "--model", model],
        "rank": ["--model", model, "--prompt", "p", "--reply", "r"],
        "info": [model, "--json"],
    }
    with open("/dev/full", "wb") as full:
        line = [sys.executable, "-m", "prefrank", command, *arguments[command]]
        result = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 6
    assert result.stderr.splitlines()[-1].startswith("error: cannot write the output: the disk is full")


@pytest.mark.parametrize(("stream", "code"), [("stdin", 3), ("stdout", 6)])
def test_a_closed_stream_is_one_error(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str, code: int
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "p", "reply": "r"}')
    source, output = ("-", str(tmp_path / "o.jsonl")) if stream == "stdin" else (str(tmp_path / "in.jsonl"), "-")
    monkeypatch.setattr(sys, stream, None)
    found, _, err = run("score", source, "--model", model, "-o", output)
    assert found == code
    assert f"standard {stream.removeprefix('std')}put is closed" in err
