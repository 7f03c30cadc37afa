"""A folder's files are read as those of one version."""

import os
import time
from pathlib import Path

import pytest

from prefrank.errors import BadModel, NotFound
from prefrank.io.pinned import changed_lately, read_as_one


def make(folder: Path, text: str) -> Path:
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(text)
    return folder


def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    folder, other, seen = make(tmp_path / "model", "one"), make(tmp_path / "other", "two"), []

    def read() -> tuple[str, str]:
        first = (folder / "a").read_text()
        seen.append(first)
        if first == "one":
            folder.rename(tmp_path / "old")
            other.rename(folder)
        return first, (folder / "b").read_text()

    assert read_as_one(folder, read) == ("two", "two")
    assert seen == ["one", "two"]


def test_a_file_that_is_replaced_or_written_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    folder, count = make(tmp_path / "model", "one"), []

    def read() -> str:
        count.append(1)
        if len(count) == 1:
            (folder / "new").write_text("two")
            os.replace(folder / "new", folder / "a")
        if len(count) == 2:
            (folder / "b").write_text("longer")
        return (folder / "a").read_text() + (folder / "b").read_text()

    assert read_as_one(folder, read) == "twolonger"
    assert len(count) == 3


def test_an_error_of_a_folder_that_changed_is_no_answer(tmp_path: Path) -> None:
    folder, count = make(tmp_path / "model", "one"), []

    def read() -> str:
        count.append(1)
        if len(count) == 1:
            (folder / "a").unlink()
            raise BadModel("torn")
        return "whole"

    assert read_as_one(folder, read) == "whole"


def test_errors_of_a_folder_at_rest_come_at_once(tmp_path: Path) -> None:
    count = []

    def read() -> None:
        count.append(1)
        raise NotFound("no such folder")

    with pytest.raises(NotFound):
        read_as_one(make(tmp_path / "model", "one"), read)
    assert len(count) == 1
    with pytest.raises(NotFound):
        read_as_one(tmp_path / "absent", read)


def test_a_folder_that_never_rests_is_one_line(tmp_path: Path) -> None:
    folder, count = make(tmp_path / "model", "one"), []

    def read() -> None:
        count.append(1)
        (folder / "a").write_text("x" * len(count))

    with pytest.raises(BadModel, match="changed at each of 10 tries to read it"):
        read_as_one(folder, read)


def test_a_folder_that_was_just_written_to_is_told_from_one_at_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "model", "one")
    assert changed_lately(folder)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 60)
    assert not changed_lately(folder)


@pytest.mark.parametrize(("inner", "reads"), [("additional_chat_templates", 2), ("adapter", 2), ("logs", 1)])
def test_folders_inside_that_belong_to_a_model_are_looked_at_too(tmp_path: Path, inner: str, reads: int) -> None:
    folder, count = make(tmp_path / "model", "one"), []
    make(folder / inner, "one")

    def read() -> None:
        count.append(1)
        if len(count) == 1:
            (folder / inner / "a").write_text("longer")

    read_as_one(folder, read)
    assert len(count) == reads
