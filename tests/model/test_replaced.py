"""Loading a folder that another process replaces: all of one version, or an error."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from prefrank import RewardModel
from prefrank.errors import BadModel
from prefrank.model.weights import Weights
from tests.tiny import bert_folder

WRITER = """
import shutil, sys, time
from pathlib import Path
from prefrank.io.atomic import atomic_folder
target, way, *sources = sys.argv[1:]
end = time.monotonic() + 60
while time.monotonic() < end:
    for source in sources:
        if way == "whole":
            with atomic_folder(Path(target)) as new:
                for path in Path(source).iterdir():
                    shutil.copy(path, new)
        else:
            for path in sorted(Path(source).iterdir()):
                part = Path(target) / "part"
                shutil.copy(path, part)
                part.replace(Path(target) / path.name)
        time.sleep(1.0)
"""


@pytest.mark.parametrize("way", ["whole", "file by file"])
def test_a_load_beside_a_writer_is_one_of_its_models_and_never_a_mix(way: str, tmp_path: Path) -> None:
    saved = [RewardModel.load(bert_folder(tmp_path / f"plain{n}", seed=n)).save(tmp_path / f"{n}") for n in (1, 2)]
    known = {RewardModel.load(folder).fingerprint for folder in saved}
    target = RewardModel.load(saved[0]).save(tmp_path / "target")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(target), way, *map(str, saved)])
    try:
        loaded, warned, failed = set(), 0, 0
        for _ in range(6 if way == "whole" else 3):
            with warnings.catch_warnings(record=True) as given:
                warnings.simplefilter("always")
                try:
                    fingerprint = RewardModel.load(target).fingerprint
                except BadModel:
                    failed += 1
                    continue
            mixed = any("not the one that was saved there" in str(warning.message) for warning in given)
            warned += mixed
            assert fingerprint in known or mixed
            loaded.add(fingerprint)
        assert writer.poll() is None
        assert loaded or way != "whole"
        assert way != "whole" or (loaded <= known and not warned and failed < 10)
    finally:
        writer.kill()
        writer.wait()


def test_a_second_mapping_is_of_the_same_file(tmp_path: Path) -> None:
    first, second = bert_folder(tmp_path / "first"), bert_folder(tmp_path / "second", seed=1)
    weights = Weights(first).take(lambda name: name)
    weights.read_once("classifier.weight")
    (second / "model.safetensors").replace(first / "model.safetensors")
    weights = Weights(first).take(lambda name: name)
    (first / "model.safetensors").write_bytes((first / "model.safetensors").read_bytes())
    with pytest.raises(BadModel, match="was replaced while it was read"):
        weights.read_once("classifier.weight")
