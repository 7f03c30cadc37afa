"""What reaches the terminal is text: nothing in a path, name, prompt, reply or error is obeyed or read as markup."""

import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrank.cli import _show_warning, screen
from prefrank.errors import BadInput
from prefrank.reports import rich_tables
from prefrank.reports.rich_tables import joined
from tests.cli.conftest import Run

HOSTILE = "a\x1b[2J\x9b2J\x1b]8;;http://x\x07\r\u202e[red]b[/red] [/] [link=http://x]c \\"
OBEYED = ("\x1b", "\x9b", "\x07", "\r", "\u202e")


@given(st.text(alphabet="ab[]/\\#@\n\x1b=: "), st.text(alphabet="ab[]/\\ "))
def test_brackets_and_backslashes_are_shown_as_they_are(one: str, other: str) -> None:
    shown = joined(one, joined(other, style="bold"), " end").plain
    assert shown == one.replace("\n", "\\n").replace("\x1b", "\\x1b") + other + " end"
    file = io.StringIO()
    screen._console(file, 10_000).print(shown, end="")
    assert file.getvalue() == shown


@given(st.text(st.characters()))
def test_no_text_moves_the_cursor(text: str) -> None:
    shown = rich_tables.text(text).plain + rich_tables.lines(text).plain.replace("\n", "")
    assert all(one.isprintable() or one.isspace() or ord(one) > 0x9F for one in shown)
    assert not set(shown) & set("\x1b\r\x9b\n\u202e\u2028")


def test_a_long_text_is_cut_and_says_so() -> None:
    assert rich_tables.text("x" * 3000).plain.endswith("x… (3,000 characters)")
    assert len(rich_tables.lines("x\n" * 3000).plain) < 2100


@pytest.mark.parametrize("color", [True, False])
def test_prompt_and_replies_of_a_ranking_are_not_obeyed(
    run: Run, model: str, monkeypatch: pytest.MonkeyPatch, color: bool
) -> None:
    if color:
        monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, err = run("rank", "--model", model, "--prompt", HOSTILE, "--reply", HOSTILE, "--reply", "one\ntwo")
    assert code == 0
    assert not [one for one in OBEYED[1:] if one in out + err]
    assert "\x1b[2J" not in out
    assert "\x1b]8" not in out
    assert out.count("[/red]") == 2
    assert "a\\x1b[2J\\x9b2J" in out


def test_json_holds_control_characters_as_escapes(run: Run, model: str) -> None:
    code, out, _ = run("rank", "--model", model, "--prompt", HOSTILE, "--reply", "\x7f\x85é", "--json")
    assert code == 0
    assert not [one for one in (*OBEYED, "\x7f", "\x85") if one in out]
    assert "é" in out
    assert json.loads(out)["prompt"] == HOSTILE


@pytest.mark.parametrize(
    "arguments",
    [
        ["rank", "--model", HOSTILE, "--prompt", "p", "--reply", "r"],
        ["rank", "--model", "m", "--prompt", "p", "--reply", "r", "--threads", HOSTILE],
        ["rank", "--model", "m", "--prompt", "p", "--reply", "r", f"--{HOSTILE}"],
        ["rank", "--prompt", "p"],
        [HOSTILE],
        ["info", HOSTILE],
        ["score", HOSTILE, "--model", HOSTILE],
        ["evaluate", "--data", HOSTILE, "--no-baselines", "--model", "m"],
        ["evaluate", "--suite", HOSTILE],
        ["compare", HOSTILE],
        ["leaderboard", HOSTILE],
        ["card", HOSTILE],
        ["calibrate", HOSTILE, "--data", HOSTILE],
        ["quantise", HOSTILE, HOSTILE],
        ["merge", HOSTILE, "x"],
        ["runs", HOSTILE],
        ["data", "describe", HOSTILE],
        ["train", HOSTILE],
        ["train", "n" * 300],
        ["info", "n" * 300],
        ["runs", "n" * 300],
        ["compare", "n" * 300],
        ["evaluate", "--data", "n" * 300],
    ],
    ids=lambda one: " ".join(one)[:12].encode("unicode_escape").decode(),
)
def test_an_error_is_one_line_whatever_it_quotes(run: Run, arguments: list[str], tmp_path: Path) -> None:
    os.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert 2 <= code <= 6
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not [one for one in OBEYED if one in err]
    assert list(tmp_path.iterdir()) == []


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    _show_warning(UserWarning(f"torn\n{HOSTILE}"), UserWarning, "file", 1)
    err = capsys.readouterr().err
    assert err.startswith("warning: torn a\\x1b[2J")
    assert err.count("\n") == 1


def test_what_libraries_warn_and_log_is_one_line_each(tmp_path: Path) -> None:
    code = (
        "import logging, sys, warnings\nfrom prefrank import cli\n"
        "def run(**_):\n"
        "    warnings.warn('weights\\x1b[2J\\ndiffer')\n"
        "    logging.getLogger('transformers').warning('odd %s\\n%d', '\\x1b]8;;x', 3)\n"
        "cli.app = run\ncli.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0
    assert ended.stderr == "warning: weights\\x1b[2J differ\nwarning: odd \\x1b]8;;x 3\n"


@pytest.mark.parametrize(
    ("raised", "words"),
    [("MemoryError()", "not enough memory"), ("RecursionError()", "nested too deeply"), ("OSError(27, 'big')", "big")],
)
def test_what_the_machine_refuses_is_one_line(raised: str, words: str) -> None:
    code = f"from prefrank import cli\ndef run(**_): raise {raised}\ncli.app = run\ncli.main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode in (2, 6)
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_fault_of_our_own_keeps_its_traceback() -> None:
    code = "from prefrank import cli\ndef run(**_): raise ZeroDivisionError\ncli.app = run\ncli.main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_a_remark_that_cannot_be_shown_takes_no_result_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    for stream in (Full(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        screen.say("a remark")
        sys.stdout.write("the result\n")
    assert capsys.readouterr().out == "the result\n" * 2


def test_only_one_module_makes_consoles_and_nothing_reads_markup() -> None:
    folders = [Path(module.__file__).parent for module in (screen, rich_tables)]
    sources = {path.name: path.read_text() for folder in folders for path in folder.rglob("*.py")}
    assert [name for name, source in sources.items() if "rich.console" in source] == ["screen.py"]
    assert [name for name, source in sources.items() if "rich.markup" in source or "from_markup" in source] == []
    assert [name for name, source in sources.items() if ".add_row(" in source] == ["rich_tables.py"]


def test_bad_input_stays_one_line_when_warnings_are_errors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "\n" not in str(BadInput(HOSTILE))
