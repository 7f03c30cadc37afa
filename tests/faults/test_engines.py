"""Engines that give no numbers, fail on a row, stand still, or end: what is wrong is told, and never a score."""

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from torch import Tensor

from prefrank.types import Batch
from tests.faults.hooks import Gate, ask, hooked, lengths, scores, solo
from tests.faults.raw import connected, read_reply, request
from tests.serving.live import Live, live_server

BAD = "mix flour water salt and yeast the dough needs an hour to rise"
"""A reply of more tokens than any other here."""


def after_long(value: float) -> Callable[[Batch, Tensor], Tensor]:
    def after(batch: Batch, scores: Tensor) -> Tensor:
        changed = scores.clone()
        for place, length in enumerate(lengths(batch)):
            if length > 15:
                changed[place] = value
        return changed

    return after


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_fails_its_row_alone(live: Live, value: float) -> None:
    with hooked(live, after=after_long(value)):
        answer = httpx.post(f"{live.url}/api/score", json=ask("hello", BAD, "a b c"))
        rows = answer.json()["scores"]
        assert [rows[0]["score"], rows[2]["score"]] == solo(live, "hello", "a b c")
        assert rows[1]["score"] is None
        assert f"score of this row is {value}" in rows[1]["error"]
        ranked = httpx.post(f"{live.url}/api/rank", json=ask("hello", BAD)).json()
        assert [row["rank"] for row in ranked["ranking"]] == [1, None]
        whole = httpx.post(f"{live.url}/rerank", json={"query": "a", "texts": ["hello", BAD]})
        assert (whole.status_code, whole.json()["error_type"]) == (424, "Backend")
        fine = httpx.post(f"{live.url}/rerank", json={"query": "a", "texts": ["hello"]})
        assert fine.status_code == 200
    assert scores(live, BAD) == solo(live, BAD)


@pytest.mark.parametrize("error", [RuntimeError("/secret"), MemoryError(), AssertionError()])
def test_a_row_that_breaks_the_engine_fails_alone_whoever_it_is_beside(live: Live, error: Exception) -> None:
    def before(batch: Batch) -> None:
        if max(lengths(batch)) > 15:
            raise error

    answers: list[Any] = []
    with hooked(live, before):
        threads = [
            threading.Thread(target=lambda reply=reply: answers.append((reply, scores(live, reply, f"{reply} too"))))
            for reply in ("hello", "a b", BAD, "the dough")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        message = httpx.post(f"{live.url}/api/score", json=ask(BAD)).json()["scores"][0]["error"]
    assert type(error).__name__ in message
    assert "secret" not in message
    for reply, given in answers:
        assert given == ([None, None] if reply == BAD else solo(live, reply, f"{reply} too"))


def status(live: Live, path: str) -> int:
    return httpx.get(f"{live.url}{path}").status_code


def until(live: Live, path: str, wanted: int) -> None:
    end = time.monotonic() + 10
    while status(live, path) != wanted:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_engine_that_stands_still_is_told_to_monitors_and_to_all_who_wait(bert: Path) -> None:
    gate = Gate()
    with live_server(bert, stall_s=0.4, timeout_s=20.0) as live, hooked(live, gate):
        assert status(live, "/live") == 200
        with connected(live.port) as first, connected(live.port) as second:
            first.sendall(request(ask("hello")))
            assert gate.reached.wait(10)
            second.sendall(request(ask("the dough")))
            replies = [read_reply(line)[0] for line in (first, second)]
        assert [(reply.status, reply.headers["retry-after"]) for reply in replies] == [(503, "1"), (503, "1")]
        assert "worked on one batch for over 0.4 s" in replies[0].json()["error"]["message"]
        assert status(live, "/live") == 503
        at_once = httpx.post(f"{live.url}/api/score", json=ask("a b"), timeout=1.0)
        assert at_once.status_code == 503
        gate.opened.set()
        until(live, "/live", 200)
        assert scores(live, "a b") == solo(live, "a b")
        assert gate.batches == 2  # the one that stood, and the last: nothing for those that were refused


def test_a_request_that_takes_too_long_is_504_and_takes_its_rows_back(bert: Path) -> None:
    gate = Gate()
    with live_server(bert, timeout_s=0.4) as live, hooked(live, gate):
        answer = httpx.post(f"{live.url}/api/score", json=ask("hello"))
        assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout")
        late = httpx.post(f"{live.url}/api/score", json=ask("the dough"))
        assert late.status_code == 504
        assert live.models.of(None).scheduler.waiting().open_rows == 0
        gate.opened.set()
        assert scores(live, "a b") == solo(live, "a b")
        assert gate.batches == 2


def test_an_engine_whose_thread_ends_leaves_nobody_waiting(bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    def before(batch: Batch) -> None:
        raise SystemExit

    with live_server(bert, timeout_s=20.0) as live, hooked(live, before):
        began = time.monotonic()
        answer = httpx.post(f"{live.url}/api/score", json=ask("hello"), timeout=15)
        assert answer.status_code == 503
        assert "threads have ended" in answer.json()["error"]["message"]
        assert time.monotonic() - began < 10
        assert status(live, "/live") == 503
        assert httpx.post(f"{live.url}/api/score", json=ask("hello")).status_code == 503
    assert "the queue's stream-0 ended with SystemExit" in caplog.text


def test_a_panic_of_the_tokenizer_fails_its_row_alone(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        """As the tokenizers library raises, which is no Exception."""

    encoder = live.models.of(None).scheduler.encoder
    encode = type(encoder).encode_pairs

    def panicking(self: Any, pairs: Any) -> Any:
        if any("panic" in reply for _, reply in pairs):
            raise Panic
        return encode(self, pairs)

    monkeypatch.setattr(type(encoder), "encode_pairs", panicking)
    assert scores(live, "hello", "panic")[1] is None
    monkeypatch.undo()
    assert scores(live, "hello", "panic") == solo(live, "hello", "panic")


def test_a_queue_that_is_closed_in_its_middle_refuses_who_is_left(bert: Path) -> None:
    gate = Gate()
    with live_server(bert, timeout_s=20.0) as live, hooked(live, gate):
        with connected(live.port) as line:
            line.sendall(request(ask("hello")))
            assert gate.reached.wait(10)
            live.models.close(0.2)
            reply = read_reply(line)[0]
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert "try again" in reply.json()["error"]["message"]
        gate.opened.set()
