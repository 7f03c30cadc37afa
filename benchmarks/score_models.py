"""What the scoring benchmark runs: model folders, rows of real comparisons, and the least work they can cost.

The DeBERTa shapes have random weights: speed does not depend on them. Their token ids are MiniLM's, a stand-in for
DeBERTa's own tokenizer, whose pieces cut texts to about the same lengths. Every folder's tokenizer takes ids as words,
so that libraries which only take texts score the same ids.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from score_worker import Rows
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from prefrank.data import load_comparisons
from prefrank.io.atomic import atomic_folder
from prefrank.model import load_network, save_network
from prefrank.model.distances import bucket
from prefrank.model.families.bert import BertNetwork
from prefrank.model.families.deberta import DebertaNetwork
from prefrank.model.hub import resolve_model
from prefrank.text import TextEncoder
from prefrank.types import Row, reply_types

SEED = 0
STD = 0.03
CLASSIFIER_ID, SEPARATOR_ID = 101, 102
BLOCK = 16
"""Rows are taken in blocks of consecutive ones, as many as the card's function scores at once."""

_BASE = {
    "model_type": "deberta-v2",
    "architectures": ["DebertaV2ForSequenceClassification"],
    "id2label": {"0": "REWARD"},
    "label2id": {"REWARD": 0},
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-7,
    "max_position_embeddings": 512,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
    "pooler_hidden_size": 768,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "position_buckets": 256,
    "relative_attention": True,
    "share_att_key": True,
    "type_vocab_size": 0,
    "vocab_size": 128_100,
}
"""microsoft/deberta-v3-base's config.json, with one output."""
_XXLARGE = {
    "conv_act": "gelu",
    "conv_kernel_size": 3,
    "hidden_size": 1536,
    "intermediate_size": 6144,
    "num_attention_heads": 24,
    "num_hidden_layers": 4,
    "pooler_hidden_size": 1536,
    "vocab_size": 30_522,
}
"""microsoft/deberta-v2-xxlarge's, with 4 of its 48 layers and the part of its vocabulary that the ids reach."""
_SWEEP = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "id2label": {"0": "REWARD"},
    "label2id": {"REWARD": 0},
    "hidden_act": "gelu",
    "hidden_size": 384,
    "intermediate_size": 1536,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 30_522,
}
"""MiniLM's with 2 of its 6 layers: the sweep scores 100,000 rows."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model folder, and what the report calls it."""

    name: str
    title: str
    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / "config.json").read_text(encoding="utf-8"))


def make_models(names: Sequence[str], cache: Path, trained: Path | None) -> list[Model]:
    """The folders of the named models, made on first use."""
    makers = {
        "v3-base": lambda: ("DeBERTa-v3-base shape", _random(cache, "v3-base", _BASE)),
        "xxlarge-cut": lambda: (
            "four layers of DeBERTa-v2-xxlarge's shape",
            _random(cache, "xxlarge-cut", _BASE | _XXLARGE),
        ),
        "minilm": lambda: ("MiniLM, its real weights and a random head", _copied(cache, "minilm", None)),
        "trained": lambda: ("MiniLM trained on HH", _copied(cache, "trained", trained)),
        "sweep": lambda: ("two layers of MiniLM's shape", _random(cache, "sweep", _SWEEP)),
    }
    return [Model(name, *makers[name]()) for name in names]


def _random(cache: Path, name: str, config: Mapping[str, Any]) -> Path:
    """A folder of random weights: matrices and biases normal, norms 1 and 0."""
    digest = hashlib.sha256(json.dumps([config, SEED, STD]).encode()).hexdigest()[:8]
    folder = cache / f"{name}-{digest}"
    if not folder.exists():
        with torch.device("meta"):
            network = (DebertaNetwork if config["model_type"] == "deberta-v2" else BertNetwork)(config)
        generator = torch.Generator().manual_seed(SEED)
        tensors = {}
        for key, parameter in network.named_parameters():
            norm = "LayerNorm" in key
            drawn = torch.empty(parameter.shape).normal_(0, STD, generator=generator)
            tensors[key] = drawn.fill_(float(key.endswith("weight"))) if norm else drawn
        with atomic_folder(folder) as temporary:
            save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
            (temporary / "config.json").write_text(json.dumps(config), encoding="utf-8")
            save_words_tokenizer(temporary, config)
    return folder


