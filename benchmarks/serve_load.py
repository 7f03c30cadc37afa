"""A load generator of one process: HTTP/1.1 over connections that stay open, in closed and in open loops.

In an open loop requests are due at given times whether or not earlier ones were answered, each takes an idle
connection or opens one, and its latency counts from when it was due: a server that falls behind cannot slow its load
down and hide the wait (coordinated omission). A closed loop keeps a number of requests under way; it finds a server's
capacity, and its latencies are no measure of anything else. Replies are kept as bytes and read after the phase.
"""

import asyncio
import gc
import resource
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import uvloop

CONNECTIONS = 32
"""Opened before an open loop starts; more are opened as they are needed."""
MOST_CONNECTIONS = 4_000
DRAIN_S = 60.0
"""Seconds in which what a closed loop has under way may still be answered."""


@dataclass(slots=True)
class Sample:
    """One request: its number among those prepared, when it was due, sent and answered (seconds of the loop's clock).

    `status` is 0 where there was no reply: the connection was refused or lost, or the phase ended before. `again` says
    that it was sent a second time, because a connection that had been idle was closed before anything came back.
    """

    number: int
    due: float
    sent: float = 0.0
    done: float = 0.0
    status: int = 0
    body: bytes = b""
    again: bool = False

    @property
    def latency(self) -> float:
        return self.done - self.due


@dataclass(slots=True)
class Phase:
    """All samples of a phase, and when it began and stopped sending (seconds of the loop's clock)."""

    begun: float
    ended: float
    samples: list[Sample] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.ended - self.begun


class _Connection(asyncio.Protocol):
    """One request at a time; `finished` is called with each sample once it is answered or lost."""

    def __init__(self, finished: "Callable[[_Connection, Sample], None]") -> None:
        self.finished = finished
        self.transport: asyncio.Transport | None = None
        self.sample: Sample | None = None
        self.received = bytearray()
        self.body_at = -1
        self.wanted = -1
        self.closes = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods alone

    def send(self, sample: Sample, request: bytes) -> None:
        assert self.transport is not None
        self.sample, self.body_at, self.wanted = sample, -1, -1
        self.received.clear()
        sample.sent = time.perf_counter()
        self.transport.write(request)

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing() and not self.closes

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.sample is None:
            return
        if self.body_at < 0:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._read_head(bytes(self.received[:end]).lower(), end + 4)
        if self.wanted >= 0:
            if len(self.received) - self.body_at >= self.wanted:
                self._finish(bytes(self.received[self.body_at : self.body_at + self.wanted]))
        elif self.received.endswith(b"0\r\n\r\n"):
            self._finish(_joined(bytes(self.received[self.body_at :])))

    def _read_head(self, head: bytes, body_at: int) -> None:
        """Length -1 stands for a body in chunks."""
        assert self.sample is not None
        self.body_at = body_at
        self.sample.status = int(head[9:12])
        self.closes = b"\r\nconnection: close" in head
        place = head.find(b"\r\ncontent-length:")
        self.wanted = -1 if place < 0 else int(head[place + 17 :].split(b"\r\n", 1)[0])

    def _finish(self, body: bytes) -> None:
        sample, self.sample = self.sample, None
        assert sample is not None
        sample.done, sample.body = time.perf_counter(), body
        self.finished(self, sample)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self.sample is not None:
            self.sample.status = 0
            self.sample.again = not self.received and not self.sample.again
            self._finish(b"")


