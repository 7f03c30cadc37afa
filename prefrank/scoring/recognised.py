"""Which dialect a server speaks, and what it says of its model: from the URL's path, and from pages of the server."""

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

if TYPE_CHECKING:
    import httpx

ABOUT_S = 10.0
"""For all answers about the server itself, which not all give."""

LONGEST_NAME = 500
"""Characters of the name that a server gives its model; a longer one is passed over."""

Page = Callable[[str], dict[str, Any]]
"""The object on a page of the server; {} where there is none."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a server tells of itself.

    Args:
        url: where to post.
        model, revision: of the model it says it has; None where it does not.
        most: pairs in a request, by its own word; None where it gives none.
    """

    url: str
    dialect: Dialect[Any]
    model: str | None
    revision: str | None
    most: int | None


def recognise(client: "httpx.Client", url: str, *, wanted: str | None, timeout_s: float) -> Recognised:
    """Look at the path and ask the server.

    Args:
        wanted: name of the dialect, where the caller knows it.
        timeout_s: for all pages together, if it is less than `ABOUT_S`.

    Raises:
        BadInput: a URL that cannot be used, or of which the dialect cannot be told.
        NotFound: nothing answers there.
    """
    parts = _checked(url)
    trunk = parts.path.rstrip("/").removesuffix(_ending(parts.path))
    until = time.monotonic() + min(ABOUT_S, timeout_s)

    @cache
    def page(path: str) -> dict[str, Any]:
        return _page(client, urlunsplit(parts._replace(path=trunk + path, query="")), until=until)

    info = page("/info")
    dialect = DIALECTS[wanted] if wanted else _told(parts, page)
    listed = (model_of(page(path))[0] for path in ("/v1/models", "/models"))
    model, revision = model_of(info)
    most = info.get("max_client_batch_size")
    return Recognised(
        url=urlunsplit(parts._replace(path=dialect.paths[0]) if _is_bare(parts) else parts),
        dialect=dialect,
        model=model or next((name for name in listed if name), None),
        revision=revision,
        most=most if type(most) is int and most > 0 else None,
    )


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise BadInput(f"{url} is no address of a server; wanted http://host:port/path")
    if parts.username or parts.password:
        raise BadInput("the address of a server holds a name or password; give a key instead, the address is recorded")
    return parts._replace(fragment="")


def _is_bare(parts: SplitResult) -> bool:
    return parts.path in ("", "/")


def _told(parts: SplitResult, page: Page) -> Dialect[Any]:
    """The dialect of the path, or of the server's pages where there is no path or several dialects have it."""

    def seen(signs: Signs | None) -> bool:
        return signs is not None and any(signs.key in page(path) for path in signs.pages)

    ending = _ending(parts.path)
    candidates = [dialect for dialect in DIALECTS.values() if ending in dialect.paths]
    for dialect in DIALECTS.values() if _is_bare(parts) else candidates:
        if seen(dialect.rootless if _is_bare(parts) else dialect.signs):
            return dialect
    if plain := [dialect for dialect in candidates if dialect.signs is None]:
        return plain[0]
    endings = dict.fromkeys(ending for dialect in DIALECTS.values() for ending in dialect.paths)
    raise BadInput(
        f"{urlunsplit(parts)} does not tell what the server speaks; end it in one of {', '.join(endings)},"
        f" or name the protocol: {', '.join(DIALECTS)}"
    )


def _ending(path: str) -> str:
    """The longest ending of a URL's path that a dialect has; "" where none has any."""
    endings = [ending for dialect in DIALECTS.values() for ending in dialect.paths]
    return max((ending for ending in endings if path.rstrip("/").endswith(ending)), key=len, default="")


def _page(client: "httpx.Client", url: str, *, until: float) -> dict[str, Any]:
    """What the server says of itself there; {} where it says nothing, or nothing in time or of a size."""
    import httpx

    seconds = until - time.monotonic()
    if seconds <= 0:
        return {}
    try:
        value = parse(exchange(client, "GET", url, timeout_s=seconds).content)
    except httpx.ConnectError as error:
        raise NotFound(f"nothing answers at {url} ({error}); is the server up, and the address right?") from error
    except (httpx.RequestError, BadModel):
        return {}
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        return {}
    return value if isinstance(value, dict) else {}


def model_of(page: dict[str, Any]) -> tuple[str | None, str | None]:
    """Name and revision in TEI's /info, or in a list of models as OpenAI's API gives it."""
    if name := _name(page.get("model_id")):
        return name, _name(page.get("model_sha"))
    listed = page.get("data")
    first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
    return _name(first.get("id")), None


def _name(value: Any) -> str | None:
    """A name that a server gives; None where it is none to be shown and asked for."""
    return value if isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and printable(value) == value else None
