"""Shared fixtures. Tests need no network; those on real human comparisons skip where the data are missing."""

import os
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
