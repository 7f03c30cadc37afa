"""Folders that prefrank cannot read as reward models: what they hold, what is known about it, and what to do.

Many published reward models are no plain sequence classifiers: their authors' code puts a head of another name or
shape on a language model, pools elsewhere, or weighs several outputs. None of that is guessed.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prefrank.errors import BadModel, PrefrankError, short
from prefrank.io.json_files import parse_json
from prefrank.io.plain_files import read_bytes
from prefrank.model.weights import stored_shapes

MODULES = "modules.json"
"""Of sentence-transformers: the modules that a folder's model is made of."""
_PLAIN_MODULES = {"Transformer", "Pooling", "Normalize"}


class Known(NamedTuple):
    """A kind of head of other programs: patterns of its weights' and classes' names, what it is, and what to do."""

    weights: str
    architecture: str
    what: str
    cure: str


_CONVERT = (
    "save it as a sequence classifier of one output, with that head's matrix as score.weight, and check its scores"
    " against its authors' code"
)
_RUN = (
    "no linear layer gives its score: run its authors' code behind a server or function, which `prefrank evaluate`"
    " takes too"
)
_OWN = Known(r"", r"", "a head of its authors' own", _CONVERT)
KNOWN = (
    Known(
        r"(?:^|\.)(?:gating|reward_transform|regression_layer)", r"WithGating|Quantile|^QRM",
        "several objectives, weighed by a gating network (ArmoRM, QRM, URM)", _RUN,
    ),
    Known(r"(?:^|\.)score\.\d+\.", r"^INFORM", "a head of several layers (INF-ORM)", _RUN),
    Known(
        r"(?:^|\.)v_head\.(?:summary\.)?\d", r"^GRewardModel|^GRM", "a value head of several layers (GRM)", _RUN,
    ),
    Known(
        r"(?:^|\.)v_head\.summary\.(?:weight|bias)$", r"WithValueHead",
        "a value head with one value a token, as TRL's AutoModelForCausalLMWithValueHead makes it", _CONVERT,
    ),
    Known(
        r"(?:^|\.)v_head\.weight$", r"^InternLM2ForReward|^GPTRewardModel",
        "a linear value head (InternLM2's reward models, Starling)", _CONVERT,
    ),
    Known(
        r"(?:^|\.)regression_head\.", r"^(?:Llama|Eurus)RewardModel$",
        "a linear regression head (UltraRM, Starling, Eurus, Eagle)", _CONVERT,
    ),
    Known(
        r"(?:^|\.)out_proj\.(?:weight|bias)$", r"^GPTNeoXRewardModel$",
        "Open Assistant's own reward model class, which may pool the mean of all tokens (`pooling` in config.json)",
        _CONVERT,
    ),
)  # fmt: skip
_HEAD = re.compile(
    r"(?:^|\.)(?!\w*lm_head)(?:\w*(?:head|reward|value|regression|gating|critic|score|classifier|quantile)\w*|out_proj)"
    r"(?:\.|$)"
)
_INSIDE = re.compile(r"\.(?:layers?|h|blocks?)\.\d+\.")
_USUAL = re.compile(r"^(?:score\.weight|classifier\.)")


def no_head(folder: Path, raw: Mapping[str, Any]) -> BadModel:
    """The error for a folder without an output layer that is read here.

    Args:
        raw: its config.json.
    """
    more = foreign(folder, raw)
    made = ", ".join(map(str, raw.get("architectures") or [])) or "no architecture"
    plain = f"; train one, or pass a reward model (found {made} of the type {raw.get('model_type')!r})"
    return BadModel(f"{folder} has no reward head{' that is read here' + more if more else plain}")


def foreign(folder: Path, raw: Mapping[str, Any]) -> str:
    """The end of an error's line that says what a folder of another program holds; "" where it is nothing known."""
    made = [str(name) for name in raw.get("architectures") or []]
    shapes = _shapes(folder)
    heads = sorted(name for name in shapes if _HEAD.search(name) and not _INSIDE.search(name))
    known = next((kind for kind in KNOWN if any(re.search(kind.weights, name) for name in heads)), None)
    known = known or next((kind for kind in KNOWN if any(re.search(kind.architecture, name) for name in made)), None)
    if known is None and any(not _USUAL.search(name) for name in heads):
        known = _OWN
    modules, code = extra_modules(folder), raw.get("auto_map")
    if not (known or modules or code):
        return ""
    parts = [f"; found {', '.join(made) or 'no architecture'} of the type {short(raw.get('model_type'))}"]
    if heads:
        parts.append(f" with {', '.join(f'{name} {list(shapes[name])}' for name in heads[:4])}")
    if modules:
        parts.append(f", modules of sentence-transformers: {', '.join(modules)}")
    if known:
        parts.append(f", known as {known.what}")
    return f"{''.join(parts)}; {_cure(known, has_code=bool(code))}"


def _cure(known: Known | None, *, has_code: bool) -> str:
    if has_code:
        return "its own code runs only where it is loaded with trust_remote_code=True (--trust-remote-code)"
    if known is not None:
        return known.cure
    return "score with sentence-transformers behind a server or function, which `prefrank evaluate` takes too"


def check_modules(folder: Path, raw: Mapping[str, Any]) -> None:
    """Raise BadModel for a sentence-transformers folder whose score comes from more than its transformer."""
    if extra_modules(folder):
        raise no_head(folder, raw)


def extra_modules(folder: Path) -> list[str]:
    """Types and places of a sentence-transformers folder's modules, where more than pooling follows the transformer.

    Raises:
        BadModel: modules.json is torn.
    """
    path = folder / MODULES
    if not path.exists():
        return []
    try:
        entries = parse_json(read_bytes(path, BadModel), path)
        kinds = [(str(entry["type"]).rpartition(".")[2], str(entry["path"]) or ".") for entry in entries]
    except (TypeError, KeyError):  # another program's file of that name
        return []
    return [f"{kind} in {path}" for kind, path in kinds[:4]] if {kind for kind, _ in kinds} - _PLAIN_MODULES else []


def shown_names(names: Iterable[str]) -> str:
    """Some of the names, and how many more there are."""
    names = sorted(name if len(name) < 120 else f"{name[:117]}..." for name in names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    try:
        return stored_shapes(folder)
    except PrefrankError:  # what is wrong with the files themselves is said elsewhere
        return {}
