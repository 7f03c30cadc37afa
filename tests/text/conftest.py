from pathlib import Path

import pytest

from tests.tiny import chat_folder, wordpiece_folder


@pytest.fixture(scope="session")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wordpiece_folder(tmp_path_factory.mktemp("wordpiece"))


@pytest.fixture(scope="session")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_folder(tmp_path_factory.mktemp("chat"))
