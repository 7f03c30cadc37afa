"""How a client asks: which model, how much at once, how long and how often."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from prefrank.checks import check_number, check_whole
from prefrank.errors import BadInput, short

KEY_VARIABLE = "PREFRANK_SERVER_KEY"
"""The environment variable with the key, where none is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How to ask a server.

    Args:
        model: name of the model to ask for; by default the server's own default.
        key: sent as a bearer token; by default what PREFRANK_SERVER_KEY holds where the client is opened. A pickled
            copy holds a key that is given here, and not the variable's.
        fingerprint: of the model that is wanted. An answer of another one is an error: a reward that changed under a
            run. `Client.models` tells it.
        batch: rows in a request.
        concurrency: requests at once.
        timeout_s: for one whole answer.
        deadline_s: for one call, with all its requests, tries and waits.
        tries: rounds over the servers, for one request.
        wait_s: before the second round; the bound doubles each time, and the wait is drawn from below it at random.
        longest_wait_s: between two rounds, whatever a Retry-After header asks for.
    """

    model: str | None = None
    key: str | None = field(default=None, repr=False)
    fingerprint: str | None = None
    batch: int = 64
    concurrency: int = 8
    timeout_s: float = 60.0
    deadline_s: float = 300.0
    tries: int = 8
    wait_s: float = 0.5
    longest_wait_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value, most in (
            ("batch", self.batch, 1 << 20),
            ("concurrency", self.concurrency, 1024),
            ("tries", self.tries, 1000),
        ):
            check_whole(name, value, least=1, most=most)
        for name, seconds in (("timeout_s", self.timeout_s), ("deadline_s", self.deadline_s)):
            check_number(name, seconds, above=0.0)
        for name, seconds in (("wait_s", self.wait_s), ("longest_wait_s", self.longest_wait_s)):
            check_number(name, seconds, least=0.0)
        for name, text in (("model", self.model), ("fingerprint", self.fingerprint)):
            if text is not None and not (isinstance(text, str) and text):
                raise BadInput(f"{name} is {short(text)}; wanted a text that is not empty, or None")
        if self.key is not None:
            check_key(self.key)

    def key_to_send(self) -> str | None:
        """The key of the options, or of the environment.

        Raises:
            BadInput: the environment's cannot be sent.
        """
        key = self.key if self.key is not None else os.environ.get(KEY_VARIABLE)
        if key:
            check_key(key)
        return key or None


def check_key(key: object) -> None:
    """Raise BadInput for a key that no header can hold; it is not shown."""
    if not (isinstance(key, str) and key and key.isascii() and key.isprintable() and key == key.strip()):
        raise BadInput("the key holds characters that no header can, or nothing; copy it again, without line ends")


def base_urls(urls: str | Sequence[str]) -> tuple[str, ...]:
    """The addresses of servers, without a slash at the end.

    Raises:
        BadInput: none, or one that is not http://host:port with at most a path.
    """
    given = (urls,) if isinstance(urls, str) else tuple(urls)
    if not given:
        raise BadInput("there is no address of a server; wanted one such as http://127.0.0.1:8000, or several replicas")
    return tuple(_base_url(url) for url in given)


def _base_url(url: object) -> str:
    wanted = "wanted the server's own address, such as http://127.0.0.1:8000"
    try:
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port or the brackets
        sound = False
    if not isinstance(url, str) or not sound:
        raise BadInput(f"{short(url)} is not the address of a server; {wanted}")
    if parts.query or parts.fragment or parts.username is not None:
        raise BadInput(
            f"the address of the server at {parts.hostname} has a query or a user; {wanted}, and a key as key"
        )
    if "/api/" in f"{parts.path}/":
        raise BadInput(f"{short(url)} is a path of the server; {wanted}, without {parts.path}")
    return url.rstrip("/")
