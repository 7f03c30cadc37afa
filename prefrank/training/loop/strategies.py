"""Parallel strategies: the whole model on each process, sharded over all of them, or run by DeepSpeed.

With the whole model on each process, gradients are added up here rather than by DDP, because processes hold different
numbers of micro-batches, or none. With a sharded model (`fully_shard`, FSDP2; DeepSpeed ZeRO) every pass needs weights
from every process, so all of them make the same number of passes (`step.Lockstep`). Both average gradients over
processes, while ours are sums, so losses are divided by one process's share of the count.

Checkpoints hold whole tensors under parameter names, so a run saved under one strategy resumes under another. Only
DeepSpeed's own optimizer state is tied to its number of processes.
"""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from prefrank.errors import BadModel, BadRecipe
from prefrank.io.atomic import temporary_folder
from prefrank.model import Network
from prefrank.model.linear import Linear
from prefrank.training.loop.step import Sharing
from prefrank.training.recipe import Recipe
from prefrank.types import Batch

ENGINE = "deepspeed"
"""DeepSpeed's folder in a checkpoint's state."""
_BUCKET = 2**24
"""Numbers that are added up over processes in one call."""


class Replicated:
    """The whole model on every process, or on the only one."""

    lockstep = False
    """Whether all processes must make the same passes."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator, network: Network) -> None:
        self.accelerator, self.network, self.recipe = accelerator, network, recipe
        self.count = accelerator.num_processes

    def take(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer, made from this network's parameters as they are placed."""
        self.optimizer = optimizer

    @property
    def sharing(self) -> Sharing | None:
        """The network's `sharing`; None where its tables are not whole."""
        return self.network.sharing

    def forward(self, batch: Batch) -> Tensor:
        return self.network(batch)

    def divisor(self, count: int) -> int | float:
        """What this process divides its loss by, so that the final gradient is divided by `count`."""
        return count

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def add_gradients(self, loss: nn.Module) -> None:
        """Sum the gradients of network and loss over all processes."""
        if self.count > 1:
            self._add([p for module in (self.network, loss) for p in module.parameters() if p.requires_grad])

    def _add(self, parameters: Sequence[nn.Parameter], *, divide_by: int = 1) -> None:
        """Sums over all processes, in a few large calls; a parameter without gradient counts as 0."""
        for bucket in _buckets(parameters):
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
            torch.distributed.all_reduce(flat)
            parts = (flat / divide_by if divide_by > 1 else flat).split([p.numel() for p in bucket])
            for parameter, part in zip(bucket, parts, strict=True):
                parameter.grad = part.view_as(parameter).clone()

    def clip(self, limit: float) -> float:
        """Clip the network's gradient to a norm; returns the norm before."""
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def step(self) -> None:
        self.optimizer.step()

    @contextmanager
    def whole(self) -> Iterator[Network | None]:
        """The network with all of its weights, to be saved, on the main process; None on the others."""
        yield self.network if self.accelerator.is_main_process else None

    def state(self) -> dict[str, Any]:
        """The optimizer's state by parameter name, whole, on the main process; every process must ask."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.network.named_parameters()}
        state: dict[str, Any] = {}
        for parameter, values in self.optimizer.state.items():
            name = names.get(parameter, f"loss.{len(state)}")
            state[name] = {key: self.gather(value) for key, value in values.items()}
        return state

    def load_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Restore what `state` returned."""
        named = dict(self.network.named_parameters())
        own = {id(parameter) for parameter in named.values()}
        others = [p for group in self.optimizer.param_groups for p in group["params"] if id(p) not in own]
        rest = iter(others)
        adamw = isinstance(self.optimizer, torch.optim.AdamW)
        for name, values in state.items():
            parameter = next(rest) if name.startswith("loss.") else named[name]
            _check_like(values, parameter, adamw=adamw)
            self.optimizer.state[parameter] = {key: _placed(value, key, parameter) for key, value in values.items()}

    @contextmanager
    def saved_more(self, checkpoint: Path) -> Iterator[Path | None]:
        """A folder with what only this strategy can read, to be moved into a checkpoint; removed when the block ends.

        Every process must ask.
        """
        yield None

    def load_more(self, folder: Path) -> None:
        """Read what `saved_more` wrote.

        Raises:
            BadModel: another strategy wrote the checkpoint, and this one cannot read its state.
        """
        if (folder / ENGINE).is_dir():
            raise BadModel(f"the state in {folder} is DeepSpeed's; resume with DeepSpeed and as many processes")

    def gather(self, value: Any) -> Any:
        """A copy of a state with whole tensors on the CPU; every process must ask."""
        if isinstance(value, DTensor):
            value = value.full_tensor()
        if isinstance(value, Tensor):
            return value.detach().cpu() if self.accelerator.is_main_process else None
        if isinstance(value, Mapping):
            return {key: self.gather(item) for key, item in value.items()}
        return [self.gather(item) for item in value] if isinstance(value, list | tuple) else value

    def spread(self, value: Any) -> Any:
        """A saved state as this strategy holds it: tensors under a parameter's name are placed as that parameter."""
        named = dict(self.network.named_parameters())

        def walk(value: Any, name: str = "") -> Any:
            if isinstance(value, Mapping):
                return {key: walk(item, key) for key, item in value.items()}
            if isinstance(value, list):
                return [walk(item) for item in value]
            return _placed(value, "", named[name]) if isinstance(value, Tensor) and name in named else value

        return walk(value)


