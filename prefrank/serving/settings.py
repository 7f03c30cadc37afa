"""How a server runs: one frozen value, from flags, `PREFRANK_SERVE_...` variables and a YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefrank.checks import check_number, check_whole
from prefrank.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """What a server serves, to whom, and within which bounds.

    Args:
        models: name -> folder or hub id; the first is the one that requests without a name mean.
        loading: arguments of `RewardModel.load`, for all models.
        host, port: to listen on; port 0 takes a free one.
        keys: that requests must have one of, as bearer tokens, each alone or after a name; () asks for none.
        max_head_bytes: of a request's line and headers.
        max_body_bytes: of a request, unpacked.
        max_bodies_bytes: of all requests that are being answered.
        max_connections: open at once.
        head_timeout_s, body_timeout_s: for a request's headers and its body to arrive.
        write_timeout_s: for a client to take something of an answer that waits.
        keep_alive_s: for a connection to stay without a request.
        timeout_s: for its answer.
        max_rows: of one request.
        max_text_characters: of all texts of one row.
        max_waiting_rows, max_wait_s: of each model's queue (`scheduler.Pace`).
        window, gather_s, kept_scores: likewise.
        rows_per_s: that one key may ask for on average; None for no bound.
        drain_s: for requests that were accepted, when the server is told to end.
        stall_s: after which a batch that has not ended makes the server unhealthy.
        truncates: whether rows of too many tokens are cut where a request says nothing.
        cors_origins: pages of other origins that may ask; () for none.
        tls_certificate, tls_key: files of a server that speaks HTTPS.
        log_format: of lines on standard error.
        log_texts: whether texts stand in them.
    """

    models: Mapping[str, str]
    loading: Mapping[str, Any] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = field(default=(), repr=False)
    max_head_bytes: int = 65_536
    max_body_bytes: int = 16_000_000
    max_bodies_bytes: int = 256_000_000
    max_connections: int = 4_096
    head_timeout_s: float = 10.0
    body_timeout_s: float = 20.0
    write_timeout_s: float = 20.0
    keep_alive_s: float = 75.0
    timeout_s: float = 60.0
    max_rows: int = 4_096
    max_text_characters: int = 1_000_000
    max_waiting_rows: int = 20_000
    max_wait_s: float = 30.0
    window: int = 512
    gather_s: float = 0.002
    kept_scores: int = 0
    rows_per_s: float | None = None
    drain_s: float = 30.0
    stall_s: float = 120.0
    truncates: bool = True
    cors_origins: tuple[str, ...] = ()
    tls_certificate: str | None = None
    tls_key: str | None = None
    log_format: str = "text"
    log_texts: bool = False

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


_COUNTS = (
    "max_head_bytes",
    "max_body_bytes",
    "max_bodies_bytes",
    "max_connections",
    "max_rows",
    "max_text_characters",
    "max_waiting_rows",
    "window",
)
_SECONDS = (
    "head_timeout_s",
    "body_timeout_s",
    "write_timeout_s",
    "keep_alive_s",
    "timeout_s",
    "max_wait_s",
    "drain_s",
    "stall_s",
)
