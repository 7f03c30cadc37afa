"""How much memory a run takes, part by part: counted on tensors without memory, or measured while a step runs.

A count follows every tensor that a real forward and backward pass makes on torch's meta device, from the operation
that allocates it to the last reference that goes, so it needs neither weights nor the device in question. Operations
take the types that CUDA's autocast gives them, dropout keeps a byte an element, and attention that is one kernel there
keeps no table of scores. What kernels allocate for themselves while they run is not seen.

Surprising: peaks of parts are no sum. Gradients appear while activations go, and what an update needs comes after
both, so `Memory.peak` may be less than its parts together.
"""

import ctypes
import platform
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prefrank.model import Network
from prefrank.training.recipe import Recipe
from prefrank.types import Batch

_SMALLEST_8BIT, _BLOCK_8BIT = 4096, 256
"""bitsandbytes keeps moments of so many elements or more in 8 bits, each block of them with a float32 scale."""


_TRIM, _MMAP = -1, -3
"""glibc's names for mallopt: when to give memory back, and from which size on to ask the system for each block."""


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Inside the block, memory that is freed stays with the process, to be used again.

    Without it glibc gives large blocks back, and takes them anew in the next pass, page by page and zeroed: 5 % of a
    step on a CPU. Elsewhere than on glibc it does nothing.
    """
    glibc = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if glibc is None:
        yield
        return
    for name in (_MMAP, _TRIM):
        glibc.mallopt(name, 2**31 - 1)
    try:
        yield
    finally:
        for name in (_MMAP, _TRIM):  # where glibc's own rule ends up
            glibc.mallopt(name, 2**25)
        glibc.malloc_trim(0)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one device, or of the process where that is a CPU.

    Args:
        process: Python, libraries and encoded data; 0 on a GPU, where they are not.
        weights: of the network.
        gradients: of the trained parameters.
        optimizer: its state.
        averages: of the weights: the average itself and its snapshots.
        activations: what stays after the forward pass of the largest micro-batch, for its backward pass.
        temporary: what passes, updates and savings take besides.
        peak: of all of them; not all stand at once, so it may be less than their sum.
        measured: whether the peak was measured, here, or counted.
    """

    process: int
    weights: int
    gradients: int
    optimizer: int
    averages: int
    activations: int
    temporary: int
    peak: int
    measured: bool


@dataclass(frozen=True, slots=True)
class Passes:
    """Bytes of forward and backward passes beside the weights.

    Args:
        activations: what stays after the forward pass, for the backward pass.
        peak: the most that stands at once, gradients included.
    """

    activations: int
    peak: int


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors made inside the block, each from its making until the last reference is gone.

    Args:
        own: tensors that were there before.
    """

    def __init__(self, own: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, Any] = {}
        for tensor in own:
            storage = tensor.untyped_storage()
            self._known[storage._cdata] = storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor):
                self._add(one.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._known:
            return

        def drop(_: object) -> None:
            del self._known[place]
            self.now -= size

        self._known[place] = weakref.ref(storage, drop)
        self.now += size
        self.peak = max(self.peak, self.now)


class _AsOnGpus(TorchFunctionMode):
    """Gives operations on meta tensors the types and the dropout that they have on a GPU, and values to those asked.

    The lists are those of CUDA's autocast that our networks meet (torch.amp, "CUDA Ops that can autocast").
    """

    _NARROW = frozenset({F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, F.conv1d, torch.conv1d})
    _WIDE = frozenset({torch.softmax, Tensor.softmax, F.softmax, F.layer_norm, Tensor.sum, torch.sum})

    def __init__(self, bf16: bool) -> None:
        super().__init__()
        self._bf16 = bf16
        self._casts: dict[int, Tensor] = {}
        self.left = False
        """Whether the forward pass is over, so that each layer that runs again enters and leaves autocast by itself."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.cpu:
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if self._bf16 and func in self._NARROW:
            args = [self._cast(one, torch.bfloat16) for one in args]
        elif self._bf16 and func in self._WIDE:
            args = [self._cast(one, torch.float32) for one in args]
        return func(*args, **kwargs)

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return torch.native_dropout(x, p, True)[0] if training and p else x

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0) -> Tensor:
        """In one kernel, which keeps no table of scores."""
        q, k, v = (self._cast(one, torch.bfloat16) if self._bf16 else one for one in (q, k, v))
        return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, dropout_p)[0]

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
            return value
        if not (isinstance(value, nn.Parameter) and value.requires_grad):
            return value.to(dtype)
        if id(value) not in self._casts:  # autocast keeps a trained weight's cast until its block is left
            self._casts[id(value)] = value.to(dtype)
        return self._casts[id(value)]

    def leave_autocast(self) -> None:
        """Drop the casts, as at the end of an autocast block."""
        self.left = True
        self._casts.clear()


