"""What a run starts from: the network with its head, and the text path.

Unless the recipe says otherwise, a reward model keeps its head, and a model that prefrank trained its text settings.
"""

from dataclasses import replace
from pathlib import Path

import torch

from prefrank.errors import BadRecipe
from prefrank.model import Network, load_network
from prefrank.model.adapter import text_folder
from prefrank.model.checkpoint import heads_in
from prefrank.model.hub import resolve_model
from prefrank.model.integer_weights import check_finite
from prefrank.model.record import text_settings
from prefrank.text import TextEncoder, TextSettings, default_length, default_settings, load_tokenizer, with_template
from prefrank.training.loop.lora import ADAPTER, add_adapters, check_lora, restore_adapters
from prefrank.training.loop.optim import freeze
from prefrank.training.recipe import Recipe


def load_text(recipe: Recipe, folder: Path, *, positions: int | None = None, resumed: bool = False) -> TextEncoder:
    """The text path of a model folder: as prefrank trained it, or the defaults, with what the recipe states changed.

    Args:
        positions: what the model has positions for, in tokens; None for no limit.
        resumed: the folder is a checkpoint of this very run, and so has the recipe's chat template already.

    Raises:
        BadModel: a record that is torn, or of a newer version; a decoder that comes without a template, where the
            recipe names none.
        BadRecipe: a setting without effect on this model.
        NotFound: no chat template of that name, and no such file.
    """
    stated = text_settings(folder)
    stored = None if stated is None else TextSettings.from_json(stated)
    source, named = load_tokenizer(text_folder(folder)), None if resumed else recipe.chat_template
    settings = stored or default_settings(source, default_length(source, positions), named=named is not None)
    if recipe.max_length is not None:
        settings = replace(settings, max_length=recipe.max_length)
    if recipe.turns == "labels" and settings.template != "pair":
        raise BadRecipe(f"turns is labels, but {recipe.model_name} marks turns its own way; leave turns out")
    if recipe.turns is not None:
        settings = replace(settings, labels=recipe.turns == "labels")
    if named is not None:
        if settings.template == "pair":
            raise BadRecipe(
                f"chat_template is set, but {recipe.model_name} takes prompt and reply as a pair; leave it out"
            )
        source, settings = with_template(source, settings, named)
    return TextEncoder(source, settings, pre_rendered=recipe.pre_rendered)


def load_model(recipe: Recipe, folder: Path, *, device: torch.device, resumed: bool = False) -> Network:
    """The network to train, on its device; draws a new head from torch's default generator if there is to be one.

    Raises:
        BadModel: the folder is not a usable model, or has weights that are no numbers.
        BadRecipe: rows longer than the model's positions, more layers to freeze than it has, heads that it does not
            have, or modules to adapt that it does not have.
    """
    check_lora(recipe)
    adapted = recipe.lora_rank > 0
    # A resumed LoRA run takes up its adapter over the first weights: merged ones have lost the adapter's bits.
    start = resolve_model(recipe.model_name) if resumed and adapted else folder
    fresh, heads = choose_heads(recipe, start, resumed=resumed and not adapted)
    network = load_network(start, heads=heads, new_head=fresh, dropout=recipe.dropout, device=device)
    for name, parameter in network.named_parameters():
        check_finite(parameter, name)
    positions = network.max_positions
    if positions is not None and recipe.max_length is not None and recipe.max_length > positions:
        raise BadRecipe(f"max_length is {recipe.max_length}, but {recipe.model_name} has positions for {positions}")
    if recipe.gradient_checkpointing:
        network.gradient_checkpointing = True
    if recipe.kernels == "flash":
        if reason := network.obstacle():
            raise BadRecipe(f"kernels is flash, but {reason}")
        network.fused = True
    freeze(network, recipe)
    if adapted:
        add_adapters(network, recipe)
    if adapted and resumed:
        restore_adapters(network, folder / ADAPTER)
    return network


def choose_heads(recipe: Recipe, folder: Path, *, resumed: bool) -> tuple[bool, tuple[str, ...] | None]:
    """Whether to start from a new head, and the heads to make or to keep; None for the only one there is.

    A model's one head serves a recipe of one head, whatever it is called.

    Raises:
        BadRecipe: the recipe keeps the head, but has others than the model.
    """
    stored = heads_in(folder)
    only = stored is not None and len(stored) == len(recipe.heads) == 1
    has_them = stored is not None and (only or set(recipe.heads) <= set(stored))
    if not resumed and (recipe.new_head is True or (recipe.new_head == "auto" and not has_them)):
        return True, recipe.heads
    if stored is not None and not has_them:
        raise BadRecipe(
            f"heads are {', '.join(recipe.heads)}, but {recipe.model_name} has {', '.join(stored)};"
            " name those, or set new_head: true"
        )
    return False, None if only else recipe.heads


def use_bf16(recipe: Recipe, device: torch.device) -> bool:
    """Whether to run in bfloat16; `auto` is yes on a GPU that has it, no on a CPU, where it is slower."""
    if recipe.bf16 == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.bf16
