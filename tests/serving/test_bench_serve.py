"""The serving benchmark: its load generator against small servers of known behavior, its judgement and its figures."""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import serve_load  # noqa: E402
import serve_measure  # noqa: E402
import serve_report  # noqa: E402
import serve_servers  # noqa: E402
import serve_traffic  # noqa: E402

sys.path.remove(str(BENCHMARKS))

Answer = Callable[[int, asyncio.StreamWriter], Awaitable[bool]]
"""Called with how many requests came before, and where to write; whether the connection stays open."""


@contextmanager
def running(answer: Answer) -> Iterator[int]:
    """A server on another thread; its port."""
    loop, count, started = asyncio.new_event_loop(), iter(range(10**6)), threading.Event()
    ports, writers = [], []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                if not await answer(next(count), writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def main() -> None:
        stop.append(asyncio.Event())
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        started.set()
        await stop[0].wait()
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.sleep(0.02)

    stop: list[asyncio.Event] = []
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    started.wait()
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop[0].set)
        thread.join()
        loop.close()


def reply(writer: asyncio.StreamWriter, body: bytes = b"[]", status: int = 200, head: str = "") -> bool:
    length = f"Content-Length: {len(body)}\r\n"
    writer.write(f"HTTP/1.1 {status} X\r\n{length}{head}\r\n".encode() + body)
    return True


REQUEST = serve_load.request_bytes("/score", b"{}")


