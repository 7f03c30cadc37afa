"""Servers of tiny models on loopback, for client packages to ask."""

from collections.abc import Iterator

import pytest

from tests.serving.clients.served import Served, serve
from tests.tiny import bert_folder, decoder_folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Takes a query and a reply as two texts."""
    with serve(bert_folder(tmp_path_factory.mktemp("encoder"))) as served:
        yield served


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Has a chat template."""
    with serve(decoder_folder(tmp_path_factory.mktemp("decoder"))) as served:
        yield served


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """As `encoder`, with the key "k"."""
    with serve(bert_folder(tmp_path_factory.mktemp("locked")), keys=("k",)) as served:
        yield served
