"""HTTP at its edges: limits, one request that is never read as two, and paths that mean what they say."""

import socket
from contextlib import ExitStack, suppress
from time import sleep

import pytest

from tests.faults.hooks import ask, scores, solo
from tests.faults.raw import Reply, chunked, connected, ends_within, exchange, read_reply, request
from tests.serving.live import Live

LIVE = request(method="GET", path="/live")


def all_replies(line: socket.socket) -> list[Reply]:
    """All that come before the server ends the connection."""
    replies, rest = [], b""
    with suppress(ConnectionError):
        while True:
            reply, rest = read_reply(line, rest)
            replies.append(reply)
    return replies


def test_requests_that_come_together_are_answered_in_their_order(live: Live) -> None:
    words = ("hello", "flour", "water", "a b c")
    with connected(live.port) as line:
        line.sendall(b"".join(request(ask(word)) for word in words) + LIVE)
        rest = b""
        for word in words:
            reply, rest = read_reply(line, rest)
            assert [row["score"] for row in reply.json()["scores"]] == solo(live, word)
        assert read_reply(line, rest)[0].json() == {"live": True}


def test_hundreds_of_idle_connections_are_kept_and_in_nobodys_way(live: Live) -> None:
    with ExitStack() as lines:
        idle = [lines.enter_context(connected(live.port)) for _ in range(200)]
        for line in idle:
            line.sendall(LIVE)
        for line in idle:
            assert read_reply(line)[0].status == 200
        assert scores(live, "hello") == solo(live, "hello")
        for line in idle[::20]:
            line.sendall(request(ask("hello")))
            assert read_reply(line)[0].status == 200


def test_a_client_that_asks_first_is_told_to_go_on_or_refused_at_once(live: Live) -> None:
    with connected(live.port) as line:
        whole = request(ask("hello"), expect="100-continue")
        head, end, body = whole.partition(b"\r\n\r\n")
        line.sendall(head + end)
        reply, rest = read_reply(line)
        assert reply.status == 100
        line.sendall(body)
        assert read_reply(line, rest)[0].status == 200
    with connected(live.port) as line:
        line.sendall(request(b"", expect="100-continue", content_length=10**9))
        assert read_reply(line)[0].status == 413
    with connected(live.port) as line:
        line.sendall(request(b"", expect="100-continue", content_length=10, content_type="text/plain"))
        assert read_reply(line)[0].status == 415


def test_http_1_0_is_answered_and_its_connection_ends(live: Live) -> None:
    with connected(live.port) as line:
        line.sendall(request(ask("hello"), version="1.0"))
        assert read_reply(line)[0].status == 200
        assert ends_within(line, 5)


def test_chunks_with_extensions_and_trailers_are_read(live: Live) -> None:
    body = request(ask("hello")).partition(b"\r\n\r\n")[2]
    pieces = chunked(body[:5], body[5:]).replace(b"5\r\n", b"5;name=value\r\n", 1)
    with connected(live.port) as line:
        line.sendall(request(b"", transfer_encoding="chunked") + pieces[:-2] + b"authorization: none\r\n\r\n")
        assert read_reply(line)[0].status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"POST /api/score HTTP/1.1\r\nx: " + b"a" * 400_000,  # has no end
        b"POST /" + b"a" * 300_000,
        b"GET /live HTTP/1.1\r\n" + b"".join(b"x-%d: %b\r\n" % (n, b"a" * 1_000) for n in range(100)) + b"\r\n",
        b"GET /live HTTP/1.1\r\n" + b"a:\r\n" * 20_000 + b"\r\n",
        b"GET /live?" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["endless", "path", "many", "tiny", "query"],
)
def test_a_head_that_is_too_long_is_431(live: Live, head: bytes) -> None:
    with connected(live.port) as line:
        with suppress(OSError):
            for start in range(0, len(head), 10_000):
                line.sendall(head[start : start + 10_000])
        reply = read_reply(line)[0]
        assert (reply.status, reply.headers["connection"]) == (431, "close")
        assert "more than 65,536 bytes" in reply.json()["error"]["message"]
        assert ends_within(line, 5)


@pytest.mark.parametrize("start", [b"1;", b"2\r\n{}\r\n0\r\nx: ", b"0" * 10], ids=["extension", "trailer", "size"])
def test_what_has_no_end_around_a_body_is_not_read_on(live: Live, start: bytes) -> None:
    sent = 0
    with connected(live.port) as line:
        line.sendall(request(b"", transfer_encoding="chunked") + start)
        with suppress(OSError):
            while sent < 50_000_000:
                sent += line.send(b"0" * 10_000)
        assert ends_within(line, 5)
    assert sent < 30_000_000


