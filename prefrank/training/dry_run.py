"""What a recipe would do, before it does it: rows, tokens, steps, padding saved, memory and time.

Surprising: activations are not guessed but counted, as the bytes autograd keeps for the longest micro-batch, and time
comes from running two micro-batches. Nothing is written; everything that would stop `train` stops this too.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefrank.model import Network
from prefrank.model.hub import resolve_model
from prefrank.text import plan_batches
from prefrank.training.corpus import read_corpus
from prefrank.training.events import Report, ignore
from prefrank.training.examples import Examples
from prefrank.training.losses import LOSSES, LossSettings
from prefrank.training.optim import make_optimizer
from prefrank.training.order import Order, count_steps, make_order
from prefrank.training.recipe import Recipe
from prefrank.training.run_log import check_trackers
from prefrank.training.setup import EncodedCorpus, encode_corpus, load_model, load_text, use_bf16
from prefrank.training.step import Forward, accumulate_gradient, plan_comparisons, rows_of
from prefrank.types import Batch

_EDGES = (32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the device.

    Args:
        weights: of the network, in float32.
        gradients: of the trained parameters.
        optimizer: AdamW's two moments, and the average of the weights if there is one.
        activations: what autograd keeps for the longest micro-batch.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True, slots=True)
class Estimate:
    """A run, foreseen. Tokens, rows and comparisons are those of one epoch.

    Args:
        data: one entry per set read: kept, left out, and its reader's report.
        encoding: set -> rows, tokens, cuts and drops.
        comparisons: to train on.
        rows: encoded replies, each once per epoch.
        tokens: of all rows.
        pairwise_rows: rows if every preference encoded both of its replies.
        padded_tokens: tokens if every device batch of the first epoch were padded to its longest row.
        histogram: (longest length in the bin, rows), by row length.
        prompts_per_step: comparisons behind one step.
        steps: of the whole run.
        evaluation_rows: of all evaluation sets together.
        device: what memory and time speak of.
        memory: None if the model could not be loaded.
        seconds: of the whole run; None if the model could not be loaded.
        notes: what deserves a second look.
    """

    data: Sequence[Mapping[str, Any]]
    encoding: Mapping[str, Mapping[str, int]]
    comparisons: int
    rows: int
    tokens: int
    pairwise_rows: int
    padded_tokens: int
    histogram: tuple[tuple[int, int], ...]
    prompts_per_step: int
    steps: int
    evaluation_rows: int
    device: str
    memory: Memory | None
    seconds: float | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        return value | {"memory": {**value["memory"], "total": self.memory.total} if self.memory else None}


def dry_run(recipe: Recipe, *, report: Report = ignore) -> Estimate:
    """Foresee a run on this process's device.

    Raises:
        BadRecipe, BadData, BadModel, NotFound: whatever would stop the run before its first step.
    """
    check_trackers(recipe)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = resolve_model(recipe.model_name)
    try:
        network = load_model(recipe, folder, device=device)
    except (MemoryError, torch.OutOfMemoryError):
        network = None
    encoder = load_text(recipe, folder)
    corpus = read_corpus(recipe, report)
    encoded = encode_corpus(corpus, encoder, report)
    examples = encoded.training
    order = make_order(recipe, comparisons=len(examples), num_processes=1)
    steps = count_steps(recipe, order)
    memory, seconds = (None, None) if network is None else _probe(network, recipe, encoded, order, steps)
    lengths = np.diff(examples.starts)
    return Estimate(
        data=corpus.record,
        encoding=encoded.counts,
        comparisons=len(examples),
        rows=len(lengths),
        tokens=int(lengths.sum()),
        pairwise_rows=2 * sum(len(group) for group in examples.preferences),
        padded_tokens=_padded_tokens(examples, order, recipe.per_device_train_batch_size),
        histogram=_histogram(lengths),
        prompts_per_step=order.per_step,
        steps=steps,
        evaluation_rows=_evaluation(encoded)[0],
        device=str(device),
        memory=memory,
        seconds=seconds,
        notes=tuple(_notes(recipe, encoded, steps, loaded=network is not None)),
    )


def _histogram(lengths: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Rows by length; each bin reaches from the one before up to its edge."""
    edges = [edge for edge in _EDGES if edge < lengths.max()] + [int(lengths.max())]
    counts = np.bincount(np.searchsorted(edges, lengths), minlength=len(edges))
    return tuple(zip(edges, counts.tolist(), strict=True))


