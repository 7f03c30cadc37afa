"""How many cores torch uses for one piece of work, and what a forked process may still do.

torch's cores are threads of OpenMP's runtime (libgomp), which do not outlive a fork: the child finds their pool in its
memory and waits for them for ever (gcc.gnu.org/bugzilla, 58378). A region of one thread asks for none of them, so a
forked child computes on one core. A process that was spawned has threads of its own.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prefrank.errors import BadInput

_PROCESS = os.getpid()


def forked() -> bool:
    """Whether this process was forked from one that had loaded this module."""
    return os.getpid() != _PROCESS


@contextmanager
def torch_threads(number: int | None = None) -> Iterator[None]:
    """Inside, torch uses so many cores on the calling thread, or one in a forked process; afterwards as many as before.

    Args:
        number: None leaves torch's own number.
    """
    before = torch.get_num_threads()
    wanted = 1 if forked() else number or before
    if wanted == before:
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_fork(device: torch.device) -> None:
    """Raise BadInput for a model on a GPU in a forked process, where its memory cannot be used."""
    if device.type != "cpu" and forked():
        raise BadInput(
            f"the model is on {device}, which a forked process cannot use; start processes with multiprocessing's"
            " 'spawn', or load with device='cpu'"
        )


def find_device(name: str | None) -> torch.device:
    """The device of that name; by default the first GPU if there is one, else the CPU.

    Raises:
        BadInput: an unknown device, one that is not there, or a GPU that a forked process cannot use.
    """
    name = name if name is not None else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type != "cpu":
            torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # an AssertionError is torch's without CUDA
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"the device {name!r} cannot be used ({reason}); wanted such as cpu or cuda:0") from error
    return torch.device("cpu") if device.type == "cpu" else device
