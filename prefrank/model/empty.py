"""Makes modules on the meta device: shapes from config.json can be checked before memory is taken."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

from prefrank.errors import BadModel

_DRAWN = (init.normal_, init.uniform_, init.kaiming_uniform_)
_CALLS_PER_TENSOR, _MORE_CALLS = 200, 2000


@contextmanager
def empty(file: str, stored: int) -> Iterator[None]:
    """Inside the block tensors are made without memory or values.

    torch's initial values are left out: there is nothing to draw, and drawing it imports torch's compiler.

    Args:
        file: the config.json that is followed.
        stored: tensors in the files beside it, many fewer than which no model calls torch for.

    Raises:
        BadModel: the block makes more tensors than could have been stored, as with a billion layers, or larger ones
            than a number can count.
    """
    try:
        with torch.device("meta"), _Counted(file, stored):
            yield
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or ["torch says nothing"])[0][:160]
        raise BadModel(f"{file} describes a model that cannot be made ({reason}); is it the weights' own?") from error


class _Counted(TorchFunctionMode):
    """Counts calls of torch, and leaves out those that draw initial values."""

    def __init__(self, file: str, stored: int) -> None:
        super().__init__()
        self.file, self.stored = file, stored
        self.left = _MORE_CALLS + _CALLS_PER_TENSOR * stored

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise BadModel(
                f"{self.file} describes a model of far more tensors than the {self.stored} that are stored;"
                " is it the weights' own?"
            )
        if func in _DRAWN:
            return kwargs["tensor"] if kwargs else args[0]
        return func(*args, **(kwargs or {}))
