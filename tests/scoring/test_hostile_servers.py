"""Servers that send what no server should, byte by byte over a socket: one line within the time, and no more memory
than the limit."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from prefrank.errors import BadInput, BadModel, NotFound, PrefrankError
from prefrank.scoring.remote import ServerOptions, open_server
from prefrank.scoring.server_info import model_of

Handler = Callable[[socket.socket], None]
Serving = Callable[[Handler], str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """A server whose POSTs are answered by a handler; it says nothing of itself."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    opened: list[socket.socket] = []

    def answer(connection: socket.socket, handler: Handler) -> None:
        with connection:
            try:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += connection.recv(1 << 16) or b"\r\n\r\n"
                if asked.startswith(b"GET"):
                    connection.sendall(b"HTTP/1.1 404 no\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                else:
                    handler(connection)
            except OSError:  # the other side has gone, as it should
                pass

    def start(handler: Handler) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        opened.append(listening)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection, handler), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/predict"

    yield start
    for listening in opened:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def ask(url: str) -> str:
    """The one line that comes of it."""
    with pytest.raises(PrefrankError) as caught:
        open_server(url, ServerOptions(timeout_s=0.3, tries=1, wait_s=0.0))
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 700
    assert url in message
    return message


def sent(content: bytes, *, status: str = "200 OK", headers: str = "") -> Handler:
    head = f"HTTP/1.1 {status}\r\n{headers}content-length: {len(content)}\r\nconnection: close\r\n\r\n"
    return lambda connection: connection.sendall(head.encode() + content)


def again_and_again(first: bytes, then: bytes, pause_s: float) -> Handler:
    def handler(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(then)
            time.sleep(pause_s)

    return handler


@pytest.mark.parametrize(
    "first", [b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n", b"HTTP/1.1 200 OK\r\nx-slow: "], ids=["body", "head"]
)
def test_a_byte_now_and_then_is_no_answer_in_time(serve: Serving, first: bytes) -> None:
    assert "gave no answer in 0.3 s" in ask(serve(again_and_again(first, b"a", 0.02)))


def test_an_endless_answer_ends_at_the_limit(serve: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRANK_MAX_ANSWER_BYTES", "100000")
    message = ask(serve(again_and_again(b"HTTP/1.1 200 OK\r\n\r\n[", b"1," * 5000, 0.0)))
    assert "more than 100,000 bytes, which PREFRANK_MAX_ANSWER_BYTES may raise" in message


def test_an_answer_that_unpacks_to_a_thousand_times_its_size_ends_at_the_limit(
    serve: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRANK_MAX_ANSWER_BYTES", "100000")
    bomb = gzip.compress(b"[" + b"0," * 1_000_000 + b"0]")
    assert "more than 100,000 bytes" in ask(serve(sent(bomb, headers="content-encoding: gzip\r\n")))


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'[[{"score": ' + b"9" * 400 + b"}]]",
        b'[[{"score": ' + b"9" * 5000 + b"}]]",
        b'[[{"score": true}], [{"score": 1}], [{"score": 2}]]',
        b'[[{"score": "1"}], [{"score": 1}], [{"score": 2}]]',
        b'[[{"score": 1, "score": 2}], [{"score": 1}], [{"score": 2}]]',
        b'[[{"score": [1]}], [{"score": 1}], [{"score": 2}]]',
        b'"abc"',
        b"3",
        b"",
        b"\xff\xfe\xfa",
        json.dumps({"scores": {"\x1b[2J": 1}}).encode(),
    ],
)
def test_an_answer_that_is_none_is_one_line(serve: Serving, content: bytes) -> None:
    assert "asked for 3 scores and answered" in ask(serve(sent(content)))


@pytest.mark.parametrize("status", ["400 no", "500 no"])
def test_what_a_server_says_of_its_fault_reaches_no_terminal_as_it_is(serve: Serving, status: str) -> None:
    message = ask(serve(sent(b"\x1b[2J\x07" + b"oh " * 500, status=status)))
    assert r"\x1b[2J\x07oh oh" in message


def test_a_server_that_sends_on_is_not_followed_and_says_where_to(serve: Serving) -> None:
    message = ask(serve(sent(b"", status="302 Found", headers="location: http://127.0.0.1:9/elsewhere\r\n")))
    assert "status 302" in message
    assert "http://127.0.0.1:9/elsewhere" in message


@pytest.mark.parametrize("content", [b"", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 9999 x\r\n\r\n"])
def test_a_connection_that_breaks_off_or_speaks_something_else_is_one_line(serve: Serving, content: bytes) -> None:
    assert "could not be reached or broke off" in ask(serve(lambda connection: connection.sendall(content)))


@pytest.mark.parametrize("url", ["http://a\x01b/predict", f"http://{'a' * 70}.example/predict", "http://é..x/predict"])
def test_an_address_that_no_request_can_have_is_one_line(url: str) -> None:
    with pytest.raises((BadInput, NotFound)):
        open_server(url, ServerOptions(timeout_s=1.0, tries=1))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch": True}, "batch is True"),
        ({"tries": 10**12}, "tries is 1000000000000; wanted 1 to 100"),
        ({"concurrency": 0}, "concurrency is 0; wanted at least 1"),
        ({"timeout_s": float("nan")}, "timeout_s is nan; wanted a finite number above 0"),
        ({"timeout_s": 0.0}, "timeout_s is 0.0"),
        ({"wait_s": -1.0}, "wait_s is -1.0; wanted a finite number of at least 0"),
        ({"key": "a\nb"}, "the key of a server holds characters"),
        ({"key": "\u00e9"}, "the key of a server holds characters"),
    ],
)
def test_options_of_servers_are_checked_where_they_enter(options: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        ServerOptions(**options)  # type: ignore[arg-type]


def test_a_name_that_no_table_can_show_is_passed_over() -> None:
    assert model_of({"model_id": "\x1b[2J"}) == (None, None)
    assert model_of({"data": [{"id": "a" * 501}]}) == (None, None)
    assert model_of({"model_id": "acme/reward", "model_sha": 3}) == ("acme/reward", None)


def test_too_large_an_answer_is_not_asked_for_again(serve: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRANK_MAX_ANSWER_BYTES", "1000")
    asked: list[int] = []

    def handler(connection: socket.socket) -> None:
        asked.append(1)
        sent(b" " * 2000)(connection)

    with pytest.raises(BadModel, match="more than 1,000 bytes"):
        open_server(serve(handler), ServerOptions(timeout_s=1.0, tries=3, wait_s=0.0))
    assert len(asked) == 1
