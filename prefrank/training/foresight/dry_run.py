"""What a recipe would do, before it does it: rows, tokens, steps, padding saved, memory, time and operations.

Memory and time are measured on the first steps of the run itself (probe.py), where its device can hold it. For a run on
several devices, or a model that does not fit here, memory follows from config.json alone (layouts.py).

It goes the way of `train` up to the first step, so that whatever would stop the one stops the other with the same
words, and it leaves nothing behind.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from prefrank.model import Network
from prefrank.model.hub import resolve_model
from prefrank.model.weights import read_config
from prefrank.training.feed.encoded_corpus import EncodedCorpus
from prefrank.training.feed.encoding_counts import remarks
from prefrank.training.feed.feeds import Feed, StreamFeed
from prefrank.training.foresight.activations import without_weights
from prefrank.training.foresight.flops import flops_of
from prefrank.training.foresight.layouts import LayoutForecast, forecast_layouts
from prefrank.training.foresight.memory import Memory, average_bytes, forget_peak, optimizer_bytes, size_of
from prefrank.training.foresight.probe import Probe, Seconds
from prefrank.training.foresight.step_plans import StepPlan, plan_steps
from prefrank.training.loop.signals import stop_cleanly
from prefrank.training.prepare import prepare
from prefrank.training.recipe import Recipe
from prefrank.training.records.events import Callback, ignore
from prefrank.training.records.output import check_output
from prefrank.training.records.run_log import check_trackers
from prefrank.training.start import load_model

_EDGES = (32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will do and take.

    Args:
        data: one entry per set read: kept, left out by reason, and its reader's report.
        encoding: set -> rows, tokens, cuts and drops.
        drawn: what an epoch takes of each data set; empty where it takes everything once.
        comparisons: to train on; of streams, those of the whole run.
        rows: encoded replies of the training data, each once; of streams, of a sample, as are tokens and histogram.
        tokens: of all rows.
        pairwise_rows: rows if every preference encoded both of its replies.
        step_tokens: of all rows of a step, a mean over the first epoch.
        computed_tokens: of a step, those that are computed: rows of a decoder share what they begin with.
        padding_saved: share of those tokens in padded batches of the same comparisons that is padding.
        histogram: (longest length in the bin, rows), by row length.
        prompts_per_step: comparisons behind one step.
        first_step: steps done already, by the run that is resumed.
        steps: of the whole run.
        evaluations: of the steps that are left.
        evaluation_rows: of all evaluation sets together.
        flops: floating point operations of the steps that are left, by the formula in `flops`; None for
            a model of unknown shape that does not fit.
        device: what memory and time speak of.
        memory: None if the run does not fit here.
        seconds: of what is left; None if the run does not fit here.
        layouts: memory on GPUs, in several layouts, where the run asks for several devices or does not fit here.
        notes: what deserves a second look.
    """

    data: Sequence[Mapping[str, Any]]
    encoding: Mapping[str, Mapping[str, int]]
    drawn: Sequence[Mapping[str, Any]]
    comparisons: int
    rows: int
    tokens: int
    pairwise_rows: int
    step_tokens: float
    computed_tokens: float
    padding_saved: float
    histogram: tuple[tuple[int, int], ...]
    prompts_per_step: int
    first_step: int
    steps: int
    evaluations: int
    evaluation_rows: int
    flops: float | None
    device: str
    memory: Memory | None
    seconds: Seconds | None
    layouts: tuple[LayoutForecast, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        return value | {"seconds": {**value["seconds"], "total": self.seconds.total} if self.seconds else None}


@stop_cleanly()
def dry_run(recipe: Recipe, *, callback: Callback = ignore) -> Forecast:
    """Forecast a run on this process's device.

    Raises:
        BadRecipe, BadData, BadModel, NotFound, CannotWrite: whatever would stop the run before its first step.
    """
    began = time.perf_counter()
    forget_peak()
    check_trackers(recipe)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resume_from = check_output(recipe, callback)
    folder = resume_from or resolve_model(recipe.model_name)
    resumed = resume_from is not None
    load = partial(_load, recipe, folder, device, resumed=resumed)
    ready = prepare(recipe, folder, load=load, resumed=resumed, callback=callback)
    network, encoder, encoded, feed, progress = ready.network, ready.encoder, ready.encoded, ready.feed, ready.progress
    loss = ready.loss.to(device)
    recipe = recipe.model_copy(update={"max_length": encoder.settings.max_length})
    config = read_config(folder) if network is None else network.config
    shape = without_weights(config, recipe) if network is None else network
    causal = None if shape is None else shape.causal
    plans = plan_steps(feed, max_tokens=recipe.max_tokens, causal=causal)
    preparing = time.perf_counter() - began
    left = feed.steps - progress.step
    evaluations = _evaluations(recipe, feed.steps, progress.step) if encoded.evaluation else 0
    fits = network is not None and _fits(network, recipe, steps=left)
    memory, seconds = None, None
    if network is not None and fits:
        probe = Probe(network, loss, recipe, encoder, steps=left)
        try:
            memory, seconds = probe.run(
                plans,
                encoded.evaluation,
                preparing=preparing,
                evaluations=evaluations,
                saves=_saves(recipe, feed.steps, progress.step),
            )
        except (MemoryError, torch.OutOfMemoryError):
            fits = False
    devices = recipe.num_devices or 1
    asked = devices > 1 or not fits
    layouts = forecast_layouts(config, recipe, devices=devices, steps=left) if asked else []
    lengths = np.diff(encoded.training.starts)
    step_tokens = float(np.mean([plan.tokens for plan in plans]))
    flops = None if shape is None else flops_of(shape)
    return Forecast(
        data=ready.account["read"],
        encoding=encoded.counts,
        drawn=() if isinstance(feed, StreamFeed) else feed.account(),
        comparisons=feed.comparisons,
        rows=len(lengths),
        tokens=int(lengths.sum()),
        pairwise_rows=2 * sum(len(group) for group in encoded.training.preferences),
        step_tokens=step_tokens,
        computed_tokens=float(np.mean([plan.computed for plan in plans])),
        padding_saved=1 - step_tokens * len(plans) / _padded_tokens(plans, recipe.per_device_train_batch_size),
        histogram=_histogram(lengths),
        prompts_per_step=feed.per_step,
        first_step=progress.step,
        steps=feed.steps,
        evaluations=evaluations,
        evaluation_rows=sum(len(examples.reply_starts) for examples in encoded.evaluation.values()),
        flops=None if flops is None else left * sum(plan.flops(flops) for plan in plans) / len(plans),
        device=str(device),
        memory=memory,
        seconds=seconds,
        layouts=tuple(layouts),
        notes=(*_notes(recipe, encoded, fits=fits), *_planned(feed, len(plans)), *ready.notes),
    )


def _load(recipe: Recipe, folder: Path, device: torch.device, *, resumed: bool) -> Network | None:
    """The network; None where there is no memory for its weights."""
    try:
        return load_model(recipe, folder, device=device, resumed=resumed)
    except (MemoryError, torch.OutOfMemoryError):
        return None


def _fits(network: Network, recipe: Recipe, *, steps: int) -> bool:
    """Whether the weights, and what is as large as them, leave room; mapped weights are not in memory yet."""
    trained = [p for p in network.parameters() if p.requires_grad]
    needed = size_of(trained) + optimizer_bytes(trained, recipe) + average_bytes(trained, recipe, steps=steps)
    device = next(network.parameters()).device
    if device.type == "cuda":
        return needed < torch.cuda.mem_get_info(device)[0]
    return needed + size_of(network.parameters()) < psutil.virtual_memory().available


def _histogram(lengths: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Rows by length; each bin reaches from the one before up to its edge."""
    edges = [edge for edge in _EDGES if edge < lengths.max()] + [int(lengths.max())]
    counts = np.bincount(np.searchsorted(edges, lengths), minlength=len(edges))
    return tuple(zip(edges, counts.tolist(), strict=True))


def _padded_tokens(plans: Sequence[StepPlan], batch_size: int) -> int:
    """What plain batches of the steps' comparisons would process, every row padded to its batch's longest."""
    total = 0
    for plan in plans:
        for first in range(0, len(plan.chosen), batch_size):
            batch = plan.chosen[first : first + batch_size]
            total += sum(map(plan.examples.size, batch)) * max(map(plan.examples.longest, batch))
    return total


def _evaluations(recipe: Recipe, steps: int, first_step: int) -> int:
    """Evaluations of the steps that are left: every `eval_steps`, and at the end."""
    return -(-steps // recipe.eval_steps) - first_step // recipe.eval_steps


def _saves(recipe: Recipe, steps: int, first_step: int) -> int:
    """Checkpoints of the steps that are left: every `save_steps` before the end, and then the last."""
    return max(0, (steps - 1) // recipe.save_steps - first_step // recipe.save_steps) + 1


def _planned(feed: Feed, planned: int) -> list[str]:
    """That not all steps of an epoch were looked at, where that is so."""
    if isinstance(feed, StreamFeed) or planned == min(feed.order.steps_per_epoch, feed.steps):
        return []
    steps = feed.order.steps_per_epoch
    return [f"an epoch has {steps:,} steps: tokens a step, padding, time and memory are those of the first {planned:,}"]


def _notes(recipe: Recipe, encoded: EncodedCorpus, *, fits: bool) -> list[str]:
    counts = encoded.counts["training"]
    notes = [] if fits else ["the run does not fit into memory here: time is not measured"]
    if recipe.sharding not in ("auto", "none"):
        notes.append(f"sharding is {recipe.sharding}: what is measured here is the whole model in one process")
    if not encoded.evaluation:
        notes.append("nothing to evaluate on: no best checkpoint, no early stop")
    assert recipe.max_length is not None
    notes += remarks(counts, max_length=recipe.max_length, pre_rendered=recipe.pre_rendered)
    if encoded.streams:
        notes.append(f"data sets stream: rows, tokens and histogram are those of {len(encoded.training)} comparisons")
    return notes
