"""What the servers are asked: texts of exact lengths made of the starter comparisons' words, and their solo scores.

A row is a prompt with a reply, a request holds one prompt with its replies. Rows are many enough that a server without
a cache of scores gains nothing from their coming again; only the fifth workload repeats rows on purpose. Every row's
score is computed beforehand, alone, by `RewardModel.score`.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import say

from prefrank import data
from prefrank.io.atomic import atomic_folder
from prefrank.model import load_network, save_network
from prefrank.model.hub import resolve_model
from prefrank.scoring import RewardModel
from prefrank.text import TextEncoder
from prefrank.types import Turn

SEED = 7
SPREAD = 1.0
"""Standard deviation that a random head's scores get, so that a wrong one is seen."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt with its replies, as numbers of rows; `group` tells the short ones of a mix from the long."""

    rows: tuple[int, ...]
    group: str = ""


@dataclass(frozen=True, slots=True)
class Workload:
    """Rows and the requests that ask for them.

    Args:
        name, title: W1 and so on, and what it is.
        model: the name of the model folder that it runs on.
        together: requests that are sent at one moment.
        connections: requests under way while capacity is measured.
        storm: whether replies come in OpenRLHF's form, as one closed burst of all requests.
    """

    name: str
    title: str
    model: str
    rows: list[tuple[str, str]]
    requests: list[Request]
    together: int = 1
    connections: int = 16
    storm: bool = False
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


class Words:
    """Texts of a wanted number of tokens.

    Args:
        count: tokens of one word with the space before it.
    """

    def __init__(self, count: Callable[[str], int], seed: int) -> None:
        comparisons = Path(data.__file__).with_name("starter") / "comparisons.jsonl"
        lines = comparisons.read_text(encoding="utf-8").splitlines()
        replies = " ".join(reply for line in lines for reply in json.loads(line)["replies"])
        words = sorted({word.lower() for word in replies.split() if word.isalpha()})
        self.sizes = {word: count(word) for word in words}
        self.words = [word for word in words if self.sizes[word] <= 3]
        self.short = [word for word in self.words if self.sizes[word] == 1]
        self.generator = np.random.default_rng(seed)

    def text(self, tokens: int) -> str:
        chosen: list[str] = []
        while tokens > 0:
            some = self.words if tokens >= 3 else self.short
            word = some[int(self.generator.integers(len(some)))]
            chosen.append(word)
            tokens -= self.sizes[word]
        return " ".join(chosen)


