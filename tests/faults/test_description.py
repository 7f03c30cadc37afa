"""What the API's description allows, and what it does not, as schemathesis makes it up: never a fault of the server.

It runs where the command `schemathesis` is on the path, or named by PREFRANK_SCHEMATHESIS: it wants other versions of
what the tests use, so `make test-clients` makes an environment for it and runs this too.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serving.live import live_server

BUDGET_S = 60
NOT_OURS = "positive_data_acceptance"
"""What fields ask for together, such as texts or pairs and not both, is no part of a schema."""


@pytest.mark.slow
@pytest.mark.parametrize("keyed", [False, True])
def test_nothing_that_the_description_stands_for_is_a_fault(bert: Path, tmp_path: Path, keyed: bool) -> None:
    command = os.environ.get("PREFRANK_SCHEMATHESIS") or shutil.which("schemathesis")
    if command is None:
        pytest.skip("schemathesis is not installed; `make test-clients` installs it and runs this test")
    arguments = [
        "--checks=all", f"--exclude-checks={NOT_OURS}", "--phases=examples,coverage,fuzzing", "--max-examples=20",
        f"--max-time={BUDGET_S}", "--generation-database=none", "--suppress-health-check=all", "--no-color",
        "--seed=1", "--request-timeout=20",
    ]  # fmt: skip
    with live_server(bert, keys=("key",) if keyed else ()) as live:
        header = ["-H", "Authorization: Bearer key"] if keyed else []
        done = subprocess.run(
            [command, "run", f"{live.url}/openapi.json", *arguments, *header],
            cwd=tmp_path, capture_output=True, text=True, timeout=3 * BUDGET_S + 60,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5_000:]
    assert "found" not in done.stdout.partition("Test cases:")[2], done.stdout[-5_000:]
