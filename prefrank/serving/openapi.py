"""The server's OpenAPI document, from the dialects' dataclasses."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from prefrank.io.json_schema import json_schema
from prefrank.serving.gate import is_open
from prefrank.serving.reload import RELOAD, ReloadRequest
from prefrank.wire.own import ERRORS
from prefrank.wire.route import STATUSES, Page, Route

OWN_PAGES: Mapping[str, tuple[str, str]] = {
    "/live": ("Whether the process works, or must be started again", "A thread has ended, or a batch takes too long"),
    "/ready": ("Whether requests are taken", "Models are loading, or the server drains"),
    "/metrics": ("Counts and times, for Prometheus", ""),
    "/api/drift": ("How the recent scores lie, beside those in training", ""),
}
"""Of the server itself: path -> what it says, and what a 503 means there."""


def describe(by_path: Mapping[str, Sequence[Route[Any]]], pages: Sequence[Page]) -> dict[str, Any]:
    """OpenAPI 3.1 of all paths. A path that several dialects share takes the body of any of them."""
    paths: dict[str, Any] = {path: {"post": _operation(path, routes)} for path, routes in by_path.items()}
    for page in pages:
        for path in page.paths:
            paths.setdefault(path, {})["get"] = _look(path, page.dialect, page.summary, unavailable="Still loading")
    for path, (summary, unavailable) in OWN_PAGES.items():
        paths.setdefault(path, {})["get"] = _look(path, "prefrank", summary, unavailable)
    paths[RELOAD] = {
        "post": {
            "operationId": f"post {RELOAD}",
            "tags": ["prefrank"],
            "summary": "Load a model again",
            "security": [{"key": []}],
            "requestBody": {"content": {"application/json": {"schema": json_schema(ReloadRequest)}}},
            "responses": {
                "200": {"description": "Its fingerprints, before and now", "content": {"application/json": {}}},
                **{str(ERRORS.status(kind)): {"description": "It stays as it was"} for kind in STATUSES},
            },
        }
    }
    keyed = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "prefrank", "version": version("prefrank")},
        "paths": paths,
        "components": {"securitySchemes": keyed},
    }


def _look(path: str, dialect: str, summary: str, unavailable: str) -> dict[str, Any]:
    """A GET.

    Args:
        unavailable: what its 503 means; "" where it has none.
    """
    responses = {"200": {"description": summary}}
    if unavailable:
        responses["503"] = {"description": unavailable}
    found: dict[str, Any] = {"operationId": f"get {path}", "tags": [dialect], "summary": summary}
    if not is_open("GET", path):
        found["security"] = [{"key": []}, {}]
        responses["401"] = {"description": "No key, where keys are set"}
    return found | {"responses": responses}


def _operation(path: str, routes: Sequence[Route[Any]]) -> dict[str, Any]:
    schemas = [json_schema(route.request) for route in routes]
    statuses = sorted({route.errors.status(kind) for route in routes for kind in STATUSES})
    return {
        "operationId": f"post {path}",
        "tags": [route.dialect for route in routes],
        "summary": "; ".join(dict.fromkeys(route.summary for route in routes if route.summary)),
        "security": [{"key": []}, {}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}},
        },
        "responses": {
            "200": {"description": "Scores", "content": {"application/json": {"schema": {}}}},
            **{str(status): {"description": "Refused, in the dialect's own form"} for status in statuses},
        },
    }
