"""JSON Schemas of dataclasses say what `schema.read` takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from prefrank.io.json_schema import Shape, json_schema
from prefrank.io.schema import Between, Stored


@dataclass(frozen=True)
class Inner:
    x: float


@dataclass(frozen=True)
class Outer:
    """An example."""

    name: str
    parts: tuple[Inner, ...]
    kind: Literal["a", "b"] = "a"
    maybe: bool | None = None
    share: Annotated[float, Between(0.0, 1.0)] = 0.5
    facts: Mapping[str, Any] = field(default_factory=dict)
    anything: Any = None
    text: Annotated[int, Stored(len, str), Shape({"type": "string"})] = 0


def test_every_annotation_has_its_schema() -> None:
    assert json_schema(Outer) == {
        "type": "object",
        "description": "An example.",
        "required": ["name", "parts"],
        "properties": {
            "name": {"type": "string"},
            "parts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "description": Inner.__doc__,
                    "properties": {"x": {"type": "number"}},
                    "required": ["x"],
                },
            },
            "kind": {"enum": ["a", "b"]},
            "maybe": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
            "share": {"type": "number"},
            "facts": {"type": "object"},
            "anything": {},
            "text": {"type": "string"},
        },
    }


def test_an_annotation_that_json_cannot_hold_is_an_error() -> None:
    with pytest.raises(TypeError, match="no JSON Schema"):
        json_schema(set[int])
