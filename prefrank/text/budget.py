"""What one rendering of a chat template may spend: steps of work and bytes of memory, counted and never timed.

A template is code of whoever made the checkpoint. Each operation whose cost the template chooses is charged here before
it is done, so that the same template is refused at the same place on every machine. Both sums grow with what is given.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.utils import Namespace
from markupsafe import Markup, escape

from prefrank.limits import limit, past

STEPS_A_TURN = 1_000
BYTES_A_BYTE = 32
"""What is added to the limits for each message, and for each byte of them: known templates take less than a third."""
DEEPEST = 200
"""Containers inside containers: what Python's own functions can look through."""
CALLS = 50
"""Macros, blocks and recursive loops inside each other."""
BITS = 4096
"""Of a whole number."""
_PLAIN = (bool, int, float, type(None), Undefined)
_SHOWN = (Macro, LoopContext, range)
"""What else writes the same text at each call."""
_VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_ROWS = (list, tuple)
_HOLDERS = (list, tuple, dict, *_VIEWS, Namespace)
_SEQUENCES = (str, list, tuple)
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq, "ne": operator.ne, "gt": operator.gt, "gteq": operator.ge, "lt": operator.lt,
    "lteq": operator.le, "in": lambda item, many: item in many, "notin": lambda item, many: item not in many,
}  # fmt: skip
_BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv,
    "**": operator.pow, "%": operator.mod,
}  # fmt: skip


class Refused(Exception):
    """A template does what none may."""


