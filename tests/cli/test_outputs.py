"""No command writes over what it reads, over another output of its own, or over what is not a file; nothing is torn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROWS, Run

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
sys.argv = ["prefrank", *sys.argv[1:]]
from prefrank.cli import main
main()
"""


@pytest.fixture(scope="module")
def evaluated(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a run file and rows to score."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "s.jsonl").write_text('{"prompt": "p", "reply": "r"}\n')
    (folder / "facts.yaml").write_text("contact: me\n")
    line = [sys.executable, "-m", "prefrank", "evaluate", "--model", model, "--data", str(folder / "x.jsonl")]
    done = subprocess.run([*line, "--resamples", "20", "--json", str(folder / "run.json")], capture_output=True)
    assert done.returncode == 0
    return folder


OVER = [
    "evaluate --data x.jsonl --json x.jsonl",
    "evaluate --data x.jsonl:test --json ./x.jsonl",
    "evaluate --data x.jsonl --json hard.jsonl",
    "evaluate --data x.jsonl --json soft.jsonl",
    "evaluate --data x.jsonl --json same --html same",
    "evaluate --data x.jsonl --json same --html ./same",
    "evaluate --data x.jsonl --train s.jsonl --html s.jsonl",
    "evaluate --data x.jsonl --model name=scores:s.jsonl --json s.jsonl",
    "evaluate --data x.jsonl --model name={model} --json {model}/config.json",
    "evaluate --data x.jsonl --model {model} --json {model}/new.json",
    "evaluate --data x.jsonl --json fifo",
    "evaluate --data x.jsonl --html /dev/null",
    "evaluate --data x.jsonl --html dangling",
    "evaluate --data x.jsonl --html .",
    "compare run.json --html run.json",
    "compare run.json --html fifo",
    "leaderboard . --html run.json",
    "leaderboard . --html /dev/stdout",
    "card {model} --run {model}/README.md",
    "card {model} --run run.json --facts {model}/README.md",
    "calibrate {model} --data {model}/prefrank.json",
    "quantise {model} {model}",
    "quantise {model} {model}/int8",
    "quantise {model} {model}/..",
    "quantise {model} soft.jsonl",
    "merge {model} {model}",
    "score s.jsonl --model {model} -o s.jsonl",
    "score s.jsonl --model {model} -o {model}/config.json",
    "score s.jsonl --model {model} -o fifo",
    "train recipe.yaml --find-lr --plot x.jsonl",
    "train recipe.yaml --find-lr --plot recipe.yaml",
    "train recipe.yaml --set output_dir={model}",
    "train recipe.yaml --set output_dir=.",
    "train recipe.yaml --sweep grid.yaml --plot grid.yaml",
]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files, or links without rights")
@pytest.mark.parametrize("line", OVER)
def test_no_output_takes_the_place_of_anything_but_an_output(
    run: Run, model: str, evaluated: Path, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for path in evaluated.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    os.link("x.jsonl", "hard.jsonl")
    os.symlink("x.jsonl", "soft.jsonl")
    os.symlink("nowhere", "dangling")
    os.mkfifo("fifo")
    Path("recipe.yaml").write_text(f"model_name: {model}\ndatasets: x.jsonl\noutput_dir: out\nlearning_rate: 1e-3\n")
    Path("grid.yaml").write_text("learning_rate: [1e-3]\n")
    readme = Path(model, "README.md")
    readme.write_text("contact: me\n")
    before = contents(tmp_path, Path(model))
    code, out, err = run(*line.format(model=model).split())
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert any(words in err for words in ("is what is read", "goes too", "is a", "lies in", "holds"))
    assert contents(tmp_path, Path(model)) == before
    readme.unlink()


def contents(*folders: Path) -> dict[str, tuple[int, bytes]]:
    """Every name with what it is and holds."""
    names = [path for folder in folders for path in folder.rglob("*")]
    return {str(one): (one.lstat().st_mode, one.read_bytes() if one.is_file() else b"") for one in names}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
@pytest.mark.parametrize(
    "line",
    [
        "evaluate --data x.jsonl --resamples 20 --json keep",
        "evaluate --data x.jsonl --resamples 20 --html keep",
        "compare run.json --resamples 20 --html keep",
        "leaderboard . --resamples 20 --html keep",
        "suites --json",
    ],
)
def test_a_full_disk_leaves_the_old_file_whole(evaluated: Path, line: str, tmp_path: Path) -> None:
    """Simulated by the process's limit of a file's size, whose signal would end it where it stands."""
    (tmp_path / "run.json").write_bytes((evaluated / "run.json").read_bytes())
    (tmp_path / "x.jsonl").write_bytes((evaluated / "x.jsonl").read_bytes())
    (tmp_path / "keep").write_text("mine")
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, *line.split()],
            stdout=out if "suites" in line else subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
    assert done.returncode == 6
    assert done.stderr.splitlines()[-1].startswith("error: cannot write ")
    assert "Traceback" not in done.stderr
    assert (tmp_path / "keep").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keep", "out", "run.json", "x.jsonl"]


@pytest.mark.parametrize("line", ["suites --json", "suites", "info {model}", "info {model} --json", "--version"])
def test_a_closed_standard_output_is_one_error(
    run: Run, model: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    code, _, err = run(*line.format(model=model).split())
    assert code == 6
    assert err == "error: standard output is closed; open it, or send it to a file\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_or_closed_standard_error_changes_no_result(tmp_path: Path) -> None:
    for redirect in ("2>/dev/full", "2>&-", "<&- 2>&-"):
        line = f"{sys.executable} -m prefrank suites --json {redirect}"
        done = subprocess.run(["sh", "-c", line], stdout=subprocess.PIPE, text=True)
        assert done.returncode == 0
        assert json.loads(done.stdout)


def test_a_file_never_gets_the_number_of_a_closed_stream(model: str, evaluated: Path, tmp_path: Path) -> None:
    """A library that writes to standard error would write into it."""
    line = f"{sys.executable} -m prefrank score {evaluated / 's.jsonl'} --model {model} -o {tmp_path / 'o.jsonl'}"
    assert subprocess.run(["sh", "-c", f"{line} <&- >&- 2>&-"]).returncode == 0
    assert set(json.loads((tmp_path / "o.jsonl").read_text())) >= {"prompt", "score"}


def gone(*line: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """A command whose standard output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        command = [sys.executable, "-m", "prefrank", *line]
        return subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=folder, env=env)
    finally:
        os.close(writer)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
@pytest.mark.parametrize("line", ["suites", "suites --json", "--version", "leaderboard . --resamples 20 --html page"])
def test_a_reader_that_has_gone_is_no_failure_and_takes_no_file_with_it(
    evaluated: Path, line: str, tmp_path: Path
) -> None:
    (tmp_path / "run.json").write_bytes((evaluated / "run.json").read_bytes())
    done = gone(*line.split(), folder=tmp_path)
    assert (done.returncode, b"rror" in done.stderr) == (0, False)
    assert "page" not in line or (tmp_path / "page").stat().st_size > 1000


def test_a_picture_does_not_take_the_place_of_a_run_that_is_left_out(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "torn"
    folder.mkdir()
    (folder / "run.json").write_text('{"torn')
    (folder / "curve.jsonl").write_text("mine")
    code, _, err = run("runs", str(tmp_path), "--plot", str(folder / "curve.jsonl"))
    assert code == 2
    assert "is what is read" in err or "no run" in err
    assert (folder / "curve.jsonl").read_text() == "mine"


def test_a_home_of_nobody_is_one_line(run: Run) -> None:
    code, _, err = run("evaluate", "--suite", "llmbar=~nosuchuser/x")
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
def test_rows_on_a_terminal_are_json_that_it_does_not_obey(run: Run, model: str, tmp_path: Path) -> None:
    import pty

    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "p",\r "reply": "\x9b2J\u202e\x7f"}\n')
    own, other = pty.openpty()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "prefrank", "score", str(source), "--model", model]
    done = subprocess.run(command, stdout=other, stderr=subprocess.DEVNULL, env=env)
    os.close(other)
    shown = os.read(own, 10_000).decode()
    os.close(own)
    assert done.returncode == 0
    assert json.loads(shown)["reply"] == "\x9b2J\u202e\x7f"
    assert not set("\x9b\u202e\x7f") & set(shown)
    assert shown.count("\r") == 1  # the terminal's own
    run("score", str(source), "--model", model, "-o", str(tmp_path / "out.jsonl"))
    assert (tmp_path / "out.jsonl").read_bytes().startswith(source.read_bytes().rstrip(b"}\n"))


def test_a_prefix_is_letters(run: Run, model: str, evaluated: Path) -> None:
    for prefix in ("a\nb", "\x1b[2J", "\u202e"):
        code, _, err = run("score", str(evaluated / "s.jsonl"), "--model", model, "--prefix", prefix)
        assert (code, err.count("\n")) == (2, 1)
        assert "prefix is" in err
