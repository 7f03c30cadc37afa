"""Shared fixtures. Tests need no network; those on real human comparisons skip where the data are missing."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real human comparisons beside the repository, or PREFRANK_SHARED_DATA."""
    folder = Path(os.environ.get("PREFRANK_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real comparisons in {folder}; set PREFRANK_SHARED_DATA to run this test")
    return folder


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """The command line handles signals in its own way; the tests' process must not."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
