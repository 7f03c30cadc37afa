import sys
from collections.abc import Iterator

import pytest

from tests.fuzz.runner import Worker
from tests.fuzz.targets import make_bases


@pytest.fixture(scope="session")
def _worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    if sys.platform != "linux":
        pytest.skip("hostile examples run under limits that only Linux has")
    worker = Worker(tmp_path_factory.mktemp("fuzz"))
    worker.bases = worker.call(make_bases, tmp_path_factory.mktemp("bases"))
    yield worker
    worker.close()


@pytest.fixture
def worker(_worker: Worker) -> Worker:
    _worker.forget()
    return _worker