def _copied(cache: Path, name: str, source: Path | None) -> Path:
    """A plain folder of MiniLM with a new head, or of a trained model."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = load_network(source or resolve_model("minilm"), new_head=source is None)
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(memoryview(tensor.contiguous().numpy()).cast("B"))
    folder = cache / f"{name}-{digest.hexdigest()[:8]}"
    if not folder.exists():
        with atomic_folder(folder) as temporary:
            save_network(network, temporary)
            save_words_tokenizer(temporary, network.config)
    return folder


def save_words_tokenizer(folder: Path, config: Mapping[str, Any]) -> None:
    """A tokenizer whose word `<123>` is the id 123, with BERT's pair encoding."""
    words = {f"<{i}>": i for i in range(config["vocab_size"])}
    first, separator = f"<{CLASSIFIER_ID}>", f"<{SEPARATOR_ID}>"
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<0>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {separator}",
        pair=f"{first} $A {separator} $B:1 {separator}:1",
        special_tokens=[(first, CLASSIFIER_ID), (separator, SEPARATOR_ID)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    typed = config["model_type"] == "bert" and config.get("type_vocab_size", 2) > 1
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if typed else [])
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "model_input_names": names,
        "pad_token": "<0>",
        "unk_token": "<0>",
        "cls_token": first,
        "sep_token": separator,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def read_rows(data: Path, split: str) -> list[Row]:
    """All rows of the HH folder's split in arrival order: both replies of each comparison, 512 tokens at most."""
    encoder = TextEncoder.load(resolve_model("minilm"), max_length=512)
    comparisons = load_comparisons(data, split=split).comparisons
    return encoder.encode_pairs([(c.prompt, reply) for c in comparisons for reply in c.replies])


def spread_blocks(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` rows in arrival order: whole blocks of 16, evenly spaced over the data.

    Of all evenly spaced choices, the one most like all the data in its mean length and in what padding adds: the
    gain over the card's function grows with the second.
    """
    lengths = np.array([len(row.ids) for row in rows])
    blocks = len(rows) // BLOCK
    wanted = min(-(-count // BLOCK), blocks)
    stride = blocks // wanted
    block = np.arange(BLOCK)
    choices = [np.concatenate([(first + i * stride) * BLOCK + block for i in range(wanted)]) for first in range(stride)]

    def unlike(chosen: np.ndarray) -> float:
        mean = lengths[chosen].mean() / lengths.mean()
        return abs(mean - 1) + abs(padding(lengths[chosen]) / padding(lengths) - 1)

    return [rows[n] for n in min(choices, key=unlike)[:count]]


def padding(lengths: Sequence[int] | np.ndarray, rows: int = BLOCK) -> float:
    """How many times as many tokens there are once batches of some rows as they come are padded."""
    groups = [lengths[start : start + rows] for start in range(0, len(lengths), rows)]
    return sum(len(group) * max(group) for group in groups) / sum(lengths)


def of_length(rows: Sequence[Row], length: int, tokens: int) -> list[Row]:
    """About `tokens` tokens in distinct rows of one length, cut from longer rows; the last id stays a separator.

    Replies to one prompt may be cut to the same row, which an engine may score once.
    """
    cut = {row.ids[: length - 1].tobytes(): row.ids[: length - 1] for row in rows if len(row.ids) >= length}
    some = list(cut.values())[: max(1, tokens // length)]
    return [Row(np.append(ids, SEPARATOR_ID), reply_types(length, length - 1), length - 1, 0, 0) for ids in some]


def many(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` different rows a quarter as long as the given ones: copies get other words, at the same lengths."""
    made = []
    for n in range(count):
        row = rows[n % len(rows)]
        ids = (row.ids[: max(4, len(row.ids) // 4)] + 7919 * (n // len(rows))) % 28_000 + 1_000
        made.append(Row(ids, reply_types(len(ids), len(ids) // 2), len(ids) // 2, 0, 0))
    return made


def write_rows(rows: Sequence[Row], path: Path) -> Rows:
    """One .npz file of packed rows, for the variants' processes."""
    starts = np.cumsum([0, *(len(row.ids) for row in rows)]).astype(np.int64)
    packed = Rows(np.concatenate([row.ids for row in rows]), starts, np.array([row.reply_start for row in rows]))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, ids=packed.ids, starts=packed.starts, reply_starts=packed.reply_starts)
    return packed


def multiply_adds(config: Mapping[str, Any], lengths: Sequence[int]) -> int:
    """The model's own multiply-adds for rows of these lengths, without padding, in all layers.

    Linear layers, attention's two products, DeBERTa's two products with the table rows that a row's distances need,
    the convolution and the head. Lookups, norms, softmax and activations are left out, as are the table's projections,
    which depend on weights alone.
    """
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    per_token = layers * (4 * width**2 + 2 * width * inner)
    per_token += width**2 * config.get("conv_kernel_size", 0) // config.get("conv_groups", 1)
    per_row = width**2 + width
    return sum(
        length * per_token + per_row + layers * width * length * (2 * length + _position_rows(config, length))
        for length in lengths
    )


def _position_rows(config: Mapping[str, Any], length: int) -> int:
    """Rows of the relative table that the queries and the keys of a row read, both together."""
    if not config.get("relative_attention"):
        return 0
    distances = torch.arange(1 - length, length)
    buckets = config["position_buckets"]
    if buckets > 0:
        span = config["max_relative_positions"]
        span = config["max_position_embeddings"] if span < 1 else span
        distances = bucket(distances, buckets=buckets, max_distance=span)
    terms = config["pos_att_type"]
    return len(terms.split("|") if isinstance(terms, str) else terms) * len(distances.unique())
