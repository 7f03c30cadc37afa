"""Which dialect a server speaks and what it says about its model, from the URL's path and the server's own pages."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from prefrank.errors import BadInput, BadModel, NotFound, printable
from prefrank.scoring.exchange import exchange
from prefrank.wire import DIALECTS
from prefrank.wire.dialect import Dialect, Signs, parse
from prefrank.wire.own import PREFRANK

if TYPE_CHECKING:
    import httpx

INFO_TIMEOUT_S = 10.0
"""For all pages about the server, which many do not have."""

LONGEST_NAME = 500
"""Characters of a model's name; a longer one is ignored."""

Page = Callable[[str], dict[str, Any]]
"""The object on a page of the server; {} where there is none."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says about itself.

    Args:
        url: where to post.
        model, revision: of the model; None where the server does not say.
        max_batch: the most pairs in a request; None where the server does not say.
    """

    url: str
    dialect: Dialect[Any]
    model: str | None
    revision: str | None
    max_batch: int | None


def find_server(client: "httpx.Client", url: str, *, wanted: str | None, timeout_s: float) -> ServerInfo:
    """Look at the URL's path and ask the server.

    Args:
        wanted: name of the dialect, if the caller knows it.
        timeout_s: for all pages together, at most `INFO_TIMEOUT_S`.

    Raises:
        BadInput: a URL that cannot be used, or that does not show which dialect is meant.
        NotFound: nothing answers there.
    """
    parts = _checked(url)
    trunk = parts.path.rstrip("/").removesuffix(_ending(parts.path))
    until = time.monotonic() + min(INFO_TIMEOUT_S, timeout_s)

    @cache
    def answer(path: str) -> tuple[dict[str, Any], bool]:
        return _page(client, urlunsplit(parts._replace(path=trunk + path, query="")), until=until)

    def page(path: str) -> dict[str, Any]:
        return answer(path)[0]

    info, is_locked = answer("/info")
    dialect = DIALECTS[wanted] if wanted else _dialect_of(parts, page, is_locked=is_locked)
    listed = (model_of(page(path))[0] for path in ("/v1/models", "/models"))
    model, revision = model_of(info)
    max_batch = info.get("max_client_batch_size")
    return ServerInfo(
        url=urlunsplit(parts._replace(path=dialect.paths[0]) if _is_bare(parts) else parts),
        dialect=dialect,
        model=model or next((name for name in listed if name), None),
        revision=revision,
        max_batch=max_batch if type(max_batch) is int and max_batch > 0 else None,
    )


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number
        usable = False
    if not usable:
        raise BadInput(f"{url} is not an address of a server; wanted http://host:port/path")
    if parts.username or parts.password:
        raise BadInput("the address of a server holds a name or password; give a key instead, the address is recorded")
    return parts._replace(fragment="")


def _is_bare(parts: SplitResult) -> bool:
    return parts.path in ("", "/")


def _dialect_of(parts: SplitResult, page: Page, *, is_locked: bool) -> Dialect[Any]:
    """The dialect of the path, or of the server's pages where there is no path or several dialects have it.

    Args:
        is_locked: whether those pages want a key, or another one.
    """

    def seen(signs: Signs | None) -> bool:
        return signs is not None and any(signs.key in page(path) for path in signs.pages)

    ending = _ending(parts.path)
    candidates = [dialect for dialect in DIALECTS.values() if ending in dialect.paths]
    if _is_bare(parts):
        matches = [dialect for dialect in DIALECTS.values() if seen(dialect.root_signs)]
    else:
        # Our own server shows all signs; of those that share a path, the one without takes prompt and reply apart
        is_ours = len(candidates) > 1 and seen(PREFRANK.root_signs)
        matches = [] if is_ours else [dialect for dialect in candidates if seen(dialect.signs)]
        matches = matches or [dialect for dialect in candidates if dialect.signs is None]
    if matches:
        return matches[0]
    if is_locked and not candidates:
        raise BadInput(
            f"{urlunsplit(parts)} wants a key before it tells what it speaks; put one that it knows in"
            " PREFRANK_SERVER_KEY"
        )
    endings = dict.fromkeys(ending for dialect in DIALECTS.values() for ending in dialect.paths)
    raise BadInput(
        f"{urlunsplit(parts)} does not tell what the server speaks; end it in one of {', '.join(endings)},"
        f" or name the protocol: {', '.join(DIALECTS)}"
    )


def _ending(path: str) -> str:
    """The longest ending of a URL's path that a dialect has; "" where none has any."""
    endings = [ending for dialect in DIALECTS.values() for ending in dialect.paths]
    return max((ending for ending in endings if path.rstrip("/").endswith(ending)), key=len, default="")


def _page(client: "httpx.Client", url: str, *, until: float) -> tuple[dict[str, Any], bool]:
    """What the server says about itself there, {} for anything but an object in time and within the limit; and whether
    it wants a key for that."""
    import httpx

    seconds = until - time.monotonic()
    if seconds <= 0:
        return {}, False
    try:
        answer = exchange(client, "GET", url, timeout_s=seconds)
        if answer.status in (401, 403):
            return {}, True
        value = parse(answer.content)
    except httpx.ConnectError as error:
        raise NotFound(f"nothing answers at {url} ({error}); is the server up, and the address right?") from error
    except (httpx.RequestError, BadModel):
        return {}, False
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        return {}, False
    return (value if isinstance(value, dict) else {}), False


def model_of(page: dict[str, Any]) -> tuple[str | None, str | None]:
    """Name and revision in TEI's /info, or in a list of models as OpenAI's API gives it."""
    if name := _name(page.get("model_id")):
        return name, _name(page.get("model_sha"))
    listed = page.get("data")
    first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
    return _name(first.get("id")), None


def _name(value: Any) -> str | None:
    """A name that a server gives; None for one that cannot be shown."""
    return value if isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and printable(value) == value else None
