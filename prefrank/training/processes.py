"""Adding up what the processes of a distributed run did in one step; nothing to do for one process."""

import torch
from accelerate import Accelerator

from prefrank.model import Network
from prefrank.training.step import StepSums


def add_gradients(accelerator: Accelerator, network: Network) -> None:
    """Replace every trained parameter's gradient by its sum over all processes; one that has none counts as 0."""
    if accelerator.num_processes == 1:
        return
    for parameter in network.parameters():
        if parameter.requires_grad:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = accelerator.reduce(own, "sum")


def add_sums(accelerator: Accelerator, own: StepSums) -> StepSums:
    """The sums of a whole step; a process that has no bad comparison of its own still hears that there is one."""
    if accelerator.num_processes == 1:
        return own
    values = torch.tensor([own.loss, own.correct, own.preferences, own.tokens, len(own.not_finite)])
    loss, correct, preferences, tokens, bad = accelerator.reduce(values.to(accelerator.device), "sum").tolist()
    names = own.not_finite or (("a comparison of another process",) if bad else ())
    return StepSums(loss, correct, int(preferences), int(tokens), names)


def any_process(accelerator: Accelerator, mine: bool) -> bool:
    """Whether it is true on any process."""
    if accelerator.num_processes == 1:
        return mine
    return bool(accelerator.reduce(torch.tensor(float(mine), device=accelerator.device), "sum") > 0)
