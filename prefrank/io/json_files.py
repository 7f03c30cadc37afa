"""JSON that others may have written, parsed once into values that are checked where they are asked for.

What Python's reader takes and JSON is not (NaN, Infinity), what it takes in two ways (a key twice), and what it fails
on with errors of its own (deep nesting, numbers of thousands of digits) is one error that names the file.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from prefrank.errors import BadInput, BadModel, short
from prefrank.io.plain_files import read_bytes

Default = TypeVar("Default")
_MISSING: Any = object()


_MOST_LEVELS = 100
"""Of objects and lists inside each other in a file of settings; Python writes about three times as many."""


class _NotJson(ValueError):
    """What JSON does not have."""


def parse_json(
    content: bytes | str,
    where: object,
    error: type[BadInput] = BadModel,
    *,
    cure: str = "copy or download it again",
) -> Any:
    """A JSON text's value.

    Args:
        where: what the error opens with: the file, with a line where it has several.
        cure: ends the error.

    Raises:
        error: no JSON, or one with a key twice in an object, NaN, infinite or endless numbers, or nested too deeply.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        return _DECODER.decode(text)
    except UnicodeDecodeError as reason:
        why = f"it is not UTF-8, {reason.reason} at byte {reason.start}"
    except json.JSONDecodeError as reason:
        why = f"{reason.msg.removesuffix(' at')} at line {reason.lineno} column {reason.colno}"
    except _NotJson as reason:
        why = str(reason)
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError:  # of Python's own limit of digits
        why = "a number has too many digits"
    raise error(f"{where} cannot be read as JSON ({why}); {cure}")


def unique_keys(error: type[ValueError], cure: str = "") -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """What a decoder makes objects with, and refuses a key that stands twice in one.

    Args:
        cure: ends the error's message.
    """

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            twice = repeated(name for name, _ in pairs)
            raise error(f"the key {short(twice)} stands twice in one object{cure}")
        return entries

    return made


def repeated(names: Iterable[str]) -> str | None:
    """The first name that stands a second time; None where all are distinct."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _constant(name: str) -> NoReturn:
    raise _NotJson(f"it holds {name}")


def _number(text: str) -> float:
    if math.isinf(number := float(text)):
        raise _NotJson(f"the number {short(text)} is too large")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys(_NotJson), parse_constant=_constant, parse_float=_number)


def read_object(path: Path, error: type[BadInput] = BadModel) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        NotFound: there is no such file.
        error: no plain file, no JSON, or no object.
    """
    value = parse_json(read_bytes(path, error), path, error)
    if not isinstance(value, dict):
        raise error(f"{path} holds {kind_of(value)}; wanted an object")
    return value


@dataclass(frozen=True, slots=True)
class Fields(Mapping[str, Any]):
    """An object of a JSON file. Values are asked for by type, and what is of another raises an error of one line that
    names the file and the key, dotted. Absent and null values give the default, or are the error where there is none.

    Args:
        raw: the values as they were parsed.
        file: what errors name it by.
        inside: the dotted key of this object in its file, "" at the top.
        error: what is raised.
    """

    raw: Mapping[str, Any]
    file: str
    inside: str = ""
    error: type[BadInput] = BadModel

    @staticmethod
    def of(raw: Mapping[str, Any], file: str = "config.json") -> "Fields":
        """A mapping as fields; itself where it is that already."""
        return raw if isinstance(raw, Fields) else Fields(raw, file)

    def __getitem__(self, key: str) -> Any:
        return self.raw[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def place(self, key: str) -> str:
        """The dotted key."""
        return f"{self.inside}.{key}" if self.inside else key

    def refuse(self, key: str, wanted: str) -> NoReturn:
        """Raise the error for a value."""
        came = f"is {short(self.raw[key])}" if key in self.raw else "is missing"
        raise self.error(f"{self.file}: {self.place(key)} {came}; wanted {wanted}")

    def text(self, key: str, default: Default = _MISSING) -> str | Default:
        return self._value(key, default, (str,), "a string")

    def flag(self, key: str, default: Default = _MISSING) -> bool | Default:
        return self._value(key, default, (bool,), "true or false")

    def integer(self, key: str, default: Default = _MISSING, *, least: int = 0, most: int = 1 << 53) -> int | Default:
        wanted = f"a whole number from {least:,} to {most:,}"
        value = self._value(key, default, (int,), wanted)
        if value is not default and not least <= value <= most:
            self.refuse(key, wanted)
        return value

    def number(
        self, key: str, default: Default = _MISSING, *, least: float = -math.inf, most: float = math.inf
    ) -> float | Default:
        """A finite number; whole ones are read too."""
        bounds = "" if math.isinf(least) and math.isinf(most) else f" from {least:g} to {most:g}"
        value = self._value(key, default, (int, float), f"a number{bounds}")
        if value is default:
            return value
        try:
            value = float(value)
        except OverflowError:
            self.refuse(key, f"a number{bounds}")
        if not (math.isfinite(value) and least <= value <= most):
            self.refuse(key, f"a finite number{bounds}")
        return value

    def object(self, key: str, default: Default = _MISSING) -> "Fields | Default":
        value = self._value(key, default, (dict,), "an object")
        return value if value is default else Fields(value, self.file, self.place(key), self.error)

    def texts(self, key: str, default: Default = _MISSING) -> tuple[str, ...] | Default:
        value = self._value(key, default, (list,), "a list of strings")
        if value is default:
            return value
        if not all(isinstance(item, str) for item in value):
            self.refuse(key, "a list of strings")
        return tuple(value)

    def objects(self, key: str, default: Default = _MISSING) -> "tuple[Fields, ...] | Default":
        value = self._value(key, default, (list,), "a list of objects")
        if value is default:
            return value
        if not all(isinstance(item, dict) for item in value):
            self.refuse(key, "a list of objects")
        places = (f"{self.place(key)}[{number}]" for number in range(len(value)))
        return tuple(Fields(item, self.file, place, self.error) for item, place in zip(value, places, strict=True))

    def _value(self, key: str, default: Any, kinds: tuple[type, ...], wanted: str) -> Any:
        value = self.raw.get(key)
        if value is None and default is not _MISSING:
            return default
        if type(value) not in kinds:  # a bool is an int to Python, and none here
            self.refuse(key, wanted)
        return value


def read_fields(path: Path, error: type[BadInput] = BadModel) -> Fields:
    """The object of a JSON file, to be asked for values by type.

    Raises:
        NotFound, error: as `read_object`; also values inside each other so deep that they could not be written again.
    """
    raw = read_object(path, error)
    level: list[Any] = [raw]
    for _ in range(_MOST_LEVELS):
        inside = (value.values() if isinstance(value, dict) else value for value in level)
        level = [value for values in inside for value in values if isinstance(value, dict | list)]
    if level:
        raise error(f"{path} cannot be read as JSON (it is nested too deeply); copy or download it again")
    return Fields(raw, str(path), error=error)


def kind_of(value: object) -> str:
    """What a JSON value is, in JSON's words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number"}
    return "null" if value is None else names.get(type(value), "a number")
