"""Values and refusals as HTTP responses."""

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from prefrank.wire.route import Errors, Refused


def error_response(errors: Errors, refused: Refused, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal as the dialect writes it.

    Args:
        headers: that it has besides.
    """
    status = errors.status(refused.kind)
    all_headers = dict(headers or {})
    if refused.retry_after_s is not None:
        all_headers["retry-after"] = str(max(1, math.ceil(refused.retry_after_s)))
    if status == 401:
        all_headers["www-authenticate"] = "Bearer"
    body = errors.write(refused, status)
    if body is None or isinstance(body, str):
        return Response(_encoded(body or ""), status, all_headers, "text/plain")
    return json_response(body, status, all_headers)


def json_response(body: Any, status: int, headers: Mapping[str, str]) -> Response:
    """A JSON value, strictly: a number that is none would be a fault of ours."""
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(_encoded(text), status, headers, "application/json")


def _encoded(text: str) -> bytes:
    """UTF-8, in which halves of characters, which a request may have held, are JSON's escapes of them."""
    return text.encode("utf-8", "backslashreplace")
