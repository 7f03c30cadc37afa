"""How a server loads its models: of one head, on the cores that it may use, with weights of its own."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prefrank.errors import BadModel
from prefrank.model.checkpoint import heads_in
from prefrank.model.hub import resolve_model
from prefrank.model.mapping import unmapped
from prefrank.scoring import RewardModel
from prefrank.serving.cores import allowed_cores
from prefrank.serving.hosted import Hosted, host
from prefrank.serving.metrics import Metrics
from prefrank.serving.settings import ServeSettings
from prefrank.wire.route import About


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model at the start of a server.

    Args:
        weight_bytes: of its parameters.
        grown_bytes: by which the process's memory grew while it was loaded and checked; None where that is unknown.
        cores: that it computes on.
    """

    about: About
    weight_bytes: int
    grown_bytes: int | None
    cores: int


def load_hosted(name: str, settings: ServeSettings, metrics: Metrics) -> tuple[Hosted, Loaded]:
    """A model with its queue, checked and watched; and what the start of a server says of it.

    Raises:
        NotFound, BadModel, BadInput: as `load_model` and `host`.
    """
    before = resident_bytes()
    model = load_model(settings.models[name], settings)
    hosted = host(name, model, settings, metrics.watcher(name, model))
    weights = sum(parameter.nbytes for parameter in hosted.model.network.parameters())
    now = resident_bytes()
    grown = None if before is None or now is None else max(0, now - before)
    cores = _loading(settings).get("num_threads") or torch.get_num_threads()
    return hosted, Loaded(about=hosted.about, weight_bytes=weights, grown_bytes=grown, cores=cores)


def load_model(place: str, settings: ServeSettings) -> RewardModel:
    """A model that is to be served: of one head, and with weights that do not change if its files do.

    Raises:
        BadModel: it has several heads, and the settings do not say which; or as `RewardModel.load`.
    """
    check_heads(place, settings)

    with unmapped():
        return RewardModel.load(place, **_loading(settings))


def _loading(settings: ServeSettings) -> dict[str, Any]:
    """How a model is loaded: on no more cores than this process may use."""
    cores = allowed_cores()
    if cores is None or cores >= torch.get_num_threads() or settings.loading.get("num_threads") is not None:
        return dict(settings.loading)
    return {**settings.loading, "num_threads": cores}


def check_heads(place: str, settings: ServeSettings) -> None:
    """Raise BadModel for a model of several heads where nothing says which of them scores."""
    heads = heads_in(resolve_model(place)) or () if settings.loading.get("head") is None else ()
    if len(heads) > 1:
        raise BadModel(f"{place} has the heads {', '.join(heads)}; say with --head which of them is served")


def resident_bytes() -> int | None:
    """Memory of this process, where the system says it as Linux does."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
