"""A folder is written whole or not at all."""

import errno
import os
import resource
from pathlib import Path

import pytest

from prefrank.errors import CannotWrite
from prefrank.model import atomic_folder, load_network, save_network
from prefrank.model.other import OtherNetwork
from tests.parity.reference import CONFIGS, OTHERS, model_of, saved


def write(target: Path, text: str) -> None:
    with atomic_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "config.json").write_text(text)
        (folder / "sub" / "b").write_text(text)


def fail(target: Path, error: BaseException) -> None:
    with atomic_folder(target) as folder:
        (folder / "config.json").write_text("half")
        raise error


def test_a_folder_appears_with_all_it_holds_and_nothing_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "model", "one")
    assert (tmp_path / "deep" / "model" / "sub" / "b").read_text() == "one"
    assert os.listdir(tmp_path / "deep") == ["model"]


def test_a_new_version_replaces_the_old_one_whole(tmp_path: Path) -> None:
    write(tmp_path / "model", "one")
    (tmp_path / "model" / "pytorch_model.bin").touch()
    write(tmp_path / "model", "two")
    assert sorted(os.listdir(tmp_path / "model")) == ["config.json", "sub"]
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
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
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

    def full(*_: object) -> None:
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


def test_an_empty_folder_and_a_link_to_a_folder_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link", "one")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "config.json").read_text() == "one"