def test_a_stalled_server_does_not_slow_the_load_and_hide_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request holds the server for 0.3 s; those that were due meanwhile waited, each from when it was due, also
    those that could not be sent."""
    monkeypatch.setattr(serve_load, "MOST_CONNECTIONS", 2)

    async def answer(number: int, writer: asyncio.StreamWriter) -> bool:
        if number == 5:
            time.sleep(0.3)  # all of the server stands still
        return reply(writer)

    dues = np.arange(40) * 0.01
    with running(answer) as port:
        phase = serve_load.open_loop(port, [REQUEST], dues, warm=2)
    assert [sample.status for sample in phase.samples] == [200] * 40
    waits = [sample.latency for sample in phase.samples]
    assert sum(wait > 0.05 for wait in waits) > 15
    assert max(waits) >= 0.29
    assert [sample.due - phase.begun for sample in phase.samples] == pytest.approx(dues)


def test_replies_in_chunks_and_in_pieces_are_put_together() -> None:
    async def answer(number: int, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Enc")
        await asyncio.sleep(0.01)
        writer.write(b"oding: chunked\r\n\r\n3\r\n[1,\r\n")
        await asyncio.sleep(0.01)
        writer.write(b"2\r\n 2\r\n1\r\n]\r\n0\r\n\r\n")
        return True

    with running(answer) as port:
        phase = serve_load.closed_loop(port, [REQUEST], connections=2, seconds=0.1)
    assert len(phase.samples) >= 4
    assert {sample.body for sample in phase.samples} == {b"[1, 2]"}


def test_a_connection_that_closes_between_requests_costs_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_load, "MOST_CONNECTIONS", 1)

    async def answer(number: int, writer: asyncio.StreamWriter) -> bool:
        reply(writer, head="Connection: close\r\n" if number % 3 == 0 else "")
        return number % 3 == 1

    with running(answer) as port:
        phase = serve_load.open_loop(port, [REQUEST], np.zeros(12), warm=1)
    assert [sample.status for sample in phase.samples] == [200] * 12


def test_what_is_not_answered_in_time_counts_as_unanswered() -> None:
    async def answer(number: int, writer: asyncio.StreamWriter) -> bool:
        return True if number % 2 else reply(writer)

    with running(answer) as port:
        phase = serve_load.open_loop(port, [REQUEST], np.arange(6) * 0.01, warm=6, patience=0.2)
    assert sorted(sample.status for sample in phase.samples) == [0, 0, 0, 200, 200, 200]


def test_random_arrivals_have_the_wanted_rate_and_come_independently() -> None:
    times = serve_load.poisson(200.0, 50.0, seed=3)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(10_000, rel=0.04)
    assert (times >= 0).all()
    assert (times < 50).all()
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


def test_an_ideal_server_takes_requests_in_order() -> None:
    latencies = serve_load.ideal_latencies(np.array([0.0, 0.1, 0.2, 2.0]), 0.5)
    assert latencies.tolist() == pytest.approx([0.5, 0.9, 1.3, 0.5])


def sent(rows: int = 2) -> serve_measure.Sent:
    requests = [serve_traffic.Request((0, 1)), serve_traffic.Request((1,), "short")]
    workload = serve_traffic.Workload(
        "W", "two", "encoder", [("p", "a"), ("p", "b")], requests, scores=np.array([0.5, -1.0])
    )
    return serve_measure.Sent.of(workload, serve_servers.KINDS["naive"], [])


def test_every_reply_is_held_against_the_solo_scores() -> None:
    def sample(number: int, body: object, status: int = 200, done: float = 1.0) -> serve_load.Sample:
        return serve_load.Sample(number, 0.5, 0.5, done, status, json.dumps(body).encode())

    samples = [
        sample(0, {"scores": [0.5, -1.0]}),
        sample(0, {"scores": [0.5, -1.00005]}, done=1.5),  # within the peers' 1e-4
        sample(0, {"scores": [-1.0, 0.5]}),
        sample(1, {"scores": [-1.0, 0.5]}),  # one score too many
        sample(1, {"error": "none"}),
        sample(1, {"scores": [-1.0]}, done=4.0),  # too late to be of use
        sample(1, {}, 429, done=0.51), sample(1, {}, 500), sample(1, {}, 0),
    ]  # fmt: skip
    outcome = serve_measure.judge(sent(), serve_load.Phase(0.5, 2.5, samples), load=200, bound=3.0)
    counts = (outcome.sent, outcome.answered, outcome.refused, outcome.failed, outcome.unanswered, outcome.wrong)
    assert counts == (9, 6, 1, 1, 1, 3)
    assert outcome.refusal_most == pytest.approx(10.0)
    assert outcome.good == pytest.approx(1 / (2.5 - 1.0))  # after the first, one that is right and in time


def test_forms_put_scores_in_the_order_of_the_replies() -> None:
    infinity = {"results": [{"index": 1, "relevance_score": 2.0}, {"index": 0, "relevance_score": 1.0}]}
    assert serve_servers.INFINITY_RERANK.read(infinity) == [1.0, 2.0]
    assert serve_servers.TEI_RERANK.read([{"index": 1, "score": 2.0}, {"index": 0, "score": 1.0}]) == [1.0, 2.0]
    body = serve_servers.body_of(serve_servers.OPENRLHF, "How?", ["So."], [])
    assert json.loads(body) == {"query": ["How?So."], "prompts": ["How?"], "labels": [None]}


def result(server: str, capacity: float, outcomes: list[serve_measure.Outcome]) -> dict:
    return serve_measure.Measured(server, "W2", solo=10.0, rounds=[capacity], outcomes=outcomes).to_json()


def test_the_last_line_compares_with_the_best_of_each_kind() -> None:
    loads = [
        serve_measure.Outcome(75, 6.0, 8.0, sent=48, answered=48, p50=12.0, p99=40.0, ideal_p99=32.0),
        serve_measure.Outcome(200, 16.0, 8.0, sent=128, answered=60, refused=68, p50=20.0, p99=50.0, good=7.6,
                              refusal_most=4.0),
    ]  # fmt: skip
    results = [result("ours", 8.0, loads)]
    results += [result(name, rate, []) for name, rate in (("naive", 2.0), ("openrlhf", 1.6), ("infinity", 4.0))]
    record = {
        "results": results, "memory": {"m": {"ours": {"before": 300.0, "after": 304.5}}}, "padding": {"m": 0.0},
        "overhead": {"alone_p50": 0.4}, "minutes": 1.0, "quick": False, "others": [0.01],
    }  # fmt: skip
    summary = serve_report.summarize(record)
    wanted = {
        "x_naive": 4.0, "x_best_peer": 2.0, "p99_x_solo_75": 4.0, "p99_x_ideal_75": 1.25, "goodput_200": 0.95,
        "refusal_ms_most": 4.0, "wrong_scores": 0, "overhead_ms_p50": 0.4, "memory_growth_mb": 4.5, "padding": 0.0,
    }  # fmt: skip
    assert {name: summary[name] for name in wanted} == wanted
