"""Consoles of few characters, as Windows has them: simulated by streams of that encoding. Ctrl-C twice."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prefrank.cli import main
from prefrank.cli.screen import show
from prefrank.reports.rich_tables import add_row, new_table

FOREIGN = "what is 酵母 — “yeast” ≥ × █ ё?"


class Console:
    """The command line on streams of an encoding; gives exit code and standard output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
        self._monkeypatch, self._encoding = monkeypatch, encoding

    def __call__(self, *arguments: str) -> tuple[int, str]:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=self._encoding) for _ in range(2))
        self._monkeypatch.setattr(sys, "stdout", out)
        self._monkeypatch.setattr(sys, "stderr", err)
        self._monkeypatch.setattr(sys, "argv", ["prefrank", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        out.flush()
        err.flush()
        return int(stop.value.code or 0), out.buffer.getvalue().decode(self._encoding)  # type: ignore[attr-defined]


@pytest.fixture(params=["cp1252", "ascii"])
def console(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("COLUMNS", "120")
    return Console(monkeypatch, request.param)


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [
        {"prompt": FOREIGN + str(n), "chosen": "ein Pilz × 酵母", "rejected": "█" * 20, "id": f"№ {n}"}
        for n in range(3)
    ]
    path = tmp_path / "данные.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_every_table_of_measuring_prints_on_any_console(
    console: Console, data: str, model: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    output, page = runs / "run.json", tmp_path / "page.html"
    options = ("--data", data, "--resamples", "20", "--audit", "--json", str(output), "--html", str(page))
    assert console("evaluate", "--model", model, *options)[0] == 0
    run = json.loads(output.read_text(encoding="utf-8"))
    assert "данные.jsonl" in run["suites"]
    assert "данные.jsonl" in page.read_text(encoding="utf-8")
    board = tmp_path / "board.html"
    assert console("compare", str(output), "--resamples", "20", "--html", str(page))[0] == 0
    assert console("leaderboard", str(runs), "--resamples", "20", "--html", str(board))[0] == 0
    assert "данные.jsonl" in board.read_text(encoding="utf-8")
    assert console("data", "describe", data)[0] == 0
    assert console("suites")[0] == 0
    assert console("rank", "--model", model, "--prompt", FOREIGN, "--reply", "█", "--reply", "no")[0] == 0
    assert console("info", model)[0] == 0


def test_json_on_a_console_of_few_characters_holds_every_character(console: Console, model: str) -> None:
    code, out = console("rank", "--model", model, "--prompt", FOREIGN, "--reply", "█", "--reply", "no", "--json")
    assert code == 0
    assert json.loads(out)["prompt"] == FOREIGN


def test_an_error_with_foreign_names_is_one_line(console: Console, tmp_path: Path) -> None:
    assert console("compare", str(tmp_path / "нет.json"))[0] == 2


def test_lines_of_tables_are_drawn_with_what_the_console_has(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    table = new_table("t", "a", "b")
    add_row(table, "1", "2")
    show(table)
    stream.flush()
    assert b"---" in stream.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_a_second_signal_ends_the_process_without_a_traceback(first: str, second: str) -> None:
    code = (
        "import os, signal\nfrom prefrank import cli\ncli._catch_signals()\n"
        f"try: os.kill(os.getpid(), signal.{first})\n"
        f"finally: os.kill(os.getpid(), signal.{second})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (-getattr(signal, second), "")
