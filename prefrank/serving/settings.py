"""How a server runs: one frozen value. Where its parts come from, and which of them wins, is in `configure.py`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, Literal, TypeVar

from prefrank.checks import check_number, check_whole
from prefrank.errors import BadInput, printable, short

Value = TypeVar("Value")

LISTENING, ASKING, LIMITS, QUEUE, LIFE = "Where it listens", "Who may ask", "Limits of a request", "Queue", "Life"
"""Headings that the options of `prefrank serve` stand under."""


def _set(default: Value, heading: str, says: str, *, flag: str = "") -> Value:
    """A field with its default and what it means, said once for code, help and documentation.

    Args:
        flag: its option, where that is not its name; one that lists may be repeated and has the singular.
    """
    given: Any = field(default=default, metadata={"heading": heading, "says": says, "flag": flag})
    return given


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """What a server serves, to whom, and within which bounds; each field says what it is.

    Args:
        models: name -> folder or hub id; the first is the one that requests without a name mean.
        loading: arguments of `RewardModel.load`, for all models.
        keys: that requests must have one of, as bearer tokens, each alone or after a name; () asks for none. No file of
            settings holds them.
    """

    models: Mapping[str, str]
    loading: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = field(default=(), repr=False)

    host: str = _set("127.0.0.1", LISTENING, "Address to listen on; 0.0.0.0 is every one of this machine.")
    port: int = _set(8000, LISTENING, "Port; 0 takes a free one.")
    tls_certificate: str | None = _set(None, LISTENING, "PEM file of the certificate chain, to speak HTTPS.")
    tls_key: str | None = _set(None, LISTENING, "PEM file of its key, if that is not in the same file.")
    root_path: str = _set("", LISTENING, "Path under which a proxy has this server, such as /reward.")
    trusted_proxies: tuple[str, ...] = _set(
        (),
        LISTENING,
        "Address or network of a proxy whose X-Forwarded headers are believed; repeatable.",
        flag="--trusted-proxy",
    )
    max_connections: int = _set(4_096, LISTENING, "Connections that are open at once.")
    backlog: int = _set(2_048, LISTENING, "Connections that wait to be accepted.")
    keep_alive_s: float = _set(75.0, LISTENING, "Seconds for which an idle connection is kept; more than a proxy's.")

    api_key_file: str | None = _set(
        None, ASKING, "File of keys, one a line, not readable by others; every request needs one."
    )
    rows_per_s: float | None = _set(None, ASKING, "Rows a second that one key may ask for on average.")
    cors_origins: tuple[str, ...] = _set(
        (), ASKING, "Origin whose pages may ask, such as https://example.com; repeatable.", flag="--cors-origin"
    )

    max_head_bytes: int = _set(65_536, LIMITS, "Bytes of a request's line and headers.")
    max_body_bytes: int = _set(16_000_000, LIMITS, "Bytes of a body, unpacked.")
    max_bodies_bytes: int = _set(256_000_000, LIMITS, "Bytes of all requests that are being answered.")
    max_rows: int = _set(4_096, LIMITS, "Rows of one request.")
    max_text_characters: int = _set(1_000_000, LIMITS, "Characters of a row's texts.")
    head_timeout_s: float = _set(10.0, LIMITS, "Seconds for the headers to arrive.")
    body_timeout_s: float = _set(20.0, LIMITS, "Seconds for the body to arrive.")
    write_timeout_s: float = _set(20.0, LIMITS, "Seconds for a client to take something of an answer that waits.")
    timeout_s: float = _set(60.0, LIMITS, "Seconds for its answer.")
    truncates: bool = _set(True, LIMITS, "Whether rows of too many tokens are cut where a request says nothing.")

    max_waiting_rows: int = _set(20_000, QUEUE, "Rows that wait for one model; more are refused.")
    max_wait_s: float = _set(30.0, QUEUE, "Seconds that the queue may be expected to take; past it rows are refused.")
    window: int = _set(512, QUEUE, "Oldest rows that a batch is chosen from.")
    gather_s: float = _set(0.002, QUEUE, "Seconds that a free core waits for rows that go with the oldest.")
    kept_scores: int = _set(0, QUEUE, "Distinct rows whose scores are remembered.")

    drain_s: float = _set(30.0, LIFE, "Seconds for accepted requests when the server is told to end, or reloads.")
    stall_s: float = _set(120.0, LIFE, "Seconds after which a batch that has not ended makes /live fail.")
    log_format: Literal["text", "json", "none"] = _set(
        "text", LIFE, "Of the lines on standard error, one a request: text, json or none."
    )
    log_texts: bool = _set(False, LIFE, "Whether texts stand in them.")

    def __post_init__(self) -> None:
        if not self.models:
            raise BadInput("no model is named; give --model FOLDER")
        check_whole("port", self.port, least=0, most=65_535)
        for name in _COUNTS:
            check_whole(name, getattr(self, name), least=1)
        check_whole("kept_scores", self.kept_scores, least=0)
        for name in _SECONDS:
            check_number(name, getattr(self, name), above=0.0)
        check_number("gather_s", self.gather_s, least=0.0)
        if self.rows_per_s is not None:
            check_number("rows_per_s", self.rows_per_s, above=0.0)
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise BadInput(f"root_path is {self.root_path!r}; wanted a path such as /reward, without a closing slash")
        for name in self.models:
            if not name.strip() or printable(name) != name:
                raise BadInput(f"a model is called {short(name)}; wanted a name that can be seen, such as helpful")
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise BadInput(
                    f"a CORS origin is {short(origin)}; wanted one as browsers send it, such as https://example.com"
                    " or http://localhost:3000, without a path or slash, or *"
                )
        for proxy in self.trusted_proxies:
            if not _is_network(proxy):
                raise BadInput(
                    f"a trusted proxy is {short(proxy)}; wanted an address or a network, such as 10.0.0.5 or"
                    " 10.0.0.0/8, or *"
                )


_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s?#@A-Z]+")


def _is_network(text: str) -> bool:
    try:
        return text == "*" or bool(ip_network(text))
    except ValueError:
        return False


_COUNTS = (
    *("max_head_bytes", "max_body_bytes", "max_bodies_bytes", "max_connections", "max_rows", "max_text_characters"),
    *("max_waiting_rows", "window", "backlog"),
)
_SECONDS = (
    *("head_timeout_s", "body_timeout_s", "write_timeout_s", "keep_alive_s", "timeout_s"),
    *("max_wait_s", "drain_s", "stall_s"),
)
