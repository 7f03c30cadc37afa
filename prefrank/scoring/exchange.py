"""One request to a server and its answer, within a time and a size, whatever the server does.

httpx bounds the wait for the next bytes, not for the whole: a server that sends a byte a second, in its headers even,
would never be done. So each exchange runs in a daemon thread that is waited for until its time is up.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

from prefrank.errors import BadInput, BadModel, short
from prefrank.limits import limit, past

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The value that it holds. NaN and Infinity are read: many servers write them for a failure.

        Raises:
            ValueError: no JSON, a key twice in one object, nested too deeply, or a number with too many digits.
        """
        try:
            return _DECODER.decode(self.content.decode("utf-8-sig"))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {short(next(name for name in found if names.count(name) > 1))} stands twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def exchange(client: "httpx.Client", method: str, url: str, *, content: bytes | None = None, seconds: float) -> Answer:
    """The answer to one request.

    Raises:
        httpx.TimeoutException: it is not whole in these seconds.
        httpx.RequestError: it could not be asked, or broke off.
        BadModel: an answer of more bytes than the limit.
        BadInput: an address that cannot be asked.
    """
    import httpx

    come: Queue[Answer | Exception] = Queue()

    def work() -> None:
        try:
            come.put(_exchanged(client, method, url, content, seconds))
        except Exception as error:  # raised where it is waited for
            come.put(error)

    Thread(target=work, daemon=True).start()
    try:
        found = come.get(timeout=seconds)
    except Empty:
        raise httpx.ReadTimeout(f"no whole answer in {seconds:g} s") from None
    if isinstance(found, httpx.InvalidURL | UnicodeError):
        raise BadInput(f"{_address(url)} is no address of a server ({found}); wanted http://host:port/path")
    if isinstance(found, Exception):
        raise found
    return found


def _exchanged(client: "httpx.Client", method: str, url: str, content: bytes | None, seconds: float) -> Answer:
    most, parts = limit("answer_bytes"), bytearray()
    with client.stream(method, url, content=content, timeout=seconds) as response:
        for part in response.iter_bytes():
            parts += part
            if len(parts) > most:
                raise BadModel(f"{_address(url)} answered with {past('answer_bytes')}; is it a reward model's server?")
        return Answer(response.status_code, response.headers, bytes(parts))


def _address(url: str) -> str:
    """Without the query, in which some servers want a key."""
    return url.partition("?")[0]
