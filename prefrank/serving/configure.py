"""The settings of a server from flags, `PREFRANK_SERVE_...` variables and a YAML file; the first that says it wins.

    --max-rows 100   before   PREFRANK_SERVE_MAX_ROWS=100   before   max_rows: 100

How models are loaded (`loading`) is merged by option. A name that is not known, or a value of another type, is an error
that says where it stands. Keys stand in a file of their own or in PREFRANK_SERVE_KEYS: not in flags, which every user
of the machine can see, nor in the YAML file, which is shared and checked in.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from prefrank.errors import BadInput, short, suggest
from prefrank.io.schema import Wrong, read
from prefrank.serving.settings import ServeSettings

PREFIX = "PREFRANK_SERVE_"
_NAMES = tuple(part.name for part in fields(ServeSettings))
_HINTS = get_type_hints(ServeSettings)
_ANY = {"any": "any"}
"""Models, where one other setting is looked at."""


def configure(
    flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None, loading: Sequence[str]
) -> ServeSettings:
    """The settings, with the keys of `api_key_file`.

    Args:
        flags: those that were given, by the names of fields, as values that a file could hold.
        environment: of the process.
        file: of YAML.
        loading: the options that `RewardModel.load` has here.

    Raises:
        BadInput: an unknown name, a value that cannot be used, no model, or an unsafe file of keys.
        NotFound: there is no such file.
    """
    given: dict[str, Any] = {}
    how: dict[str, Any] = {}
    for source in (_of_file(file), _of_environment(environment), _of_flags(flags)):
        for name, (where, value) in source.items():
            checked = _checked(where, name, value)
            if name == "loading":
                _check_loading(where, checked, loading)
                how |= checked
            else:
                given[name] = checked
    settings = ServeSettings(models=given.pop("models", {}), loading=how, **given)
    return _with_keys(settings)


def named_models(given: Sequence[str]) -> dict[str, str]:
    """`NAME=FOLDER`, or a folder or hub id that its last part names.

    Raises:
        BadInput: two of one name, or an empty one.
    """
    models: dict[str, str] = {}
    for each in given:
        name, equals, place = each.partition("=")
        if not equals or not re.fullmatch(r"[\w.+-]+([ /][\w.+-]+)*", name) or os.path.exists(each):
            name, place = os.path.basename(os.path.abspath(os.path.expanduser(each))), each
        if not place.strip() or not name:
            raise BadInput(f"a model is {short(each)}; wanted a folder or hub id, or NAME=FOLDER")
        if name in models:
            raise BadInput(f"two models are called {name}; name them: --model first={models[name]} --model second=...")
        models[name] = place
    return models


_Source = dict[str, tuple[str, Any]]
"""Name of a field -> where its value stands, and the value."""


def _of_file(path: Path | None) -> _Source:
    if path is None:
        return {}
    from prefrank.io.yaml_files import read_yaml

    document = read_yaml(path, BadInput)
    if document.value is None:
        return {}
    if not isinstance(document.value, dict):
        raise BadInput(f"{path} holds {short(document.value)}; wanted names and values, such as port: 8000")
    found: _Source = {}
    for name, value in document.value.items():
        where = f"{path}, line {document.lines[name]}"
        _check_name(where, name, name)
        if name == "keys":
            raise BadInput(f"{where}: keys are not read from here; put them in a file and name it in api_key_file")
        found[name] = (where, _models(value) if name == "models" else value)
    return found


def _models(value: Any) -> Any:
    """A file may also list models as flags do."""
    is_list = isinstance(value, list) and all(isinstance(part, str) for part in value)
    return named_models(value) if is_list else value


def _of_environment(environment: Mapping[str, str]) -> _Source:
    found: _Source = {}
    for variable in sorted(environment):
        if variable.startswith(PREFIX):
            name = variable.removeprefix(PREFIX).lower()
            _check_name(variable, name, variable)
            if not environment[variable].strip():
                raise BadInput(f"{variable} is empty; give it a value, or unset it")
            found[name] = (variable, _of_variable(variable, name, environment[variable]))
    return found


def _of_variable(variable: str, name: str, text: str) -> Any:
    """What a variable's text is, by the type of its field: strings as they stand, lists between commas, else YAML."""
    if _HINTS[name] in (str, str | None) or name == "log_format":
        return text
    if name == "models":
        return named_models([part.strip() for part in text.split(",")])
    if get_origin(_HINTS[name]) is tuple:
        return [part.strip() for part in text.split(",")]
    from prefrank.io.yaml_files import parse_yaml

    return parse_yaml(text, variable, BadInput).value


def _of_flags(flags: Mapping[str, Any]) -> _Source:
    return {name: ("", value) for name, value in flags.items()}


def _check_name(where: str, name: str, shown: str) -> None:
    if name not in _NAMES:
        known = [f"{PREFIX}{each.upper()}" if shown.startswith(PREFIX) else each for each in _NAMES]
        said = "it" if where == shown else shown
        raise BadInput(f"{where}: {said} is no setting of the server{suggest(shown, known)}")


def _checked(where: str, name: str, value: Any) -> Any:
    """The value as the field has it; it is looked at alone, so that an error can say where it stands."""
    beside = {} if name == "models" else {"models": _ANY}
    try:
        return getattr(read(ServeSettings, beside | {name: value}), name)
    except Wrong as wrong:
        said = str(wrong).removeprefix("cannot be used: ")
        raise BadInput(f"{where}: {said}" if where else said) from None


def _check_loading(where: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise BadInput(f"{where}: loading.{name} is no option of loading a model{suggest(name, known)}")


def _with_keys(settings: ServeSettings) -> ServeSettings:
    from prefrank.serving.keys import Keys, load_keys

    of_file = () if settings.api_key_file is None else load_keys(Path(settings.api_key_file))
    keys = (*settings.keys, *of_file)
    Keys.of(keys)  # raises where one cannot be used
    return replace(settings, keys=keys)
