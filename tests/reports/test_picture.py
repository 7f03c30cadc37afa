"""The picture for READMEs."""

from pathlib import Path

import pytest

from prefrank.errors import BadInput
from prefrank.reports.picture import accuracy_png
from tests.evaluation.run_files import made_run


def test_the_picture_is_a_png_and_the_same_every_time(tmp_path: Path) -> None:
    run = made_run(items=120)
    for name in ("one.png", "two.png"):
        accuracy_png(run, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_picture_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no results to draw"):
        accuracy_png(made_run(scorers=()), tmp_path / "one.png")
