"""Stage 3: a packed batch of token ids becomes scores."""

from prefrank.model.checkpoint import load_network, save_network
from prefrank.model.files import atomic_folder
from prefrank.model.network import (
    Network,
    fingerprint,
    head_parameter_names,
    parameters_by_depth,
    score_batches,
)

__all__ = [
    "Network",
    "atomic_folder",
    "fingerprint",
    "head_parameter_names",
    "load_network",
    "parameters_by_depth",
    "save_network",
    "score_batches",
]
