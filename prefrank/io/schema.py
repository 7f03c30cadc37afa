"""Frozen dataclasses as plain JSON and back: their annotations are the schema, and an error names the place.

    read(Run, parsed)   # parsed JSON -> Run, or Wrong: "scorers[0].tokens is -1; wanted a whole number from 0 to ..."
    plain(run)          # Run -> dicts, lists, strings and numbers

What an annotation cannot say stands in it as `Annotated[type, check]`, with a check that raises `Wrong`, or as
`Annotated[type, Stored(read, write)]` for a value that JSON holds in a form of its own.
"""

import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from itertools import repeat
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from prefrank.errors import PrefrankError, short

MOST = 1 << 53
"""The largest whole number that every reader of JSON keeps whole."""
DEEPEST = 20
"""Levels of free values (`Any`) inside each other."""
_ROUNDING = 1e-9

T = TypeVar("T")
_Read = Callable[[Any], Any]


class Wrong(Exception):
    """A value that the schema does not allow; `place` grows on its way up."""

    def __init__(self, value: Any, wanted: str) -> None:
        super().__init__()
        self.reason = f"is {short(value)}; wanted {wanted}"
        self.place = ""

    @classmethod
    def because(cls, reason: str) -> "Wrong":
        wrong = cls(None, "")
        wrong.reason = reason
        return wrong

    def inside(self, key: str) -> "Wrong":
        self.place = key + self.place if self.place.startswith("[") or not self.place else f"{key}.{self.place}"
        return self

    def __str__(self) -> str:
        return f"{self.place} {self.reason}".strip()


@dataclass(frozen=True, slots=True)
class Stored:
    """In an annotation: JSON holds the value in another form.

    Args:
        read: that form -> the value; raises `Wrong`.
        write: the value -> that form.
    """

    read: Callable[[Any], Any]
    write: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Between:
    """In an annotation of a number: its bounds, but for rounding."""

    least: float = -math.inf
    most: float = math.inf

    def __call__(self, value: float) -> None:
        if not self.least - _ROUNDING <= value <= self.most + _ROUNDING:
            bounds = f"at least {self.least:g}" if math.isinf(self.most) else f"from {self.least:g} to {self.most:g}"
            raise Wrong(value, f"a finite number {bounds}")


def read(kind: type[T], value: Any, *, strict: bool = True) -> T:
    """The dataclass that a parsed JSON value stands for.

    Args:
        kind: a dataclass of strings, numbers, truth values, None, tuples, mappings from strings, and dataclasses.
        strict: refuse keys that the dataclass does not have; else they are passed over.

    Raises:
        Wrong: the value is not of that kind; it says where.
    """
    dataclass_: Any = kind
    return _reader(dataclass_, strict)(value)


def plain(value: Any) -> Any:
    """A value as JSON holds it; numbers that are not finite are left as they are, for the encoder to refuse."""
    if is_dataclass(value) and not isinstance(value, type):
        writers = _writers(type(value))
        return {field.name: writers.get(field.name, plain)(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, tuple | list) else value


@cache
def _writers(kind: type) -> dict[str, Callable[[Any], Any]]:
    """The fields that JSON holds in a form of its own."""
    hints = get_type_hints(kind, include_extras=True)
    stored = {name: _stored(hint) for name, hint in hints.items()}
    return {name: form.write for name, form in stored.items() if form is not None}


def _stored(hint: Any) -> Stored | None:
    return next((part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Stored)), None)


