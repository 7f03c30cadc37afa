"""Jinja's filters and tests, and the methods of texts and containers, with their cost charged to a rendering's budget.

What amplifies (a width, a count, a text put between others) is worked out first; what is made is counted afterwards.
"""

import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from functools import reduce, wraps
from types import GeneratorType
from typing import Any

from jinja2 import pass_context
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.tests import TESTS
from markupsafe import Markup

from prefrank.text.budget import Budget, Refused, numbers_in, size_of

_SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\u2028\u2029"
_CODECS = ("utf-8", "utf8", "UTF-8", "ascii", "latin-1")
_NUMBER_METHODS = ("bit_length", "bit_count", "is_integer", "as_integer_ratio", "conjugate", "hex")


def arguments(values: Iterable[Any], named: Mapping[str, Any]) -> list[Any]:
    return [*values, *named.values()]


# Methods


def text_method(budget: Budget, owner: str, name: str, values: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """What a method of a text returns."""
    given = arguments(values, named)
    each = sum(budget.size(value) for value in given)
    numbers = [value for value in given if isinstance(value, int)]
    budget.step((len(owner) + each >> 5) + 1)
    if name in ("center", "ljust", "rjust", "zfill"):
        budget.room(4 * max(numbers, default=0))
    elif name == "replace" and len(given) > 1 and isinstance(given[0], str):
        budget.room(_replaced(owner, given[0], given[1], min(numbers, default=-1)))
    elif name == "join" and len(values) == 1:
        values = (budget.spent(list(values[0])),)
        budget.room(sum(map(budget.size, values[0])) + size_of(owner) * len(values[0]))
    elif name == "expandtabs":
        budget.room(4 * (len(owner) + owner.count("\t") * max(numbers, default=8)))
    elif name == "translate" and given and isinstance(given[0], dict):
        budget.room(len(owner) * max((budget.size(replacement) for replacement in given[0].values()), default=1))
    elif name in ("split", "rsplit", "splitlines"):
        mark = next((value for value in given if isinstance(value, str) and value), None)
        budget.room(16 * (owner.count(mark) if mark else sum(map(owner.count, _SPACES))))
    elif name == "encode" and (not given or (len(given) == 1 and given[0] in _CODECS)):
        pass
    elif name in ("translate", "encode"):
        raise Refused(f"calls {name} of a text with what a chat template may not")
    if isinstance(owner, Markup):
        budget.room(12 * (size_of(owner) + each))
    made = getattr(owner, name)(*values, **named)
    return made if made is owner else budget.spent(made)


def _replaced(text: str, old: str, new: Any, count: int) -> int:
    times = text.count(old) if count < 0 else min(text.count(old), count)
    return size_of(text) + times * size_of(str(new))


def other_method(budget: Budget, owner: object, name: str, values: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """What a method of a number, container or a loop's helper returns."""
    for value in arguments(values, named):
        budget.weighed(value)
    if isinstance(owner, int | float) and name not in _NUMBER_METHODS:
        raise Refused(f"calls {name} of a number")
    if isinstance(owner, bytes) and (name != "decode" or not all(value in _CODECS for value in values) or named):
        raise Refused(f"calls {name} of bytes")
    if isinstance(owner, list | tuple | range):
        each = sum(1 + (budget.size(value) >> 6) for value in values)
        budget.step(len(owner) * each if name in ("index", "count") else len(owner) >> 3)
    if isinstance(owner, dict) and name == "copy":
        budget.make(64 * len(owner))
    return budget.spent(getattr(owner, name)(*values, **named))


# Filters


def _texts(budget: Budget, value: Any, *given: Any) -> None:
    """Filters whose work and result are a few times what they are given."""
    size = budget.size(value) + sum(map(budget.size, given))
    budget.step((size >> 4) + 1)
    budget.room(12 * size)


def _words(budget: Budget, value: Any, *given: Any) -> None:
    """Filters that look at words again and again."""
    _texts(budget, value, *given)
    text = budget.text(value)
    budget.step(len(text) >> 2)
    longest = since = 0
    for place in sorted({len(text), *(spot for mark in _SPACES for spot in _places(text, mark))}):
        longest, since = max(longest, place - since), place
    budget.step(longest * longest >> 6)


def _places(text: str, mark: str) -> Iterable[int]:
    place = text.find(mark)
    while place >= 0:
        yield place
        place = text.find(mark, place + 1)


def _tags(budget: Budget, value: Any) -> None:
    _texts(budget, value)
    text = budget.text(value)
    budget.step(len(text) * text.count("<") >> 10)


def _wide(budget: Budget, value: Any, width: int = 80, *_: Any) -> None:
    _texts(budget, value)
    budget.room(4 * width if isinstance(width, int) else 0)


def _indented(budget: Budget, value: Any, width: int | str = 4, *_: Any) -> None:
    _texts(budget, value)
    budget.room((budget.text(value).count("\n") + 2) * 4 * (len(width) if isinstance(width, str) else width))


def _wrapped(budget: Budget, value: Any, width: int = 79, cut: bool = True, wrapstring: Any = "\n", *_: Any) -> None:
    _words(budget, value, wrapstring)
    budget.room(budget.size(value) * (1 + budget.size(wrapstring)))


def _replaces(budget: Budget, value: Any, old: Any, new: Any, count: Any = None) -> None:
    _texts(budget, value, old, new)
    budget.room(_replaced(budget.text(value), budget.text(old), budget.text(new), -1 if count is None else count))


def _items(budget: Budget, value: Any, *_: Any) -> None:
    budget.step(operator.length_hint(value, 0))


def _sorts(budget: Budget, value: Any, *_: Any) -> None:
    number = operator.length_hint(value, 0)
    budget.step(number * number.bit_length())
    budget.make(budget.size(value))


def _characters(budget: Budget, value: Any) -> None:
    budget.room((8 if isinstance(value, str) and value.isascii() else 72) * operator.length_hint(value, 0))


def _parts(budget: Budget, value: Any, number: int, fill: Any = None) -> None:
    _items(budget, value)
    budget.step(abs(number))
    budget.make(64 * abs(number))


def _mapping(budget: Budget, value: Any, *_: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError("wanted a mapping")
    _sorts(budget, value)


def _rounds(_: Budget, value: Any, precision: int = 0, *__: Any) -> None:
    if not isinstance(value, int | float) or not isinstance(precision, int) or abs(precision) > 300:
        raise TypeError("wanted a number, rounded to at most 300 places")


def _printed(budget: Budget, value: Any, *_: Any) -> None:
    nodes, size = budget.weigh(value)
    budget.text(value)
    budget.step(16 * nodes + (size >> 1))
    budget.room(12 * size + 400 * nodes)


BEFORE: Mapping[str, Callable[..., None]] = {
    **dict.fromkeys(("capitalize", "lower", "upper", "title", "trim", "string", "e", "escape", "forceescape",
                     "urlencode", "wordcount", "filesizeformat", "float", "int", "safe", "truncate"), _texts),
    **dict.fromkeys(("map", "select", "reject", "selectattr", "rejectattr", "reverse"), _items),
    **dict.fromkeys(("unique", "groupby", "sort", "min", "max"), _sorts),
    **dict.fromkeys(("batch", "slice"), _parts),
    **dict.fromkeys(("dictsort", "xmlattr"), _mapping),
    "attr": lambda budget, *_: budget.step(),
    "urlize": _words, "wordwrap": _wrapped, "striptags": _tags, "center": _wide, "indent": _indented,
    "replace": _replaces, "list": _characters, "round": _rounds, "pprint": _printed,
}  # fmt: skip
"""What is charged before a filter works; those that cost nothing are not here."""


def _named(function: Callable[..., Any]) -> str:
    """What of Jinja a filter wants before its value."""
    return getattr(getattr(function, "jinja_pass_arg", None), "name", "")


def _charged(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    passed, before = _named(function), BEFORE[name]

    @pass_context
    @wraps(function, assigned=("__name__", "__doc__"), updated=())
    def charged(context: Any, value: Any, *values: Any, **named: Any) -> Any:
        budget: Budget = context.budget
        if before is _texts and type(value) is str and not values and not named:
            budget.step((len(value) >> 4) + 4)
            budget.room(12 * size_of(value))
            made = function(*((getattr(context, passed, context),) if passed else ()), value)
            return made if made is value else budget.spent(made)
        before(budget, value, *arguments(values, named) if name not in _BY_NAME else values, **_kept(name, named))
        for argument in arguments(values, named):
            budget.weighed(argument)
        budget.step(4)
        first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        made = function(*((first[passed],) if passed else ()), value, *values, **named)
        if isinstance(made, GeneratorType):  # one that waits would hold others that wait, without end
            made = list(made)
            for item in made:
                budget.make(8 * len(item) if isinstance(item, list) else 0)
            budget.make(8 * len(made))
            return iter(made)
        return budget.spent(made)

    return charged


_BY_NAME = ("center", "indent", "wordwrap", "replace", "batch", "slice", "round")
_PARAMETERS = {"s": "value", "linecount": "number", "slices": "number", "fill_with": "fill", "break_long_words": "cut"}


def _kept(name: str, named: Mapping[str, Any]) -> dict[str, Any]:
    """The named arguments of a filter by the names that they have here."""
    if name not in _BY_NAME:
        return {}
    known = {"width", "number", "fill", "old", "new", "count", "precision", "wrapstring", "cut"}
    ours = {_PARAMETERS.get(key, key): argument for key, argument in named.items()}
    return {key: argument for key, argument in ours.items() if key in known}


@pass_context
def _join(context: Any, value: Any, d: Any = "", attribute: Any = None) -> Any:
    budget: Budget = context.budget
    items = map(make_attrgetter(context.environment, attribute), value) if attribute is not None else value
    budget.weighed(attribute)
    items = budget.spent(list(items))
    budget.step(len(items))
    between = budget.size(d)
    budget.room(sum(10 * budget.size(item) if not isinstance(item, str) else size_of(item) for item in items))
    budget.room(between * len(items))
    texts = [item if isinstance(item, str) else budget.text(item) for item in items]
    made = FILTERS["join"](context.eval_ctx, texts, d)
    return budget.spent(made)


@pass_context
def _format(context: Any, value: Any, *values: Any, **named: Any) -> Any:
    if values and named:
        raise TypeError("can't handle positional and keyword arguments at the same time")
    return context.budget.formatted(context.budget.text(value), named or values)


@pass_context
def _sum(context: Any, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
    budget: Budget = context.budget
    _items(budget, budget.weighed(iterable))
    budget.weighed(attribute)
    if attribute is not None:
        iterable = map(make_attrgetter(context.environment, attribute), iterable)
    return reduce(lambda total, item: budget.binary("+", total, item), iterable, start)


@pass_context
def _tojson(
    context: Any,
    x: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON as chat templates want it: with no letter of HTML escaped."""
    budget: Budget = context.budget
    nodes, size = budget.weigh(x)
    deep = (len(indent) if isinstance(indent, str) else indent or 0) * _depth(x)
    budget.room(size + 4 * nodes * (4 + deep + budget.size(separators)))
    made = json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return budget.spent(made)


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return 1 + max(map(_depth, inside), default=0)


@pass_context
def _random(*_: Any) -> Any:
    raise Refused("chooses by chance, so that a row would be another at each call")


def charged_filters() -> dict[str, Any]:
    """Jinja's filters, those that cost anything charged."""
    own: dict[str, Any] = {"join": _join, "format": _format, "sum": _sum, "tojson": _tojson, "random": _random}
    return FILTERS | {name: _charged(name, FILTERS[name]) for name in BEFORE} | own


# Tests


def _compared(name: str) -> Callable[..., Any]:
    @pass_context
    def compared(context: Any, value: Any, other: Any) -> Any:
        return context.budget.compare(name, value, other)

    return compared


def _divided(wanted: Callable[[Any], bool]) -> Callable[..., Any]:
    @pass_context
    def divided(context: Any, value: Any, number: Any = 2) -> bool:
        return wanted(context.budget.binary("%", value, number))

    return divided


def _read(name: str) -> Callable[..., Any]:
    @pass_context
    def read(context: Any, value: Any) -> Any:
        text = context.budget.text(value)
        context.budget.step(len(text) >> 5)
        test: Any = TESTS[name]
        return test(text)

    return read


_SIGNS = {
    "eq": ("==", "eq", "equalto"), "ne": ("!=", "ne"), "gt": (">", "gt", "greaterthan"), "gteq": (">=", "ge"),
    "lt": ("<", "lt", "lessthan"), "lteq": ("<=", "le"), "in": ("in",),
}  # fmt: skip


def charged_tests() -> dict[str, Any]:
    """Jinja's tests, those that cost anything charged."""
    compared = {sign: _compared(name) for name, signs in _SIGNS.items() for sign in signs}
    divided = {
        "odd": _divided(lambda left: left == 1), "even": _divided(lambda left: left == 0),
        "divisibleby": _divided(lambda left: left == 0),
    }  # fmt: skip
    return TESTS | compared | divided | {name: _read(name) for name in ("upper", "lower")}


# Formats


def check_field(budget: Budget, value: Any, spec: str) -> None:
    """Charge for one field of `str.format`."""
    budget.room(4 * numbers_in(spec) + 10 * budget.size(value))
    budget.text(value) if not isinstance(value, int | float) else None
    if isinstance(value, int | float) and not math.isfinite(value):
        budget.step()
