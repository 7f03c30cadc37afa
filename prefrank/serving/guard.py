"""How a body is read: what it says of itself, its bytes within bounds and time, and its JSON."""

import asyncio
import zlib
from typing import Any

from starlette.requests import Request

from prefrank.errors import BadInput
from prefrank.io.json_files import parse_json
from prefrank.serving.settings import ServeSettings
from prefrank.wire.route import Refused

LARGE = 65_536
"""Bytes of a body that is unpacked and read on a thread, so that others need not wait for it."""
_ZLIB_OR_GZIP = 47
"""zlib's own number for either header."""


class Room:
    """The bytes of all bodies that a server holds at once.

    Args:
        most: past which further bodies are refused.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    def take(self, count: int) -> None:
        """Raises Refused; holds so many bytes more otherwise."""
        if self._held and self._held + count > self._most:
            raise Refused(
                "overloaded",
                f"requests of {self._held:,} bytes are being answered, as many as are held at once; try again later",
                retry_after_s=1.0,
            )
        self._held += count

    def give(self, count: int) -> None:
        self._held -= count


class Body:
    """A request's body, and the room that it takes until the request is answered.

    Args:
        size: bytes held, unpacked ones among them.
    """

    def __init__(self, request: Request, settings: ServeSettings, room: Room) -> None:
        self._request = request
        self._settings = settings
        self._room = room
        self.size = 0

    async def read(self) -> bytes:
        """The whole of it, unpacked.

        Raises:
            Refused: it is no JSON by what it says of itself, too large, or not there in time.
            ClientDisconnect: the client has gone.
        """
        headers = self._request.headers
        _check_type(headers.get("content-type"), from_page="origin" in headers)
        packing = _packing(headers.get("content-encoding"))
        self._check_length(headers.get("content-length"))
        packed = await self._arrived()
        if packing is None:
            return packed
        body = await asyncio.to_thread(unpack, packed, self._settings.max_body_bytes)
        self._take(len(body))
        return body

    def release(self) -> None:
        """Give its room back."""
        self._room.give(self.size)
        self.size = 0

    def _take(self, count: int) -> None:
        self._room.take(count)
        self.size += count

    def _check_length(self, stated: str | None) -> None:
        """What the client says that it will send is refused before it is read."""
        if stated is not None and stated.isdecimal() and int(stated[:20]) > self._settings.max_body_bytes:
            raise _too_large(f"{int(stated[:20]):,} bytes", self._settings.max_body_bytes)

    async def _arrived(self) -> bytes:
        most, seconds = self._settings.max_body_bytes, self._settings.body_timeout_s
        parts = bytearray()
        try:
            async with asyncio.timeout(seconds):
                async for part in self._request.stream():
                    if len(parts) + len(part) > most:
                        raise _too_large(f"more than {most:,} bytes", most)
                    self._take(len(part))
                    parts += part
        except TimeoutError:
            raise Refused(
                "slow", f"{len(parts):,} bytes of the body arrived within {seconds:g} s, and not its end; try again"
            ) from None
        return bytes(parts)


def _too_large(came: str, most: int) -> Refused:
    return Refused("too_large", f"the body has {came}; at most {most:,} are taken, so send fewer texts at once")


def _check_type(stated: str | None, *, from_page: bool) -> None:
    """JSON, or nothing said. A page of another origin may leave the type out without asking first: it must say it."""
    if stated is None and not from_page:
        return
    kind, _, parameters = (stated or "").partition(";")
    kind = kind.strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        came = f"the content type is {stated[:100]}" if stated else "the request has no content type"
        raise Refused("media", f"{came}; send the header Content-Type: application/json")
    name, _, charset = parameters.partition("=")
    if name.strip().lower() == "charset" and charset.strip(" \"'").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise Refused("media", f"the body's charset is {charset.strip()[:100]}; send UTF-8")


def _packing(stated: str | None) -> str | None:
    packing = (stated or "identity").strip().lower()
    if packing not in ("identity", "gzip", "x-gzip", "deflate"):
        raise Refused("media", f"the content encoding is {packing[:100]}; send gzip, deflate, or an unpacked body")
    return None if packing == "identity" else packing


def unpack(packed: bytes, most: int) -> bytes:
    """What gzip, zlib or bare deflate data hold, as far as they may.

    Args:
        most: bytes; unpacking ends there, whatever would come.

    Raises:
        Refused: more bytes, or data that end early or are no such data.
    """
    try:
        try:
            return _unpack(packed, most, _ZLIB_OR_GZIP)
        except zlib.error:
            if packed[:2] == b"\x1f\x8b":
                raise
            return _unpack(packed, most, -zlib.MAX_WBITS)  # what some clients call deflate
    except zlib.error as error:
        raise Refused(
            "malformed", f"the body cannot be unpacked ({error}); send it as it is, or pack it again"
        ) from None


def _unpack(packed: bytes, most: int, kind: int) -> bytes:
    reader = zlib.decompressobj(kind)
    whole = reader.decompress(packed, most + 1)
    if len(whole) > most:
        raise _too_large(f"more than {most:,} bytes, unpacked", most)
    if not reader.eof:
        raise zlib.error("it ends early")
    if reader.unused_data:  # a second packed file: reading thousands of empty ones would take long
        raise zlib.error("more data follow its end")
    return whole


def parse_body(body: bytes) -> Any:
    """The JSON value.

    Raises:
        Refused: no JSON.
    """
    if not body.strip():
        raise Refused("malformed", "the body is empty; wanted JSON")
    try:
        return parse_json(body, "the body", BadInput, cure="send JSON in UTF-8")
    except BadInput as error:
        raise Refused("malformed", str(error)) from None
