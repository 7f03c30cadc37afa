"""Stage 3: a packed batch of token ids becomes scores."""

from prefrank.io.atomic import atomic_folder
from prefrank.model.checkpoint import load_for_scoring, load_network
from prefrank.model.engine import Engine, make_engine, run
from prefrank.model.network import (
    Network,
    fingerprint,
    head_modules,
    head_parameter_names,
    parameters_by_depth,
    score_batches,
)
from prefrank.model.save import save_network

__all__ = [
    "Engine",
    "Network",
    "atomic_folder",
    "fingerprint",
    "head_modules",
    "head_parameter_names",
    "load_for_scoring",
    "load_network",
    "make_engine",
    "parameters_by_depth",
    "run",
    "save_network",
    "score_batches",
]