class Sharded(Replicated):
    """Weights, gradients and optimizer state in shards over all processes: `fully_shard`, known as FSDP2."""

    lockstep = True
    sharing = None

    def __init__(self, recipe: Recipe, accelerator: Accelerator, network: Network) -> None:
        super().__init__(recipe, accelerator, network)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        if not isinstance(network, nn.Module):
            raise BadModel(f"a {type(network).__name__} cannot be sharded; set sharding: none")
        self._module: nn.Module = network
        self._twin = copy.deepcopy(network).to("meta")
        network.register_forward_hook(lambda module, given, scores: scores.clone())  # FSDP2 warns of views
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        for layer in _layers(network):
            fully_shard(layer, mesh=mesh)
        fully_shard(network, mesh=mesh)

    def divisor(self, count: int) -> int | float:
        return count / self.count

    def add_gradients(self, loss: nn.Module) -> None:
        """The network's were averaged in the backward pass."""
        self._add([p for p in loss.parameters() if p.requires_grad], divide_by=self.count)

    @contextmanager
    def whole(self) -> Iterator[Network | None]:
        main = self.accelerator.is_main_process
        tensors = {}
        for name, tensor in self.network.state_dict().items():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if main:
                tensors[name] = full.cpu()
        if not main:
            yield None
            return
        self._twin.load_state_dict(tensors, assign=True)
        for name, parameter in self._twin.named_parameters():
            parameter.requires_grad_(self._module.get_parameter(name).requires_grad)
        yield self._twin
        self._twin.to("meta")


class DeepSpeed(Replicated):
    """ZeRO stage 2 (gradients and optimizer in shards) or 3 (weights too); the engine clips and makes the step."""

    lockstep = True
    sharing = None

    def __init__(self, recipe: Recipe, accelerator: Accelerator, network: Network, stage: int) -> None:
        super().__init__(recipe, accelerator, network)
        for key in ("ema_decay", "average_last"):
            if getattr(recipe, key):
                raise BadRecipe(f"{key} is set, but DeepSpeed keeps the weights itself; set {key}: 0, or use sharding")
        self._stage = stage
        for module in network.modules() if isinstance(network, nn.Module) else ():
            if isinstance(module, Linear):
                module.whole = False

    def take(self, optimizer: torch.optim.Optimizer) -> None:
        own = {id(parameter) for parameter in self.network.parameters()}
        if any(id(p) not in own for group in optimizer.param_groups for p in group["params"]):
            raise BadRecipe(
                f"loss {self.recipe.loss} learns parameters of its own, which DeepSpeed leaves out; shard fully"
            )
        import deepspeed

        self._engine, self.optimizer, *_ = deepspeed.initialize(
            model=self.network, optimizer=optimizer, config=self._config(), dist_init_required=False
        )

    def _config(self) -> dict[str, Any]:
        """The launcher's configuration, or the minimal one of the stage; the recipe overrides it."""
        plugin = self.accelerator.state.deepspeed_plugin
        given = {} if plugin is None else plugin.deepspeed_config
        least = {"zero_optimization": {"stage": self._stage}}
        return {key: value for key, value in (least | given).items() if value != "auto"} | {
            "train_micro_batch_size_per_gpu": 1,  # passes are ours to count
            "train_batch_size": self.count,
            "gradient_accumulation_steps": 1,
            "managed_gradient_accumulation": False,  # a step ends where we say, not after so many passes
            "gradient_clipping": float(self.recipe.max_grad_norm),
            "zero_allow_untested_optimizer": True,
            "bf16": {"enabled": False},  # autocast does it
        }

    def forward(self, batch: Batch) -> Tensor:
        return self._engine(batch)

    def divisor(self, count: int) -> int | float:
        return count / self.count

    def zero_grad(self) -> None:
        """The engine's step leaves none."""

    def add_gradients(self, loss: nn.Module) -> None:
        """The engine did, in the backward pass."""

    def clip(self, limit: float) -> float:
        """Clip and make the step, which are one here; returns the norm before."""
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return float("nan") if norm is None else float(norm)

    def step(self) -> None:
        """Done with clipping."""

    @contextmanager
    def whole(self) -> Iterator[Network | None]:
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(self.network.parameters())):
            yield self.network if self.accelerator.is_main_process else None

    def state(self) -> dict[str, Any]:
        return {}

    @contextmanager
    def saved_more(self, checkpoint: Path) -> Iterator[Path | None]:
        with ExitStack() as stack:
            main = self.accelerator.is_main_process
            made = stack.enter_context(temporary_folder(checkpoint)) if main else None
            folder = Path(broadcast_object_list([str(made)])[0])  # one for all
            self._engine.save_checkpoint(str(folder), tag=ENGINE)
            self.accelerator.wait_for_everyone()
            yield folder / ENGINE

    def load_more(self, folder: Path) -> None:
        if not (folder / ENGINE).is_dir():
            raise BadModel(
                f"{folder} is not from a DeepSpeed run; resume with the layout that the run was started with"
            )
        self._engine.load_checkpoint(str(folder), tag=ENGINE)


