"""Clients that are slow on purpose: each step of a request has its deadline, and nobody waits for them."""

import select
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.faults.hooks import ask, scores, solo
from tests.faults.raw import connected, ends_within, read_reply, request
from tests.serving.live import Live, live_server

SOON_S = 5.0
"""Well past the deadlines of `live`, each 0.6 s."""


@pytest.mark.parametrize(
    "begun", [b"", b"\r\n", b"G", b"POST /api/score HTTP/1.1\r\n", b"POST /api/score HTTP/1.1\r\nhost: localhost\r\nx"]
)
def test_headers_that_do_not_come_are_not_waited_for(live: Live, begun: bytes) -> None:
    with connected(live.port) as line:
        line.sendall(begun)
        reply = read_reply(line)[0]
        assert reply.status == 408
        assert reply.json()["error"]["type"] == "slow"
        assert ends_within(line, SOON_S)


@pytest.mark.parametrize("between", [b"", b"\r\n", b"GET /live HT"])
def test_headers_of_a_second_request_have_the_same_deadline(bert: Path, between: bytes) -> None:
    with live_server(bert, head_timeout_s=0.4, keep_alive_s=1.0) as live, connected(live.port) as line:
        line.sendall(request(method="GET", path="/live") + between)
        assert read_reply(line)[0].status == 200
        assert ends_within(line, SOON_S)


def test_a_drop_now_and_then_does_not_move_the_deadline(live: Live) -> None:
    with connected(live.port) as line:
        began = time.monotonic()
        with suppress(ConnectionError):
            for letter in request(ask("hello"), x_long="a" * 500)[:50]:
                line.sendall(bytes([letter]))
                time.sleep(0.02)
            assert read_reply(line)[0].status == 408
        assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize("kind", ["stated", "chunked"])
def test_a_body_that_does_not_come_is_408_in_its_dialects_form(live: Live, kind: str) -> None:
    head = request(b"", content_length=5_000) if kind == "stated" else request(b"", transfer_encoding="chunked")
    with connected(live.port) as line:
        line.sendall(head + b"1\r\n{\r\n")
        reply = read_reply(line)[0]
        assert reply.status == 408
        assert reply.headers["connection"] == "close"
        assert "did not" in reply.json()["error"]["message"] or "not its end" in reply.json()["error"]["message"]
        assert ends_within(line, SOON_S)


def test_a_reader_that_takes_nothing_loses_its_connection(live: Live) -> None:
    large = ask(*(["hello", "flour"] * 125))  # its answer has nearly a megabyte; the system holds few of them
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        line.connect(("127.0.0.1", live.port))
        line.sendall(request(large, path="/api/rank") * 20)
        ended = select.poll()
        ended.register(line, select.POLLERR | select.POLLHUP)
        assert ended.poll(15_000)
    assert scores(live, "hello") == solo(live, "hello")


def test_requests_that_do_not_wait_for_answers_are_few(live: Live) -> None:
    with connected(live.port) as line, suppress(ConnectionError):
        for _ in range(100):
            line.sendall(request(method="GET", path="/openapi.json") * 100)
        assert ends_within(line, SOON_S)


def test_others_are_as_fast_beside_two_hundred_slow_clients(live: Live) -> None:
    def median() -> float:
        times = []
        for place in range(15):
            began = time.monotonic()
            scores(live, f"{place} {began}")
            times.append(time.monotonic() - began)
        return sorted(times)[7]

    alone = median()
    with ExitStack() as lines:
        for _ in range(200):
            line = lines.enter_context(connected(live.port))
            line.sendall(b"POST /api/score HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n")
        beside = median()
    assert beside < 5 * alone + 0.2, (alone, beside)


def test_more_connections_than_are_taken_are_told_so(bert: Path) -> None:
    with live_server(bert, max_connections=3) as live, ExitStack() as lines:
        held = [lines.enter_context(connected(live.port)) for _ in range(3)]
        for line in held:
            line.sendall(request(method="GET", path="/live"))
            assert read_reply(line)[0].status == 200
        with connected(live.port) as line:
            line.sendall(request(method="GET", path="/live"))
            reply = read_reply(line)[0]
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        held[0].close()
        time.sleep(0.1)
        with connected(live.port) as line:
            line.sendall(request(method="GET", path="/live"))
            assert read_reply(line)[0].status == 200
