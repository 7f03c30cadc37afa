"""A file or folder is written whole or not at all."""

import errno
import json
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from prefrank.errors import CannotWrite
from prefrank.io.atomic import (
    atomic_file,
    atomic_folder,
    check_writable,
    folder_for,
    recover,
    write_file,
)
from prefrank.io.hidden import MARKER
from prefrank.io.outputs import foreign_files
from prefrank.model import load_network, save_network
from prefrank.model.other import OtherNetwork
from tests.parity.reference import CONFIGS, OTHERS, model_of, saved


def put(target: Path, text: str, error: BaseException | None = None) -> None:
    with atomic_file(target) as temporary:
        temporary.write_text(text)
        if error:
            raise error


def test_a_file_appears_when_it_is_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a") as first, atomic_file(tmp_path / "a") as second:
        assert first != second
        first.write_text("one")
        second.write_text("two")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_text() == "one"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt()])
def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    put(tmp_path / "a", "one")
    with pytest.raises(type(error)):
        put(tmp_path / "a", "two", error)
    assert (tmp_path / "a").read_text() == "one"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=r"cannot write .*a: the disk is full"):
        put(tmp_path / "a", "one", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(CannotWrite, match=r"cannot write .*absent/a: there is no folder .*absent; make it first"):
        put(tmp_path / "absent" / "a", "one")
    for place in (tmp_path, Path("/dev/null")):
        with pytest.raises(CannotWrite, match="it is not a file; give the name of a file"):
            put(place, "one")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("leads_to", ["real", "absent", "folder"])
def test_nothing_is_written_through_a_link(tmp_path: Path, leads_to: str) -> None:
    (tmp_path / "real").write_text("one")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / leads_to)
    for writing in (
        put,
        lambda target, text: write_file(target, text.encode()),
        lambda target, _: check_writable(target),
    ):
        with pytest.raises(CannotWrite, match="it is a link; give the name of the file itself"):
            writing(tmp_path / "link", "two")
    with pytest.raises(CannotWrite, match="it is a link; give the name of the folder itself"):
        write(tmp_path / "link", "two")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "one"
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "real"]


def test_a_fifo_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CannotWrite, match="it is not a file; give the name of a file"):
        put(tmp_path / "pipe", "one")
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


