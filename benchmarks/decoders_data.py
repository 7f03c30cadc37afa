"""What the decoders' benchmark runs: model folders, groups of rows of real data, and the least work they can cost.

A group is one prompt with its replies. "Alone" counts every row's tokens, "shared" each group's distinct ones: those of
the trie that its rows' token ids make.
"""

import hashlib
import json
import lzma
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from score_models import padding
from train_data import Data as TrainData
from train_data import Model, read_hh

from prefrank.data import load_comparisons
from prefrank.io.atomic import atomic_folder
from prefrank.text import TextEncoder
from prefrank.types import Comparison, Prompt, Row, as_prompt

SEED = 0
HEAD_STD = 0.05
MAX_LENGTH = 2048
LOOKED_AT = 200
"""Groups of a data set that are encoded, evenly spaced over it, to choose from."""
ONE_OUTPUT = {"id2label": {"0": "REWARD"}, "label2id": {"REWARD": 0}}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
QWEN3 = {
    "model_type": "qwen3", "architectures": ["Qwen3ForSequenceClassification"], **ONE_OUTPUT, "attention_bias": False,
    "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 40_960,
    "max_window_layers": 4, "num_attention_heads": 16, "num_hidden_layers": 4, "num_key_value_heads": 8,
    "pad_token_id": 2, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000, "tie_word_embeddings": True,
    "use_sliding_window": False, "vocab_size": 49_152, "dtype": "float32",
}  # fmt: skip
"""Qwen/Qwen3-0.6B's config.json with one output, 4 of its 28 layers, and SmolLM2's vocabulary and tokenizer."""
STD = 0.05
"""Of Qwen's random weights: large enough that scores depend on what rows say."""


def make_model(name: str, bases: Path, cache: Path) -> Model:
    """A sequence classifier with a fixed random head, made on first use.

    Args:
        bases: where `make weights` writes.
    """
    smollm2 = bases / "smollm2"
    if name == "smollm2":
        title = "SmolLM2-135M, its real weights and a random head"
        config = json.loads((smollm2 / "config.json").read_text(encoding="utf-8"))
        config |= {"architectures": ["LlamaForSequenceClassification"], **ONE_OUTPUT}
    else:
        title, config = "four layers of Qwen3-0.6B's shape", QWEN3
    key = hashlib.sha256(json.dumps([config, SEED, HEAD_STD, STD]).encode()).hexdigest()[:8]
    model = Model(f"decoder-{name}", title, cache / f"decoder-{name}-{key}")
    if model.folder.exists():
        return model
    generator = torch.Generator().manual_seed(SEED)
    tensors = load_file(smollm2 / "model.safetensors") if name == "smollm2" else _random(config, generator)
    tensors["score.weight"] = torch.empty(1, config["hidden_size"]).normal_(0, HEAD_STD, generator=generator)
    with atomic_folder(model.folder) as temporary:
        texts = temporary / "texts"
        texts.mkdir()
        save_file(tensors, texts / "model.safetensors", metadata={"format": "pt"})
        (texts / "config.json").write_text(json.dumps(config), encoding="utf-8")
        for file in TOKENIZER:
            (texts / file).write_bytes((smollm2 / file).read_bytes())
        (temporary / "words").symlink_to("texts", target_is_directory=True)  # peers get ids, from the same tokenizer
    return model