def make_strategy(recipe: Recipe, accelerator: Accelerator, network: Network) -> Replicated:
    """The strategy that the recipe, or the launcher, asks for.

    Raises:
        BadRecipe: shards without processes to hold them, or something that a strategy cannot train.
    """
    sharding = launched_sharding() if recipe.sharding == "auto" else recipe.sharding
    if sharding == "none":
        return Replicated(recipe, accelerator, network)
    if accelerator.num_processes == 1:
        raise BadRecipe(
            f"sharding is {sharding}, but there is one process to hold the shards;"
            " start with torchrun or accelerate launch, or set sharding: none"
        )
    if sharding == "full":
        return Sharded(recipe, accelerator, network)
    if find_spec("deepspeed") is None:
        raise BadRecipe(
            f"sharding is {sharding}, but DeepSpeed is missing; pip install deepspeed, or set sharding: full"
        )
    return DeepSpeed(recipe, accelerator, network, stage=int(sharding[-1]))


def launched_sharding() -> str:
    """The sharding that the launcher's configuration asks for."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        return "zero3" if os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3" else "zero2"
    return "full" if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" else "none"


def _layers(network: nn.Module) -> list[nn.Module]:
    """The layers of the largest stack in a network."""
    stacks = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    largest = max(stacks, key=lambda stack: sum(p.numel() for p in stack.parameters()), default=nn.ModuleList())
    return list(largest)


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and (size + parameter.numel() > _BUCKET or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    if bucket:
        yield bucket


def _check_like(values: Mapping[str, Any], parameter: Tensor, *, adamw: bool) -> None:
    """See that saved values can be a parameter's.

    Args:
        adamw: of torch, with a count of steps and two averages; 8-bit states have shapes of their own.

    Raises:
        ValueError: they cannot.
    """
    for key, value in values.items():
        if isinstance(value, Tensor) and (value.layout != torch.strided or value.is_meta):
            raise ValueError(f"{key} is of the layout {value.layout} on {value.device}")
    if not adamw:
        return
    if set(values) != {"step", "exp_avg", "exp_avg_sq"}:
        raise ValueError(f"the state of a parameter has {', '.join(map(str, values)) or 'nothing'}")
    for key, shape in (("step", ()), ("exp_avg", parameter.shape), ("exp_avg_sq", parameter.shape)):
        value = values[key]
        if not isinstance(value, Tensor) or value.shape != shape or not value.is_floating_point():
            kind = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{key} is {kind}, not floats of the shape {tuple(shape)}")


def _placed(value: Any, key: str, parameter: Tensor) -> Any:
    """One saved value of a parameter's state where the optimizer looks for it; it counts steps on the CPU."""
    if not isinstance(value, Tensor) or key == "step":
        return value
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        whole = value.to(parameter.device)
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value.to(parameter.device)