def _padded_tokens(examples: Examples, order: Order, batch_size: int) -> int:
    """What plain batches of the first epoch would process, every row padded to its batch's longest."""
    total = 0
    for step in range(order.steps_per_epoch):
        chosen = order.chosen(step)
        for first in range(0, len(chosen), batch_size):
            batch = chosen[first : first + batch_size]
            total += sum(examples.size(c) for c in batch) * max(examples.longest(c) for c in batch)
    return total


def _evaluation(encoded: EncodedCorpus) -> tuple[int, int]:
    """Rows and tokens of all evaluation sets."""
    sets = encoded.evaluation.values()
    return sum(len(one.reply_starts) for one in sets), sum(len(one.ids) for one in sets)


def _notes(recipe: Recipe, encoded: EncodedCorpus, steps: int, *, loaded: bool) -> list[str]:
    counts = encoded.counts["training"]
    notes = [] if loaded else ["the model does not fit into memory here: no estimate of memory and time"]
    if recipe.warmup_steps >= steps and recipe.scheduler != "constant":
        notes.append(f"warmup_steps is {recipe.warmup_steps} but the run has {steps} steps: its rate never peaks")
    if not encoded.evaluation:
        notes.append("nothing to evaluate on: no best checkpoint, no early stop")
    if counts["rows_with_cut_reply"]:
        notes.append(
            f"{counts['rows_with_cut_reply']} of {counts['rows']} replies are cut at {recipe.max_length} tokens"
        )
    if counts["dropped_replies_equal_after_cutting"]:
        dropped = counts["dropped_replies_equal_after_cutting"]
        notes.append(f"{dropped} comparisons are dropped because their replies are equal after cutting")
    return notes


def _probe(network: Network, recipe: Recipe, encoded: EncodedCorpus, order: Order, steps: int) -> tuple[Memory, float]:
    """Memory and seconds, from the longest micro-batch and two micro-batches of the first step."""
    examples = encoded.training
    device = next(network.parameters()).device
    bf16 = use_bf16(recipe, device)

    def forward(batch: Batch) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return network(batch)

    network.train()
    longest = plan_comparisons(examples, range(len(examples)), max_tokens=recipe.max_tokens)[-1]
    batch = plan_batches(rows_of(examples, longest), max_tokens=recipe.max_tokens)[-1]
    trained = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    memory = Memory(
        weights=sum(p.numel() * p.element_size() for p in network.parameters()),
        gradients=trained,
        optimizer=trained * (3 if recipe.ema_decay else 2),
        activations=_saved_bytes(network.parameters(), lambda: forward(batch)),
    )
    per_token, per_step = _time(network, forward, recipe, examples, order)
    evaluations = 1 + (steps - 1) // recipe.eval_steps
    # an evaluation is a forward pass: a third of a step
    tokens = len(examples.ids) * recipe.num_train_epochs + _evaluation(encoded)[1] * evaluations / 3
    return memory, tokens * per_token + steps * per_step


def _saved_bytes(parameters: Iterable[Tensor], run: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of a run, parameters not counted, shared memory once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = run()
    del scores
    return sum(seen.values())


def _time(network: Network, forward: Forward, recipe: Recipe, examples: Examples, order: Order) -> tuple[float, float]:
    """Seconds per token of forward and backward pass, and per optimiser update; the second of two tries counts."""
    optimizer = make_optimizer(network, recipe)
    parts = plan_comparisons(examples, order.chosen(0), max_tokens=recipe.max_tokens)
    loss = partial(LOSSES[recipe.loss], settings=LossSettings())
    per_token = per_step = 0.0
    for part in [parts[0], parts[-1]]:
        times = [time.perf_counter()]
        sums = accumulate_gradient(forward, examples, part, loss, divide_by=1, max_tokens=recipe.max_tokens)
        _wait()
        times.append(time.perf_counter())
        optimizer.step()
        _wait()
        times.append(time.perf_counter())
        per_token, per_step = (times[1] - times[0]) / sums.tokens, times[2] - times[1]
    return per_token, per_step


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
