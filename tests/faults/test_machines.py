"""A bad network, too many threads, and too little memory: slower at worst, and never a wrong score."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.faults.hooks import ask, solo
from tests.serving.live import Live

ROOT = Path(__file__).parents[2]
ASK = """
import asyncio, json, sys, time
import httpx
from pathlib import Path
from tests.faults.hooks import ask, solo
from tests.serving.live import live_server

REPLIES = ["hello", "mix flour", "the dough needs an hour to rise", "a b c", "salt and yeast"]

async def flood(live, count, at_once):
    gate = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        async def one(place):
            async with gate:
                replies = REPLIES[place % 5:] + [f"{place}"]
                answer = await client.post("/api/score", json=ask(*replies))
                assert answer.status_code in (200, 429, 503), answer.text
                rows = answer.json().get("scores", [])
                return [(reply, row["score"]) for reply, row in zip(replies, rows)]
        return [pair for pairs in await asyncio.gather(*map(one, range(count))) for pair in pairs]

with live_server(Path(sys.argv[1])) as live:
    began = time.monotonic()
    pairs = asyncio.run(flood(live, int(sys.argv[2]), int(sys.argv[3])))
    seconds = time.monotonic() - began
    replies = sorted({reply for reply, _ in pairs})
    right = dict(zip(replies, solo(live, *replies)))
    wrong = sum(score != right[reply] for reply, score in pairs)
    open_rows = live.models.of(None).scheduler.waiting().open_rows
    print(json.dumps({"seconds": seconds, "rows": len(pairs), "wrong": wrong, "open": open_rows}))
"""


def flood(bert: Path, count: int, at_once: int, *before: str, **environ: str) -> dict[str, float]:
    """What came of so many requests in a process of its own.

    Args:
        before: a command that runs it.
    """
    command = [*before, sys.executable, "-c", ASK, str(bert), str(count), str(at_once)]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"} | environ
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3_000:]
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_network_that_is_slow_and_breaks_off_changes_no_score(live: Live) -> None:
    """A relay that passes bytes on in pieces, late, and now and then not at all."""
    chance = random.Random(0)
    replies = [f"flour {place}" for place in range(60)]
    given: dict[str, float] = {}

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: bool) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(chance.randint(1, 300)):
                await asyncio.sleep(chance.random() * 0.01)
                if ends and chance.random() < 0.2:
                    break
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond, to = await asyncio.open_connection("127.0.0.1", live.port)
        ends = chance.random() < 0.3
        await asyncio.gather(pass_on(reader, to, ends), pass_on(beyond, writer, ends))
        for each in (writer, to):
            with suppress(ConnectionError):
                await each.wait_closed()

    async def ask_all() -> None:
        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def one(reply: str, gate: asyncio.Semaphore) -> None:
            while reply not in given:
                with suppress(httpx.TransportError):
                    async with gate, httpx.AsyncClient(timeout=10) as client:
                        answer = await client.post(f"http://127.0.0.1:{port}/api/score", json=ask(reply))
                        if answer.status_code == 200:
                            given[reply] = answer.json()["scores"][0]["score"]

        async with server:
            gate = asyncio.Semaphore(10)
            await asyncio.gather(*(one(reply, gate) for reply in replies))

    asyncio.run(asyncio.wait_for(ask_all(), 60))
    assert [given[reply] for reply in replies] == solo(live, *replies)
    until = time.monotonic() + 5
    while live.models.of(None).scheduler.waiting().open_rows:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.slow
def test_a_network_that_loses_and_delays_changes_no_score(bert: Path) -> None:
    netns = ["unshare", "--net", "--map-root-user"] if os.geteuid() else ["unshare", "--net"]
    shape = "ip link set lo up && tc qdisc add dev lo root netem delay 25ms 10ms loss 3% reorder 10%"
    if shutil.which("unshare") is None or shutil.which("tc") is None or shutil.which("ip") is None:
        pytest.skip("unshare, ip and tc (util-linux, iproute2) are needed for a bad network")
    if subprocess.run([*netns, "sh", "-c", shape], capture_output=True).returncode:
        pytest.skip("a network namespace with netem is not allowed here")
    told = flood(bert, 100, 20, *netns, "sh", "-c", f'{shape} && exec "$@"', "sh")
    assert (told["wrong"], told["open"]) == (0, 0)
    assert told["rows"] > 300


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "8", "32"])
def test_more_threads_than_cores_change_no_score(bert: Path, threads: str) -> None:
    told = flood(bert, 200, 40, OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
    assert (told["wrong"], told["open"]) == (0, 0)


SHED = """
import json, resource, sys, threading
from pathlib import Path
import httpx
from tests.faults.hooks import scores, solo
from tests.serving.live import live_server

with live_server(Path(sys.argv[1]), max_body_bytes=16_000_000, max_bodies_bytes=48_000_000) as live:
    scores(live, "hello")
    right = solo(live, "hello")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 900_000_000
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    body = b'{"prompt": "' + b" " * 15_000_000  # of which all clients together have one copy
    statuses = []
    def send():
        for _ in range(3):
            try:
                statuses.append(httpx.post(f"{live.url}/api/score", content=body, timeout=60).status_code)
            except httpx.HTTPError as error:
                statuses.append(type(error).__name__)
    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"statuses": sorted(map(str, set(statuses))), "right": scores(live, "hello") == right}))
"""


@pytest.mark.slow
def test_bodies_past_what_memory_holds_are_refused_and_the_server_lives(bert: Path) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("the size of a process is read as Linux has it")
    done = subprocess.run(
        [sys.executable, "-c", SHED, str(bert)], env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT,
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["right"]
    assert set(told["statuses"]) <= {"400", "429", "500"}, told
    assert "429" in told["statuses"]
