"""Input-format audit: what text format, padding side, number type and batch size do to one model's scores.

The same checkpoint gives other scores, and other accuracies, in other programs: texts are joined in another way,
batches are padded, numbers are rounded. Here every combination is held against one reference, prefrank's own path in
float32, one reply at a time. Two engines run: prefrank's, which never pads, and transformers as most programs call it
(`AutoModelForSequenceClassification`, padded batches). transformers also gets the model's own tokens (format "own"), so
that the effect of padding is seen apart from that of another format. What cannot run is listed with its reason.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from prefrank.checks import check_strings, check_whole
from prefrank.errors import BadData, BadInput, short, suggest
from prefrank.evaluation.audit_results import Audit, Combination
from prefrank.evaluation.items import Item
from prefrank.evaluation.one_scorer import check_items
from prefrank.evaluation.samples import Pairs, flatten
from prefrank.scoring import RewardModel
from prefrank.scoring.opened import plain_folder, quiet_transformers
from prefrank.text.rendering import written_by
from prefrank.types import Comparison, Prompt, Row

FORMATS: Mapping[str, str] = {
    "own": "the checkpoint's own, with prefrank's truncation",
    "pair": "the tokenizer's encoding of two texts, turns joined by line breaks",
    "raw": "prompt and reply as one string, joined by a line break",
    "chat": "the tokenizer's chat template",
}
ENGINES = ("prefrank", "transformers")
SIDES = ("right", "left")
DTYPES = ("float32", "bfloat16", "float16")
BATCH_SIZES = (1, 8, 32)
NUM_COMPARISONS = 32
_WHOLE = 1 << 20
"""Tokens that prefrank may take at once: batches are as large as the audit says."""

_Rows = Sequence[tuple[Prompt, str]]
Values = Float64[np.ndarray, " N"]


def audit(
    name: str | Path,
    items: Sequence[Comparison | Item],
    *,
    head: str | None = None,
    device: str | None = None,
    max_length: int | None = None,
    pre_rendered: bool = False,
    template: str | None = None,
    trust_remote_code: bool = False,
    engines: Sequence[str] = ENGINES,
    formats: Sequence[str] = tuple(FORMATS),
    sides: Sequence[str] = SIDES,
    dtypes: Sequence[str] = DTYPES,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    num_comparisons: int = NUM_COMPARISONS,
    progress: Callable[[Combination], object] = lambda combination: None,
) -> Audit:
    """Score the same comparisons in every combination.

    Args:
        name: a model folder or hub id, as for `RewardModel.load`; resolved once: both engines run the same files.
        items: comparisons; replies are scored in their order, so that each batch holds replies of several lengths.
        head: of a model with several outputs.
        device: such as "cpu"; the first GPU if there is one.
        max_length: replaces the checkpoint's tokens per row.
        pre_rendered, trust_remote_code: as `RewardModel.load`, for both engines.
        template: as `RewardModel.load`; transformers' own formats know nothing of it.
        batch_sizes: one row at a time is always among them.
        num_comparisons: at most this many, evenly spaced.
        progress: called with each combination when it is done.

    Raises:
        BadData: no comparison that people decided.
        BadInput: an unknown engine, format, padding side or number type, or none; a batch size or num_comparisons that
            is not a whole number of at least 1; items that are not comparisons.
        NotFound, BadModel: as `RewardModel.load` in float32, without which there is no reference.
    """
    _check(engines, formats, sides, dtypes, batch_sizes)
    check_items(items)
    check_whole("num_comparisons", num_comparisons, least=1)
    rows, pairs = _rows_of(items, num_comparisons)
    if not pairs.decided.any():
        raise BadData(f"none of the {len(items)} comparisons prefers one reply; wanted at least one that does")
    sizes = [size for size in sorted(set(batch_sizes)) if size > 1]
    combinations: list[Combination] = []
    with plain_folder(name, template=template) as (folder, named):
        load = partial(
            RewardModel.load,
            folder,
            head=head,
            device=device,
            max_length=max_length,
            max_tokens=_WHOLE,
            pre_rendered=pre_rendered,
            template=named,
            trust_remote_code=trust_remote_code,
        )
        model = load(precision="float32")
        reference = _in_batches(partial(_score_ours, model), rows, 1)
        for engine, dtype in product(engines, dtypes):
            if engine == "prefrank":
                opened = _attempt(partial(_open_ours, load, model, dtype))
            else:
                opened = _attempt(partial(_open_theirs, folder, model, dtype, trust_remote_code))
            for form in formats:
                ready = opened if isinstance(opened, _Reason) else _attempt(partial(opened, form, rows))
                batches = [(size, side) for size in sizes for side in (sides if engine == "transformers" else (None,))]
                ways = [Combination(engine, form, side, dtype, size) for size, side in [(1, None), *batches]]
                for combination in _tried(ways, ready, reference, pairs):
                    combinations.append(combination)
                    progress(combination)
    return Audit(
        rows=len(rows),
        pairs=int(pairs.decided.sum()),
        reference=f"prefrank, own format ({model.encoder.settings.template}), float32, one at a time",
        spread=float(reference.std()),
        combinations=tuple(combinations),
    )


def _check(
    engines: Sequence[str], formats: Sequence[str], sides: Sequence[str], dtypes: Sequence[str], sizes: Sequence[int]
) -> None:
    known = {"engine": (engines, ENGINES), "format": (formats, FORMATS), "padding side": (sides, SIDES)}
    known |= {"number type": (dtypes, DTYPES)}
    for what, (given, there) in known.items():
        check_strings(f"the list of {what}s", given)
        for name in given:
            if name not in there:
                raise BadInput(f"there is no {what} {name!r}{suggest(name, there)}")
    if isinstance(sizes, str | bytes) or not isinstance(sizes, Collection):
        raise BadInput(f"batch_sizes is {short(sizes)}; wanted a list of whole numbers")
    for size in sizes:
        check_whole("a batch size", size, least=1)


def _rows_of(items: Sequence[Comparison | Item], count: int) -> tuple[_Rows, Pairs]:
    """At most `count` items, evenly spaced, as distinct rows; and their preferences between those rows."""
    if not items:
        raise BadData("there are no comparisons to audit with; wanted at least one")
    kept = [items[place] for place in np.unique(np.linspace(0, len(items) - 1, count).round().astype(int))]
    rows = [(item.prompt, reply) for item in kept for reply in item.replies]
    number: dict[tuple[Prompt, str], int] = {}
    place = np.array([number.setdefault(row, len(number)) for row in rows], np.int64)
    pairs = flatten([item.preferences for item in kept], [0.0] * len(kept), [len(item.replies) for item in kept])
    return list(number), replace(pairs, ahead=place[pairs.ahead], behind=place[pairs.behind])


@dataclass(frozen=True, slots=True)
class _Reason:
    """Why something could not run."""

    text: str


@dataclass(frozen=True, slots=True)
class _Ready:
    """Rows in one format, ready to be scored: `score(side, batch_size)`; `cut` is the share that had to be cut."""

    score: Callable[[str | None, int], Values]
    cut: float


_Prepare = Callable[[str, _Rows], _Ready]


def _attempt(action: Callable[[], Any]) -> Any:
    """The action's result, or a `_Reason`: torch, tokenizers and templates raise nearly anything."""
    try:
        return action()
    except Exception as error:
        message = (str(error).strip().splitlines() or [type(error).__name__])[0]
        unseen = "above report" in message  # transformers logs it, and its log is silent here
        return _Reason("its weights do not fit its config.json, in shape or on conversion" if unseen else message)


