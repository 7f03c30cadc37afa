"""Licenses, languages and papers of known data sets and base models, and what a public card calls them.

The tables say only what the publishers' own pages state; where a page states no license the table has none, and the
user is asked.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prefrank.data.catalogue import ALIASES, SOURCES
from prefrank.reports.card.facts import is_blank

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
    answers = (own, stated, facts.get("data_license"))
    return next((answer for answer in answers if answer and not is_blank(answer)), None)
