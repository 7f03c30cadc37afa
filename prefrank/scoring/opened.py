"""A reward model opened by name, with the settings behind its scores as plain values, for the record of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefrank.model.adapter import is_adapter, read_whole
from prefrank.model.hub import resolve_model
from prefrank.model.quiet import quiet_transformers as quiet_transformers  # for evaluation, which may not import models
from prefrank.model.record import read_record
from prefrank.scoring.merge import merge_adapter
from prefrank.scoring.reward_model import RewardModel


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A loaded model and what a record says of it.

    Args:
        model: ready to score.
        ours: whether prefrank saved it; otherwise its text settings are the defaults.
        format: text settings, head, precision, kernels and device, whatever of them was asked for; `empty_score`,
            `pre_rendered`, `named_template` and `trust_remote_code` where they were.
    """

    model: RewardModel
    ours: bool
    format: dict[str, Any]


def open_model(
    name: str,
    *,
    head: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    kernels: str | None = None,
    max_length: int | None = None,
    max_tokens: int | None = None,
    num_threads: int | None = None,
    deterministic: bool = False,
    empty_score: float | None = None,
    pre_rendered: bool = False,
    template: str | None = None,
    trust_remote_code: bool = False,
) -> OpenedModel:
    """Load a folder or hub id; the arguments are those of `RewardModel.load`.

    Raises:
        NotFound, BadModel, BadInput: as `RewardModel.load`.
    """
    folder = resolve_model(name)
    load = partial(
        RewardModel.load,
        folder,
        head=head,
        device=device,
        precision=precision,
        kernels=kernels,
        max_length=max_length,
        max_tokens=max_tokens,
        num_threads=num_threads,
        deterministic=deterministic,
        empty_score=empty_score,
        pre_rendered=pre_rendered,
        template=template,
        trust_remote_code=trust_remote_code,
    )
    model, ours = read_whole(folder, lambda: (load(), read_record(folder) is not None))
    parameters = next(iter(model.network.parameters()))
    config = model.network.config
    settings = {
        "architecture": (config.get("architectures") or [config.get("model_type")])[0],
        "head": model.network.heads[0],
        "precision": model.engine.precision,
        "kernels": model.engine.kernels,
        "device": str(parameters.device),
        "deterministic": deterministic,
    }
    if empty_score is not None:
        settings["empty_score"] = empty_score
    if pre_rendered:
        settings["pre_rendered"] = True
    if template is not None:
        settings["named_template"] = template
    if trust_remote_code:
        settings["trust_remote_code"] = True
    return OpenedModel(model, ours, model.encoder.text_json() | settings)


@contextmanager
def plain_folder(name: str | Path, *, template: str | None = None) -> Iterator[tuple[Path, str | None]]:
    """The folder that every program loads the model from, and the template that is still to be named for it. Of a run
    it is its best checkpoint, of an adapter a merged copy for as long as it is used, of a hub id its files here.

    Args:
        template: as `RewardModel.load`; a merged copy has it.

    Raises:
        NotFound, BadModel: as `RewardModel.load`.
    """
    folder = resolve_model(str(name))
    if not is_adapter(folder):
        yield folder, template
        return
    with TemporaryDirectory(prefix="prefrank-") as place:
        yield merge_adapter(folder, Path(place) / "merged", template=template), None