SMUGGLED = b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: %d\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: %d\r\n",
        b"content-length: 5\r\ncontent-length: %d\r\n",
        b"content-length: %d\r\ntransfer-encoding: identity\r\n",
        b"content-length: %d\r\ntransfer-encoding: xchunked\r\n",
        b"content-length: %d\r\ntransfer-encoding: chunked, identity\r\n",
        b"transfer-encoding : chunked\r\ncontent-length: %d\r\n",
        b"content-length: %d\r\n transfer-encoding: chunked\r\n",
        b"content-length: %d\r\nx: a\rtransfer-encoding: chunked\r\n",
        b"content-length: %d\nx: y\n",
        b"content-length : %d\r\n",
    ],
)
def test_a_request_that_could_be_read_in_two_ways_is_not_read(live: Live, head: bytes) -> None:
    body = b"0\r\n\r\n" + SMUGGLED
    with connected(live.port) as line:
        line.sendall(b"POST /api/score HTTP/1.1\r\nhost: localhost\r\n" + head % len(body) + b"\r\n" + body)
        replies = all_replies(line)
    assert [reply.status for reply in replies] == [400]


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /live HTTP/9.9\r\n\r\n",
        b"GET /li\x00ve HTTP/1.1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET /live HTTP/1.1\r\nx\x00: a\r\n\r\n",
        b"GET /live HTTP/1.1\r\nno colon\r\n\r\n",
        b"CONNECT evil:80 HTTP/1.1\r\nhost: evil\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,  # TLS
        b"\xff" * 1_000,
    ],
)
def test_what_is_no_request_is_4xx_and_ends(live: Live, data: bytes) -> None:
    with connected(live.port) as line:
        line.sendall(data)
        replies = all_replies(line)
    assert all(400 <= reply.status < 500 for reply in replies)
    assert len(replies) <= 1
    assert scores(live, "hello") == solo(live, "hello")


def test_an_offer_of_another_protocol_is_passed_over(live: Live) -> None:
    for offer in ("h2c", "websocket"):
        headers = {"connection": "upgrade, http2-settings", "upgrade": offer, "sec_websocket_version": "13"}
        reply = exchange(live.port, request(ask("hello"), **headers))
        assert reply.status == 200, offer


def test_an_offer_in_pieces_never_makes_a_request_of_a_body(live: Live) -> None:
    inner = request(ask("hello"))
    whole = request(inner, connection="upgrade", upgrade="h2c")
    at = whole.index(b"upgrade: h2c")
    with connected(live.port) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.sendall(whole[: at + 3])
        sleep(0.1)
        line.sendall(whole[at + 3 :])
        reply, *others = all_replies(line)
    assert (reply.status, others) == (400, [])
    assert "leave the header Upgrade out" in reply.json()["error"]["message"]
    with connected(live.port) as line:
        line.sendall(LIVE + whole)  # as where one came before it that is not answered yet
        assert b"score" not in b"".join(reply.body for reply in all_replies(line))


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/api/score/", "POST", 404), ("//api/score", "POST", 404), ("/API/SCORE", "POST", 404), ("/x", "GET", 404),
     ("/live/../api/score", "POST", 404), ("/api/score;x", "POST", 404), ("/api/score", "GET", 405),
     ("/api/score", "DELETE", 405), ("/live", "POST", 405), ("/rerank", "PUT", 405), ("/" + "a" * 5_000, "GET", 404),
     ("/%00", "GET", 404), ("/%ff", "GET", 404), ("/api/score", "TRACE", 405), ("/api/score", "OPTIONS", 405)],
)  # fmt: skip
def test_other_paths_and_methods_are_errors_of_the_dialect_and_never_redirects(
    live: Live, path: str, method: str, status: int
) -> None:
    reply = exchange(live.port, request(b"", path=path, method=method, host="evil.example"))
    assert reply.status == status
    assert "location" not in reply.headers
    assert b"evil" not in reply.body
    error = reply.json()["error"]
    assert 10 < len(error["message"]) < 500
    if status == 405:
        assert reply.headers["allow"]


def test_head_has_no_body(live: Live) -> None:
    with connected(live.port) as line:
        line.sendall(request(method="HEAD", path="/live") + LIVE)
        reply, rest = read_reply(line, has_body=False)
        assert reply.status == 200
        assert read_reply(line, rest)[0].json() == {"live": True}


def test_every_answer_forbids_to_guess_its_type(live: Live) -> None:
    for data in (LIVE, request(ask("hello")), request(b"{"), request(path="/x", method="GET")):
        assert exchange(live.port, data).headers["x-content-type-options"] == "nosniff"