@cache
def _reader(kind: Any, strict: bool) -> _Read:
    """What reads a value of this annotation."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if is_dataclass(kind):
        return _object_reader(kind, strict)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _checked_reader(kind, strict)
    if origin is Literal:
        return _choice_reader(parts)
    if origin is tuple:
        if parts[-1] is Ellipsis:
            return _list_reader(_reader(parts[0], strict), sound=_SOUND.get(parts[0]))
        return _fixed_reader([_reader(part, strict) for part in parts])
    if origin in (Union, types.UnionType):
        return _union_reader(parts, strict)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping_reader(_reader(parts[1], strict))
    raise TypeError(f"{kind} is not an annotation that JSON can be read by")


def _text(value: Any) -> str:
    if type(value) is not str:
        raise Wrong(value, "a string")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise Wrong(value, "true or false")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MOST:
        raise Wrong(value, f"a whole number from 0 to {MOST:,}")
    return value


def _number(value: Any) -> float:
    try:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        pass
    raise Wrong(value, "a finite number")


def _nothing(value: Any) -> None:
    if value is not None:
        raise Wrong(value, "null")


def _free(value: Any, depth: int = 0) -> Any:
    """Any JSON that is not nested out of all reason."""
    if type(value) in (dict, list):
        if depth == DEEPEST:
            raise Wrong(value, f"at most {DEEPEST} levels inside each other")
        for part in value.values() if type(value) is dict else value:
            _free(part, depth + 1)
    elif type(value) in (int, float):
        _number(value)
    return value


_PLAIN: dict[Any, _Read] = {
    str: _text,
    bool: _flag,
    int: _count,
    float: _number,
    type(None): _nothing,
    Any: _free,
}


def _object_reader(kind: Any, strict: bool) -> _Read:
    hints = get_type_hints(kind, include_extras=True)
    parts = {field.name: field for field in fields(kind)}
    readers = {name: _reader(hints[name], strict) for name in parts}
    needed = {name for name, field in parts.items() if field.default is MISSING and field.default_factory is MISSING}

    def read_object(value: Any) -> Any:
        if type(value) is not dict:
            raise Wrong(value, "an object")
        given = {}
        for name, read_part in readers.items():
            try:
                if name in value:
                    given[name] = read_part(value[name])
                elif name in needed:
                    raise Wrong.because("is missing")
            except Wrong as wrong:
                raise wrong.inside(name) from None
        if strict and (unknown := [key for key in value if key not in readers]):
            raise Wrong.because("is not known here").inside(unknown[0])
        try:
            return kind(**given)
        except PrefrankError as error:  # what the dataclass checks itself
            raise Wrong.because(f"cannot be used: {error}") from None

    return read_object


def _checked_reader(kind: Any, strict: bool) -> _Read:
    inner, *extras = get_args(kind)
    stored = _stored(kind)
    read_inner = stored.read if stored is not None else _reader(inner, strict)
    checks = [extra for extra in extras if callable(extra)]

    def read_checked(value: Any) -> Any:
        made = read_inner(value)
        for check in checks:
            check(made)
        return made

    return read_checked


def _choice_reader(choices: tuple[Any, ...]) -> _Read:
    wanted = "one of " + ", ".join(map(repr, choices))

    def read_choice(value: Any) -> Any:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise Wrong(value, wanted)
        return value

    return read_choice


def _list_reader(read_part: _Read, *, sound: Callable[[list[Any]], bool] | None = None) -> _Read:
    """Args:
    sound: tells at once that nothing is wrong in a list, and that its values are read as they are.
    """

    def read_list(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise Wrong(value, "a list")
        if sound is not None and sound(value):
            return tuple(value)
        return _read_parts(repeat(read_part), value)

    return read_list


def _read_parts(readers: Iterable[_Read], parts: list[Any]) -> tuple[Any, ...]:
    made = []
    for place, (read_part, part) in enumerate(zip(readers, parts, strict=False)):
        try:
            made.append(read_part(part))
        except Wrong as wrong:
            raise wrong.inside(f"[{place}]") from None
    return tuple(made)


def _all_counts(values: list[Any]) -> bool:
    return set(map(type, values)) == {int} and min(values) >= 0 and max(values) <= MOST


def _all_numbers(values: list[Any]) -> bool:
    return set(map(type, values)) == {float} and all(map(math.isfinite, values))


_SOUND: dict[Any, Callable[[list[Any]], bool]] = {int: _all_counts, float: _all_numbers, float | None: _all_numbers}


def _fixed_reader(readers: list[_Read]) -> _Read:
    def read_fixed(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(readers):
            raise Wrong(value, f"a list of {len(readers)}")
        return _read_parts(readers, value)

    return read_fixed


def _mapping_reader(read_part: _Read) -> _Read:
    def read_mapping(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise Wrong(value, "an object")
        made = {}
        for key, part in value.items():
            try:
                made[key] = read_part(part)
            except Wrong as wrong:
                raise wrong.inside(key) from None
        return made

    return read_mapping


def _union_reader(parts: tuple[Any, ...], strict: bool) -> _Read:
    """Null or one kind; or several kinds of plain values, told apart by their types."""
    others = [part for part in parts if part is not type(None)]
    if len(others) == 1:
        read_other = _reader(others[0], strict)
        return lambda value: None if value is None else read_other(value)
    readers = {part: _PLAIN[part] for part in parts}
    wanted = " or ".join(part.__name__ for part in parts)

    def read_union(value: Any) -> Any:
        if type(value) not in readers:
            raise Wrong(value, wanted)
        return readers[type(value)](value)

    return read_union
