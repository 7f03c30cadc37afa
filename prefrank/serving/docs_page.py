"""The page at /docs: the API's description as a table to read, with the styles of the page at /."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>prefrank: the API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="page.css">
<h1>The API</h1>
<p class="note">The same as <a href="openapi.json">OpenAPI</a>, for programs; <a href="./">the page to try it</a>.</p>
"""


def docs_page(described: Mapping[str, Any]) -> str:
    """HTML of an OpenAPI document: for each path whose it is, what it does, and the JSON schema of what it takes."""
    paths: Mapping[str, Mapping[str, Any]] = described["paths"]
    parts = [_part(path, method, operation) for path, each in paths.items() for method, operation in each.items()]
    return _HEAD + "".join(parts)


def _part(path: str, method: str, operation: Mapping[str, Any]) -> str:
    whose = ", ".join(dict.fromkeys(operation["tags"]))
    key = "; with a key, where keys are set" if "security" in operation else ""
    lines = [
        '<section class="path">',
        f"<h2>{method.upper()} {escape(path)}</h2>",
        f"<p>{escape(operation['summary'])}</p>",
        f'<p class="note">{escape(whose)}{key}</p>',
    ]
    if "requestBody" in operation:
        schema = json.dumps(operation["requestBody"]["content"]["application/json"]["schema"], indent=1)
        lines.append(f"<details><summary>What it takes</summary><pre>{escape(schema)}</pre></details>")
    return "\n".join([*lines, "</section>\n"])
