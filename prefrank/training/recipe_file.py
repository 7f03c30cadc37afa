"""From YAML to a `Recipe`, with errors that name file, line, what came and what was wanted."""

import math
import os
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prefrank.errors import BadRecipe, NotFound, suggest
from prefrank.io.yaml_files import Yaml, parse_yaml, read_yaml
from prefrank.limits import limit, past
from prefrank.training.recipe import DataSource, Recipe


@dataclass(frozen=True, slots=True)
class RecipeValues:
    """A recipe as it was written, before it is checked.

    Args:
        values: key -> plain value.
        where: key -> what a complaint about it opens with.
        otherwise: what a complaint about a key not in `where` opens with.
    """

    values: Mapping[str, Any]
    where: Mapping[str, str]
    otherwise: str


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a YAML recipe; `overrides` are `key=value` with YAML values, and win.

    Raises:
        NotFound: no such file.
        BadRecipe: anything in it that cannot be used.
    """
    written = read_values(path, overrides)
    return make_recipe(written.values, where=written.where, otherwise=written.otherwise)


def read_values(path: str | Path, overrides: Iterable[str] = ()) -> RecipeValues:
    """A YAML recipe with its overrides, unchecked.

    Raises:
        NotFound: no such file.
        BadRecipe: it is not YAML, or an override is not `key=value`.
    """
    path = Path(path)
    values, lines = _read(path, "recipe")
    if not isinstance(values, dict):
        raise BadRecipe(f"{path} holds {_kind(values)}; wanted `key: value` lines")
    where = {key: f"{path}, line {line}: " for key, line in lines.items()}
    if isinstance(template := values.get("chat_template"), str):
        values["chat_template"] = _beside(path, template)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise BadRecipe(f"--set {_cut(repr(override))} has no '='; wanted key=value")
        values[key.strip()] = parse_yaml(value, f"--set {_cut(override)}", BadRecipe).value
        where[key.strip()] = "--set: "
    return RecipeValues(values, where, f"{path}: ")


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _beside(recipe: Path, template: str) -> str:
    """A chat template that is written as a file, or is one beside the recipe, as a path from there; a name as it is."""
    try:
        file = Path(os.path.expanduser(template))
        is_file = len(file.parts) > 1 or file.suffix in (".jinja", ".j2") or (recipe.parent / file).is_file()
    except OSError:  # a name that is too long
        return template
    return str(recipe.parent / file) if is_file else template


def load_sweep(path: str | Path) -> tuple[dict[str, Any], ...]:
    """Read the changes of a sweep's runs.

    A mapping of keys to lists of values stands for every combination of them, the last key changing fastest; a list of
    mappings for one run each.

    Raises:
        NotFound: no such file.
        BadRecipe: anything else, or no run at all.
    """
    path = Path(path)
    value = _read(path, "sweep").value
    if isinstance(value, list) and value and all(isinstance(run, dict) for run in value):
        if len(value) > limit("sweep_runs"):
            raise BadRecipe(f"{path} holds {len(value):,} runs, {past('sweep_runs')}")
        return tuple(value)
    if not isinstance(value, dict) or not value:
        raise BadRecipe(f"{path} holds {_kind(value)}; wanted `key: [values]` lines, or a list of mappings")
    for key, values in value.items():
        if not isinstance(values, list) or not values:
            raise BadRecipe(f"{path}: {key} is {_kind(values)}; wanted a list of its values, such as [1e-5, 2e-5]")
    if (count := math.prod(map(len, value.values()))) > limit("sweep_runs"):
        raise BadRecipe(f"{path} stands for {count:,} runs, {past('sweep_runs')}")
    return tuple(dict(zip(value, each, strict=True)) for each in product(*value.values()))


def _read(path: Path, what: str) -> Yaml:
    try:
        return read_yaml(path, BadRecipe)
    except NotFound:
        raise NotFound(f"there is no {what} {path}; give the path of a YAML file") from None


def make_recipe(values: Mapping[str, Any], *, where: Mapping[str, str] | None = None, otherwise: str = "") -> Recipe:
    """Check a mapping of plain values against `Recipe`.

    Args:
        values: as YAML gives them.
        where: key -> what a complaint about it opens with.
        otherwise: what a complaint about a key not in `where` opens with.

    Raises:
        BadRecipe: one line on the first thing that cannot be used.
    """
    where = where or {}
    for key in values:
        if key not in Recipe.model_fields:
            place = where.get(key, otherwise)
            hint = suggest(str(key), Recipe.model_fields)
            raise BadRecipe(f"{place}there is no recipe key {_shown(key)}{hint}")
    try:
        return Recipe.model_validate(dict(values))
    except ValidationError as error:
        # a misspelt option also leaves a gap, so gaps come last
        first = min(error.errors(), key=lambda error: _URGENCY.get(error["type"], 1))
        key = str(first["loc"][0]) if first["loc"] else ""
        raise BadRecipe(where.get(key, otherwise) + _complaint(first)) from None


_URGENCY = {"extra_forbidden": 0, "missing": 2}


def _complaint(error: Mapping[str, Any]) -> str:
    """What came and what was wanted, from one of pydantic's errors."""
    loc = [part for part in error["loc"] if isinstance(part, int) or part.isidentifier()]  # no kinds of a union
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    last = str(error["loc"][-1]) if error["loc"] else ""
    match error["type"]:
        case "missing":
            field = Recipe.model_fields.get(last) or DataSource.model_fields[last]
            return f"{name} is missing; wanted: {field.description}"
        case "extra_forbidden":
            return f"a data set has no option {_shown(last)}{suggest(last, DataSource.model_fields)}"
        case "value_error":
            message = str(error["ctx"]["error"])
            return f"{name}: {message}" if isinstance(error["input"], str) else message
        case "too_short":
            return f"{name} is empty; wanted at least one data set"
    wanted = error["msg"].removeprefix("Input should be ")
    for theirs, ours in _WORDS:
        wanted = wanted.replace(theirs, ours)
    choices = re.findall(r"'([^']*)'", wanted) if error["type"] == "literal_error" else []
    hint = suggest(str(error["input"]) if isinstance(error["input"], str) else "", choices)
    return f"{name} is {_kind(error['input'])}; wanted {wanted}{hint if 'did you mean' in hint else ''}"


_WORDS = (
    ("a valid integer", "an integer"),
    ("a valid boolean", "true or false"),
    ("a valid dictionary or instance of DataSource", "a name or a mapping with the key source"),
    ("a valid dictionary", "a mapping"),
    ("a valid tuple", "a list"),
    ("a valid", "a"),
    ("True, False", "true, false"),
)
"""Pydantic's words, and YAML's."""


def _kind(value: Any) -> str:
    """A value and its type, in YAML's words."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    names = {int: "an integer", float: "a number", str: "a string", list: "a list", dict: "a mapping"}
    return f"{_shown(value)} ({names.get(type(value), type(value).__name__)})"


def _shown(value: Any) -> str:
    """A value as Python writes it, cut; of what holds others, the first few."""
    try:
        return _cut(_SHORT.repr(value))
    except ValueError:  # thousands of digits
        return "..."


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 3, 100, 100, 100