def _random(config: Mapping[str, Any], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Matrices normal; norms close to 1, yet each different, so that its values name a parameter."""
    width, inner, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    layer = {
        "self_attn.q_proj": (queries, width), "self_attn.k_proj": (keys, width), "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries), "self_attn.q_norm": (size,), "self_attn.k_norm": (size,),
        "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner),
        "input_layernorm": (width,), "post_attention_layernorm": (width,),
    }  # fmt: skip
    shapes = {"embed_tokens": (config["vocab_size"], width), "norm": (width,)}
    shapes |= {f"layers.{n}.{name}": shape for n in range(config["num_hidden_layers"]) for name, shape in layer.items()}
    return {
        f"model.{name}.weight": torch.empty(shape).normal_(1.0 if len(shape) == 1 else 0.0, STD, generator=generator)
        for name, shape in shapes.items()
    }


@dataclass(frozen=True, slots=True)
class Data:
    """Prompts with their replies, in arrival order.

    Args:
        groups: how many a run scores.
        most: tokens of a group beyond which it is not chosen, for time.
    """

    title: str
    read: Callable[[Path], list[tuple[Prompt, tuple[str, ...]]]]
    groups: int
    most: int | None = None


def read_comparisons(name: str, split: str | None) -> Callable[[Path], list[tuple[Prompt, tuple[str, ...]]]]:
    def read(data: Path) -> list[tuple[Prompt, tuple[str, ...]]]:
        loaded = load_comparisons(data / name, split=split) if split else load_comparisons(data / name)
        return [(comparison.prompt, comparison.replies) for comparison in loaded.comparisons]

    return read


def read_alpaca(data: Path) -> list[tuple[Prompt, tuple[str, ...]]]:
    with lzma.open(data / "bon-alpacaeval/candidates.jsonl.xz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [(as_prompt(row["instruction"]), tuple(each["output"] for each in row["candidates"])) for row in rows]


DATA = {
    "hh": Data("HH, pairs", read_comparisons("hh-rlhf", "test"), groups=8),
    "k4": Data("finegrained-rlhf with its passages, K = 4", read_comparisons("finegrained-rlhf", None), groups=1),
    "oasst": Data("OASST, groups", read_comparisons("oasst1-en", "validation"), groups=3),
    "alpaca": Data("AlpacaEval, best of 16", read_alpaca, groups=1, most=4500),
}


def read_passages(data: Path) -> tuple[list[Comparison], list[Comparison]]:
    """Long-form answers with their passages, four to a question: those with six decided preferences."""
    loaded = load_comparisons(data / "finegrained-rlhf").comparisons
    decided = [each for each in loaded if len(each.preferences) == 6 and not any(p.tie for p in each.preferences)]
    return decided, []


TRAIN_DATA = {"hh": TrainData("HH, pairs", read_hh), "k4": TrainData(DATA["k4"].title, read_passages)}


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens of some groups, every row alone and each prompt once, and sums over tokens of how many they attend to."""

    alone: int
    shared: int
    pairs_alone: int
    pairs_shared: int

    @property
    def gain(self) -> float:
        return self.alone / self.shared


def count(groups: Iterable[Sequence[Row]]) -> Counted:
    sums = np.zeros(4, np.int64)
    for rows in groups:
        before = np.zeros(0, np.int64)
        for ids in sorted((row.ids for row in rows), key=lambda ids: ids.tolist()):
            size = min(len(ids), len(before))
            known = int(np.cumprod(ids[:size] == before[:size]).sum())
            whole, begun = len(ids) * (len(ids) + 1) // 2, known * (known + 1) // 2
            sums += len(ids), len(ids) - known, whole, whole - begun
            before = ids
    return Counted(*sums.tolist())


@dataclass(frozen=True, slots=True)
class Chosen:
    """Groups that a run scores, their counts, and those of what was looked at of the whole data."""

    groups: list[list[Row]]
    counted: Counted
    whole: Counted
    whole_rows: int

    @property
    def rows(self) -> list[Row]:
        return [row for group in self.groups for row in group]


def choose(data: Data, source: Path, encoder: TextEncoder, *, quick: bool) -> Chosen:
    """Groups in arrival order, evenly spaced over the data: of all such choices, the one most like the whole in mean
    length, in what sharing gains and in what padding adds. `quick`: a quarter of so many, of the shortest."""
    everything, wanted = data.read(source), max(1, data.groups // 4) if quick else data.groups
    texts = everything[:: max(1, len(everything) // LOOKED_AT)]
    rows = iter(encoder.encode_pairs([(prompt, reply) for prompt, replies in texts for reply in replies]))
    groups = [[next(rows) for _ in replies] for _, replies in texts]
    whole = count(groups)
    lengths = [len(row.ids) for group in groups for row in group]
    sizes = np.array([sum(len(row.ids) for row in group) for group in groups])
    most = np.quantile(sizes, 0.25) if quick else data.most or sizes.max()
    fitting = [group for group, size in zip(groups, sizes, strict=True) if size <= most]
    stride = max(1, len(fitting) // wanted)

    def unlike(some: list[list[Row]]) -> float:
        own = np.array([len(row.ids) for group in some for row in group])
        apart = abs(count(some).gain / whole.gain - 1) + abs(padding(own) / padding(lengths) - 1)
        return apart + (abs(own.mean() / np.mean(lengths) - 1) if len(fitting) == len(groups) else 0.0)

    best = min((fitting[first::stride][:wanted] for first in range(stride)), key=unlike)
    return Chosen(best, count(best), whole, len(lengths))


def linears(config: Mapping[str, Any]) -> dict[tuple[int, int], int]:
    """A layer's linear layers: (inputs, outputs) -> how many."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    counts: dict[tuple[int, int], int] = {}
    for shape in ((width, queries), (width, keys), (width, keys), (queries, width),
                  (width, inner), (width, inner), (inner, width)):  # fmt: skip
        counts[shape] = counts.get(shape, 0) + 1
    return counts


def multiply_adds(config: Mapping[str, Any], tokens: int, pairs: int, rows: int, length: int) -> int:
    """The model's own multiply-adds; of the last layer, keys and values of all tokens, the rest for one token a row.

    Args:
        tokens: that are computed.
        pairs: (query, key) of a layer that attends for all of them.
        length: tokens of all rows, which their last tokens attend to.
    """
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    queries = config["num_attention_heads"] * config["head_dim"]
    whole = sum(number * inputs * outputs for (inputs, outputs), number in linears(config).items())
    keys = 2 * width * config["num_key_value_heads"] * config["head_dim"]
    linear = (layers - 1) * tokens * whole + tokens * keys + rows * (whole - keys)
    return linear + 2 * queries * ((layers - 1) * pairs + length) + rows * width


RATE_TOKENS = 1024
"""Rows of the products that measure the machine's rate."""


def limit_shapes(model: Model) -> list[list[int]]:
    """(rows, inputs, outputs) of the products whose rates make the limit."""
    return [[RATE_TOKENS, *shape] for shape in linears(model.config)]


def limit_rate(config: Mapping[str, Any], rates: Mapping[str, float]) -> float:
    """GFLOP/s of a layer's linear layers one after the other, at each one's measured rate."""
    work = {shape: number * shape[0] * shape[1] for shape, number in linears(config).items()}
    return sum(work.values()) / sum(
        product / rates[f"{RATE_TOKENS} x {inputs} x {outputs}"] for (inputs, outputs), product in work.items()
    )
