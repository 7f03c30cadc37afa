"""A server that is killed, with clients that try again: each gets its answer, once. Other signals are in
`tests/serving/test_run.py`."""

import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from prefrank import RewardModel
from tests.faults.hooks import ask
from tests.serving.processes import serving

pytestmark = pytest.mark.slow


def test_clients_that_try_again_lose_nothing_when_the_server_is_killed(bert: Path) -> None:
    replies = [f"the dough needs {place} hours" for place in range(40)]
    right = [score.value for score in RewardModel.load(bert).score("how do I bake bread", replies)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api/score"
    given: dict[str, list[float]] = {reply: [] for reply in replies}
    killed = threading.Event()
    tries = []

    def client(mine: list[str]) -> None:
        for place, reply in enumerate(mine):
            if place == len(mine) // 2:
                killed.wait(30)
            until = time.monotonic() + 60
            while time.monotonic() < until:
                tries.append(reply)
                try:
                    answer = httpx.post(url, json=ask(reply), timeout=10)
                except httpx.TransportError:
                    time.sleep(0.05)
                    continue
                if answer.status_code == 200:
                    given[reply].append(answer.json()["scores"][0]["score"])
                    break
                assert answer.status_code in (429, 503), answer.text
                time.sleep(0.05)

    threads = [threading.Thread(target=client, args=(replies[place::4],)) for place in range(4)]
    with serving("--model", f"m={bert}", "--port", str(port)) as first:
        assert first.url
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        first.signal(signal.SIGKILL)
        first.ends_with()
        killed.set()
    with serving("--model", f"m={bert}", "--port", str(port)) as second:
        assert second.url
        for thread in threads:
            thread.join(60)
        second.signal(signal.SIGTERM)
        assert second.ends_with() == 0
    assert [given[reply] for reply in replies] == [[score] for score in right]
    assert len(tries) > len(replies)