def _tried(
    ways: Sequence[Combination], ready: _Ready | _Reason, reference: Values, pairs: Pairs
) -> Iterator[Combination]:
    alone: Values | None = None
    for way in ways:
        values = (
            ready if isinstance(ready, _Reason) else _attempt(partial(ready.score, way.padding_side, way.batch_size))
        )
        if isinstance(values, _Reason) or isinstance(ready, _Reason):
            yield replace(way, reason=values.text)
            continue
        if way.batch_size == 1:
            alone = values
        yield _compared(replace(way, cut=ready.cut), values, alone, reference, pairs)


def _compared(way: Combination, values: Values, alone: Values | None, reference: Values, pairs: Pairs) -> Combination:
    spread, failures = float(reference.std()), int((~np.isfinite(values)).sum())
    values = np.where(np.isfinite(values), values, np.nan)
    largest, rms = _largest(values - reference), float(np.sqrt(np.mean((values - reference) ** 2)))
    decided = pairs.decided
    was, now = ((scores[pairs.ahead] - scores[pairs.behind])[decided] for scores in (reference, values))
    return replace(
        way,
        max_difference=largest,
        rms_difference=None if failures else rms,
        max_spreads=None if largest is None or not spread else largest / spread,
        rms_spreads=None if failures or not spread else rms / spread,
        batch_difference=None if alone is None else _largest(values - alone),
        flips=int((np.sign(now) != np.sign(was)).sum()),
        gained=int(((now > 0) & (was <= 0)).sum()),
        lost=int((~(now > 0) & (was > 0)).sum()),
        pairs=int(decided.sum()),
        failures=failures,
    )


def _largest(differences: Values) -> float | None:
    """None where one is not a number."""
    largest = float(np.abs(differences).max())
    return largest if np.isfinite(largest) else None


def _in_batches(score: Callable[[Any], Values], rows: Sequence[Any], size: int) -> Values:
    return np.concatenate([score(rows[first : first + size]) for first in range(0, len(rows), size)])


