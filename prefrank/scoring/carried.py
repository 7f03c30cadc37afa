"""Sends a network to another process: as the folder that it was loaded from, or with its weights.

A folder that still holds the files that were loaded is opened again on the other side, where its weights are mapped, so
that processes share them in memory. A network of another origin, or one whose folder has changed, travels as bytes.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import torch

from prefrank.errors import BadModel
from prefrank.model import Network, load_for_scoring
from prefrank.model.adapter import is_adapter


@dataclass(frozen=True, slots=True)
class Origin:
    """How a network was loaded.

    Args:
        folder: absolute.
        files: name, bytes and time of change of each of its files, when it was loaded.
        precision, head, device, trust_remote_code: as `load_for_scoring` had them.
    """

    folder: Path
    files: tuple[tuple[str, int, int], ...]
    precision: str | None
    head: str | None
    device: str
    trust_remote_code: bool

    def load(self) -> Network:
        """The network, loaded now; see `load_for_scoring`."""
        return load_for_scoring(
            self.folder,
            precision=self.precision,
            head=self.head,
            device=torch.device(self.device),
            trust_remote_code=self.trust_remote_code,
        )


def origin_of(
    folder: Path, *, precision: str | None, head: str | None, device: torch.device, trust_remote_code: bool
) -> Origin:
    """What a network will be loaded from, with the files as they are now."""
    return Origin(folder.absolute(), _files(folder), precision, head, str(device), trust_remote_code)


def pack(network: Network, origin: Origin | None) -> Origin | bytes:
    """The origin where it still holds what was loaded, else the network as bytes, as of an adapter, which is merged."""
    if origin is not None and not is_adapter(origin.folder) and _files(origin.folder) == origin.files:
        return origin
    file = io.BytesIO()
    # Not as torch's own pickle of tensors: multiprocessing would move the weights that the kernels point to
    torch.save(network, file)
    return file.getvalue()


def unpack(packed: Origin | bytes) -> Network:
    """The network again.

    Raises:
        BadModel: the folder that it was loaded from is not there any more.
    """
    if isinstance(packed, bytes):
        return torch.load(io.BytesIO(packed), weights_only=False)
    if not packed.folder.is_dir():
        raise BadModel(
            f"the pickled model reads its weights from {packed.folder}, which is not here; take a copy of that folder"
            " along and load it with RewardModel.load"
        )
    return packed.load()


def _files(folder: Path) -> tuple[tuple[str, int, int], ...]:
    try:
        stats = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    except OSError:
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
