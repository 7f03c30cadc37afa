"""YAML that others may have written: plain values of bounded size, and errors of one line that name file and line.

Surprising: YAML 1.1 reads `2e-6` as a string and `2024-05-01` as a date, and lets a key stand twice; here they are a
number, a string and an error. An alias stands for one value that is read once, but counts as often as it stands, so
that what comes after may walk through everything. Tags that would make objects, and merges (`<<`), are errors.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from prefrank.errors import BadInput, short
from prefrank.io.plain_files import read_text
from prefrank.limits import limit, past

_FLOAT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
"""What YAML does not allow, and halves of characters, which an escape could still spell."""
_PLAIN = "tag:yaml.org,2002:"
_SCALARS = ("str", "int", "float", "bool", "null")
_LONGEST_NUMBER = 400
"""Characters; the largest float in full has 309 digits."""


class Yaml(NamedTuple):
    """A document.

    Args:
        value: dicts with names as keys, lists, strings, numbers, true, false and null.
        lines: key of the outermost mapping -> its line.
    """

    value: Any
    lines: Mapping[str, int]


def read_yaml(path: Path, error: type[BadInput]) -> Yaml:
    """The document that a YAML file holds.

    Raises:
        NotFound: there is no such file.
        error: no plain file, no text, or as `parse_yaml`.
    """
    return parse_yaml(read_text(path, error, "yaml_bytes"), path, error)


def parse_yaml(text: str, where: object, error: type[BadInput]) -> Yaml:
    """The document that a text is; an empty one is null.

    Args:
        where: what the error opens with.

    Raises:
        error: no YAML, several documents, a key twice, too much or too deep, or what no recipe needs (see above).
    """
    import yaml  # of prefrank[train]

    if len(text) > limit("yaml_bytes"):
        raise error(f"{where} has {len(text):,} characters, {past('yaml_bytes')}")
    if match := _CONTROL.search(text):
        line = text.count("\n", 0, match.start()) + 1
        raise error(f"{where}, line {line}: not YAML: it holds the control character {short(match[0])}; remove it")
    loader = yaml.SafeLoader(text)
    parts = _Parts(yaml, loader, where, error)
    try:
        return parts.document()
    except error:
        raise
    except yaml.MarkedYAMLError as reason:
        mark = reason.problem_mark or reason.context_mark
        raise error(f"{where}{_line(mark)}: not YAML: {_cut(reason.problem or reason.context)}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as reason:  # of escapes and directives
        raise error(f"{where}{_line(loader.get_mark())}: not YAML: {_cut(reason)}") from None
    finally:
        loader.dispose()


def _line(mark: Any) -> str:
    return f", line {mark.line + 1}" if mark else ""


def _cut(reason: object) -> str:
    text = " ".join(str(reason).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


class _Part(NamedTuple):
    """A value, and how many values it is, with all that it holds."""

    value: Any
    size: int


@dataclass
class _Parts:
    """A document on its way from events to values.

    Args:
        yaml: the module.
        loader: its own, for its events and its rules for words that are numbers.
    """

    yaml: ModuleType
    loader: Any
    where: object
    error: type[BadInput]
    anchors: dict[str, _Part | None] = field(default_factory=dict)
    """None while what it names is being read."""
    lines: dict[str, int] = field(default_factory=dict)
    size: int = 0

    def document(self) -> Yaml:
        self.loader.get_event()  # the stream's start
        if self.loader.check_event(self.yaml.StreamEndEvent):
            return Yaml(None, {})
        self.loader.get_event()  # the document's start
        value = self._part(self.loader.get_event(), 0).value
        self.loader.get_event()
        if not self.loader.check_event(self.yaml.StreamEndEvent):
            self._refuse(self.loader.peek_event(), "a second document begins; keep one")
        return Yaml(value, self.lines if isinstance(value, dict) else {})

    def _part(self, event: Any, level: int) -> _Part:
        if isinstance(event, self.yaml.AliasEvent):
            return self._alias(event)
        if level >= limit("yaml_levels") and isinstance(event, self.yaml.CollectionStartEvent):
            self._refuse(event, f"nested in {past('yaml_levels')}")
        self._count(event, 1)
        before = self.size
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if isinstance(event, self.yaml.ScalarEvent):
            value = self._scalar(event)
        elif event.tag is not None:
            self._refuse(event, f"the tag {short(event.tag)} is not read here; remove it")
        elif isinstance(event, self.yaml.SequenceStartEvent):
            value = self._list(level)
        else:
            value = self._mapping(level)
        part = _Part(value, 1 + self.size - before)
        if event.anchor is not None:
            self.anchors[event.anchor] = part
        return part

    def _alias(self, event: Any) -> _Part:
        name = event.anchor
        if name not in self.anchors:
            self._refuse(event, f"there is no &{short(name)[1:-1]} above that *{short(name)[1:-1]} could stand for")
        part = self.anchors[name]
        if part is None:
            self._refuse(event, f"*{short(name)[1:-1]} stands inside of what it stands for; write that out")
        self._count(event, part.size)
        return part

    def _list(self, level: int) -> list[Any]:
        values = []
        while not isinstance(event := self.loader.get_event(), self.yaml.SequenceEndEvent):
            values.append(self._part(event, level + 1).value)
        return values

    def _mapping(self, level: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := self.loader.get_event(), self.yaml.MappingEndEvent):
            key, line = self._key(event, level), event.start_mark.line + 1
            if lines.setdefault(key, line) != line or key in values:
                self._refuse(event, f"{_cut(key)} already stands in line {lines[key]}; keep one", prefix="")
            values[key] = self._part(self.loader.get_event(), level + 1).value
        if level == 0:
            self.lines = lines
        return values

    def _key(self, event: Any, level: int) -> str:
        is_word = isinstance(event, self.yaml.ScalarEvent | self.yaml.AliasEvent)
        shown = event.value if isinstance(event, self.yaml.ScalarEvent) else None
        is_merge = shown == "<<" and event.style is None
        key = self._part(event, level + 1).value if is_word and not is_merge else None
        if not isinstance(key, str):
            self._refuse(event, f"a key is {'no word' if shown is None else short(shown)}; wanted a name")
        return key

    def _scalar(self, event: Any) -> Any:
        text = event.value
        if match := _CONTROL.search(text):
            self._refuse(event, f"a value holds the control character {short(match[0])}; remove it")
        tag = event.tag or self.loader.resolve(self.yaml.ScalarNode, text, event.implicit)
        kind = tag.removeprefix(_PLAIN)
        if event.tag in (None, "!") and kind not in _SCALARS:
            kind = "str"  # dates, merges and the like
        if kind == "str" and event.implicit[0] and _FLOAT.fullmatch(text):
            kind = "float"
        if kind not in _SCALARS or event.tag == "!":
            self._refuse(event, f"the tag {short(tag)} is not read here; remove it")
        if kind in ("int", "float") and len(text) > _LONGEST_NUMBER:
            self._refuse(event, f"a number has {len(text):,} characters; wanted at most {_LONGEST_NUMBER}")
        try:
            return self.loader.construct_object(self.yaml.ScalarNode(f"{_PLAIN}{kind}", text, event.start_mark))
        except (ValueError, LookupError, ArithmeticError):
            self._refuse(event, f"{short(text)} is no {kind}")

    def _count(self, event: Any, more: int) -> None:
        self.size += more
        if self.size > limit("yaml_values"):
            self._refuse(event, f"aliases written out, it holds {past('yaml_values')}")

    def _refuse(self, event: Any, why: str, *, prefix: str = "not YAML: ") -> NoReturn:
        raise self.error(f"{self.where}{_line(event.start_mark)}: {prefix}{why}")
