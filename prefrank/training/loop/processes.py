"""What the processes of a run exchange (sums, flags, counts), and the memory that each has free."""

import psutil
import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from prefrank.training.loop.step import StepSums
from prefrank.training.recipe import Recipe


def add_sums(accelerator: Accelerator, own: StepSums) -> StepSums:
    """The sums of a whole step; a process learns of bad comparisons on the others too."""
    if accelerator.num_processes == 1:
        return own
    values = torch.tensor(
        [own.loss, own.correct, own.preferences, own.tokens, own.computed, len(own.not_finite)],
        dtype=torch.float64 if accelerator.device.type != "mps" else torch.float32,
    )
    total = accelerator.reduce(values.to(accelerator.device), "sum").tolist()
    loss, correct, preferences, tokens, computed, bad = total
    names = own.not_finite or (("a comparison of another process",) if bad else ())
    return StepSums(loss, correct, int(preferences), int(tokens), int(computed), names)


def any_process(accelerator: Accelerator, mine: bool) -> bool:
    """Whether it is true on any process."""
    if accelerator.num_processes == 1:
        return mine
    return bool(accelerator.reduce(torch.tensor(float(mine), device=accelerator.device), "sum") > 0)


def close_processes() -> bool:
    """End the process group of a launch; returns whether this is its main process."""
    if not torch.distributed.is_initialized():
        return True
    main = torch.distributed.get_rank() == 0
    torch.distributed.destroy_process_group()
    return main


def most_of_processes(accelerator: Accelerator, mine: int) -> int:
    """The largest of the processes' numbers."""
    if accelerator.num_processes == 1:
        return mine
    largest = torch.tensor(mine, device=accelerator.device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest)


def free_memory(recipe: Recipe, optimizer: torch.optim.Optimizer, device: torch.device) -> int:
    """Bytes that graphs may take on a device beyond one micro-batch's, before the first step.

    What `max_memory` leaves beside the weights, less gradients and optimizer state to come (two moments), and of that
    four fifths: passes need some memory that no graph keeps.
    """
    if recipe.max_memory is None:
        return 0
    cuda = device.type == "cuda"
    if recipe.max_memory == "auto":
        free = torch.cuda.mem_get_info(device)[0] if cuda else psutil.virtual_memory().available
    else:
        used = torch.cuda.memory_allocated(device) if cuda else psutil.Process().memory_info().rss
        free = int(recipe.max_memory * 1e9) - used
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    local = [p.to_local() if isinstance(p, DTensor) else p for p in trained]
    to_come = 3 * sum(p.numel() * p.element_size() for p in local)
    return max(0, (free - to_come) * 4 // 5)