def _open_ours(load: Callable[..., RewardModel], model: RewardModel, dtype: str) -> _Prepare:
    """prefrank's own path, in another number type."""
    return partial(_prepare_ours, model if dtype == "float32" else load(precision=dtype))


def _prepare_ours(model: RewardModel, form: str, rows: _Rows) -> _Ready:
    encoder = model.encoder
    if form == "raw":
        raise BadInput("prefrank never joins prompt and reply into one string")
    if form == encoder.settings.template:
        raise BadInput(f"{form} is the model's own format")
    if form != "own":
        template: Any = form
        settings = replace(encoder.settings, template=template)
        encoder = type(encoder)(encoder.source, settings, pre_rendered=encoder.pre_rendered)
    cut = [row.cut_prompt + row.cut_reply > 0 for row in encoder.encode_pairs(rows)]
    if form != "own":
        model = RewardModel(model.network, encoder, max_tokens=_WHOLE)
    return _Ready(lambda side, size: _in_batches(partial(_score_ours, model), rows, size), float(np.mean(cut)))


def _score_ours(model: RewardModel, rows: _Rows) -> Values:
    return np.array([score.value for score in model.score_pairs(rows)], np.float64)


def _open_theirs(folder: Path, model: RewardModel, dtype: str, trust: bool) -> _Prepare:
    """What programs that know nothing of prefrank load from the same folder; its code runs as the caller said."""
    import transformers  # costs seconds, so not at the top

    with quiet_transformers():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
        network: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, dtype), local_files_only=True, trust_remote_code=trust
        )
    network = network.to(next(model.network.parameters()).device).eval()
    head, labels = model.network.heads[0], network.config.label2id
    if network.config.num_labels > 1 and head not in labels:
        raise BadInput(f"its config.json names the outputs {', '.join(labels)}; wanted {head} among them")
    column = labels[head] if network.config.num_labels > 1 else 0
    return partial(_prepare_theirs, tokenizer, network, column, model)


def _prepare_theirs(tokenizer: Any, network: Any, column: int, model: RewardModel, form: str, rows: _Rows) -> _Ready:
    limit = model.encoder.settings.max_length
    if form == "own":
        own = model.encoder.encode_pairs(rows)
        encoded = [_own_inputs(row, "token_type_ids" in tokenizer.model_input_names) for row in own]
        cut = [row.cut_prompt + row.cut_reply > 0 for row in own]
    else:
        texts = [_TEXTS[form](tokenizer, prompt, reply) for prompt, reply in rows]
        encode = partial(tokenizer, add_special_tokens=form != "chat", verbose=False)
        # Lists of one, since tokenizers drop an empty second text otherwise
        whole = [encode(*([text] for text in both)) for both in texts]
        encoded = [
            {
                key: value[0]
                for key, value in encode(*([text] for text in both), truncation=True, max_length=limit).items()
            }
            for both in texts
        ]
        cut = [len(inputs["input_ids"][0]) > limit for inputs in whole]
    score = partial(_score_theirs, tokenizer, network, column)
    return _Ready(lambda side, size: _in_batches(partial(score, side), encoded, size), float(np.mean(cut)))


def _own_inputs(row: Row, typed: bool) -> dict[str, list[int]]:
    ids = row.ids.tolist()
    types = {"token_type_ids": row.types.tolist()} if typed else {}
    return {"input_ids": ids, "attention_mask": [1] * len(ids)} | types


def _joined(prompt: Prompt) -> str:
    return "\n".join(turn.text for turn in prompt)


def _chat(tokenizer: Any, prompt: Prompt, reply: str) -> tuple[str]:
    template = tokenizer.chat_template
    template = template.get("default") if isinstance(template, dict) else template
    if not template:
        raise BadInput("the tokenizer has no chat template")
    messages = [turn.message() for turn in prompt]
    messages.append({"role": "assistant", "content": reply})
    return (written_by(template, messages, tokenizer.special_tokens_map),)


_TEXTS: Mapping[str, Callable[[Any, Prompt, str], tuple[str, ...]]] = {
    "pair": lambda tokenizer, prompt, reply: (_joined(prompt), reply),
    "raw": lambda tokenizer, prompt, reply: (f"{_joined(prompt)}\n{reply}",),
    "chat": _chat,
}


def _score_theirs(tokenizer: Any, network: Any, column: int, side: str | None, rows: Sequence[Any]) -> Values:
    tokenizer.padding_side = side or "right"
    with quiet_transformers(), torch.inference_mode():
        if side is None:
            inputs = {key: torch.tensor([value]) for key, value in rows[0].items()}
        else:
            inputs = tokenizer.pad(rows, return_tensors="pt")
        logits = network(**{key: value.to(network.device) for key, value in inputs.items()}).logits
    return logits[:, column].double().cpu().numpy()
