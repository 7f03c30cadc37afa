from pathlib import Path

import pytest

from prefrank import RewardModel
from tests.tiny import bert_folder, decoder_folder


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    return RewardModel.load(decoder_folder(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="session")
def model(plain_folder: Path) -> RewardModel:
    return RewardModel.load(plain_folder, max_length=128)
