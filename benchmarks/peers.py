"""Peers in environments of their own, and processes that answer one request at a time.

Environments are made on first use from a file of requirements, and again when it has changed. A process runs only while
it is asked something: it is stopped whenever it has nothing to answer, so that many can be held ready without taking
time from each other.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import say

ANSWER_S = 3_600


class Failed(Exception):
    """A process could not do what it was asked; the message is the reason the report gives."""


def make_environment(name: str, requirements: Path, cache: Path) -> Path | str:
    """The interpreter of an environment, installed on first use, or the reason why there is none.

    Args:
        name: "own" for this interpreter, else a file NAME.txt of `requirements`.
        requirements: folder of pip's requirement files.
        cache: environments are made in its folder `envs`.
    """
    if name == "own":
        return Path(sys.executable)
    folder, wanted = cache / "envs" / name, requirements / f"{name}.txt"
    python, done = folder / "bin/python", folder / "installed.txt"
    if done.exists() and done.read_text(encoding="utf-8") == wanted.read_text(encoding="utf-8"):
        return python
    say(f"installing {wanted.parent.name}/{wanted.name} into {folder}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if outcome.returncode:
        return "cannot be installed: " + (outcome.stderr.strip().splitlines() or ["pip gave no reason"])[-1][:200]
    done.write_text(wanted.read_text(encoding="utf-8"), encoding="utf-8")
    return python


def end_with_parent() -> None:
    """Ask the kernel to end this process when the one that started it ends, however: it may be stopped by then."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def offline(threads: int) -> dict[str, str]:
    """The environment variables of a process that computes on so many threads and fetches nothing."""
    names = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")
    return os.environ | {f"{name}_NUM_THREADS": str(threads) for name in names} | {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
    }  # fmt: skip


class Worker:
    """A process that answers lines of JSON; its first answer, `first`, comes unasked once it is ready.

    Args:
        name: of what it runs.
        words: its command.
        log: file for what it writes to standard error.
        environment: all of its environment variables.

    Raises:
        Failed: it could not get ready.
    """

    def __init__(self, name: str, words: Sequence[str | Path], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env=dict(environment), start_new_session=True, preexec_fn=end_with_parent,
            )  # fmt: skip
        try:
            self.first: dict[str, Any] = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, **request: Any) -> dict[str, Any]:
        """Let it run until it has answered.

        Raises:
            Failed: it raised, died, or took longer than an hour.
        """
        self._signal(signal.SIGCONT)
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died; `_answer` says how
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], ANSWER_S)[0]:
            raise Failed(f"gave no answer in {ANSWER_S / 60:.0f} minutes")
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"its process ended with code {self.process.wait()}")
        self._signal(signal.SIGSTOP)
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def _signal(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def close(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.communicate()
