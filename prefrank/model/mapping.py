"""Whether large files of weights are mapped into memory, which costs nothing and is the rule, or read.

A mapped file that is written over in place changes the weights of a model in use, and one that is cut ends the process.
A process that lives for months, beside others that write, has its models read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn

_MAPPED: ContextVar[bool] = ContextVar("_MAPPED", default=True)


def are_mapped() -> bool:
    """Whether large files are."""
    return _MAPPED.get()


@contextmanager
def unmapped() -> Iterator[None]:
    """Inside the block, on this thread, files of any size are read, so that models outlive what becomes of them."""
    token = _MAPPED.set(False)
    try:
        yield
    finally:
        _MAPPED.reset(token)


@torch.no_grad()
def read_if_unmapped(model: nn.Module) -> None:
    """Inside `unmapped`, copy the weights of a model that another library may have mapped."""
    if not are_mapped():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()
