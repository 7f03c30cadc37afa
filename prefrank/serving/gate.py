"""What every request passes on its way to any path: its key, and where something fails, an answer all the same."""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prefrank.serving.keys import Keys
from prefrank.serving.recording import notes_in
from prefrank.serving.replies import error_response
from prefrank.serving.settings import ServeSettings
from prefrank.serving.tickets import place_of
from prefrank.wire.route import Errors, Refused

OPEN = frozenset({"/", "/docs", "/openapi.json", "/live", "/ready", "/health", "/ping", "/metrics"})
"""Paths that can be read without a key: the page, the API's description, and what a monitor asks.
/metrics tells of models by name, and of scores their histogram."""
OPEN_ENDINGS = (".css", ".js")
"""Of the page's files."""
ErrorsOf = Callable[[str], Errors]
_log = logging.getLogger(__name__)


def add_gate(app: FastAPI, keys: Keys, errors_of: ErrorsOf, settings: ServeSettings) -> None:
    """Put the gate before all paths of an application, those too that it does not have.

    Args:
        errors_of: a path's dialect, of its errors.
    """

    async def refuse(request: Request, error: Exception) -> Response:
        return _unrouted(request, error, errors_of)

    app.router.redirect_slashes = False  # a redirect would name a host, which is the client's word
    app.add_exception_handler(HTTPException, refuse)
    app.add_middleware(Gate, keys=keys, errors_of=errors_of)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "Content-Type"),
            expose_headers=("x-prefrank-model", "x-prefrank-cut", "retry-after"),
        )


def is_open(method: str, path: str) -> bool:
    """Whether a request needs no key, where keys are set. A path that is not listed needs one, whatever it is."""
    return method in ("GET", "HEAD") and (path in OPEN or (path.count("/") == 1 and path.endswith(OPEN_ENDINGS)))


def _unrouted(request: Request, error: Exception, errors_of: ErrorsOf) -> Response:
    """404 and 405, in the form of the errors of the path."""
    path = request.url.path
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{path[:200]} does not take {request.method[:20]}; send {allowed or 'another method'}"
        return error_response(errors_of(path), Refused("method", message), error.headers)
    return error_response(
        errors_of(path), Refused("unknown_path", f"there is no path {path[:200]} here; /openapi.json lists all")
    )


class Gate:
    """Around an application: nothing passes without a key where keys are set, and nothing comes back as a traceback.

    What is refused before its body has come ends its connection, as the rest of the body would be read as a request.
    """

    def __init__(self, app: ASGIApp, *, keys: Keys, errors_of: ErrorsOf) -> None:
        self._app = app
        self._keys = keys
        self._errors_of = errors_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_whole = not _has_body(scope["headers"])
        has_begun = False

        async def receive_noting() -> Message:
            nonlocal is_whole
            message = await receive()
            is_whole = is_whole or (message["type"] == "http.request" and not message.get("more_body", False))
            return message

        async def send_marked(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                headers["x-content-type-options"] = "nosniff"
                if not is_whole:
                    headers["connection"] = "close"
            await send(message)

        path = scope["path"]
        state = scope.setdefault("state", {})
        try:
            if not is_open(scope["method"], path):
                authorization = _header(scope["headers"], b"authorization")
                state["key_name"] = self._keys.name_of(authorization)
            await self._app(scope, receive_noting, send_marked)
        except Refused as refused:
            notes_in(scope).refused = refused
            await error_response(self._errors_of(path), refused)(scope, receive, send_marked)
        except Exception as error:
            _log.error("a request to %r failed with %s\n%s", path[:200], type(error).__name__, place_of(error))
            if has_begun:
                raise
            failed = Refused("failed", f"the server failed on this request ({type(error).__name__}); its log says why")
            notes_in(scope).refused = failed
            errors = state.get("errors") or self._errors_of(path)
            await error_response(errors, failed)(scope, receive, send_marked)


def _header(headers: list[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in headers if name == wanted), None)


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    named: Mapping[bytes, bytes] = dict(headers)
    return b"transfer-encoding" in named or named.get(b"content-length", b"0").strip() != b"0"


def errors_by_path(errors: Mapping[str, Errors], otherwise: Errors) -> ErrorsOf:
    """Of each path its errors; of any other those of our own."""
    return lambda path: errors.get(path, otherwise)
