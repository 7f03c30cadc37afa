"""What memory a run takes, part by part: sizes by arithmetic, and the peak that the system measures.

Peaks of parts are no sum. Gradients appear while activations go, and what an update needs comes after both, so
`Memory.peak` may be less than its parts together.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from prefrank.training.recipe import Recipe

_SMALLEST_8BIT, _BLOCK_8BIT = 4096, 256
"""bitsandbytes keeps moments of so many elements or more in 8 bits, each block of them with a float32 scale."""


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


def optimizer_bytes(parameters: Iterable[Tensor], recipe: Recipe) -> int:
    """The state of the recipe's optimizer for these trained parameters."""
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
    """Size in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def forget_peak() -> None:
    """Reset `peak`; does nothing where the system cannot."""
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