def _joined(chunks: bytes) -> bytes:
    """The body that chunks hold."""
    parts, place = [], 0
    while True:
        end = chunks.index(b"\r\n", place)
        size = int(chunks[place:end].split(b";")[0], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(chunks[end + 2 : end + 2 + size])
        place = end + 2 + size + 2


def request_bytes(path: str, body: bytes) -> bytes:
    """A POST of JSON, as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def many_files() -> None:
    """Let this process hold as many connections as the system allows it."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Load:
    """The connections of one phase, and what of it is under way."""

    def __init__(self, port: int, requests: Sequence[bytes], after: Callable[[Sample], None]) -> None:
        self.port, self.requests, self.after = port, requests, after
        self.idle: list[_Connection] = []
        self.open: set[_Connection] = set()
        self.opening: set[asyncio.Task[None] | None] = set()
        self.waiting: list[Sample] = []
        self.under_way = 0
        self.drained = False
        self.quiet = asyncio.Event()
        self.samples: list[Sample] = []

    async def connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(lambda: _Connection(self._finished), "127.0.0.1", self.port)
        self.open.add(made)
        return made

    async def warm(self, count: int) -> None:
        self.idle += await asyncio.gather(*(self.connect() for _ in range(count)))

    def fire(self, sample: Sample) -> None:
        """Send it on an idle connection, or on a new one."""
        self.under_way += 1
        self.quiet.clear()
        self._send(sample)

    def _send(self, sample: Sample) -> None:
        while self.idle:
            connection = self.idle.pop()
            if connection.usable:
                connection.send(sample, self.requests[sample.number])
                return
            self._drop(connection)
        if len(self.open) + len(self.opening) >= MOST_CONNECTIONS:
            self.waiting.append(sample)
            return
        task = asyncio.get_running_loop().create_task(self._send_on_new(sample))
        self.opening.add(task)

    async def _send_on_new(self, sample: Sample) -> None:
        try:
            connection = await self.connect()
        except OSError:
            sample.done = time.perf_counter()
            self._count(sample)
            return
        finally:
            self.opening.discard(asyncio.current_task())  # before an answer looks for room for another
        connection.send(sample, self.requests[sample.number])

    def _finished(self, connection: _Connection, sample: Sample) -> None:
        if connection.usable:
            self.idle.append(connection)
        else:
            self._drop(connection)
        if sample.again and not sample.status and not self.drained:
            self._send(sample)
            return
        self._count(sample)
        if self.waiting:
            self._send(self.waiting.pop(0))

    def _drop(self, connection: _Connection) -> None:
        self.open.discard(connection)
        if connection.transport is not None:
            connection.transport.close()

    def _count(self, sample: Sample) -> None:
        self.samples.append(sample)
        self.under_way -= 1
        if not self.under_way:
            self.quiet.set()
        self.after(sample)

    async def drain(self, seconds: float) -> None:
        """Wait until all are answered; those that are not by then get status 0. All connections are closed."""
        self.after = lambda sample: None
        if self.under_way:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.quiet.wait(), seconds)
        self.drained = True
        self.waiting.clear()
        for task in list(self.opening):
            if task is not None:
                task.cancel()
        for connection in list(self.open):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0.01)  # lost connections report what they had under way


async def _open_loop(port: int, requests: Sequence[bytes], dues: np.ndarray, warm: int, patience: float) -> Phase:
    load = _Load(port, requests, lambda sample: None)
    await load.warm(warm)
    loop = asyncio.get_running_loop()
    begun = time.perf_counter() + 0.02
    base = loop.time() - time.perf_counter()
    due = [begun + float(each) for each in dues]
    samples = [Sample(number % len(requests), when) for number, when in enumerate(due)]
    for sample in samples:
        loop.call_at(base + sample.due, load.fire, sample)
    ended = due[-1] if due else begun
    await asyncio.sleep(max(0.0, ended - time.perf_counter()) + 0.002)
    await load.drain(patience)
    for sample in samples:
        sample.done = sample.done or time.perf_counter()
    return Phase(begun, ended, samples)


async def _closed_loop(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Phase:
    number = iter(range(10**9))
    stopped = False

    def again(sample: Sample) -> None:
        if not stopped:
            load.fire(Sample(next(number) % len(requests), time.perf_counter()))

    load = _Load(port, requests, again)
    await load.warm(connections)
    begun = time.perf_counter()
    for _ in range(connections):
        load.fire(Sample(next(number) % len(requests), time.perf_counter()))
    await asyncio.sleep(seconds)
    stopped, ended = True, time.perf_counter()
    await load.drain(DRAIN_S)
    return Phase(begun, ended, load.samples)


def open_loop(
    port: int, requests: Sequence[bytes], dues: np.ndarray, *, warm: int = CONNECTIONS, patience: float = 20.0
) -> Phase:
    """Send requests when they are due.

    Args:
        requests: as they go over the wire, taken in turn.
        dues: seconds after the start, ascending.
        warm: connections that are open before it starts.
        patience: seconds after the last was due, in which they may still be answered.
    """
    return _run(_open_loop(port, requests, dues, warm, patience))


def closed_loop(port: int, requests: Sequence[bytes], *, connections: int, seconds: float) -> Phase:
    """Keep as many requests under way as there are connections; those sent in time are waited for."""
    return _run(_closed_loop(port, requests, connections, seconds))


def _run(phase: Coroutine[Any, Any, Phase]) -> Phase:
    """On uvloop, and without garbage collection: a pause of the generator would be the server's latency."""
    gc.collect()
    gc.disable()
    try:
        return uvloop.run(phase)
    finally:
        gc.enable()


def poisson(rate: float, seconds: float, seed: int) -> np.ndarray:
    """Times at which requests are due: at random, independent of each other, `rate` a second."""
    generator = np.random.default_rng(seed)
    count = int(rate * seconds + 6 * (rate * seconds) ** 0.5 + 10)
    times = np.cumsum(generator.exponential(1 / rate, count))
    return times[times < seconds]


def evenly(rate: float, seconds: float) -> np.ndarray:
    """Times at which requests are due: `rate` a second, at equal distances."""
    return np.arange(max(1, int(rate * seconds))) / rate


def ideal_latencies(dues: np.ndarray, service: float) -> np.ndarray:
    """What a server that takes `service` seconds for each request, in order and without any overhead, would show at
    these arrivals (Lindley's recursion): no server of that capacity can have a shorter tail for equal requests."""
    latencies, free = np.empty(len(dues)), 0.0
    for number, due in enumerate(dues):
        free = max(free, due) + service
        latencies[number] = free - due
    return latencies
