"""Client packages in environments of their own, which `make test-clients` makes: their versions fight each other.

A test asks a script of `scripts/`, run by the interpreter of one of the environments, and compares what it prints.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = "here"
"""The environment that the tests run in, for clients that prefrank needs anyway."""
SCRIPTS = Path(__file__).parent / "scripts"
LONGEST_S = 120


def needs(environment: str) -> pytest.MarkDecorator:
    """Skips a test where there is no such environment."""
    interpreter = interpreter_of(environment)
    there = interpreter is not None and interpreter.exists()
    reason = f"there is no {interpreter}" if interpreter else "the client packages are not installed"
    return pytest.mark.skipif(not there, reason=f"{reason}; `make test-clients` installs them and runs this test")


def ask(environment: str, script: str, **question: Any) -> Any:
    """What a script answers.

    Args:
        environment: a file of `requirements/` without its ending, or `HERE`.
        script: a file of `scripts/`, likewise. It reads a JSON object from standard input and writes a JSON value.
        question: that object.
    """
    interpreter = interpreter_of(environment)
    assert interpreter is not None, "set PREFRANK_CLIENTS, or mark the test with `needs`"
    done = subprocess.run(
        [str(interpreter), "-I", "-W", "ignore", str(SCRIPTS / f"{script}.py")],
        input=json.dumps(question),
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    return json.loads(done.stdout)


def interpreter_of(environment: str) -> Path | None:
    """The Python of an environment, whether or not it is there; None where no folder of environments is named."""
    if environment == HERE:
        return Path(sys.executable)
    folder = os.environ.get("PREFRANK_CLIENTS")
    return Path(folder).absolute() / environment / "bin" / "python" if folder else None
