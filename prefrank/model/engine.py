"""Chooses the engine that scores a network, and scores many batches with it, one stream of batches per core.

Every engine is a callable from a packed batch to float32 scores. The exact ones (`kernels` "torch" and the native ones
in float32) agree to 1e-5; an integer precision is used only when it is asked for by name, and where it cannot be had
that is an error: the exact path is never silently replaced.

Two things are done on threads of their own. torch's number of threads belongs to the thread that asks, so an engine
that was given a number keeps it without changing the program's. And a process that was forked after torch had computed
cannot compute on the thread that it was forked on (OpenMP waits there for threads that are gone), but on a new one.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prefrank import native
from prefrank.checks import is_count
from prefrank.errors import BadInput, BadModel, PrefrankError, short, suggest
from prefrank.model.families import lay_out, scorer
from prefrank.model.integer_weights import stored_precision
from prefrank.model.layout import DecoderLayout, Layout
from prefrank.model.native_decoder import NativeDecoderEngine
from prefrank.model.native_decoder import unfit as unfit_decoder
from prefrank.model.native_engine import NativeEngine, unfit
from prefrank.model.network import Network, precision_of
from prefrank.types import Batch, Tree

TORCH = "torch"
FLASH = "flash"
NAMES = (TORCH, FLASH, *native.KERNELS)
MOST_THREADS = 4096
_MOST_CALLERS = 64
_FIRST_PROCESS = os.getpid()
_LIMITING: dict[int, Lock] = {}
"""A lock by process: one that another thread held when this process was forked would never open."""


@runtime_checkable
class Engine(Protocol):
    """Scores a packed batch: [N] float32 on the CPU, in the batch's order, without gradient.

    `precision` is that of the weights, `kernels` what runs them, `streams` how many threads may call it at once with
    profit (1 where torch uses the cores itself).
    """

    precision: str
    kernels: str
    streams: int

    def __call__(self, batch: Batch) -> Tensor: ...


class NetworkEngine:
    """A network's own forward pass as an engine: on any device, in the dtype of its weights.

    A score that is not a number is returned as it is.

    Args:
        kernels: "torch", or "flash" for a network whose attention is one kernel call.
        deterministic: a row's score is the same to the bit in any batch, at the same number of threads: every row is
            computed by itself, so that the shapes of all products, which decide the order of their sums, follow from
            its length alone.

    Raises:
        BadModel: weights that do not fit together.
    """

    streams = 1

    def __init__(self, network: Network, kernels: str, *, deterministic: bool) -> None:
        self.kernels = kernels
        self.deterministic = deterministic
        self.precision = precision_of(network)
        with _errors_of_the_model(), torch.no_grad():
            self._scorer = scorer(network)

    def __call__(self, batch: Batch) -> Float[Tensor, " N"]:
        parts = rows_alone(batch) if self.deterministic else [batch]
        with _errors_of_the_model(), torch.inference_mode():
            scores = torch.cat([self._scorer(part) for part in parts]).cpu()
        return scores.clone()  # outside inference mode: an ordinary tensor


@contextmanager
def _errors_of_the_model() -> Iterator[None]:
    """What torch raises of weights that do not fit together is a BadModel; running out of memory stays what it is."""
    try:
        yield
    except (PrefrankError, torch.OutOfMemoryError):
        raise
    except (ArithmeticError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if "allocate" in reason:  # torch has no error of its own for a CPU's memory
            raise
        raise BadModel(f"the model cannot be run ({reason}); do its config.json and its weights fit?") from error


def rows_alone(batch: Batch) -> Iterator[Batch]:
    """Each row of a batch as a batch of its own: whole and in one segment, whatever it shared."""
    tree = batch.tree
    for row in range(len(batch.rows)):
        path = [row] if tree is None else tree.path(row)
        tokens = np.concatenate([np.arange(batch.starts[s], batch.starts[s + 1]) for s in path])
        yield Batch(
            ids=batch.ids[tokens],
            types=batch.types[tokens],
            rows=np.zeros(1, np.int64),
            starts=np.array([0, len(tokens)]),
            tree=None if tree is None else Tree(np.array([-1]), np.array([0]), tree.lengths[row : row + 1]),
        )


class LimitedEngine:
    """A torch engine that uses a number of cores of its own, whatever the program's is.

    Each batch is scored on a thread whose torch has that number. Several callers have a thread each.
    """

    streams = 1

    def __init__(self, engine: Engine, num_threads: int) -> None:
        self.engine = engine
        self.num_threads = num_threads
        self.kernels = engine.kernels
        self.precision = engine.precision

    def __call__(self, batch: Batch) -> Float[Tensor, " N"]:
        return _limited_pool(self.num_threads, os.getpid()).submit(self.engine, batch).result()


@functools.cache
def _limited_pool(num_threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        _MOST_CALLERS, thread_name_prefix="prefrank", initializer=_limit_thread, initargs=(num_threads,)
    )


def _limit_thread(num_threads: int) -> None:
    """Give this thread, which is new, a number of torch's threads.

    torch also takes the number for threads that do not have one yet; what they had is set again, from another thread.
    One thread at a time, so that none takes another's number for the program's.
    """
    with _LIMITING.setdefault(os.getpid(), Lock()):
        before = torch.get_num_threads()
        torch.set_num_threads(num_threads)
        again = Thread(target=torch.set_num_threads, args=(before,))
        again.start()
        again.join()


def _limited(engine: Engine, network: Network, num_threads: int | None) -> Engine:
    on_cpu = next(iter(network.parameters())).device.type == "cpu"
    return LimitedEngine(engine, num_threads) if num_threads is not None and on_cpu else engine


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
        deterministic: the same bits for a row in any batch. The native kernels always give them; torch then scores
            each row by itself.
        num_threads: cores to use, by default torch's number of threads: streams of the native kernels, threads of a
            torch operation. On a GPU it changes nothing. Nothing else in the program is changed by it.

    Raises:
        BadInput: a network of several heads; kernels that are unknown, were not built, or cannot run this model;
            integer weights without kernels; a number of threads below 1.
    """
    if num_threads is not None and not (is_count(num_threads) and num_threads <= MOST_THREADS):
        raise BadInput(f"num_threads is {short(num_threads)}; wanted a whole number from 1 to {MOST_THREADS:,}")
    if kernels is not None and (not isinstance(kernels, str) or kernels not in NAMES):
        raise BadInput(f"the kernels {short(kernels)} are unknown{suggest(str(kernels), NAMES)}")
    if len(network.heads) > 1:
        raise BadInput(f"the model has the heads {', '.join(network.heads)}; name one (head=, --head)")
    if kernels == FLASH:
        return _flash(network, deterministic)
    quantised = stored_precision(network.config) is not None
    if quantised and kernels == TORCH:
        raise BadInput("integer weights run on the native kernels only; leave kernels out, or load in float32")
    layout = None if kernels == TORCH else lay_out(network)
    if layout is None and kernels not in (None, TORCH):
        raise BadInput(f"this model has no kernels {kernels!r}: it runs on torch alone; leave kernels out")
    precision = precision_of(network)
    # As it was asked for: what only holds its weights so computes in float32.
    narrow = isinstance(layout, DecoderLayout) and precision in ("bfloat16", "float16")
    if narrow and kernels is not None:
        raise BadInput(f"the kernels {kernels} compute in float32, not in {precision}; leave kernels or precision out")
    if layout is None or narrow or (kernels is None and not quantised and not _fits(layout)):
        return _limited(NetworkEngine(network, TORCH, deterministic=deterministic), network, num_threads)
    streams = num_threads or torch.get_num_threads()
    if isinstance(layout, DecoderLayout):
        return NativeDecoderEngine(layout, kernels, streams=streams)
    return NativeEngine(layout, kernels, streams=streams)