def encoder_folder(cache: Path, trained: Path | None) -> Path:
    """A plain folder of transformers that takes 512 tokens: MiniLM with a random head, or a trained model's weights."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = load_network(trained or resolve_model("minilm"), new_head=trained is None)
    encoder = TextEncoder.load(trained or resolve_model("minilm"), max_length=512)
    folder = cache / f"serve-encoder-{hashlib.sha256(str(trained).encode()).hexdigest()[:8]}"
    if folder.exists() and trained is None:
        return folder
    with atomic_folder(folder) as temporary:
        save_network(network, temporary)
        encoder.save(temporary)
    if trained is None:
        _spread(folder)
    return folder


def _spread(folder: Path) -> None:
    """Scale a random head until its scores differ by about one."""
    from safetensors.torch import load_file, save_file

    model = RewardModel.load(folder, num_threads=1)
    words = Words(model.encoder.count_tokens, SEED)
    scores = [each.value for each in model.score_pairs([(words.text(20), words.text(60)) for _ in range(24)])]
    weights = load_file(folder / "model.safetensors")
    names = [name for name in weights if name.startswith("classifier.")]
    for name in names:
        weights[name] = weights[name] * (SPREAD / max(1e-6, float(np.std(scores))))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def lengths(count: int, generator: np.random.Generator) -> np.ndarray:
    """Of mixed rows: log-normal with mean 144 and 95th percentile 411 tokens before they are cut to 16 and 512."""
    sigma = 0.86
    return np.clip(generator.lognormal(np.log(144) - sigma**2 / 2, sigma, count), 16, 512).astype(int)


def encoder_workloads(model: RewardModel, *, quick: bool) -> list[Workload]:
    words, generator = Words(model.encoder.count_tokens, SEED), np.random.default_rng(SEED)
    control = 3  # [CLS] and two [SEP]

    def row(tokens: int, prompt: int) -> tuple[str, str]:
        return words.text(prompt), words.text(tokens - prompt - control)

    def single(name: str, title: str, rows: list[tuple[str, str]], **more: Any) -> Workload:
        return Workload(name, title, "encoder", rows, [Request((number,)) for number in range(len(rows))], **more)

    count = 256 if quick else 1536
    pairs = [row(int(generator.integers(96, 161)), int(generator.integers(16, 49))) for _ in range(count)]
    rankings = []
    for _ in range(8 if quick else 64):
        prompt = words.text(10)
        rankings.append([(prompt, words.text(int(size) - 10 - control)) for size in lengths(16, generator)])
    again: list[Request] = []
    for number in range(count):  # three in ten are rows that came shortly before
        earlier = max(0, len(again) - int(generator.integers(1, 17)))
        again.append(again[earlier] if again and generator.random() < 0.3 else Request((number,)))
    short = [row(int(generator.integers(32, 65)), 16) for _ in range(count)]
    mixed = short + [row(512, 64) for _ in range(16 if quick else 48)]
    among: list[Request] = []
    for number in range(count):
        long = number % 16 == 8
        place = count + (number // 16) % (len(mixed) - count) if long else number
        among.append(Request((place,), "long" if long else "short"))
    storm = [
        row(int(generator.integers(64, 193)), int(generator.integers(16, 49))) for _ in range(64 if quick else 256)
    ]
    return [
        single("W1", "single pairs of about 128 tokens", pairs),
        Workload(
            "W2", "rankings of 16 candidates, 16 to 512 tokens", "encoder",
            [each for ranking in rankings for each in ranking],
            [Request(tuple(range(16 * number, 16 * number + 16))) for number in range(len(rankings))], connections=4,
        ),
        single("W3", f"{len(storm)} single samples at once (OpenRLHF)", storm, storm=True),
        Workload("W5", "single pairs, 30 % of them again", "encoder", pairs, again),
        Workload("W6", "one of 512 tokens among fifteen short ones", "encoder", mixed, among),
    ]  # fmt: skip


def decoder_workloads(model: RewardModel, *, quick: bool) -> list[Workload]:
    words, generator = Words(lambda word: model.encoder.count_tokens(" " + word), SEED), np.random.default_rng(SEED)
    rows = []
    for _ in range(3 if quick else 12):
        prompt = words.text(96)
        rows += [(prompt, words.text(int(generator.integers(16, 33)))) for _ in range(8)]
    groups = [tuple(range(start, start + 8)) for start in range(0, len(rows), 8)]
    return [
        Workload("W8a", "8 samples of a prompt, one request", "decoder", rows, [Request(g) for g in groups],
                 connections=2),
        Workload("W8b", "8 samples of a prompt, 8 requests", "decoder", rows,
                 [Request((number,)) for group in groups for number in group], together=8, connections=16),
    ]  # fmt: skip


def with_scores(workload: Workload, model: RewardModel, cache: Path) -> Workload:
    """The workload with the score of every row, each computed alone; kept between runs."""
    key = json.dumps([model.fingerprint, model.engine.kernels, workload.rows]).encode()
    path = cache / f"solo-{hashlib.sha256(key).hexdigest()[:16]}.npz"
    if not path.exists():
        say(f"  scoring {len(workload.rows)} rows of {workload.name} one at a time")
        solo = [model.score(prompt, [reply])[0] for prompt, reply in workload.rows]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, scores=[each.value for each in solo], tokens=[each.tokens for each in solo])
    with np.load(path) as kept:
        return replace(workload, scores=kept["scores"], tokens=kept["tokens"])


def rendered(model: RewardModel, rows: Sequence[tuple[str, str]]) -> list[str]:
    """A decoder's rows as whole texts, as a client that applies the chat template sends them."""
    source, most = model.encoder.source, model.encoder.settings.max_length
    encoded = model.encoder.encode_pairs([((Turn("user", prompt),), reply) for prompt, reply in rows])
    texts = [source.tokenizer.decode(row.ids.tolist(), skip_special_tokens=False) for row in encoded]
    for row, text in zip(encoded, texts, strict=True):
        if list(source.rendered.ids(text, most)) != row.ids.tolist():
            raise RuntimeError("a decoder's row is not the tokens of its text")
    return texts
