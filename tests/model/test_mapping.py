"""Models whose weights are read, not mapped, outlive what becomes of their files."""

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
    folder = make(tmp_path)
    with unmapped():
        model = RewardModel.load(folder, kernels=kernels)
    before = values(model)
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(path.stat().st_size // 2))
        file.flush()
        file.truncate(100)
    assert values(model) == before
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_files_are_mapped_outside_of_the_block_only() -> None:
    assert are_mapped()
    with unmapped():
        assert not are_mapped()
    assert are_mapped()