def _fits(layout: Layout | DecoderLayout) -> bool:
    """Whether there are kernels here that can run a model."""
    obstacle = unfit_decoder(layout) if isinstance(layout, DecoderLayout) else unfit(layout)
    return bool(native.available()) and obstacle is None


def _flash(network: Network, deterministic: bool) -> Engine:
    if reason := network.obstacle():
        raise BadInput(f"the kernels 'flash' cannot be used: {reason}")
    network.fused = True
    return NetworkEngine(network, FLASH, deterministic=deterministic)


def run(engine: Engine, batches: Sequence[Batch]) -> Float[Tensor, " N"]:
    """Scores of all rows, in the order `Batch.rows` gives. Threads change the time it takes, never a score."""
    scores = torch.empty(sum(len(batch.rows) for batch in batches))
    process = os.getpid()
    if engine.streams > 1 and len(batches) > 1:
        batches = batches[::-1]  # the long rows first, so that no stream is left with the largest batch at the end
        parts: Iterable[Tensor] = _pool(engine.streams, process).map(engine, batches)
    elif process != _FIRST_PROCESS:
        parts = _pool(1, process).map(engine, batches)
    else:
        parts = map(engine, batches)
    for batch, values in zip(batches, parts, strict=True):
        scores[torch.from_numpy(batch.rows)] = values
    return scores


@functools.cache
def _pool(num_threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of one process: a fork has none of its parent's."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix="prefrank")