def test_a_file_that_is_replaced_leaves_its_permissions(tmp_path: Path) -> None:
    put(tmp_path / "a", "one")
    (tmp_path / "a").chmod(0o600)
    put(tmp_path / "a", "two")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_windows_opens_no_folder_and_flushes_only_what_it_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: here a folder can be opened."""
    opened, real = [], os.open
    monkeypatch.setattr("prefrank.io.atomic.WINDOWS", True)
    monkeypatch.setattr(
        os, "open", lambda path, flags: opened.append((Path(path).is_dir(), flags)) or real(path, flags)
    )
    put(tmp_path / "a", "one")
    assert opened == [(False, os.O_RDWR)]


def write(target: Path, text: str) -> None:
    with atomic_folder(target) as folder:
        (folder / "state").mkdir()
        (folder / "prefrank.json").write_text("{}")
        (folder / "config.json").write_text(text)
        (folder / "state" / "optimizer.bin").write_text(text)
        (folder / "state" / "files.json").write_text('{"state/optimizer.bin": ""}')


def fail(target: Path, error: BaseException) -> None:
    with atomic_folder(target) as folder:
        (folder / "config.json").write_text("half")
        raise error


def test_a_folder_appears_with_all_it_holds_and_nothing_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "model", "one")
    assert (tmp_path / "deep" / "model" / "state" / "optimizer.bin").read_text() == "one"
    assert os.listdir(tmp_path / "deep") == ["model"]


def test_a_new_version_replaces_the_old_one_whole(tmp_path: Path) -> None:
    write(tmp_path / "model", "one")
    (tmp_path / "model" / "pytorch_model.bin").touch()
    write(tmp_path / "model", "two")
    assert sorted(os.listdir(tmp_path / "model")) == ["config.json", "prefrank.json", "state"]
    assert (tmp_path / "model" / "config.json").read_text() == "two"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt()])
def test_the_old_version_stays_when_writing_fails(tmp_path: Path, error: BaseException) -> None:
    write(tmp_path / "model", "one")
    with pytest.raises(type(error)):
        fail(tmp_path / "model", error)
    assert (tmp_path / "model" / "config.json").read_text() == "one"
    assert os.listdir(tmp_path) == ["model"]


def test_the_old_version_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "model", "one")
    monkeypatch.setattr("prefrank.io.atomic._exchanged", lambda one, other: False)  # as where no system call does
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(errno.EIO, "Input/output error", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(CannotWrite, match="Input/output error"):
        write(tmp_path / "model", "two")
    assert (tmp_path / "model" / "config.json").read_text() == "one"
    assert os.listdir(tmp_path) == ["model"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=f"cannot write {tmp_path / 'model'}: the disk is full") as error:
        fail(tmp_path / "model", OSError(errno.ENOSPC, "No space left on device"))
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


def test_weights_that_cannot_be_written_whole_leave_the_old_ones(tmp_path: Path) -> None:
    folder = saved(model_of(*CONFIGS["bert"]), tmp_path / "model")
    network = load_network(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_network(network, folder)
        with pytest.raises(CannotWrite, match=r"cannot write .*model: File too large"), atomic_folder(folder) as new:
            save_network(network, new)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_full_disk_inside_safetensors_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    network = load_network(saved(model_of(*OTHERS["distilbert"]), tmp_path / "model"))
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    monkeypatch.setattr(OtherNetwork, "save_weights", full)
    with pytest.raises(CannotWrite, match="the disk is full"), atomic_folder(tmp_path / "model") as folder:
        save_network(network, folder)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CannotWrite, match=r"cannot write .*file/model: "):
        write(tmp_path / "file" / "model", "one")
    with pytest.raises(CannotWrite, match="it is a file; give the name of a folder"):
        write(tmp_path / "file", "one")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("mine")
    with pytest.raises(CannotWrite, match=r"it holds other files \(letter.txt\); give a new or empty folder"):
        write(tmp_path / "home", "one")
    assert (tmp_path / "home" / "letter.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["home"]


def test_an_empty_folder_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write(tmp_path / "real", "one")
    assert (tmp_path / "real" / "config.json").read_text() == "one"


FOREIGN = (
    "thesis.txt",
    "tokenizer-notes.txt",
    "model.json",
    "state/thesis.txt",
    "adapter/notes",
    ".hidden",
    "sub/config.json",
)


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_others_are_found_however_deep(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    write(folder, "one")
    assert foreign_files(folder) == []
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("mine")
    assert foreign_files(folder) == [name]
    with pytest.raises(CannotWrite, match="it holds other files"):
        write(folder, "two")
    assert (folder / name).read_text() == "mine"
    assert (folder / "config.json").read_text() == "one"


def test_a_folder_without_our_record_is_somebody_elses(tmp_path: Path) -> None:
    write(tmp_path / "model", "one")
    (tmp_path / "model" / "prefrank.json").unlink()
    assert foreign_files(tmp_path / "model") == ["config.json", "state/files.json", "state/optimizer.bin"]


def test_two_writers_of_one_folder_leave_one_whole_version(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "model") as first:
        (first / "prefrank.json").write_text("{}")
        write(tmp_path / "model", "two")
    assert os.listdir(tmp_path / "model") == ["prefrank.json"]
    assert os.listdir(tmp_path) == ["model"]


def killed(folder: Path, target: str, **parts: str) -> Path:
    """What a process that was killed left: a hidden folder with its marker and some of new and old."""
    place = folder / ".prefrank-0123abcd.tmp"
    place.mkdir()
    (place / MARKER).write_text(json.dumps({"target": target}))
    for name, text in parts.items():
        (place / name).mkdir()
        (place / name / "config.json").write_text(text)
    return place


def test_what_a_killed_process_left_inside_a_checkpoint_is_no_foreign_file(tmp_path: Path) -> None:
    write(tmp_path / "model", "one")
    place = killed(tmp_path / "model", "prefrank.json", new="half")
    assert foreign_files(tmp_path / "model") == []
    (place / MARKER).unlink()
    assert foreign_files(tmp_path / "model") == [".prefrank-0123abcd.tmp/new/config.json"]


@pytest.mark.parametrize("suffix", ["json", "other"])
def test_the_next_writer_of_a_file_removes_what_a_killed_one_left(tmp_path: Path, suffix: str) -> None:
    left = killed(tmp_path, f"run.{suffix}", new="half")
    write_file(tmp_path / "run.json", b"{}")
    assert left.exists() == (suffix == "other")
    assert (tmp_path / "run.json").read_bytes() == b"{}"


def test_the_next_writer_leaves_what_others_still_write_or_what_is_the_only_version(tmp_path: Path) -> None:
    only = killed(tmp_path, "last", old="old")
    with atomic_file(tmp_path / "run.json") as temporary:
        temporary.write_text("{}")
        write_file(tmp_path / "run.json", b"[]")
        assert temporary.read_text() == "{}"
    write(tmp_path / "new", "new")
    check_writable(tmp_path / "last")
    assert (only / "old" / "config.json").read_text() == "old"


def test_folders_that_are_made_for_a_file_go_where_it_does_not_come(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), folder_for(tmp_path / "a" / "b" / "c.json"):
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    write_file(tmp_path / "a" / "b" / "c.json", b"{}")
    assert os.listdir(tmp_path / "a" / "b") == ["c.json"]


def whole(folder: Path) -> bool:
    return (folder / "config.json").read_text() != "half"


@pytest.mark.parametrize(
    ("parts", "there", "comes"),
    [
        ({"new": "new"}, False, "new"),
        ({"new": "half"}, False, None),
        ({"new": "half", "old": "old"}, False, "old"),
        ({"new": "new", "old": "old"}, False, "new"),
        ({"new": "new"}, True, "there"),
        ({"old": "old"}, True, "there"),
        ({}, False, None),
    ],
)
def test_what_a_killed_process_left_gets_its_name_or_goes(
    tmp_path: Path, parts: dict[str, str], there: bool, comes: str | None
) -> None:
    killed(tmp_path, "last", **parts)
    if there:
        (tmp_path / "last").mkdir()
        (tmp_path / "last" / "config.json").write_text("there")
    recover(tmp_path, is_whole=whole)
    assert os.listdir(tmp_path) == ([] if comes is None else ["last"])
    assert comes is None or (tmp_path / "last" / "config.json").read_text() == comes


@pytest.mark.parametrize(
    "marker",
    [
        None,
        "",
        "[]",
        "{}",
        '{"target": 1}',
        '{"target": "../last"}',
        '{"target": "a/b"}',
        '{"target": ".."}',
        '{"target": ""}',
    ],
)
def test_nothing_without_our_marker_is_recovered(tmp_path: Path, marker: str | None) -> None:
    for name in (".photos.raw.tmp", ".thesis.v1.old", ".prefrank-0123abcd.tmp", ".prefrank-notes.tmp"):
        (tmp_path / name / "new").mkdir(parents=True)
        (tmp_path / name / "new" / "config.json").write_text("mine")
        if marker is not None:
            (tmp_path / name / MARKER).write_text(marker)
    before = sorted(tmp_path.rglob("*"))
    recover(tmp_path, is_whole=whole)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_being_written_is_not_recovered(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "last") as temporary:
        (temporary / "config.json").write_text("new")
        recover(tmp_path, is_whole=whole)
        assert (temporary / "config.json").exists()
        assert not (tmp_path / "last").exists()
    assert (tmp_path / "last" / "config.json").read_text() == "new"


def test_a_file_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    with (
        pytest.raises(CannotWrite, match=r"cannot write .*out\.bin: there is no folder .*missing; make it first"),
        atomic_file(tmp_path / "missing" / "out.bin"),
    ):
        raise AssertionError("the work began")


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt()])
def test_a_small_file_is_the_old_or_the_new_one_and_nothing_is_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "new" / "page.html"
    write_file(target, b"old")

    def half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:1])
        raise error

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(type(error)):
        write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == ["page.html"]


def test_looking_whether_a_file_can_be_written_changes_none(tmp_path: Path) -> None:
    target = tmp_path / "new" / "run.json"
    check_writable(target)
    assert os.listdir(tmp_path) == []
    target.parent.mkdir()
    target.touch()
    check_writable(target)
    assert os.listdir(target.parent) == ["run.json"]
    with pytest.raises(CannotWrite, match=r"cannot write .*json: "):
        check_writable(target / "run.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("look", [check_writable, lambda target: write_file(target, b"")])
def test_a_device_or_folder_is_never_replaced(tmp_path: Path, look: Callable[[Path], None]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", tmp_path):
        with pytest.raises(CannotWrite, match="it is not a file; give the name of a file"):
            look(target)
    assert os.listdir(tmp_path) == ["pipe"]