def count_passes(network: Network, batch: Batch, *, bf16: bool, sharing: bool) -> Passes:
    """Count the memory of a forward and a backward pass of a network on the meta device, beside its weights.

    Its gradients are added to those of an earlier micro-batch, so all of them are there from the start.

    Args:
        batch: the micro-batch; of its token ids only the number counts.
        sharing: what micro-batches of a step have in common is computed once.
    """
    network.train()
    shared = getattr(network, "sharing", None) if sharing else None
    rules = _AsOnGpus(bf16)
    with LiveBytes(network.parameters()) as live, _ruled(network, rules):
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        with rules, nullcontext() if shared is None else shared(batch.ids):
            before = live.now
            scores = network(batch)
            rules.leave_autocast()
            activations = live.now - before
            torch.autograd.backward(scores, torch.ones_like(scores))
    for parameter in network.parameters():
        parameter.grad = None
    return Passes(activations, live.peak)


@contextmanager
def _ruled(network: Network, rules: _AsOnGpus) -> Iterator[None]:
    """Inside the block layers follow the rules too when the backward pass runs them again, where no mode reaches."""
    layers: list[Any] = []
    for name, _ in network.named_parameters():
        parent = name.rpartition(".")[0]
        while "." in parent and not parent.rpartition(".")[2].isdigit():
            parent = parent.rpartition(".")[0]
        if parent.rpartition(".")[2].isdigit():
            layers.append(network.get_submodule(parent))
    layers = list(dict.fromkeys(layers))
    for layer in layers:
        layer.forward = _inside(rules, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _inside(rules: _AsOnGpus, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def ruled(*args: Any) -> Tensor:
        with rules:
            answer = run(*args)
        if rules.left:
            rules.leave_autocast()
        return answer

    return ruled


def optimizer_bytes(parameters: Iterable[Tensor], recipe: Recipe) -> int:
    """The state of the recipe's optimiser for these trained parameters."""
    sizes = [p.numel() for p in parameters]
    if recipe.optimizer == "adamw":
        return sum(2 * 4 * size for size in sizes)
    return sum(2 * size + 2 * 4 * -(-size // _BLOCK_8BIT) if size >= _SMALLEST_8BIT else 2 * 4 * size for size in sizes)


def average_bytes(parameters: Iterable[Tensor], recipe: Recipe, *, steps: int) -> int:
    """The average of these trained parameters and its snapshots, one more of them while the oldest is replaced."""
    if not (recipe.ema_decay or recipe.average_last):
        return 0
    taken = -(-steps // recipe.eval_steps)
    snapshots = min(taken, recipe.average_last + 1) if recipe.average_last else 0
    return (1 + snapshots) * size_of(parameters)


def size_of(tensors: Iterable[Tensor]) -> int:
    """Their bytes."""
    return sum(one.numel() * one.element_size() for one in tensors)


def resident() -> int:
    """Bytes of this process that are in memory, once free ones have been given back to the system."""
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss


def forget_peak() -> None:
    """Let `peak` count anew; does nothing where the system cannot."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc_pid_clear_refs(5): resets VmHWM
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak(device: torch.device) -> int | None:
    """The most bytes that were in use on the device since `forget_peak`; None where nobody can tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return None
