"""From a recipe to what the loop needs: the network, the text path, and encoded examples. Fails before the first step.

Surprising: a model that already is a reward model keeps its head unless the recipe says otherwise; the text settings
are always the recipe's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from prefrank.errors import BadData, BadRecipe
from prefrank.model import Network, load_network
from prefrank.model.weights import read_config
from prefrank.text import TextEncoder
from prefrank.training.corpus import Corpus
from prefrank.training.events import Encoding, Report, ignore
from prefrank.training.examples import Examples, encode
from prefrank.training.optim import freeze
from prefrank.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class EncodedCorpus:
    """Everything encoded.

    Args:
        training: examples to train on.
        evaluation: name -> examples.
        counts: set name -> what encoding did to it, as plain values; `training` for the training sets together.
    """

    training: Examples
    evaluation: Mapping[str, Examples]
    counts: Mapping[str, Mapping[str, int]]


def load_text(recipe: Recipe, folder: Path) -> TextEncoder:
    """The text path of a model folder with the recipe's settings.

    Raises:
        BadRecipe: a setting without effect on this model.
    """
    encoder = TextEncoder.load(folder, max_length=recipe.max_length)
    labels = recipe.turns == "labels"
    if labels and encoder.settings.template != "pair":
        raise BadRecipe(f"turns is labels, but {recipe.model_name} marks turns its own way; set turns: separator")
    return TextEncoder(encoder.source, replace(encoder.settings, labels=labels))


def load_model(recipe: Recipe, folder: Path, *, device: torch.device, resumed: bool = False) -> Network:
    """The network to train, on its device; draws a new head from torch's default generator if there is to be one.

    Raises:
        BadModel: the folder is not a usable model.
        BadRecipe: rows longer than the model's positions, or more layers to freeze than it has.
    """
    fresh = not resumed and (recipe.new_head is True or (recipe.new_head == "auto" and not has_reward_head(folder)))
    network = load_network(folder, new_head=fresh, dropout=recipe.dropout, device=device)
    positions = network.max_positions
    if positions is not None and recipe.max_length > positions:
        raise BadRecipe(f"max_length is {recipe.max_length}, but {recipe.model_name} has positions for {positions}")
    if recipe.gradient_checkpointing:
        network.gradient_checkpointing = True
    freeze(network, recipe)
    return network


def has_reward_head(folder: Path) -> bool:
    """Whether config.json says: a sequence classifier with one output."""
    config = read_config(folder)
    architectures = config.get("architectures") or [""]
    classifier = str(architectures[0]).endswith("ForSequenceClassification")
    return classifier and len(config.get("id2label") or {0: "", 1: ""}) == 1


def use_bf16(recipe: Recipe, device: torch.device) -> bool:
    """Whether to run in bfloat16; `auto` is yes on a GPU that has it, no on a CPU, where it is slower."""
    if recipe.bf16 == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.bf16


def encode_corpus(corpus: Corpus, encoder: TextEncoder, report: Report = ignore) -> EncodedCorpus:
    """Encode training and evaluation sets.

    Raises:
        BadData: no training comparison is left.
    """

    def progress(name: str) -> Any:
        return lambda done, total: report(Encoding(name, done, total))

    training, counted = encode(corpus.training, encoder, weights=corpus.weights, progress=progress("training"))
    if not len(training):
        raise BadData(
            f"all {counted.comparisons} training comparisons have replies that are equal within"
            f" {encoder.settings.max_length} tokens; raise max_length"
        )
    counts: dict[str, Mapping[str, int]] = {"training": counted.to_json()}
    evaluation: dict[str, Examples] = {}
    for name, comparisons in corpus.evaluation.items():
        examples, counted = encode(comparisons, encoder, progress=progress(name))
        counts[name] = counted.to_json()
        if len(examples):
            evaluation[name] = examples
    return EncodedCorpus(training, evaluation, counts)
