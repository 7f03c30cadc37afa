"""What a request must pass before it is read: its key, its size, and the time in which it arrives."""

import asyncio
import hmac
import stat
from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request

from prefrank.errors import BadInput
from prefrank.io.plain_files import check_plain, read_text
from prefrank.serving.settings import ServeSettings
from prefrank.wire.route import Refused


def check_key(header: str | None, keys: Sequence[str]) -> str | None:
    """The key of a request, where keys are set. Every key is compared, in a time that tells nothing of them.

    Args:
        header: `Authorization`.

    Raises:
        Refused: no key, or another one.
    """
    if not keys:
        return None
    scheme, _, given = (header or "").partition(" ")
    matches = [key for key in keys if hmac.compare_digest(key.encode(), given.strip().encode())]
    if scheme.lower() != "bearer" or not matches:
        raise Refused("unauthorized", "the request has no valid key; send the header Authorization: Bearer KEY")
    return matches[0]


async def read_body(request: Request, settings: ServeSettings) -> bytes:
    """The whole body.

    Raises:
        Refused: too large, or not there in time.
        ClientDisconnect: the client has gone.
    """
    parts = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for part in request.stream():
                parts += part
                if len(parts) > settings.max_body_bytes:
                    raise Refused(
                        "too_large",
                        f"the body has more than {settings.max_body_bytes:,} bytes; send fewer texts at once",
                    )
    except TimeoutError:
        raise Refused("slow", f"the body did not arrive within {settings.body_timeout_s:g} s") from None
    return bytes(parts)


def load_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file, one a line; empty lines and those that begin with # are none.

    Raises:
        NotFound: there is no such file.
        BadInput: it holds no key, a key is no plain word, or every user of the machine may read it.
    """
    mode = check_plain(path, BadInput).st_mode
    if mode & stat.S_IROTH:
        raise BadInput(f"{path} can be read by every user of this machine; run: chmod 600 {path}")
    lines = [line.strip() for line in read_text(path, BadInput).splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise BadInput(f"{path} holds no key; wanted one a line")
    if any(not key.isascii() or not key.isprintable() or " " in key for key in keys):
        raise BadInput(f"{path} holds a key that is no plain word; wanted letters, digits and signs, without spaces")
    return keys
