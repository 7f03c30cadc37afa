"""The training loop: comparisons in, checkpoints out.

One optimiser step takes a fixed number of comparisons, over all devices, whatever the micro-batches; which ones is a
pure function of seed and step, and so is every dropout mask. A resumed run therefore needs the weights, the
optimiser's state and a step number, and goes on bit for bit on a CPU. Gradients are summed over processes by hand, not
by DDP, because processes hold different numbers of micro-batches, or none. Nothing here prints: events go to `report`.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from jaxtyping import Float
from torch import Tensor

from prefrank.errors import Diverged, Interrupted
from prefrank.model import Network, score_batches
from prefrank.model.hub import resolve_model
from prefrank.text import TextEncoder, plan_batches
from prefrank.training.checkpoint import (
    Progress,
    check_output,
    clear_output,
    load_state,
    remove_old,
    save_checkpoint,
    versions,
)
from prefrank.training.corpus import read_corpus
from prefrank.training.events import EvaluationDone, Report, Saved, SetMetrics, Started, StepDone, ignore
from prefrank.training.examples import Examples
from prefrank.training.losses import LOSSES, LossSettings, Preferences
from prefrank.training.measure import Evaluate, evaluate_sets, name_some, pool
from prefrank.training.optim import WeightAverage, make_optimizer, rate_factor, set_rates
from prefrank.training.order import count_steps, make_order, seed_step
from prefrank.training.processes import add_gradients, add_sums, any_process
from prefrank.training.recipe import Recipe
from prefrank.training.run_log import RunLog, Speed, check_trackers
from prefrank.training.setup import EncodedCorpus, encode_corpus, load_model, load_text, use_bf16
from prefrank.training.signals import catch_signals
from prefrank.training.step import StepSums, accumulate_gradient, rows_of
from prefrank.types import Batch


@dataclass(frozen=True, slots=True)
class Trained:
    """What a finished run leaves.

    Args:
        last: checkpoint folder of the last step.
        best: checkpoint folder of the best evaluation; None if nothing was evaluated.
        steps: optimiser steps done.
        metrics: evaluation set -> its metrics after the last step.
    """

    last: Path
    best: Path | None
    steps: int
    metrics: Mapping[str, SetMetrics]


def train(recipe: Recipe, *, report: Report = ignore, evaluate: Evaluate = evaluate_sets) -> Trained:
    """Train a reward model as the recipe says.

    Args:
        report: hears what happens, on the main process only (see `events`).
        evaluate: turns scores of the evaluation sets into metrics.

    Raises:
        BadRecipe, BadData, BadModel, NotFound: before the first step.
        CannotWrite: an output folder or a disk that takes no more; earlier checkpoints stay.
        Diverged: a score, loss or gradient that is not finite, naming the comparisons of the step.
        Interrupted: Ctrl-C or SIGTERM, after saving.
    """
    check_trackers(recipe)
    places = ProjectConfiguration(project_dir=recipe.output_dir, logging_dir=str(Path(recipe.output_dir) / "logs"))
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else processes on CPUs alone do not find each other
        mixed_precision="no",  # autocast is entered by hand, so that two runs in one process may differ in it
        log_with=list(recipe.trackers) or None,
        project_config=places,
    )
    report = report if accelerator.is_main_process else ignore
    with accelerator.main_process_first():
        resume_from = check_output(recipe)
        folder = resume_from or resolve_model(recipe.model_name)
    set_seed(recipe.seed)
    network = load_model(recipe, folder, device=accelerator.device, resumed=resume_from is not None)
    encoder = load_text(recipe, folder)
    corpus = read_corpus(recipe, report)
    encoded = encode_corpus(corpus, encoder, report)
    account = {"read": list(corpus.record), "encoded": dict(encoded.counts)}
    if resume_from is None and accelerator.is_main_process:
        clear_output(recipe)
    run = _Run(recipe, accelerator, network, encoder, encoded, account, report, evaluate)
    if resume_from is not None:
        load_state(resume_from, accelerator)
        run.kept = resume_from
    try:
        return run.run()
    finally:
        accelerator.end_training()


class _Run:
    """A run under way: what changes from step to step, and what it needs for that."""

    def __init__(
        self,
        recipe: Recipe,
        accelerator: Accelerator,
        network: Network,
        encoder: TextEncoder,
        encoded: EncodedCorpus,
        account: dict[str, Any],
        report: Report,
        evaluate: Evaluate,
    ) -> None:
        self.recipe, self.accelerator, self.network, self.encoder = recipe, accelerator, network, encoder
        self.examples, self.sets, self.account = encoded.training, encoded.evaluation, account
        self.report, self.evaluate = report, evaluate
        self.order = make_order(recipe, comparisons=len(self.examples), num_processes=accelerator.num_processes)
        self.steps = count_steps(recipe, self.order)
        self.optimizer = accelerator.prepare(make_optimizer(network, recipe))
        self.average = WeightAverage(network.named_parameters(), recipe.ema_decay)
        self.progress = Progress(data=self.examples.digest(), prompts_per_step=self.order.per_step)
        accelerator.register_for_checkpointing(self.progress, self.average)
        self.bf16 = use_bf16(recipe, accelerator.device)
        self.settings = LossSettings(recipe.label_smoothing, recipe.score_l2, recipe.centering)
        self.metrics: Mapping[str, SetMetrics] = {}
        self.kept: Path | None = None
        self.speed = Speed()
        self.log = RunLog(recipe, accelerator)

    def run(self) -> Trained:
        """Every step that is left, then `last`."""
        self._report_start()
        self.speed.pause()
        with catch_signals() as flag:
            self._evaluate_if_due()
            while not self._finished():
                done = self._step()
                self.report(done)
                self.log.step(done)
                if not any_process(self.accelerator, flag.wanted):
                    self._evaluate_if_due()
                if any_process(self.accelerator, flag.wanted):
                    self._stop()
                if done.step % self.recipe.save_steps == 0 and not self._finished():
                    self._save(f"checkpoint-{done.step:06d}")
            if self.sets and self.progress.evaluated != self.progress.step:
                self._evaluate()
            last = self._save("last")
        best = last.with_name("best")
        return Trained(last, best if best.is_dir() else None, self.progress.step, self.metrics)

    def _report_start(self) -> None:
        parameters = list(self.network.parameters())
        self.report(
            Started(
                steps=self.steps,
                first_step=self.progress.step,
                comparisons=len(self.examples),
                prompts_per_step=self.order.per_step,
                parameters=sum(p.numel() for p in parameters),
                trainable=sum(p.numel() for p in parameters if p.requires_grad),
                device=str(self.accelerator.device),
            )
        )

    def _finished(self) -> bool:
        early = 0 < self.recipe.early_stop <= self.progress.waited
        return early or self.progress.step >= self.steps

    def _step(self) -> StepDone:
        """One optimiser step over one step's comparisons."""
        recipe, number = self.recipe, self.progress.step
        chosen = self.order.chosen(number)
        count = sum(len(self.examples.preferences[c]) for c in chosen) if recipe.weigh == "pair" else len(chosen)
        seed_step(recipe.seed, step=number, process=self.accelerator.process_index)
        factor = rate_factor(number, steps=self.steps, recipe=recipe)
        set_rates(self.optimizer, factor)
        self.network.train()
        self.optimizer.zero_grad()
        own = accumulate_gradient(
            self._forward,
            self.examples,
            chosen[self.accelerator.process_index :: self.accelerator.num_processes],
            self._loss,
            divide_by=count,
            max_tokens=recipe.max_tokens,
            weigh=recipe.weigh,
        )
        add_gradients(self.accelerator, self.network)
        sums = add_sums(self.accelerator, own)
        norm = self._clip(sums, chosen)
        self.optimizer.step()
        self.average.update()
        self.progress.step += 1
        tokens_per_s, seconds = self.speed.step(sums.tokens)
        return StepDone(
            step=self.progress.step,
            steps=self.steps,
            loss=sums.loss / count,
            accuracy=sums.correct / max(1, sums.preferences),
            tokens=sums.tokens,
            tokens_per_s=tokens_per_s,
            seconds_left=(self.steps - self.progress.step) * seconds,
            learning_rate=recipe.learning_rate * factor,
            grad_norm=norm,
        )

    def _forward(self, batch: Batch) -> Float[Tensor, " N"]:
        # Autocast is left after each batch: casts cached without a graph must not serve the pass that needs one.
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.bf16):
            return self.network(batch)

    def _loss(self, scores: Float[Tensor, " N"], preferences: Preferences) -> Float[Tensor, ""]:
        return LOSSES[self.recipe.loss](scores, preferences, self.settings)

    def _clip(self, sums: StepSums, chosen: list[int]) -> float:
        """Clip the gradient; returns its norm before. Raises Diverged where something is not finite."""
        where, rate = f"step {self.progress.step + 1}", self.recipe.learning_rate
        advice = f"lower learning_rate (now {rate:g}), or look at these comparisons"
        if sums.not_finite:
            raise Diverged(f"{where}: scores are not finite for {name_some(list(sums.not_finite))}; {advice}")
        limit = self.recipe.max_grad_norm or math.inf
        norm = float(self.accelerator.clip_grad_norm_(self.network.parameters(), limit))
        if not math.isfinite(norm):
            names = name_some([self.examples.names[c] for c in chosen])
            raise Diverged(f"{where}: the gradient is not finite; it came from {names}; {advice}")
        return norm

    def _evaluate_if_due(self) -> None:
        step = self.progress.step
        if self.sets and step and step % self.recipe.eval_steps == 0 and self.progress.evaluated != step:
            self._evaluate()

    def _evaluate(self) -> None:
        """Score every evaluation set with the averaged weights; save `best` if they are."""
        began = time.perf_counter()
        with self.average.swapped_in():
            self.metrics = self.evaluate(self._score, self.sets)
        overall = pool(self.metrics.values())
        value = overall.log_loss if self.recipe.best_metric == "log_loss" else -overall.accuracy
        progress = self.progress
        better = progress.best is None or value < progress.best
        progress.evaluated, progress.waited = progress.step, 0 if better else progress.waited + 1
        progress.metrics = {name: asdict(one) for name, one in self.metrics.items()}
        self.report(EvaluationDone(progress.step, self.metrics, overall, better, time.perf_counter() - began))
        self.log.evaluation(progress.step, {**self.metrics, "overall": overall})
        if better:
            progress.best = value
            self._save("best", resumable=False)
        self.speed.pause()

    def _score(self, examples: Examples) -> Float[Tensor, " N"]:
        """Scores of all rows of a set, each process doing its share of the comparisons."""
        scores = torch.zeros(len(examples.reply_starts))
        mine = range(self.accelerator.process_index, len(examples), self.accelerator.num_processes)
        for first in range(0, len(mine), self.recipe.per_device_eval_batch_size):
            chunk = mine[first : first + self.recipe.per_device_eval_batch_size]
            places = np.concatenate([np.arange(examples.groups[c], examples.groups[c + 1]) for c in chunk])
            batches = plan_batches(rows_of(examples, chunk), max_tokens=self.recipe.max_tokens)
            with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.bf16):
                scores[torch.from_numpy(places)] = score_batches(self.network, batches)
        return self.accelerator.reduce(scores.to(self.accelerator.device), "sum").cpu()

    def _stop(self) -> NoReturn:
        folder = self._save("last")
        done = f"stopped after step {self.progress.step} of {self.steps}"
        raise Interrupted(f"{done}, saved in {folder}; go on with resume: true")

    def _save(self, name: str, *, resumable: bool = True) -> Path:
        """Write a checkpoint folder, on the main process, with the averaged weights."""
        folder = Path(self.recipe.output_dir) / name
        if self.accelerator.is_main_process:
            state_of = self.accelerator if resumable else None
            with self.average.swapped_in():
                save_checkpoint(
                    folder, self.network, self.encoder, self._record(), state_of=state_of, previous=self.kept
                )
            remove_old(folder.parent, keep=self.recipe.save_total_limit)
            self.report(Saved(self.progress.step, folder))
        self.accelerator.wait_for_everyone()
        self.kept = folder
        return folder

    def _record(self) -> dict[str, Any]:
        """The training record of prefrank.json: the run, its data, and how good it was when last evaluated."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "step": self.progress.step,
            "steps": self.steps,
            "comparisons_per_step": self.order.per_step,
            "processes": self.accelerator.num_processes,
            "device": str(self.accelerator.device),
            "bf16": self.bf16,
            "data": self.account,
            "metrics": {"step": self.progress.evaluated, "sets": self.progress.metrics},
            "versions": versions(),
        }
