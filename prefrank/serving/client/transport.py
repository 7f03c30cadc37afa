"""Requests to one server or to replicas of it, over connections that are kept, tried again until one is answered.

Each place for a request has connections of its own: httpx looks through all connections of a pool for each request, and
many at once take several times as long with one pool for all.
"""

import asyncio
import json
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from prefrank.errors import BadInput, BadModel, NotFound
from prefrank.limits import limit, past
from prefrank.scoring.exchange import RETRIED, Answer, address, shown
from prefrank.serving.client.answer_reading import message_of_error
from prefrank.serving.client.client_options import ClientOptions, base_urls
from prefrank.serving.client.tries import Replicas, Tries, asked_wait

if TYPE_CHECKING:
    import httpx

CONNECT_S = 5.0
"""For a connection to be there: a server that is gone must not take the time of a whole answer."""
KEPT_S = 4.0
"""For an idle connection to be kept: less than servers keep theirs, or a request meets one that is just closed."""
PROBE = -1
"""The place beside those of requests, to see whether a server is ready."""
READY_TIMEOUT_S = 5.0


class Transport:
    """Connections of one event loop.

    Args:
        urls: the server's address, or those of several replicas of one model.
        options: how to ask.

    Raises:
        BadInput: an address or a key that cannot be used.
        NotFound: httpx is not installed.
    """

    def __init__(self, urls: str | Sequence[str], options: ClientOptions) -> None:
        self.urls = base_urls(urls)
        self._options = options
        self._replicas = Replicas(self.urls)
        self._key = options.key_to_send()
        self._tls = tls_of(self.urls)
        self._free: asyncio.LifoQueue[int] = asyncio.LifoQueue()  # those that were used last first: their connections
        for place in reversed(range(options.concurrency)):
            self._free.put_nowait(place)
        self._opened: dict[int, httpx.AsyncClient] = {0: open_connections(self._key, self._tls)}
        self._is_closed = False

    @property
    def where(self) -> str:
        """The servers, for messages."""
        return ", ".join(self.urls)

    async def close(self) -> None:
        """Close the connections."""
        self._is_closed = True
        while self._opened:
            await self._opened.popitem()[1].aclose()

    async def ask(self, method: str, path: str, body: dict[str, Any] | None, ends: float) -> Answer:
        """The answer to one request, once a server is neither overloaded nor out of reach.

        Args:
            body: sent as JSON, with the name of the model that the options ask for.
            ends: of `time.monotonic`, when the call's time is over.

        Raises:
            BadInput: the client is closed.
            NotFound: no answer in all tries, or in the time.
            BadModel: an answer of more bytes than the limit.
        """
        model = {} if self._options.model is None else {"model": self._options.model}
        content = None if body is None else json.dumps(model | body).encode()
        name = uuid.uuid4().hex  # one for all tries, so that the servers' logs show that they are one request
        async with self._place(ends) as place:
            tries = Tries(self._replicas, self._options, ends=ends)
            return await self._answered(method, path, content, name=name, place=place, tries=tries)

    async def ready(self, url: str) -> bool:
        """Whether a server says that it is ready."""
        import httpx

        timeout_s = min(self._options.timeout_s, READY_TIMEOUT_S)
        try:
            answer = await self._exchange("GET", f"{url}/ready", None, name="ready", place=PROBE, timeout_s=timeout_s)
            return answer.is_success
        except (TimeoutError, httpx.RequestError):
            return False

    def sound(self, answer: Answer) -> Answer:
        """The answer, where it is not an error.

        Raises:
            BadInput: the server refuses what was asked, or the key.
            NotFound: it has no such model, or no such path.
            BadModel: any other status.
        """
        if answer.is_success:
            return answer
        message = f"{self.where} answered with status {answer.status}: {message_of_error(answer)}"
        if answer.status in (401, 403):
            raise BadInput(f"{message} (the key: given as key, or in PREFRANK_SERVER_KEY)")
        if answer.status in (404, 405):
            raise NotFound(f"{message} (is it the address of `prefrank serve`, and the model one of its own?)")
        if 400 <= answer.status < 500:
            raise BadInput(message)
        raise BadModel(message)

    @asynccontextmanager
    async def _place(self, ends: float) -> AsyncIterator[int]:
        """One of the places for requests at once, as soon as one is free; it is kept over the waits between tries."""
        try:
            async with asyncio.timeout(max(ends - time.monotonic(), 0.0)):
                place = await self._free.get()
        except TimeoutError:
            raise NotFound(
                f"{self.where} did not answer all requests in {self._options.deadline_s:g} s (deadline_s); ask for less"
                " at once, or give it more time"
            ) from None
        try:
            yield place
        finally:
            self._free.put_nowait(place)

    async def _answered(
        self, method: str, path: str, content: bytes | None, *, name: str, place: int, tries: Tries
    ) -> Answer:
        import httpx

        while True:
            turn = tries.next()
            await asyncio.sleep(turn.wait_s)
            try:
                answer = await self._exchange(
                    method, turn.url + path, content, name=name, place=place, timeout_s=turn.timeout_s
                )
            except (TimeoutError, httpx.TimeoutException):
                tries.failed(f"gave no answer in {turn.timeout_s:.3g} s")
            except httpx.RequestError as error:
                tries.failed(f"could not be reached or broke off ({type(error).__name__}: {shown(str(error))})")
            else:
                if answer.status not in RETRIED:
                    tries.answered()
                    return answer
                tries.failed(f"answered with status {answer.status}: {message_of_error(answer)}", asked_wait(answer))

    async def _exchange(
        self, method: str, url: str, content: bytes | None, *, name: str, place: int, timeout_s: float
    ) -> Answer:
        """The whole answer, in this time; httpx bounds only the wait for its next bytes."""
        most, parts = limit("answer_bytes"), bytearray()
        headers = {"x-request-id": name}
        async with asyncio.timeout(timeout_s):
            async with self._connections(place).stream(method, url, content=content, headers=headers) as response:
                async for part in response.aiter_bytes():
                    parts += part
                    if len(parts) > most:
                        raise BadModel(f"{address(url)} answered with {past('answer_bytes')}; is it a prefrank server?")
                return Answer(response.status_code, response.headers, bytes(parts))

    def _connections(self, place: int) -> "httpx.AsyncClient":
        if self._is_closed:
            raise BadInput("the client is closed; make a new one")
        if place not in self._opened:
            self._opened[place] = open_connections(self._key, self._tls)
        return self._opened[place]


def tls_of(urls: Sequence[str]) -> ssl.SSLContext:
    """Whose certificates are trusted: those of certifi, or of SSL_CERT_FILE; none at all where no address is https.

    Raises:
        NotFound: httpx is not installed.
    """
    try:
        import httpx
    except ImportError as error:
        raise NotFound("a client of a server needs httpx; pip install 'prefrank[evaluate]'") from error
    if any(url.startswith("https:") for url in urls):
        return httpx.create_ssl_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def open_connections(key: str | None, tls: ssl.SSLContext) -> "httpx.AsyncClient":
    """Connections for JSON that are opened when they are needed.

    Raises:
        BadInput: a proxy in the environment that cannot be used.
    """
    import httpx

    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    limits = httpx.Limits(max_connections=None, keepalive_expiry=KEPT_S)
    timeout = httpx.Timeout(None, connect=CONNECT_S)
    try:
        return httpx.AsyncClient(headers=headers, limits=limits, timeout=timeout, verify=tls)
    except (ValueError, ImportError, httpx.InvalidURL) as error:  # of the environment's proxies
        raise BadInput(f"the environment's proxy cannot be used ({error}); correct HTTP_PROXY and its like") from None
