"""Connections, within bounds that uvicorn leaves open: of a request's head in bytes and time, of how long a client may
take nothing of its answer, and of how many connections there are.

Composed around uvicorn's protocol for httptools: the parser calls `Connection`, which counts and passes on, and uvicorn
writes to `_Line`, which ends a connection in a way that lets its last answer arrive.
"""

import asyncio
import re
import struct
from functools import partial
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from prefrank.serving.replies import error_response
from prefrank.serving.settings import ServeSettings
from prefrank.wire.own import ERRORS
from prefrank.wire.route import Refused

LINGER_S = 2.0
"""For what a client still sends after its request was refused: ending at once would take the answer from it."""
LINGER_TIMES = 4
"""Of the most bytes of a body, what is passed over of a refused one."""
MOST_PIPELINED = 100
"""Requests of one client that wait for the answer to the one before; more would take memory at no cost to it."""
_AT_ONCE = struct.pack("ii", 1, 0)


def bounded(settings: ServeSettings) -> Any:
    """What uvicorn makes connections with: its `http`."""
    return partial(Connection, settings)


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(
        self,
        settings: ServeSettings,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._settings = settings
        self._inner = HttpToolsProtocol(config, server_state, app_state, _loop)
        self._inner.parser = httptools.HttpRequestParser(self)
        self._loop = self._inner.loop
        self._others = server_state.connections
        self._line: _Line | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._in_head = self._in_message = self._has_moved = self._has_body = False
        self._head_bytes = self._silent_bytes = self._passed_over = 0

    # Of asyncio

    def connection_made(self, transport: Any) -> None:  # uvloop's is not asyncio's
        self._line = _Line(transport, self, self._settings.write_timeout_s)
        self._arm()
        if len(self._others) >= self._settings.max_connections:
            reason = f"the server has {len(self._others):,} connections, as many as it takes; try again later"
            self._refuse(503, Refused("unavailable", reason, retry_after_s=1.0))
        else:
            self._inner.connection_made(self._line)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._write_timer is not None:
            self._write_timer.cancel()
        if self._line is not None:
            self._line.lost()
            if self._inner.transport is not None:
                self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_closing():
            self._passed_over += len(data)
            if self._passed_over > LINGER_TIMES * self._settings.max_body_bytes and self._line is not None:
                self._line.abort()
            return
        self._has_moved = False
        self._inner.data_received(data if self._in_message and not self._in_head else _without_offers(data))
        if self._is_closing():
            return
        self._silent_bytes = 0 if self._has_moved else self._silent_bytes + len(data)
        if self._silent_bytes > self._settings.max_head_bytes:
            self._refuse_head()
        elif self._is_idle():
            self._arm()

    def pause_writing(self) -> None:
        self._inner.pause_writing()
        if self._write_timer is None and self._line is not None:
            self._write_timer = self._loop.call_later(self._settings.write_timeout_s, self._line.abort)

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        self._inner.resume_writing()

    # Of the parser

    def on_message_begin(self) -> None:
        self._has_moved = self._in_head = self._in_message = True
        self._has_body = False
        self._head_bytes = 0
        if not self._is_closing():
            self._arm()
            self._inner.on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        if not self._is_closing():
            self._inner.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        kind = name.lower()
        self._has_body |= kind == b"transfer-encoding" or (kind == b"content-length" and value.strip(b" 0") != b"")
        if self._in_head and not self._is_closing():  # those after a body say nothing that is asked for
            self._inner.on_header(name, value)

    def on_headers_complete(self) -> None:
        self._has_moved, self._in_head = True, False
        self._disarm()
        if self._head_bytes > self._settings.max_head_bytes:
            self._refuse_head()
        elif self._has_body and self._inner.parser.should_upgrade():
            # The offer came in pieces, where `_without_offers` misses it: the body would be read as the next request
            reason = "the request has a body and offers another protocol; leave the header Upgrade out"
            self._refuse(400, Refused("malformed", reason))
        elif self._line is not None and len(self._inner.pipeline) >= MOST_PIPELINED:
            self._line.abort()
        if not self._is_closing():
            self._inner.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._has_moved = True
        if not self._is_closing():
            self._inner.on_body(body)

    def on_message_complete(self) -> None:
        self._has_moved, self._in_message = True, False
        if not self._is_closing():
            self._inner.on_message_complete()

    # Deadlines and ends

    def is_midway(self) -> bool:
        """Whether a client is still to send the rest of its request."""
        return self._in_message

    def _is_idle(self) -> bool:
        return self._inner.cycle is None or self._inner.cycle.response_complete

    def _is_closing(self) -> bool:
        return self._line is None or self._line.is_closing()

    def _arm(self) -> None:
        if self._head_timer is None:
            self._head_timer = self._loop.call_later(self._settings.head_timeout_s, self._late)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _late(self) -> None:
        self._head_timer = None
        if self._in_head or self._is_idle():
            reason = f"the request's headers did not arrive within {self._settings.head_timeout_s:g} s; try again"
            self._refuse(408, Refused("slow", reason))

    def _refuse_head(self) -> None:
        reason = f"the request's line and headers have more than {self._settings.max_head_bytes:,} bytes; send less"
        self._refuse(431, Refused("too_large", reason))

    def _refuse(self, status: int, refused: Refused) -> None:
        if self._line is None or self._line.is_closing():
            return
        if not self._is_idle():  # an answer is on its way, and this one would be read in its place
            self._line.abort()
            return
        response = error_response(ERRORS, refused, {"connection": "close"})
        headers = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
        self._line.write(b"HTTP/1.1 %d Refused\r\n%b\r\n%b" % (status, headers, bytes(response.body)))
        self._line.close()


def _without_offers(data: bytes) -> bytes:
    """A request's head in which the header that offers another protocol has a name that says nothing.

    httptools takes what follows such an offer for the other protocol's, and a body is lost: Java's client makes one
    with every request.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        end = len(data)
    return _OFFER.sub(b"\r\nx-offer:", data[:end]) + data[end:] if _OFFER.search(data, 0, end) else data


_OFFER = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class _Line(asyncio.Transport):
    """A transport whose `close` waits for the last answer to be taken, but not forever."""

    def __init__(self, transport: Any, connection: Connection, write_timeout_s: float) -> None:
        super().__init__()
        self._transport = transport
        self._connection = connection
        self._write_timeout_s = write_timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closed:
            self._transport.write(data)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._connection.is_midway() and self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()  # and what comes is passed over
            self._end_in(LINGER_S)
        else:
            self._transport.close()
            self._end_in(self._write_timeout_s)

    def _end_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self.abort)

    def abort(self) -> None:
        self._is_closed = True
        socket = self._transport.get_extra_info("socket")
        if socket is not None:  # otherwise the system would go on offering what it holds for minutes
            socket.setsockopt(SOL_SOCKET, SO_LINGER, _AT_ONCE)
        self._transport.abort()

    def lost(self) -> None:
        """The connection is no more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def is_closing(self) -> bool:
        return self._is_closed or self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        if not self._is_closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._is_closed:
            self._transport.resume_reading()
