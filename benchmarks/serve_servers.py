"""The servers that are compared: how each is started, what it is sent for a prompt with replies, what it answers.

Every server gets one core, the same for all, and one thread; all run at once, but those that are not being measured are
stopped, so that they take no time from the one that is.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import Failed, end_with_parent, offline

PEERS = "serve-peers"
READY_S = 120
STOP_S = 8
OWN = "ours"
EXACT, CLOSE = 0.0, 1e-4
MAX_WAIT_S = 2.0
"""Ours refuses what would have to wait for longer; the peers have no such bound."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a server is sent, and how its answer is read.

    Args:
        path: of the requests.
        write: the body for a prompt with its replies, and, of a decoder, the same as whole texts.
        read: the scores of an answer, in the order of the replies.
    """

    path: str
    write: Callable[[str, Sequence[str], Sequence[str]], Any]
    read: Callable[[Any], list[float]]


def _rows(prompt: str, replies: Sequence[str], whole: Sequence[str]) -> Any:
    return {"rows": list(whole) or [[prompt, reply] for reply in replies]}


def _samples(prompt: str, replies: Sequence[str], whole: Sequence[str]) -> Any:
    queries = list(whole) or [prompt + reply for reply in replies]
    prompts = ["" if whole else prompt for _ in replies]
    return {"query": queries, "prompts": prompts, "labels": [None for _ in replies]}


def _by_index(name: str) -> Callable[[Any], list[float]]:
    def read(answer: Any) -> list[float]:
        results = answer["results"] if isinstance(answer, dict) else answer
        scores = {each["index"]: each[name] for each in results}
        return [scores[index] for index in range(len(scores))]

    return read


ROWS = Form("/score", _rows, lambda answer: answer["scores"])
LITSERVE = Form("/predict", _rows, lambda answer: answer["scores"])
OPENRLHF = Form("/get_reward", _samples, lambda answer: answer["rewards"])
API_SCORE = Form(
    "/api/score",
    lambda prompt, replies, whole: {"prompt": prompt, "replies": list(replies)},
    lambda answer: [each["score"] for each in answer["scores"]],
)
TEI_RERANK = Form(
    "/rerank",
    lambda prompt, replies, whole: {"query": prompt, "texts": list(replies), "raw_scores": True},
    _by_index("score"),
)
INFINITY_RERANK = Form(
    "/rerank",
    lambda prompt, replies, whole: {
        "query": prompt, "documents": list(replies), "raw_scores": True, "return_documents": False, "model": "bench",
    },
    _by_index("relevance_score"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kind:
    """A server that is compared.

    Args:
        title: what the report calls it.
        environment: "own", or the requirements that it is installed from.
        words: its command after the interpreter, for a model folder, a port and a core.
        form, ranking, storm: what it is sent for single rows, for several replies to a prompt, and in the storm.
        ready: a page that answers 200 once the model is loaded.
        most_apart: how far its scores may be from the solo scores.
        decoders: why it is not measured on them, if it is not.
    """

    title: str
    environment: str
    words: Callable[[Path, int, int], list[str]]
    form: Form
    ready: str
    most_apart: float = CLOSE
    ranking: Form | None = None
    storm: Form | None = None
    decoders: str = ""


def _peer(name: str, *more: str) -> Callable[[Path, int, int], list[str]]:
    path = str(Path(__file__).with_name(f"serve_{name}.py"))

    def words(folder: Path, port: int, core: int) -> list[str]:
        return [path, *more, "--folder", str(folder), "--port", str(port), "--core", str(core)]

    return words


def _ours(folder: Path, port: int, core: int) -> list[str]:
    wait = ["--max-wait-s", str(MAX_WAIT_S)]
    return ["-m", "prefrank", "serve", "--model", str(folder), "--port", str(port), *wait]


def _infinity(folder: Path, port: int, core: int) -> list[str]:
    command = ["-c", "from infinity_emb.cli import cli; cli()", "v2"]
    command += ["--model-id", str(folder), "--served-model-name", "bench"]
    command += ["--engine", "torch", "--device", "cpu", "--dtype", "float32", "--port", str(port)]
    command += ["--host", "127.0.0.1", "--log-level", "error", "--no-vector-disk-cache"]
    return [*command, "--no-compile", "--no-bettertransformer", "--no-model-warmup"]


KINDS = {
    OWN: Kind("ours", "own", _ours, API_SCORE, "/ready", EXACT, ranking=TEI_RERANK, storm=OPENRLHF),
    "naive": Kind("transformers + FastAPI", PEERS, _peer("peers", "--server", "naive"), ROWS, "/openapi.json"),
    "openrlhf": Kind("OpenRLHF style", PEERS, _peer("peers", "--server", "openrlhf"), OPENRLHF, "/openapi.json"),
    "litserve": Kind("LitServe, batches of 8", PEERS, _peer("litserve"), LITSERVE, "/health"),
    "infinity": Kind(
        "Infinity (torch)", "serve-infinity", _infinity, INFINITY_RERANK, "/health",
        decoders="it answers a decoder's scores as sigmoids only",
    ),
}  # fmt: skip
NAIVE = ("naive", "openrlhf")
"""Those that score a request as it comes, by itself."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server:
    """A running server; it is stopped except between `wake` and `sleep`.

    Raises:
        Failed: it ended, or was not ready within two minutes.
    """

    def __init__(self, kind: Kind, python: Path, folder: Path, core: int, log: Path) -> None:
        self.kind, self.port = kind, free_port()
        log.parent.mkdir(parents=True, exist_ok=True)
        words = [str(python), *kind.words(folder, self.port, core)]
        with log.open("w", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(core), *words], stdout=output, stderr=output, env=_environment(),
                start_new_session=True, preexec_fn=end_with_parent,
            )  # fmt: skip
        begun = time.perf_counter()
        while not self._is_ready():
            if self.process.poll() is not None or time.perf_counter() > begun + READY_S:
                self.close()
                raise Failed(f"did not get ready: see {log}")
            time.sleep(0.05)
        self.ready_s = time.perf_counter() - begun

    def _is_ready(self) -> bool:
        try:
            return self.get(self.kind.ready)[0] == 200
        except OSError:
            return False

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def wake(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def sleep(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGSTOP)

    def memory_mb(self) -> float:
        """Of the server's processes together: what each has for itself, and its part of what they share."""
        return sum(_memory_kb(pid) for pid in _family(self.process.pid)) / 1024

    def close(self) -> None:
        if self.process.poll() is None:
            self.wake()
            os.killpg(self.process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _environment() -> Mapping[str, str]:
    return offline(1) | {"PYTHONUNBUFFERED": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}


def _family(pid: int) -> list[int]:
    """A process and those it has started."""
    family, parents = [pid], {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
    for each in family:
        family += [child for child, parent in parents.items() if parent == each]
    return family


def _memory_kb(pid: int) -> int:
    try:
        lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def body_of(form: Form, prompt: str, replies: Sequence[str], whole: Sequence[str]) -> bytes:
    return json.dumps(form.write(prompt, replies, whole)).encode()
