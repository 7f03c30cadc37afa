"""Finds the device to use, and scores in forked processes on a thread that works there.

torch's cores are threads of OpenMP's runtime (libgomp). They do not outlive a fork, but the thread that was forked
still knows them and waits for them forever (gcc.gnu.org/bugzilla, 58378). A new thread of the child has new ones.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from prefrank.errors import BadInput, short

T = TypeVar("T")
_PROCESS = os.getpid()


def forked() -> bool:
    """Whether this process was forked from one that had loaded this module."""
    return os.getpid() != _PROCESS


def computed(work: Callable[[], T]) -> T:
    """The result of work that torch does, in a forked process on a thread of its own."""
    if not forked():
        return work()
    with ThreadPoolExecutor(1, thread_name_prefix="prefrank") as pool:
        return pool.submit(work).result()


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
    if not isinstance(name, str):
        raise BadInput(f"the device is {short(name)}; wanted a name such as cpu or cuda:0")
    try:
        device = torch.device(name)
        if device.type != "cpu":
            torch.empty(1, device=device).cpu()
    except Exception as error:  # nearly anything, such as AssertionErrors of torch without CUDA, or a missing module
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise BadInput(f"the device {short(name)} cannot be used ({reason}); wanted such as cpu or cuda:0") from error
    return torch.device("cpu") if device.type == "cpu" else device
