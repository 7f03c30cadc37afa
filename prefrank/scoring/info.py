"""What a checkpoint is, for people: architecture, size, text settings, fingerprint, training record."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prefrank.model import fingerprint, load_network
from prefrank.model.adapter import is_adapter, read_adapter, read_whole
from prefrank.model.hub import resolve_model
from prefrank.model.integer_weights import QUANTISED
from prefrank.model.network import PackedNetwork, as_decoder
from prefrank.model.record import read_record
from prefrank.scoring.reward_model import RewardModel


def checkpoint_info(
    name: str,
    *,
    head: str | None = None,
    max_length: int | None = None,
    precision: str | None = None,
    kernels: str | None = None,
    template: str | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Facts of a reward model folder or hub id, as plain values.

    Loads the weights to count and fingerprint them, so the facts are those of the files as they are now: `as_saved`
    says whether they are still the ones that prefrank.json was written for.

    Args:
        head to trust_remote_code: as `RewardModel.load`; precision, kernels and fingerprint are those with these.

    Raises:
        NotFound, BadModel: as `RewardModel.load`.
    """
    folder = resolve_model(name)
    load = partial(
        RewardModel.load,
        folder,
        device="cpu",
        head=head,
        max_length=max_length,
        precision=precision,
        kernels=kernels,
        template=template,
        trust_remote_code=trust_remote_code,
    )
    return read_whole(folder, partial(_info, folder, load, trust_remote_code))


def _info(folder: Path, load: Callable[[], RewardModel], trust_remote_code: bool) -> dict[str, Any]:
    record, model = read_record(folder), load()
    parameters = list(model.network.parameters())
    config = model.network.config
    quantised = model.engine.precision in QUANTISED
    is_whole = quantised or not model.network.uncut
    whole = model.network if is_whole else load_network(folder, trust_remote_code=trust_remote_code)
    whole_fingerprint = model.fingerprint
    if len(whole.heads) > 1:  # the record's is of the model with all its heads
        whole_fingerprint = fingerprint(whole, extra=model.encoder.fingerprint_bytes())
    return {
        "folder": str(folder),
        "kind": _kind(folder, ours=record is not None),
        "architecture": (config.get("architectures") or [config.get("model_type")])[0],
        "parameters": sum(parameter.numel() for parameter in parameters),
        "dtypes": dict(Counter(str(parameter.dtype).removeprefix("torch.") for parameter in parameters)),
        "heads": list(whole.heads),
        "precision": model.engine.precision,
        "kernels": model.engine.kernels,
        "scored_token": _scored_token(model),
        "positions": model.network.max_positions,
        "vocabulary": model.encoder.source.tokenizer.get_vocab_size(),
        "text": model.encoder.text_json(),
        "fingerprint": model.fingerprint,
        "as_saved": None if record is None else record.fingerprint == whole_fingerprint,
        "training": model.training,
        "calibration": model.calibration,
    }


def _scored_token(model: RewardModel) -> str:
    """Where in a row the score is read."""
    decoder = as_decoder(model.network)
    if decoder is None:
        return "the first" if isinstance(model.network, PackedNetwork) else "as the model pools"
    padding = decoder.scored_padding
    if padding is None:
        return "the last"
    token = model.encoder.source.tokenizer.id_to_token(padding)
    return f"the rightmost that is not padding ({padding}{f', {token}' if token else ''})"


def _kind(folder: Path, *, ours: bool) -> str:
    if is_adapter(folder):
        return f"LoRA adapter of {read_adapter(folder).base}"
    return "prefrank checkpoint" if ours else "plain transformers checkpoint"
