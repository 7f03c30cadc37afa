"""A LoRA adapter and its base as one plain folder, which everything loads."""

import os
from functools import partial
from pathlib import Path

from prefrank.errors import BadInput
from prefrank.io.atomic import atomic_folder
from prefrank.model import Network, load_network
from prefrank.model.adapter import is_adapter, read_whole, text_folder
from prefrank.model.hub import resolve_model
from prefrank.model.network import trained_positions
from prefrank.model.record import ModelRecord, read_record, text_settings
from prefrank.model.save import check_target, write_checkpoint
from prefrank.text import TextEncoder, TextSettings


def merge_adapter(adapter: str | Path, target: str | Path, *, template: str | None = None) -> Path:
    """Write the merged model of an adapter, with all its heads and its text settings, whole or not at all.

    An adapter that carries no text settings has those of its base.

    Args:
        adapter: a folder or hub id as peft writes them; its base is the one that its adapter_config.json names.
        template: as `RewardModel.load`, of a decoder that comes without one.
        target: the new folder.

    Raises:
        BadInput: a folder that is not an adapter, a target that holds it, or as `TextEncoder.load`.
        BadModel: torn files, another kind of adapter, one that does not fit its base, or a decoder without a template.
        NotFound: no such adapter, or no such base.
        CannotWrite: the target cannot be written or the disk is full.
    """
    folder = Path(os.path.realpath(resolve_model(str(adapter))))
    if not is_adapter(folder):
        raise BadInput(f"{adapter} is not an adapter; wanted a folder with adapter_config.json and no config.json")
    check_target(target, folder, "adapter")
    network, text, record = read_whole(folder, partial(_read, folder, template))
    with atomic_folder(Path(target)) as temporary:
        write_checkpoint(temporary, network, text, record.training if record else None)
    return Path(target)


def _read(folder: Path, template: str | None) -> tuple[Network, TextEncoder, ModelRecord | None]:
    network, stored = load_network(folder), text_settings(folder)
    settings = None if stored is None else TextSettings.from_json(stored)
    positions = trained_positions(network)
    text = TextEncoder.load(text_folder(folder), settings, positions=positions, template=template)
    return network, text, read_record(folder)
