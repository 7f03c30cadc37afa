"""What a model card needs that nobody can measure: answers of people, and the published terms of known data and bases.

Surprising: a blank is an error, and one error names everything that is missing. The tables below say only what the
publishers' own pages state; where a page states no licence the table has none, and the user is asked.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrank.data.catalogue import ALIASES, SOURCES
from prefrank.errors import BadData, BadInput, NotFound, short, suggest
from prefrank.io.json_files import kind_of, read_object
from prefrank.io.yaml_files import read_yaml

REQUIRED = {
    "developers": "who made the model",
    "funded_by": "who paid for it (nobody is an answer)",
    "contact": "an address for questions and complaints",
    "license": "licence of the model, as the hub writes it, such as apache-2.0",
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
    "base_license": "licence of the model it started from",
    "data_license": "licence of the training data; data_license.NAME for one set",
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
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_FILE_ENDINGS = (".json", ".jsonl", ".gz", ".parquet", ".csv", ".yaml")


@dataclass(frozen=True, slots=True)
class Terms:
    """What the publisher of a data set or a model states.

    Args:
        license: as the hub writes it; "" where none is stated.
        languages: ISO 639 codes; () where they depend on what is read.
        paper: to cite; "" where there is none.
    """

    license: str
    languages: tuple[str, ...] = ()
    paper: str = ""


_HH = Terms("mit", ("en",), "Bai et al. (2022), Training a helpful and harmless assistant, arXiv:2204.05862")
_SUMMARIES = Terms("", ("en",), "Stiennon et al. (2020), Learning to summarize from human feedback, arXiv:2009.01325")
_OASST = Terms("apache-2.0", (), "Köpf et al. (2023), OpenAssistant Conversations, arXiv:2304.07327")
_HELPSTEER2 = Terms("cc-by-4.0", ("en",), "Wang et al. (2024), HelpSteer2, arXiv:2406.08673")
DATA = {
    "starter": Terms("mit", ("en",)),
    "webgpt": Terms("", ("en",), "Nakano et al. (2021), WebGPT, arXiv:2112.09332"),
    "hfsummary": _SUMMARIES,
    "hfsummary_axis": _SUMMARIES,
    **{name: _HH for name in SOURCES if name == "anthropic_rlhf" or name.startswith("hh/")},
    "oasst1": _OASST,
    "oasst2": _OASST,
    "gptsynthetic": Terms("", ("en",)),
    "shp": Terms("", ("en",), "Ethayarajh et al. (2022), V-usable information, arXiv:2110.08420"),
    "hellaswag": Terms("mit", ("en",), "Zellers et al. (2019), HellaSwag, arXiv:1905.07830"),
    "helpsteer2": _HELPSTEER2,
    "helpsteer2_preference": _HELPSTEER2,
    "helpsteer3": Terms("cc-by-4.0", (), "Wang et al. (2025), HelpSteer3-Preference, arXiv:2505.11475"),
    "ultrafeedback": Terms("mit", ("en",), "Cui et al. (2023), UltraFeedback, arXiv:2310.01377"),
}
"""By the names of prefrank's catalogue."""

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_BERT_PAPER = "Devlin et al. (2019), BERT, arXiv:1810.04805"
_ROBERTA_PAPER = "Liu et al. (2019), RoBERTa, arXiv:1907.11692"
_DEBERTA_PAPER = "He et al. (2021), DeBERTa, arXiv:2006.03654"
_DEBERTA3_PAPER = "He et al. (2021), DeBERTaV3, arXiv:2111.09543"
_ELECTRA_PAPER = "Clark et al. (2020), ELECTRA, arXiv:2003.10555"
BASES = {
    MINILM: Terms("apache-2.0", ("en",), "Wang et al. (2020), MiniLM, arXiv:2002.10957"),
    **{f"google-bert/bert-{size}-uncased": Terms("apache-2.0", ("en",), _BERT_PAPER) for size in ("base", "large")},
    **{f"FacebookAI/roberta-{size}": Terms("mit", ("en",), _ROBERTA_PAPER) for size in ("base", "large")},
    **{f"microsoft/deberta-v2-{size}": Terms("mit", ("en",), _DEBERTA_PAPER) for size in ("xlarge", "xxlarge")},
    **{
        f"microsoft/deberta-v3-{size}": Terms("mit", ("en",), _DEBERTA3_PAPER)
        for size in ("xsmall", "small", "base", "large")
    },
    **{
        f"google/electra-{size}-discriminator": Terms("apache-2.0", ("en",), _ELECTRA_PAPER)
        for size in ("small", "base", "large")
    },
    **{
        f"OpenAssistant/reward-model-deberta-v3-{size}": Terms("mit", ("en",), _DEBERTA3_PAPER)
        for size in ("base", "large", "large-v2")
    },
}
"""By hub id."""


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
    found: dict[str, str] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found |= _flat(value, file, f"{key}.")
        else:
            found[key] = ", ".join(_word(one, file, key) for one in (value if isinstance(value, list) else [value]))
    return found


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


def catalogue_name(source: str) -> str | None:
    """The catalogue's name of a data source; None for one it does not hold."""
    name = ALIASES.get(source.lower(), source)
    return name if name in SOURCES else None


def public_name(source: str) -> str:
    """A data source or model as a public card may name it: a local path loses its folders."""
    if catalogue_name(source) or is_hub_id(source):
        return source
    return Path(source).name or source


def is_hub_id(name: str) -> bool:
    """Whether a name can only be one on the hub: owner/name, and nothing of that name here."""
    return bool(_HUB_ID.fullmatch(name)) and not name.endswith(_FILE_ENDINGS) and not Path(name).exists()


def hub_name(source: str) -> str | None:
    """The id of a data source on the hub, if it is there."""
    name = catalogue_name(source)
    if name is not None:
        return SOURCES[name].hub or None
    return source if is_hub_id(source) else None


def base_of(model_name: str) -> str | None:
    """The hub id of a recipe's `model_name`; None for a local folder."""
    if model_name == "minilm":
        return MINILM
    return model_name if is_hub_id(model_name) else None


def data_license(source: str, facts: Mapping[str, str]) -> str | None:
    """A set's own answer, else what its publisher states, else the answer for all sets."""
    own = facts.get(f"data_license.{public_name(source)}")
    stated = DATA[name].license if (name := catalogue_name(source)) in DATA else ""
    return next((one for one in (own, stated, facts.get("data_license")) if one and not is_blank(one)), None)
