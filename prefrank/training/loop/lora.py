"""LoRA: training low-rank changes to a frozen model, and its head, through peft.

    W x + alpha / r * B A x, with A drawn at random and B from 0 (Hu et al. 2021, arXiv 2106.09685, section 4.1)

Pooler and score head are always trained in full and saved: peft freezes everything that it does not adapt, and a reward
model whose new head keeps its random initial weights learns next to nothing. Checkpoints are plain merged folders, with
the adapter next to them in peft's own format; a resumed run starts from the adapter, since merging rounds it.
"""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from prefrank.errors import BadModel, BadRecipe
from prefrank.model import Network, head_modules, head_parameter_names, parameters_by_depth
from prefrank.model.adapter import WEIGHTS, adapted_modules, adapter_tensors
from prefrank.model.hub import MINILM, resolve_model
from prefrank.model.network import outer_name
from prefrank.model.record import ModelRecord, write_record
from prefrank.model.save import TextPath, scored_token
from prefrank.model.weights import write_tensors
from prefrank.training.recipe import Recipe

ADAPTER = "adapter"
"""The adapter's folder inside a checkpoint's."""


def check_lora(recipe: Recipe) -> None:
    """Raise BadRecipe for adapter settings without adapters."""
    for key in ("lora_alpha", "lora_dropout", "lora_targets"):
        if not recipe.lora_rank and getattr(recipe, key) != Recipe.model_fields[key].default:
            raise BadRecipe(f"{key} is set, but lora_rank is 0; set lora_rank, or leave {key} out")


def add_adapters(network: Network, recipe: Recipe) -> None:
    """Put adapters on the recipe's modules and freeze all but them and the head; layers that are frozen get none.

    A is drawn from torch's default generator; dropout comes from it too, when a step is run.

    Raises:
        BadRecipe: a target that is not a linear layer of the model, or a model whose head cannot be told from
            its layers.
    """
    from peft import LoraConfig, inject_adapter_in_model  # costs seconds, so not at the top

    targets, head = find_targets(network, recipe), set(head_parameter_names(network))
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=[_inner(network, name) for name in targets],
        fan_in_fan_out=any(_is_transposed(network.get_submodule(name)) for name in targets),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")  # peft sets it right for each layer
        inject_adapter_in_model(config, _root(network))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in head or ".lora_" in name)
    check_trained(network, recipe)


def check_trained(network: Network, recipe: Recipe) -> None:
    """Raise BadRecipe unless the output layer is trained."""
    output: Any = network.get_submodule(network.output_layer)
    if not output.weight.requires_grad:
        raise BadRecipe(
            f"lora_rank is {recipe.lora_rank}, but the head of {recipe.model_name} ({network.output_layer}) would stay"
            " untrained; set lora_rank: 0"
        )


def find_targets(network: Network, recipe: Recipe) -> list[str]:
    """Names of the modules to adapt: linear layers of attention and feed-forward, or those the recipe names by ending.

    Raises:
        BadRecipe: an ending that no linear layer below the head has, or none that is not frozen.
    """
    embeddings, *layers, _head = parameters_by_depth(network)
    inside = [name for names in layers for name in names]
    linear = _linear_layers(network, embeddings + inside)
    auto = recipe.lora_targets == ("auto",)
    wanted = _linear_layers(network, inside) if auto else []
    for ending in () if auto else recipe.lora_targets:
        matching = [name for name in linear if f".{name}".endswith(f".{ending}")]
        if not matching:
            known = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear))
            raise BadRecipe(
                f"lora_targets names {ending!r}, which no linear layer below the head of {recipe.model_name} is called;"
                f" there are {known or 'none'}"
            )
        wanted += matching
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    targets = [name for name in dict.fromkeys(wanted) if f"{name}.weight" in trained]
    if not targets:
        why = "all of them are frozen; lower freeze_layers" if wanted else "it has none; set lora_rank: 0"
        raise BadRecipe(f"lora_targets finds no linear layer of {recipe.model_name} to adapt: {why}")
    return targets


def _linear_layers(network: Network, parameters: list[str]) -> list[str]:
    names = [name.removesuffix(".weight") for name in parameters if name.endswith(".weight")]
    modules = {name: network.get_submodule(name) for name in names}
    return [name for name, module in modules.items() if isinstance(module, nn.Linear) or _is_transposed(module)]


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is GPT-2's kind of linear layer, which holds its matrix as [I, O]."""
    from transformers.pytorch_utils import Conv1D  # costs seconds, so not at the top

    return isinstance(module, Conv1D)


def _root(network: Network) -> Any:
    """The module whose names are transformers'."""
    return network.get_submodule(outer_name(network).rstrip("."))


def _inner(network: Network, name: str) -> str:
    return name.removeprefix(outer_name(network))


def save_adapter(folder: Path, network: Network, text: TextPath, training: dict[str, Any], *, fingerprint: str) -> None:
    """Write the adapter of a network that trains LoRA into a new folder; nothing for any other network.

    It is what `PeftModel.from_pretrained` reads, over the base as a sequence classifier with as many labels as heads.

    Args:
        training: the record for prefrank.json, with the recipe.
        fingerprint: of the merged model.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    adapted = adapted_modules(network)
    if not adapted:
        return
    from peft import LoraConfig

    recipe: Mapping[str, Any] = training["recipe"]
    folder.mkdir()
    LoraConfig(
        task_type="SEQ_CLS",
        base_model_name_or_path=_lasting(recipe["model_name"]),
        r=recipe["lora_rank"],
        lora_alpha=recipe["lora_alpha"],
        lora_dropout=recipe["lora_dropout"],
        target_modules=[_inner(network, name) for name in adapted],
        modules_to_save=[_inner(network, name) for name in head_modules(network)],
        fan_in_fan_out=any(module.fan_in_fan_out for module in adapted.values()),
        inference_mode=True,
    ).save_pretrained(str(folder))
    write_tensors(folder / WEIGHTS, adapter_tensors(network, head_parameter_names(network)))
    record = ModelRecord(
        text.text_json(), fingerprint, training, heads=network.heads, scored_token=scored_token(network)
    )
    write_record(folder, record)


def _lasting(model_name: str) -> str:
    """A name of the base that means the same from any folder."""
    is_local = model_name != MINILM and os.path.isdir(os.path.expanduser(model_name))
    return os.path.realpath(resolve_model(model_name)) if is_local else model_name


def restore_adapters(network: Network, folder: Path) -> None:
    """Give a network with fresh adapters the factors and head of a saved one, bit for bit.

    Raises:
        BadModel: torn or missing files, or an adapter of other modules.
    """
    own = adapter_tensors(network, head_parameter_names(network))
    try:
        saved = load_file(folder / WEIGHTS)
    except Exception as error:  # a torn file can fail anywhere
        raise BadModel(f"the adapter in {folder} cannot be read ({error}); remove that checkpoint") from error
    if {name: tensor.shape for name, tensor in own.items()} != {name: tensor.shape for name, tensor in saved.items()}:
        raise BadModel(f"the adapter in {folder} is of other modules than the recipe's; remove that checkpoint")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])
