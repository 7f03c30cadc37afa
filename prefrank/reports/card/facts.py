"""What a model card needs that nobody can measure, as people state it. One error names everything that is missing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefrank.errors import BadData, BadInput, NotFound, short, suggest
from prefrank.io.json_files import kind_of, read_object
from prefrank.io.yaml_files import read_yaml

REQUIRED = {
    "developers": "who made the model",
    "funded_by": "who paid for it (nobody is an answer)",
    "contact": "an address for questions and complaints",
    "license": "license of the model, as the hub writes it, such as apache-2.0",
    "repository": "where the model or its code is",
    "intended_use": "what it was made for, and for whom",
    "cloud_provider": "whose machines it was trained on (none: our own is an answer)",
    "compute_region": "country or region of those machines",
}
"""Key -> what is wanted, for every model."""

WITHOUT_RECORD = {
    "training_data": "what it was trained on, with counts",
    "training_procedure": "hyperparameters, steps and precision",
    "training_hardware": "what it was trained on",
    "training_time": "hours it took",
    "training_software": "libraries and versions",
}
"""The same, for a checkpoint that no training record of prefrank's describes."""

CONDITIONAL = {
    "base_model": "the model it started from, as a hub id (none: trained from scratch is an answer)",
    "base_license": "license of the model it started from",
    "data_license": "license of the training data; data_license.NAME for one set",
    "language": "languages of the training data, as ISO 639 codes, such as en, de",
    "co2": "carbon emitted, and how that is known",
}
"""The same, asked for where neither the record nor the tables below know."""

OPTIONAL = {
    "name": "of the model; by default the folder's",
    "model_id": "how others load it, such as owner/name; by default the folder's name",
    "shared_by": "by default the developers",
    "paper": "by default none",
    "demo": "by default none",
    "out_of_scope": "uses to advise against, beside the usual ones",
    "risks": "known risks, beside the measured ones",
    "authors": "of the card; by default the developers",
    "year": "of the citation; by default of the training",
}
"""Key -> what it is; the rest is asked for."""

KEYS = REQUIRED | WITHOUT_RECORD | CONDITIONAL | OPTIONAL

_BLANKS = {"", "?", "todo", "tbd", "[more information needed]", "more information needed", "null"}


def read_facts(path: Path | None = None, given: Sequence[str] = ()) -> dict[str, str]:
    """Answers from a YAML file and from `key=value` words, of which the latter win.

    A mapping inside the file gives dotted keys: `data_license: {mine: mit}` is `data_license.mine`.

    Raises:
        NotFound: no such file.
        BadData: it is no YAML (or, called .json, no JSON) of names and texts.
        BadInput: a word without `=`.
    """
    facts = {} if path is None else _flat(_read(path), str(path))
    for word in given:
        key, equals, value = word.partition("=")
        if not equals:
            raise BadInput(f"the fact {word!r} has no =; wanted KEY=VALUE, such as contact=me@example.org")
        facts[key.strip()] = value.strip()
    return facts


def _read(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        raise NotFound(f"the file of facts {path} cannot be read: there is none")
    if path.name.endswith(".json"):
        return read_object(path, BadData)
    try:
        values = read_yaml(path, BadData).value
    except BadData as error:
        raise BadData(f"{error}; wanted lines of KEY: VALUE") from None
    if not isinstance(values, dict):
        raise BadData(f"{path} holds {kind_of(values)}; wanted lines of KEY: VALUE")
    return values


def _flat(values: Mapping[str, Any], file: str, prefix: str = "") -> dict[str, str]:
    facts: dict[str, str] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            facts |= _flat(value, file, f"{key}.")
        else:
            facts[key] = ", ".join(_word(part, file, key) for part in (value if isinstance(value, list) else [value]))
    return facts


def _word(value: Any, file: str, key: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadData(f"{file}: {key} holds {short(value)}; wanted a text, a number, or a list of these")
    return str(value).strip()


def check_facts(facts: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """See that every key is known and every wanted one has an answer.

    Raises:
        BadInput: an unknown key, or blanks, all named at once with what is wanted.
    """
    for key in facts:
        if key not in KEYS and not key.startswith("data_license."):
            raise BadInput(f"there is no fact {key!r} in a model card{suggest(key, KEYS)}")
    missing = [key for key in wanted if is_blank(facts.get(key))]
    if missing:
        lines = "; ".join(f"{key}: {wanted[key]}" for key in missing)
        count = "1 fact" if len(missing) == 1 else f"{len(missing)} facts"
        raise BadInput(
            f"the model card lacks {count} that nobody can measure; give each as --fact KEY=VALUE or as"
            f" a line KEY: VALUE of the file of facts. {lines}"
        )


def is_blank(value: str | None) -> bool:
    return value is None or value.strip().lower() in _BLANKS
