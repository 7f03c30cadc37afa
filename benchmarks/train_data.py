"""What the training benchmark trains: model folders with their initial weights, and tasks of real comparisons.

Every contender starts from the same file of weights, new head included, and gets the same token ids, encoded as pairs
by prefrank's text path; libraries that take texts get the ids as words of a tokenizer that gives them back. Note that
MiniLM keeps one token type instead of two, because TRL passes none and would train another function; every dropout rate
is 0 in the model's own config; and groups are strict rankings of equally many replies, because trainers of pairs count
a step in pairs.
"""

import gzip
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import torch
from common import write_comparisons
from peers import Failed
from safetensors.numpy import load_file
from safetensors.torch import save_file
from score_models import save_words_tokenizer, write_rows
from train_worker import digest, own_recipe

from prefrank.data import load_comparisons, split_of
from prefrank.io.atomic import atomic_folder
from prefrank.model import load_network
from prefrank.model.families.deberta import DebertaNetwork
from prefrank.model.hub import resolve_model
from prefrank.text import TextEncoder
from prefrank.training.feed.order import make_order
from prefrank.types import Comparison, Preference, Turn

SEED = 0
STD = 0.02
MAX_LENGTH = 512
ONE_OUTPUT = {"id2label": {"0": "REWARD"}, "label2id": {"REWARD": 0}}
MINILM = {
    **ONE_OUTPUT,
    "architectures": ["BertForSequenceClassification"],
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout": 0.0,
    "hidden_dropout_prob": 0.0,
    "type_vocab_size": 1,
}
"""What changes in MiniLM's config."""
DEBERTA = {
    "model_type": "deberta-v2",
    "architectures": ["DebertaV2ForSequenceClassification"],
    **ONE_OUTPUT,
    "hidden_act": "gelu",
    "hidden_size": 384,
    "initializer_range": STD,
    "intermediate_size": 1536,
    "layer_norm_eps": 1e-7,
    "max_position_embeddings": 512,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "num_attention_heads": 6,
    "num_hidden_layers": 6,
    "pad_token_id": 0,
    "pooler_dropout": 0.0,
    "pooler_hidden_act": "gelu",
    "pooler_hidden_size": 384,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "position_buckets": 256,
    "relative_attention": True,
    "share_att_key": True,
    "type_vocab_size": 0,
    "vocab_size": 30_522,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "cls_dropout": 0.0,
}
"""DeBERTa-v3-small's six layers at half its width, with MiniLM's vocabulary."""


@dataclass(frozen=True, slots=True)
class Model:
    """Initial weights in two folders: with the texts' own tokenizer, and with the one that takes ids as words."""

    name: str
    title: str
    folder: Path

    @property
    def texts(self) -> Path:
        return self.folder / "texts"

    @property
    def words(self) -> Path:
        return self.folder / "words"

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.texts / "config.json").read_text(encoding="utf-8"))


