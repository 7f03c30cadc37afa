"""Servers that the tests of faults share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.hooks import Counting
from tests.serving.live import Live, live_server
from tests.tiny import bert_folder


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def counted() -> Counting:
    """What the queue of `live` tells."""
    return Counting()


@pytest.fixture(scope="session")
def live(bert: Path, counted: Counting) -> Iterator[Live]:
    """A server with tight bounds of bytes and time."""
    with live_server(
        bert,
        observer=counted,
        max_body_bytes=1_000_000,
        max_text_characters=200_000,
        max_rows=500,
        head_timeout_s=0.6,
        body_timeout_s=0.6,
        write_timeout_s=0.6,
    ) as server:
        yield server
