"""Requests byte by byte, as no honest client sends them."""

import json
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 10.0
"""After which a test fails for want of an answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; its headers' names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    body: Any = b"", *, path: str = "/api/score", method: str = "POST", version: str = "1.1", **headers: str | int
) -> bytes:
    """A request's bytes. A body that is no bytes is written as JSON; its length is stated unless that is in `headers`
    or it is chunked; a header's name has _ for -.
    """
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    if "content-length" not in named and "transfer-encoding" not in named and (content or method == "POST"):
        named["content-length"] = len(content)
    named = {"host": "localhost"} | named
    head = f"{method} {path} HTTP/{version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return head.encode("latin-1") + b"\r\n" + content


def chunked(*parts: bytes) -> bytes:
    """A body in chunks, with its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A connection to a server on loopback."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as line:
        line.settimeout(TIMEOUT_S)
        yield line


def reset(line: socket.socket) -> None:
    """End a connection with RST, as a client that is killed."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.close()


def read_reply(line: socket.socket, before: bytes = b"", *, has_body: bool = True) -> tuple[Reply, bytes]:
    """The next answer, and what came after it.

    Args:
        before: that came already.
        has_body: whether one is to come; not after HEAD.
    """
    data = before
    while b"\r\n\r\n" not in data:
        data += _more(line)
    head, _, data = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    status = int(first.split()[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if status < 200 or not has_body:
        return Reply(status, headers, b""), data
    length = int(headers["content-length"])
    while len(data) < length:
        data += _more(line)
    return Reply(status, headers, data[:length]), data[length:]


def _more(line: socket.socket) -> bytes:
    part = line.recv(65_536)
    if not part:
        raise ConnectionError("the server has ended the connection before its answer")
    return part


def exchange(port: int, data: bytes) -> Reply:
    """The answer to these bytes, on a connection of their own."""
    with connected(port) as line:
        line.sendall(data)
        return read_reply(line)[0]


def ends_within(line: socket.socket, seconds: float) -> bool:
    """Whether the server ends the connection in this time, whatever it says before."""
    until = time.monotonic() + seconds
    try:
        while (left := until - time.monotonic()) > 0:
            line.settimeout(left)
            if not line.recv(65_536):
                return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return False
