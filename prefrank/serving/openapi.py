"""The server's OpenAPI document, from the dialects' dataclasses."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from prefrank.io.json_schema import json_schema
from prefrank.serving.reload import RELOAD, ReloadRequest
from prefrank.wire.own import ERRORS
from prefrank.wire.route import STATUSES, Page, Route


def describe(by_path: Mapping[str, Sequence[Route[Any]]], pages: Sequence[Page]) -> dict[str, Any]:
    """OpenAPI 3.1 of all paths. A path that several dialects share takes the body of any of them."""
    paths: dict[str, Any] = {path: {"post": _operation(path, routes)} for path, routes in by_path.items()}
    for page in pages:
        for path in page.paths:
            paths.setdefault(path, {})["get"] = {
                "operationId": f"get {path}",
                "tags": [page.dialect],
                "summary": page.summary,
                "responses": {"200": {"description": "What is served"}, "503": {"description": "Still loading"}},
            }
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
