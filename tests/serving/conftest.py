"""Servers of tiny random models, one for all tests that leave it as it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.fake_server import FakeServe
from tests.serving.live import Live, live_server
from tests.tiny import bert_folder, decoder_folder


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="session")
def bert_server(bert: Path) -> Iterator[Live]:
    with live_server(bert) as live:
        yield live


@pytest.fixture(scope="session")
def decoder_server(decoder: Path) -> Iterator[Live]:
    with live_server(decoder) as live:
        yield live


@pytest.fixture(scope="session")
def two_models(bert: Path, decoder: Path) -> Iterator[Live]:
    """The encoder is the default."""
    with live_server({"encoder": bert, "decoder": decoder}) as live:
        yield live


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PREFRANK_SERVER_KEY", raising=False)


@pytest.fixture
def fake() -> Iterator[FakeServe]:
    server = FakeServe()
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[FakeServe]:
    server = FakeServe()
    yield server
    server.close()
