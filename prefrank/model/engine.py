"""Which engine scores a network, and scoring many batches with it, one stream of batches per core.

Every engine is a callable from a packed batch to float32 scores. The exact ones (`kernels` "torch" and the native ones
in float32) agree to 1e-5; an integer precision is used only when it is asked for by name, and where it cannot be had
that is an error: the exact path is never silently replaced.
"""

import functools
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from prefrank import native
from prefrank.errors import BadInput, suggest
from prefrank.model.bert import BertNetwork
from prefrank.model.deberta import DebertaNetwork
from prefrank.model.exact import TorchEngine, select_rows
from prefrank.model.layout import lay_out
from prefrank.model.native import NativeEngine, unfit
from prefrank.model.network import Network
from prefrank.model.threads import torch_threads
from prefrank.types import Batch

TORCH = "torch"
FLASH = "flash"
NAMES = (TORCH, FLASH, *native.KERNELS)


@runtime_checkable
class Engine(Protocol):
    """Scores a packed batch: [N] float32 on the CPU, in the batch's order, without gradient.

    `precision` is that of the weights, `kernels` what runs them, `streams` how many threads may call it at once with
    profit (1 where torch uses the cores itself), `threads` how many cores torch may use in a call (None: all it has).
    """

    precision: str
    kernels: str
    streams: int
    threads: int | None

    def __call__(self, batch: Batch) -> Tensor: ...


class NetworkEngine:
    """A network's own forward pass as an engine: what runs through transformers, or on a GPU's fused attention."""

    streams = 1

    def __init__(self, network: Network, kernels: str, *, deterministic: bool, threads: int | None = None) -> None:
        self.network = network
        self.threads = threads
        self.kernels = kernels
        self.deterministic = deterministic
        self.precision = str(next(iter(network.parameters())).dtype).removeprefix("torch.")

    def __call__(self, batch: Batch) -> Float[Tensor, " N"]:
        parts = [select_rows(batch, [n]) for n in range(len(batch.rows))] if self.deterministic else [batch]
        with torch.inference_mode():
            scores = torch.cat([self.network(part) for part in parts]).cpu()
        return scores.clone()  # outside inference mode: an ordinary tensor


def make_engine(
    network: Network,
    *,
    kernels: str | None = None,
    deterministic: bool = False,
    num_threads: int | None = None,
) -> Engine:
    """The engine for a network in evaluation mode, whose weights must not change while it is used.

    Args:
        kernels: "torch", or one of `prefrank.native.available()`; by default the fastest that fits. "flash" is a GPU's
            attention in one kernel call (`flash.py`), which is only used when it is asked for.
        deterministic: the same bits for a row in any batch. The native kernels always are; torch then scores each
            row by itself.
        num_threads: cores to use, by default torch's number of threads.

    Raises:
        BadInput: a network of several heads; kernels that are unknown, were not built, or cannot run this model;
            integer weights without kernels; less than one thread.
    """
    if num_threads is not None and num_threads < 1:
        raise BadInput(f"num_threads is {num_threads}; wanted at least 1")
    if kernels is not None and kernels not in NAMES:
        raise BadInput(f"the kernels {kernels!r} are unknown{suggest(kernels, NAMES)}")
    if len(network.heads) > 1:
        raise BadInput(f"the model has the heads {', '.join(network.heads)}; load it with head= to score with one")
    if not isinstance(network, BertNetwork | DebertaNetwork):
        if kernels not in (None, TORCH):
            raise BadInput(f"this model runs through transformers and has no kernels {kernels!r}; leave kernels out")
        return NetworkEngine(network, TORCH, deterministic=deterministic, threads=num_threads)
    if kernels == FLASH:
        return _flash(network, deterministic, num_threads)
    streams = num_threads or torch.get_num_threads()
    with torch_threads(num_threads):
        layout = lay_out(network)
        quantised = layout.layers[0].query.scale is not None
        if quantised and kernels == TORCH:
            raise BadInput("integer weights run on the native kernels only; leave kernels out, or load in float32")
        fits = bool(native.available()) and unfit(layout) is None
        if kernels == TORCH or (kernels is None and not quantised and not fits):
            return TorchEngine(layout, deterministic=deterministic, threads=num_threads)
        return NativeEngine(layout, kernels, streams=streams)


def _flash(network: BertNetwork | DebertaNetwork, deterministic: bool, num_threads: int | None) -> Engine:
    if reason := network.obstacle():
        raise BadInput(f"the kernels 'flash' cannot be used: {reason}")
    network.fused = True
    return NetworkEngine(network, FLASH, deterministic=deterministic, threads=num_threads)


def run(engine: Engine, batches: Sequence[Batch]) -> Float[Tensor, " N"]:
    """Scores of all rows, in the order `Batch.rows` gives. Threads change the time it takes, never a score."""
    with torch_threads(engine.threads):
        scores = torch.empty(sum(len(batch.rows) for batch in batches))
        if engine.streams == 1 or len(batches) < 2:
            parts: Iterable[Tensor] = map(engine, batches)
        else:  # the long rows first, so that no stream is left with the largest batch at the end
            batches = batches[::-1]
            parts = _pool(engine.streams, os.getpid()).map(engine, batches)
        for batch, values in zip(batches, parts, strict=True):
            scores[torch.from_numpy(batch.rows)] = values
    return scores


@functools.cache
def _pool(num_threads: int, process: int) -> ThreadPoolExecutor:
    """The threads of one process: a forked child has none of its parent's, and makes its own."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix="prefrank")
