"""One request to a server and its answer, within a time and a size, tried again where the server is overloaded.

httpx bounds the wait for the next bytes, not for the whole answer: a server that sends a byte a second, even in its
headers, would never finish. So each exchange runs in a daemon thread that is given up when its time is over.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING

from prefrank.errors import BadInput, BadModel, NotFound, printable
from prefrank.limits import limit, past

if TYPE_CHECKING:
    import httpx

RETRIED = (429, 500, 502, 503, 504)
"""Overload, and what proxies and routers answer for a worker that is gone (verl's router: 500)."""

LONGEST_WAIT_S = 60.0
"""Between two tries, whatever a Retry-After header asks for."""

SHOWN = 200
"""Characters of an answer in an error message."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


def open_client(*, key: str | None, timeout_s: float, connections: int) -> "httpx.Client":
    """A client that sends JSON.

    Args:
        key: sent as a bearer token.
        connections: at once.

    Raises:
        NotFound: httpx is not installed.
        BadInput: a proxy in the environment that cannot be used.
    """
    try:
        import httpx
    except ImportError as error:
        raise NotFound("a server as a scorer needs httpx; pip install 'prefrank[evaluate]'") from error
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    limits = httpx.Limits(max_connections=connections)
    try:
        return httpx.Client(headers=headers, timeout=timeout_s, limits=limits)
    except (ValueError, ImportError, httpx.InvalidURL) as error:  # of the environment's proxies
        raise BadInput(f"the environment's proxy cannot be used ({error}); correct HTTP_PROXY and its like") from None


def post(client: "httpx.Client", url: str, content: bytes, *, timeout_s: float, tries: int, wait_s: float) -> Answer:
    """The answer, whatever its status, once the server is neither overloaded nor out of reach.

    Args:
        timeout_s: for one whole answer.
        wait_s: before the second try; doubles each time, unless a Retry-After header says how long.

    Raises:
        NotFound: after so many tries.
        BadModel, BadInput: as `exchange`.
    """
    import httpx

    what = ""
    for number in range(tries):
        wait = wait_s * 2**number
        try:
            answer = exchange(client, "POST", url, content=content, timeout_s=timeout_s)
            if answer.status not in RETRIED:
                return answer
            asked = retry_after(answer)
            wait = asked or wait
            what = f"answered with status {answer.status}: {shown(answer.text)}{_too_long(asked)}"
        except httpx.TimeoutException:
            what = f"gave no answer in {timeout_s:g} s"
        except httpx.RequestError as error:
            what = f"could not be reached or broke off ({type(error).__name__}: {shown(str(error))})"
        if number + 1 < tries:
            time.sleep(min(wait, LONGEST_WAIT_S))
    raise NotFound(f"{address(url)} {what}; tried {tries} times. Is it up, and not asked for too much at once?")


def retry_after(answer: Answer) -> float | None:
    """The seconds in a Retry-After header, if it holds a decimal number. Dates and anything else are ignored, such as
    1e400, which a float reads as infinity."""
    text = answer.headers.get("retry-after", "").strip()
    return float(text) if re.fullmatch(r"\d{1,100}(\.\d{1,100})?", text, re.ASCII) else None


def _too_long(asked: float | None) -> str:
    if asked is None or asked <= LONGEST_WAIT_S:
        return ""
    return f" (it asks for a wait of {asked:g} s; prefrank waits {LONGEST_WAIT_S:g} s at most)"


def exchange(
    client: "httpx.Client", method: str, url: str, *, content: bytes | None = None, timeout_s: float
) -> Answer:
    """The answer to one request.

    Raises:
        httpx.TimeoutException: it is not whole in this time.
        httpx.RequestError: it could not be asked, or broke off.
        BadModel: an answer of more bytes than the limit.
        BadInput: an address that cannot be asked.
    """
    import httpx

    outcomes: Queue[Answer | Exception] = Queue()

    def work() -> None:
        try:
            outcomes.put(_exchange(client, method, url, content, timeout_s))
        except Exception as error:  # raised where it is waited for
            outcomes.put(error)

    Thread(target=work, daemon=True).start()
    try:
        outcome = outcomes.get(timeout=timeout_s)
    except Empty:
        raise httpx.ReadTimeout(f"no whole answer in {timeout_s:g} s") from None
    if isinstance(outcome, httpx.InvalidURL | UnicodeError):
        raise BadInput(f"{address(url)} is not an address of a server ({outcome}); wanted http://host:port/path")
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _exchange(client: "httpx.Client", method: str, url: str, content: bytes | None, timeout_s: float) -> Answer:
    most, parts = limit("answer_bytes"), bytearray()
    with client.stream(method, url, content=content, timeout=timeout_s) as response:
        for part in response.iter_bytes():
            parts += part
            if len(parts) > most:
                raise BadModel(f"{address(url)} answered with {past('answer_bytes')}; is it a reward model's server?")
        return Answer(response.status_code, response.headers, bytes(parts))


def address(url: str) -> str:
    """The URL for messages and records: without the query, in which some servers want a key."""
    return url.partition("?")[0]


def shown(text: str) -> str:
    """An answer for an error message, on one line and cut; control characters as their escapes."""
    line = printable(" ".join(text[: 10 * SHOWN].split())) or "nothing"
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."
