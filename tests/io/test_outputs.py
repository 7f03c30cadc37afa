"""What a command writes never takes the place of what it reads, nor of another output."""

import os
import socket
import sys
from pathlib import Path

import pytest

from prefrank.errors import BadInput
from prefrank.io.outputs import check_outputs

unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files, or links without rights")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two files and one of a model, which is the working folder."""
    for name in ("x.jsonl", "y.jsonl", "model/config.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_new_and_replaced_files_of_their_own_pass(data: Path) -> None:
    (data / "old.json").write_text("{}")
    inputs = [data / "x.jsonl", data / "model", Path("org/name"), Path("http://here/score"), Path("-"), Path("a\0b")]
    check_outputs({"--json": data / "new.json", "--html": data / "old.json", "--plot": None}, inputs)
    check_outputs({"--output": Path("-")}, [Path("-")])
    check_outputs({}, inputs, folders={"OUTPUT": data / "new"})
    check_outputs({"--plot": data / "runs" / "a.png"}, [], folders={"output_dir": data / "runs"})


@pytest.mark.parametrize("spelling", ["x.jsonl", "./x.jsonl", "model/../x.jsonl"])
def test_an_input_in_any_spelling_is_no_output(data: Path, spelling: str) -> None:
    for inputs in ([data / "x.jsonl"], [data / "y.jsonl", Path("x.jsonl")]):
        with pytest.raises(BadInput, match=r"--json: .*x\.jsonl is what is read"):
            check_outputs({"--json": Path(spelling)}, inputs)


@unix
def test_an_input_under_a_second_name_is_no_output(data: Path) -> None:
    os.link("x.jsonl", "hard.jsonl")
    os.symlink("x.jsonl", "soft.jsonl")
    os.symlink(".", "here")
    for output, source in [("hard.jsonl", "x.jsonl"), ("x.jsonl", "soft.jsonl"), ("here/x.jsonl", "x.jsonl")]:
        with pytest.raises(BadInput, match="is what is read"):
            check_outputs({"--json": Path(output)}, [Path(source)])


@unix
@pytest.mark.parametrize("make", [os.link, os.symlink])
def test_a_file_that_an_input_folder_links_to_is_no_output(data: Path, make: object) -> None:
    assert callable(make)
    make(data / "x.jsonl", data / "model" / "train.jsonl")
    with pytest.raises(BadInput, match="is what is read"):
        check_outputs({"--json": data / "x.jsonl"}, [data / "model"])


@pytest.mark.parametrize("name", ["model/config.json", "model/new.json", "model/deep/er/new.json"])
def test_nothing_goes_into_a_folder_that_is_read(data: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"is what is read|lies in the folder model"):
        check_outputs({"--json": data / name}, [Path("model")])


def test_a_folder_neither_is_nor_holds_nor_enters_an_input(data: Path) -> None:
    for output, source in [("model", "model"), (".", "model"), (".", "x.jsonl"), ("model/int8", "model")]:
        with pytest.raises(BadInput, match=r"is what is read|holds|lies in"):
            check_outputs({}, [data / source], folders={"OUTPUT": Path(output)})


def test_two_outputs_are_two_files(data: Path) -> None:
    (data / "old.json").write_text("{}")
    for name in ("new.json", "old.json"):
        with pytest.raises(BadInput, match=r"--html: .* is where --json goes too"):
            check_outputs({"--json": data / name, "--html": Path(f"./{name}")}, [])
    for one, other in [("a", "a/b"), ("a/b", "a")]:
        with pytest.raises(BadInput, match="is where --json goes too"):
            check_outputs({"--json": data / one, "--html": data / other}, [])


@unix
def test_two_outputs_are_two_files_under_any_name(data: Path) -> None:
    os.link("y.jsonl", "hard.jsonl")
    os.symlink(".", "here")
    for one, other in [("y.jsonl", "hard.jsonl"), ("new", "here/new")]:
        with pytest.raises(BadInput, match="is where --json goes too"):
            check_outputs({"--json": Path(one), "--html": Path(other)}, [])


@unix
def test_an_output_is_no_link_device_fifo_or_socket(data: Path) -> None:
    os.symlink("x.jsonl", "link")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket")
        for name in ("link", "dangling", "loop", "fifo", "socket", "/dev/null", "/dev/stdout"):
            with pytest.raises(BadInput, match=r"--json: \S+ is a (link|device)"):
                check_outputs({"--json": Path(name)}, [])
    os.symlink("model", "folder")
    with pytest.raises(BadInput, match="is a link; give the name of the folder itself"):
        check_outputs({}, [], folders={"OUTPUT": Path("folder")})


def test_an_output_is_of_the_kind_that_is_meant(data: Path) -> None:
    for name in ("model", "", "."):
        with pytest.raises(BadInput, match="is a folder; give the name of a file"):
            check_outputs({"--json": Path(name)}, [])
    with pytest.raises(BadInput, match="is a file; give the name of a folder"):
        check_outputs({}, [], folders={"OUTPUT": Path("x.jsonl")})


@unix
@pytest.mark.parametrize("name", ["n" * 300, "a\0b"])
def test_a_name_that_the_system_does_not_take_is_one_error(data: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"cannot be written: .*; give another name"):
        check_outputs({"--json": Path(name)}, [])