class Budget:
    """What is left to one rendering.

    Args:
        messages: what the template is given.
    """

    def __init__(self, messages: Iterable[Mapping[str, Any]]) -> None:
        self.steps = limit("template_steps")
        self.bytes = limit("template_bytes")
        self.depth = 0
        for message in messages:
            size = 0
            for value in message.values():
                size += size_of(value) if type(value) is str else self._given(value)
            self.steps += STEPS_A_TURN + (size >> 2)
            self.bytes += BYTES_A_BYTE * size

    def _given(self, value: Any) -> int:
        self.steps += 1 << 60  # looking through what is given costs nothing
        nodes, size = self.weigh(value)
        self.steps += 4 * nodes - (1 << 60) + 2 * nodes
        return size

    def step(self, number: int = 1) -> bool:
        """Work is done."""
        self.steps -= number
        if self.steps < 0:
            raise Refused(f"takes {past('template_steps')} (long conversations are given more)")
        return True

    def make(self, size: int) -> None:
        """Memory is taken."""
        self.bytes -= size
        self.steps -= size >> 6
        if self.bytes < 0 or self.steps < 0:
            self._too_much()

    def room(self, size: int) -> None:
        """See that something so large can be made, before it is."""
        if size > self.bytes:
            self._too_much()

    def _too_much(self) -> NoReturn:
        raise Refused(f"makes {past('template_bytes')} (long conversations are given more)")

    def weigh(self, value: Any) -> tuple[int, int]:
        """How many values are in a value, each as often as it is met, and their bytes. What is looked through is work.

        Raises:
            Refused: values inside values too deeply, or more of them than there are steps left.
        """
        if isinstance(value, str):
            return 1, size_of(value)
        if not isinstance(value, _HOLDERS):
            return 1, 16 if type(value) is not int else value.bit_length() // 3 + 1
        nodes, size, left = 0, 0, [iter((value,))]
        while left:
            inside = next(left[-1], left)
            if inside is left:
                left.pop()
                continue
            nodes += 1
            self.step(2)
            size += size_of(inside) if isinstance(inside, str) else 16
            if isinstance(inside, _HOLDERS):
                if len(left) > DEEPEST:
                    raise Refused(f"puts more than {DEEPEST} lists inside each other")
                left.append(iter(_inside(inside)))
        return nodes, size

    def size(self, value: Any) -> int:
        """Bytes of a value with all that it holds."""
        return self.weigh(value)[1]

    def weighed(self, value: Any) -> Any:
        """A value that is going to be looked through."""
        if type(value) not in _PLAIN:
            self.step(self.size(value) >> 6)
        return value

    def key(self, value: Any) -> Any:
        """A value that is looked up by its hash."""
        return value if type(value) is str else self.weighed(value)

    # Texts

    def text(self, value: Any) -> str:
        """A value as it is written.

        Raises:
            Refused: one whose text has its address in memory, and so is another at each call.
        """
        if type(value) is str:
            return value
        if isinstance(value, str):
            return str(value)
        if not isinstance(value, _PLAIN):
            self.room(10 * self.size(value))
            self._check_shown(value)
        made = str(value)
        self.make(len(made))
        return made

    def _check_shown(self, value: Any) -> None:
        if isinstance(value, Mapping):
            self._check_shown(list(value.keys()))
            self._check_shown(list(value.values()))
        elif isinstance(value, _ROWS) or isinstance(value, _VIEWS):  # noqa: SIM101 (told apart by the type checker)
            for item in value:
                self._check_shown(item)
        elif not isinstance(value, (str, bytes, *_PLAIN, *_SHOWN)):
            raise Refused(f"writes a {type(value).__name__}, which has no text; call it, or take a value of it")

    def escape(self, value: Any) -> Markup:
        """A value as it is written where the template asks for HTML."""
        if not isinstance(value, Markup):
            value = self.text(value)
            self.make(6 * size_of(value))
        return escape(value)

    def together(self, pieces: Iterable[str]) -> str:
        """Pieces as one text."""
        pieces = list(pieces)
        self.step(len(pieces) >> 2)
        self.make(sum(map(size_of, pieces)))
        return "".join(pieces)

    def beside(self, values: Iterable[Any]) -> str:
        """What `~` makes of values."""
        return self.together(map(self.text, values))

    def beside_escaped(self, values: Iterable[Any]) -> str:
        """The same where the template asks for HTML: escaped, if one of them is HTML already."""
        values = list(values)
        if any(isinstance(value, Markup) for value in values):
            return Markup("").join(self.escape(value) for value in values)
        return self.beside(values)

    # Operators

    def compare(self, name: str, left: Any, right: Any) -> Any:
        if name in ("in", "notin"):
            self._look_in(left, right)
        elif type(left) not in _PLAIN and type(right) not in _PLAIN:
            self.step(min(self.size(left), self.size(right)) >> 6)
        return _COMPARE[name](left, right)

    def _look_in(self, item: Any, many: Any) -> None:
        each = (self.size(item) >> 6) + 1
        if isinstance(many, str):
            self.step(len(many) >> 4)
        elif isinstance(many, range):
            self.step(1 if type(item) is int else len(many))
        elif isinstance(many, dict):
            self.step(each)
        elif isinstance(many, (Sequence, *_VIEWS)) or hasattr(many, "__length_hint__"):
            self.step((operator.length_hint(many) >> 2) + 1)
            if type(item) not in _PLAIN:
                self.step(min(each * operator.length_hint(many), self.size(many)) if each > 1 else 0)
                self.step(self.weigh(item)[0] * (operator.length_hint(many) >> 2) if not isinstance(item, str) else 0)

    def add(self, left: Any, right: Any) -> Any:
        """What `+` makes of two values."""
        if type(left) is str and type(right) is str:
            size = len(left) + len(right)
            self.make(size if left.isascii() and right.isascii() else 4 * size)
            return left + right
        return self.binary("+", left, right)

    def binary(self, sign: str, left: Any, right: Any) -> Any:
        """An operator's value, if it has one that is small enough."""
        if isinstance(left, _SEQUENCES) or isinstance(right, _SEQUENCES):
            if sign == "%" and isinstance(left, str):
                return self.formatted(left, right)
            if sign == "+":
                self.make(_shallow(left) + _shallow(right))
            elif sign == "*":
                first, second = (left, right) if isinstance(left, _SEQUENCES) else (right, left)
                self.make(_shallow(first) * max(int(second), 0) if isinstance(second, int) else 0)
        elif isinstance(left, int) and isinstance(right, int):
            sizes = left.bit_length(), right.bit_length()
            bits = sizes[0] * max(right, 0) if sign == "**" and abs(left) > 1 else max(sizes)
            if bits > BITS:
                raise Refused(f"makes whole numbers of more than {BITS:,} bits")
        made = _BINARY[sign](left, right)
        if isinstance(left, Markup) or isinstance(right, Markup):
            self.make(size_of(made) if isinstance(made, str) else 0)
        return made

    def formatted(self, text: str, values: Any) -> str:
        """What `%` makes of a text."""
        given = values if isinstance(values, tuple) else (values,)
        each = max((self.size(value) for value in given), default=0)
        stars = sum(abs(value) for value in given if isinstance(value, int)) if "*" in text else 0
        growth = 6 if isinstance(text, Markup) else 1
        self.room(len(text) + numbers_in(text) + growth * text.count("%") * (10 * each + stars + 350))
        made = text % values
        self.make(size_of(made))
        return made

    def cut(self, value: Any, where: slice) -> Any:
        """A slice of a value."""
        made = value[where]
        self.make(_shallow(made))
        return made

    def spent(self, made: Any) -> Any:
        """What a function returned."""
        if isinstance(made, str):
            self.make(size_of(made))
        elif isinstance(made, (*_ROWS, dict)):
            self.make((64 if isinstance(made, dict) else 8) * len(made))
            if made and isinstance(made, _ROWS) and isinstance(made[0], str):
                self.make(sum(56 + size_of(text) for text in made if len(text) > 1))
        return made


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Namespace):
        value = object.__getattribute__(value, "_Namespace__attrs")
    return [*value.keys(), *value.values()] if isinstance(value, dict) else value


def size_of(text: str) -> int:
    """Bytes of a text in memory, at most."""
    return len(text) if text.isascii() else 4 * len(text)


def numbers_in(text: str) -> int:
    """The sum of the numbers that a text spells, such as the widths of a format; very large ones are cut."""
    digits = "".join(character if "0" <= character <= "9" else " " for character in text).split()
    return sum(int(number[:18]) for number in digits)


def _shallow(value: Any) -> int:
    if isinstance(value, str):
        return size_of(value)
    return 8 * len(value) if isinstance(value, (*_ROWS, range)) else 0
