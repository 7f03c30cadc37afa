"""More than a server takes: refused with a sentence, and without being read or unpacked to its end."""

import gzip
import json
import resource
import socket
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from prefrank.serving.guard import Room, unpack
from prefrank.wire.route import Refused
from tests.faults.hooks import ask, scores, solo
from tests.faults.raw import connected, ends_within, exchange, read_reply, request
from tests.serving.live import Live, live_server

MOST = 1_000_000
"""Bytes of a body that `live` takes."""


def peak_kb() -> int:
    """The most memory that this process, and with it the server, has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def message(reply: Any) -> str:
    return reply.json()["error"]["message"]


def test_a_stated_length_that_is_too_large_is_refused_before_the_body_comes(live: Live) -> None:
    for length in (MOST + 1, 10**15):
        reply = exchange(live.port, request(b"", content_length=length))
        assert reply.status == 413
        assert f"{length:,} bytes; at most 1,000,000" in message(reply)
        assert reply.headers["connection"] == "close"


@pytest.mark.parametrize("length", ["1e3", "-1", "+5", "0x10", "9" * 40, "5, 6", ""])
def test_a_length_that_is_none_is_no_request(live: Live, length: str) -> None:
    with connected(live.port) as line:
        line.sendall(request(b"", content_length=length) + b"{}xxx")
        assert read_reply(line)[0].status == 400
        assert ends_within(line, 5)


def test_a_body_without_a_length_is_read_up_to_the_bound(live: Live) -> None:
    sent = 0
    with connected(live.port) as line:
        line.sendall(request(b"", transfer_encoding="chunked"))
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        chunk = b"%x\r\n%b\r\n" % (10_000, b" " * 10_000)
        try:
            while sent < 200 * MOST:
                sent += line.send(chunk) and 10_000
        except OSError:
            pass
        reply = read_reply(line)[0]
    assert reply.status == 413
    assert "more than 1,000,000 bytes" in message(reply)
    assert sent < 50 * MOST  # what is passed over, and what the system holds


def test_the_rest_of_a_short_lie_is_no_request(live: Live) -> None:
    body = json.dumps(ask("hello")).encode()
    with connected(live.port) as line:
        line.sendall(request(body, content_length=10))
        reply = read_reply(line)[0]
        assert reply.status == 400
        assert ends_within(line, 5)


@pytest.mark.parametrize("packing", ["gzip", "deflate", "bare"])
def test_packed_bodies_are_unpacked(live: Live, packing: str) -> None:
    plain = json.dumps(ask("the dough needs an hour")).encode()
    bare = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": gzip.compress(plain, mtime=0),
        "deflate": zlib.compress(plain),
        "bare": bare.compress(plain) + bare.flush(),
    }
    coding = "gzip" if packing == "gzip" else "deflate"
    reply = exchange(live.port, request(packed[packing], content_encoding=coding))
    assert reply.status == 200
    assert [row["score"] for row in reply.json()["scores"]] == solo(live, "the dough needs an hour")


@pytest.mark.parametrize(
    ("body", "coding", "status", "words"),
    [
        (gzip.compress(b" " * (MOST + 1), mtime=0), "gzip", 413, "more than 1,000,000 bytes, unpacked"),
        (gzip.compress(b"{}", mtime=0)[:-4], "gzip", 400, "it ends early"),
        (gzip.compress(b"{}", mtime=0) * 2, "gzip", 400, "more data follow its end"),
        (b"\x1f\x8b" + b"\xff" * 100, "gzip", 400, "cannot be unpacked"),
        (b"{}", "gzip", 400, "cannot be unpacked"),
        (b"", "gzip", 400, "cannot be unpacked"),
        (b"{}", "br", 415, "the content encoding is br; send gzip, deflate"),
        (b"{}", "gzip, gzip", 415, "the content encoding is gzip, gzip"),
    ],
)  # fmt: skip
def test_what_cannot_be_unpacked_is_refused(live: Live, body: bytes, coding: str, status: int, words: str) -> None:
    reply = exchange(live.port, request(body, content_encoding=coding))
    assert (reply.status, words in message(reply)) == (status, True), message(reply)


def test_a_bomb_takes_no_more_memory_than_a_body_may() -> None:
    writer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(writer.compress(b" " * 10_000_000) for _ in range(40)) + writer.flush()  # 400 MB in 400 kB
    before = peak_kb()
    with pytest.raises(Refused):
        unpack(bomb, MOST)
    assert peak_kb() - before < 20_000


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (ask(*["a"] * 501), 422, "the request has 501 rows; at most 500"),
        (b'{"prompt": "a", "replies": [' + b'"",' * 30_000 + b'""]}', 422, "the request has 30,001 rows"),
        (ask("a" * 250_000), 422, "row 0 has 250,019 characters; at most 200,000"),
        (ask(*["a"] * 100, prompt="a" * 190_000), 413, "their prompts counted each"),
        (b"[" * 1_000 + b"]" * 1_000, 400, "nested too deeply"),
        (b'{"a":' * 100_000, 400, "nested too deeply"),
        (b'{"prompt":' + b"[" * 900 + b"]" * 900 + b"}", 422, "prompt"),
        (b'{"prompt": ' + b"9" * 5_000 + b"}", 400, "too many digits"),
        (b'{"prompt": 1e999}', 400, "too large"),
        (ask("a") | {"model": "m" * 100_000}, 404, "there is no model"),
    ],
)
def test_more_than_is_taken_is_refused_with_a_sentence(live: Live, body: Any, status: int, words: str) -> None:
    reply = exchange(live.port, request(body))
    assert reply.status == status, reply
    assert words in message(reply), message(reply)[:300]
    assert len(reply.body) < 3_000  # nothing long is sent back


def test_all_bodies_together_have_a_bound() -> None:
    room = Room(100)
    room.take(500)  # one alone is bounded by its own size
    with pytest.raises(Refused, match="500 bytes are being answered") as refused:
        room.take(1)
    assert refused.value.retry_after_s == 1.0
    room.give(500)
    room.take(60)
    room.take(40)


def test_every_request_gives_the_room_of_its_body_back(bert: Path) -> None:
    bodies = [json.dumps(ask("hello")).encode(), b"{", b'{"prompt": 1}', b"[" * 1_000]
    bodies = [body.ljust(2_000) for body in bodies]
    with live_server(bert, max_bodies_bytes=5_000, body_timeout_s=0.2) as live:
        for body in bodies * 3:
            assert exchange(live.port, request(body)).status in (200, 400, 422)
            with connected(live.port) as line:  # goes before its end
                line.sendall(request(body, content_length=3_000))
            assert exchange(live.port, request(gzip.compress(body, mtime=0), content_encoding="gzip")).status in (
                200,
                400,
                422,
            )
        with ExitStack() as lines:
            held = [lines.enter_context(connected(live.port)) for _ in range(4)]
            for line in held:
                line.sendall(request(b" " * 2_000, content_length=3_000))
            statuses = sorted(read_reply(line)[0].status for line in held)
        assert statuses == [408, 408, 429, 429]
        assert scores(live, "hello") == solo(live, "hello")
