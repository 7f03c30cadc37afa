"""The JSON Schema (draft 2020-12) of what `schema.read` takes for a dataclass, from the same annotations."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from prefrank.io.schema import MOST

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 0, "maximum": MOST},
    float: {"type": "number"},
    type(None): {"type": "null"},
    Any: {},
}


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """In an annotation: the schema of the form that JSON holds the value in."""

    schema: Mapping[str, Any]


def json_schema(kind: Any) -> dict[str, Any]:
    """The schema of an annotation. Fields that a dataclass lacks may be there, and are passed over."""
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if is_dataclass(kind) and isinstance(kind, type):
        return _object(kind)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        shape = next((part for part in kind.__metadata__ if isinstance(part, Shape)), None)
        return json_schema(parts[0]) if shape is None else dict(shape.schema)
    if origin is Literal:
        return {"enum": list(parts)}
    if origin is tuple and parts[-1] is Ellipsis:
        return {"type": "array", "items": json_schema(parts[0])}
    if origin in (Union, types.UnionType):
        return {"anyOf": [json_schema(part) for part in parts]}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object"}
    raise TypeError(f"{kind} has no JSON Schema here")


def _object(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    parts = fields(kind)
    needed = [part.name for part in parts if part.default is MISSING and part.default_factory is MISSING]
    described = {"type": "object", "properties": {part.name: json_schema(hints[part.name]) for part in parts}}
    return (
        described | ({"description": kind.__doc__} if kind.__doc__ else {}) | ({"required": needed} if needed else {})
    )