def make_model(name: str, cache: Path) -> Model:
    """The folders of a model, made on first use."""
    title, make = {
        "minilm": ("MiniLM, its real weights and a new head", _minilm),
        "deberta": ("six layers of DeBERTa-v2's shape, random weights", _deberta),
    }[name]
    config, tensors = make()
    key = hashlib.sha256(json.dumps([config, *(digest(value.numpy()) for value in tensors.values())]).encode())
    model = Model(name, title, cache / f"train-{name}-{key.hexdigest()[:8]}")
    if not model.folder.exists():
        with atomic_folder(model.folder) as temporary:
            for part in ("texts", "words"):
                folder = temporary / part
                folder.mkdir()
                save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
                (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
            TextEncoder.load(resolve_model("minilm")).save(temporary / "texts")
            save_words_tokenizer(temporary / "words", config)
    return model


def _minilm() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = load_network(resolve_model("minilm"), new_head=True)
    types = "bert.embeddings.token_type_embeddings.weight"
    tensors = {name: value.detach().contiguous().clone() for name, value in network.state_dict().items()}
    tensors[types] = tensors[types][:1].clone()
    return {**network.config, **MINILM}, tensors


def _deberta() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Matrices and biases normal; norms close to 1 and 0, yet each different, so that its values name a parameter."""
    with torch.device("meta"):
        network = DebertaNetwork(DEBERTA)
    generator = torch.Generator().manual_seed(SEED)
    tensors = {}
    for name, parameter in network.named_parameters():
        drawn = torch.empty(parameter.shape).normal_(0, STD, generator=generator)
        tensors[name] = drawn + 1 if "LayerNorm" in name and name.endswith("weight") else drawn
    return DEBERTA, tensors


@dataclass(frozen=True, slots=True)
class Data:
    """Comparisons to train on, of equally many replies and decided pairs, and to hold out, from the data's folder."""

    title: str
    read: Callable[[Path], tuple[list[Comparison], list[Comparison]]]


def read_hh(data: Path) -> tuple[list[Comparison], list[Comparison]]:
    """HH's train files, and its test files held out."""
    train, test = (load_comparisons(data / "hh-rlhf", split=split).comparisons for split in ("train", "test"))
    return [comparison for comparison in train if not comparison.preferences[0].tie], list(test)


def read_oasst(data: Path) -> tuple[list[Comparison], list[Comparison]]:
    """Prompts with three ranked replies; the export has too few with four. All of the validation split held out."""
    train, test = (load_comparisons(data / "oasst1-en", split=split).comparisons for split in ("train", "validation"))
    return [c for c in train if len(c.replies) == 3 and len(c.preferences) == 3], list(test)


def read_finegrained(data: Path) -> tuple[list[Comparison], list[Comparison]]:
    """Long-form answers, four to a question, those with six decided preferences; a fifth of the questions held out."""
    with gzip.open(data / "finegrained-rlhf/dev_feedback.jsonl.gz", "rt", encoding="utf-8") as lines:
        comparisons = [finegrained(json.loads(line), f"dev/{number}") for number, line in enumerate(lines, 1)]
    decided = [comparison for comparison in comparisons if comparison and len(comparison.preferences) == 6]
    held = [comparison for comparison in comparisons if comparison and split_of(comparison.prompt) < 0.2]
    return [comparison for comparison in decided if split_of(comparison.prompt) >= 0.2], held


def finegrained(row: Mapping[str, Any], name: str) -> Comparison | None:
    """One question with its four answers; 1 prefers the first of two, 2 the second, 0 neither. None: all are ties."""
    preferences = [
        Preference(*((first, second) if says == 1 else (second, first)))
        for (first, second), says in zip(combinations(range(4), 2), row["preference"], strict=True)
        if says
    ]
    if not preferences:
        return None
    answers = tuple(row[f"prediction {number}"] for number in range(1, 5))
    return Comparison((Turn("user", row["question"]),), answers, tuple(preferences), "finegrained", name)


def some(comparisons: Sequence[Comparison], count: int) -> list[Comparison]:
    """At most `count`, evenly spaced."""
    stride = max(1.0, len(comparisons) / max(1, count))
    return [comparisons[int(n * stride)] for n in range(min(count, len(comparisons)))]


DATA = {
    "hh": Data("HH, pairs", read_hh),
    "finegrained": Data("finegrained-rlhf, K = 4", read_finegrained),
    "oasst": Data("OASST, K = 3", read_oasst),
}


@dataclass(frozen=True, slots=True)
class Made:
    """A task's folder, and what was put there.

    Args:
        stops: numbers of steps done after the warm-up and after every round.
        lengths: tokens of each row.
        group_size: replies of a group.
        pairs: of each step.
        tokens: of each step's rows, every row once.
    """

    folder: Path
    held_out: list[Comparison]
    stops: list[int]
    lengths: list[int]
    group_size: int
    pairs: list[int]
    tokens: list[int]

    def per_stretch(self, of_steps: Sequence[int]) -> list[int]:
        """Sums over the steps of each round."""
        return [sum(of_steps[a:b]) for a, b in zip(self.stops[:-1], self.stops[1:], strict=True)]


def make_task(
    data: Data, model: Model, source: Path, folder: Path, *, per_step: int, stops: Sequence[int], held_out: int,
    settings: Mapping[str, float],
) -> Made:  # fmt: skip
    """Write what the contenders read: texts for ours, rows in the order of training for the others.

    Args:
        held_out: most comparisons to keep for scoring the final weights.
        settings: of the optimizer; also `max_length`, tokens of a row, if it is not the usual one.

    Raises:
        Failed: too few comparisons for so many steps.
    """
    encoder = TextEncoder.load(model.texts, max_length=int(settings.get("max_length", MAX_LENGTH)))
    train, held = data.read(source)
    train, held = uncut(train, encoder), some(held, held_out)
    steps = stops[-1]
    count = steps * per_step
    if len(train) < count:
        raise Failed(f"{data.title}: {steps} steps want {count} groups of {len(train)}; lower --steps or --per-step")
    chosen = some(train, count)
    texts = write_comparisons(folder / "texts", chosen, held or chosen[:1])  # an empty file is none
    recipe = own_recipe(model.texts, str(texts), per_step, dict(settings), folder)
    order = make_order(recipe, comparisons=count, num_processes=1)
    groups = [chosen[n] for step in range(steps) for n in order.chosen(step)]
    rows = encoder.encode_pairs([(group.prompt, reply) for group in groups for reply in group.replies])
    lengths = write_rows(rows, folder / "rows.npz").lengths
    size = len(groups[0].replies)
    plan = {
        "group_size": size,
        "pairs": [[[p.winner, p.loser] for p in group.preferences] for group in groups],
        "per_step": per_step,
        "stops": list(stops),
        "settings": dict(settings),
        "digests": digests(model),
        "data": str(texts),
    }
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    return Made(
        folder=folder,
        held_out=held,
        stops=list(stops),
        lengths=lengths.tolist(),
        group_size=size,
        pairs=[len(groups[0].preferences) * per_step] * steps,
        tokens=lengths.reshape(steps, -1).sum(1).tolist(),
    )


def uncut(comparisons: Sequence[Comparison], encoder: TextEncoder) -> list[Comparison]:
    """The comparisons that fit without cutting: cut, the prompt could be shorter before one reply than before another,
    but sentence-transformers takes one query for all replies; TRL drops what is too long."""
    rows = iter(
        encoder.encode_pairs([(comparison.prompt, reply) for comparison in comparisons for reply in comparison.replies])
    )
    cut = [
        sum(row.cut_prompt + row.cut_reply for row in islice(rows, len(comparison.replies)))
        for comparison in comparisons
    ]
    return [comparison for comparison, tokens in zip(comparisons, cut, strict=True) if tokens == 0]


def digests(model: Model) -> dict[str, str]:
    """Every parameter's name by its initial value.

    Raises:
        ValueError: two parameters start alike.
    """
    tensors = load_file(model.words / "model.safetensors")
    names = {digest(value): name for name, value in tensors.items()}
    if len(names) < len(tensors):
        raise ValueError(f"{len(tensors) - len(names)} parameters of {model.name} start like another one")
    return names
