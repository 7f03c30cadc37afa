"""Models whose weights are read, not mapped, outlive what becomes of their files."""

import os
from pathlib import Path

import pytest

from prefrank import RewardModel
from prefrank.model import weights
from prefrank.model.mapping import are_mapped, unmapped
from tests.tiny import bert_folder, neox_folder

REPLIES = ["mix flour water salt", "no"]


def values(model: RewardModel) -> list[float]:
    return [score.value for score in model.score("how do I bake bread", REPLIES)]


@pytest.mark.parametrize("make", [bert_folder, neox_folder], ids=["native", "transformers"])
@pytest.mark.parametrize("kernels", [None, "torch"])
def test_weights_that_are_read_do_not_change_with_their_file(
    make: object, kernels: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_MAPPED_BYTES", 0)
    assert callable(make)
    folder = RewardModel.load(make(tmp_path / "plain")).save(tmp_path / "saved")  # whose weights lie aligned
    with unmapped():
        model = RewardModel.load(folder, kernels=kernels)
    before = values(model)
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(path.stat().st_size // 2))
    assert values(model) == before
    mapped = Path("/proc/self/maps")
    assert not mapped.exists() or str(path) not in mapped.read_text()  # else what comes would end the process
    os.truncate(path, 100)
    assert values(model) == before


def test_files_are_mapped_outside_of_the_block_only() -> None:
    assert are_mapped()
    with unmapped():
        assert not are_mapped()
    assert are_mapped()
