"""The training loop: comparisons in, checkpoints out.

One optimizer step takes a fixed number of comparisons, over all devices, whatever the micro-batches; which ones is a
pure function of seed and step, and so is every dropout mask. A resumed run therefore needs the weights, the
optimizer's state and a step number, and goes on bit for bit on a CPU. How the processes of a run share the model is the
business of `strategies.py`. Nothing here prints: events go to `callback`.
"""

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from jaxtyping import Float
from torch import Tensor

from prefrank.errors import Diverged
from prefrank.io.versions import versions_of
from prefrank.model import Network
from prefrank.model.hub import resolve_model
from prefrank.text import plan_batches
from prefrank.training.feed.examples import Examples
from prefrank.training.feed.order import seed_step
from prefrank.training.loop.best import judged, loss_of
from prefrank.training.loop.measure import Evaluate, evaluate_sets, name_some, pool
from prefrank.training.loop.optim import Schedule, WeightAverage, make_optimizer, rate_factor, set_rates
from prefrank.training.loop.parts import plan_lockstep, rows_of
from prefrank.training.loop.processes import add_sums, any_process, free_memory, most_of_processes
from prefrank.training.loop.signals import catch_signals, stop_cleanly
from prefrank.training.loop.step import Graphs, StepSums, accumulate_gradient
from prefrank.training.loop.strategies import make_strategy
from prefrank.training.prepare import Prepared, prepare
from prefrank.training.recipe import Recipe
from prefrank.training.records.events import (
    Callback,
    EvaluationDone,
    Kept,
    Saved,
    SetMetrics,
    Started,
    StepDone,
    ignore,
)
from prefrank.training.records.output import clear_output, open_output, remove_old
from prefrank.training.records.run_checkpoints import read_state, save_checkpoint, state_of, with_own_names
from prefrank.training.records.run_log import RunLog, Speed, check_trackers
from prefrank.training.records.score_record import score_record
from prefrank.training.start import load_model, use_bf16
from prefrank.types import Batch

_PACKAGES = ("prefrank", "torch", "transformers", "tokenizers", "accelerate", "numpy")
"""Whose versions the record keeps."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a finished run.

    Args:
        last: checkpoint folder of the last step.
        best: checkpoint folder of the best evaluation; None if nothing was evaluated.
        steps: optimizer steps done.
        metrics: evaluation set -> its metrics after the last step.
    """

    last: Path
    best: Path | None
    steps: int
    metrics: Mapping[str, SetMetrics]


@stop_cleanly()
def train(
    recipe: Recipe,
    *,
    callback: Callback = ignore,
    evaluate: Evaluate | None = None,
    schedule: Schedule = rate_factor,
) -> Trained:
    """Train a reward model as the recipe says.

    Args:
        callback: called with each event as it happens, on the main process only (see `events`).
        evaluate: turns scores of the evaluation sets into metrics; by default `evaluate_sets` with the run's loss.
        schedule: what the peak rates are multiplied with in each step.

    Raises:
        BadRecipe, BadData, BadModel, NotFound: before the first step.
        CannotWrite: an output folder or a disk that takes no more; earlier checkpoints stay.
        Diverged: a score, loss or gradient that is not finite, naming the comparisons of the step.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP, after saving.
    """
    check_trackers(recipe)
    places = ProjectConfiguration(project_dir=recipe.output_dir, logging_dir=str(Path(recipe.output_dir) / "logs"))
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else processes on CPUs alone do not find each other
        mixed_precision="no",  # autocast is entered by hand, so that two runs in one process may differ in it
        log_with=list(recipe.trackers) or None,
        project_config=places,
    )
    callback = callback if accelerator.is_main_process else ignore
    with ExitStack() as held:
        with accelerator.main_process_first():
            resume_from = held.enter_context(open_output(recipe, callback, main=accelerator.is_main_process))
            folder = resume_from or resolve_model(recipe.model_name)
        load = partial(load_model, recipe, folder, device=accelerator.device, resumed=resume_from is not None)
        prepared = prepare(
            recipe,
            folder,
            load=load,
            resumed=resume_from is not None,
            num_processes=accelerator.num_processes,
            callback=callback,
        )
        if resume_from is None and accelerator.is_main_process:
            clear_output(Path(recipe.output_dir))
        run = _Run(recipe, accelerator, prepared, callback, evaluate, schedule)
        if resume_from is not None:
            run.load_state(resume_from)
        try:
            return run.run()
        finally:
            for tracker in accelerator.trackers:  # not `end_training`: another may follow among the same processes
                tracker.finish()


class _Run:
    """A run in progress: what changes from step to step, and what the steps need."""

    def __init__(
        self,
        recipe: Recipe,
        accelerator: Accelerator,
        prepared: Prepared[Network],
        callback: Callback,
        evaluate: Evaluate | None,
        schedule: Schedule,
    ) -> None:
        self.recipe, self.accelerator, self.callback, self.schedule = recipe, accelerator, callback, schedule
        network = self.network = prepared.network
        feed = self.feed = prepared.feed
        loss = self.loss = prepared.loss.to(accelerator.device)
        self.encoder, self.sets, self.account = prepared.encoder, prepared.encoded.evaluation, prepared.account
        self.progress = prepared.progress
        self.evaluate: Evaluate = evaluate or partial(evaluate_sets, loss=loss)
        self.steps = feed.steps
        self.strategy = make_strategy(recipe, accelerator, network)
        self.optimizer = make_optimizer(network, recipe)
        loss.add_to(self.optimizer, recipe)
        self.strategy.take(self.optimizer)
        self.average = WeightAverage(
            network.named_parameters(),
            recipe.ema_decay,
            last=recipe.average_last,
            every=recipe.eval_steps,
            final=self.steps,
        )
        room = free_memory(recipe, self.optimizer, accelerator.device)
        self.graphs = Graphs(room, network.parameters(), network.causal)
        self.bf16 = use_bf16(recipe, accelerator.device)
        self.metrics: Mapping[str, SetMetrics] = {}
        self.kept: Path | None = None
        self.stays: list[Kept] = []
        self.speed = Speed()
        self.log = RunLog(recipe, accelerator)

    def run(self) -> Trained:
        """Every step that is left, then `last`."""
        started = self._started()
        self.callback(started)
        self.speed.pause()
        with self.log.open(started), catch_signals() as flag:
            self._evaluate_if_due()
            while not self._finished():
                done = self._step()
                self.callback(done)
                self.log.step(done)
                if not any_process(self.accelerator, flag.wanted):
                    self._evaluate_if_due()
                if any_process(self.accelerator, flag.wanted):
                    raise flag.stopped(self._saved_to_stop())
                if done.step % self.recipe.save_steps == 0 and not self._finished():
                    self._save(f"checkpoint-{done.step:06d}")
            if self.sets and self.progress.evaluated != self.progress.step:
                self._evaluate()
            last = self._save("last")
        best = last.with_name("best")
        return Trained(last, best if best.is_dir() else None, self.progress.step, self.metrics)

    def _started(self) -> Started:
        parameters = list(self.network.parameters())
        return Started(
            steps=self.steps,
            first_step=self.progress.step,
            comparisons=self.feed.comparisons,
            prompts_per_step=self.feed.per_step,
            parameters=sum(p.numel() for p in parameters),
            trainable=sum(p.numel() for p in parameters if p.requires_grad),
            device=str(self.accelerator.device),
        )

    def _finished(self) -> bool:
        early = 0 < self.recipe.early_stop <= self.progress.waited
        return early or self.progress.step >= self.steps

    def _step(self) -> StepDone:
        """One optimizer step over one step's comparisons."""
        recipe, number, causal = self.recipe, self.progress.step, self.network.causal
        examples, chosen = self.feed.take(number)
        count = sum(len(examples.preferences[c]) for c in chosen) if recipe.weigh == "pair" else len(chosen)
        seed_step(recipe.seed, step=number, process=self.accelerator.process_index)
        factor = self.schedule(number, steps=self.steps, recipe=recipe)
        set_rates(self.optimizer, factor)
        self.network.train()
        self.strategy.zero_grad()
        shares = [chosen[first :: self.strategy.count] for first in range(self.strategy.count)]
        lockstep = (
            plan_lockstep(examples, shares, max_tokens=recipe.max_tokens, causal=causal)
            if self.strategy.lockstep
            else None
        )
        own = accumulate_gradient(
            self._forward,
            examples,
            shares[self.accelerator.process_index],
            self.loss,
            divide_by=self.strategy.divisor(count),
            max_tokens=recipe.max_tokens,
            causal=causal,
            weigh=recipe.weigh,
            graphs=self.graphs,
            sharing=self.strategy.sharing,
            lockstep=lockstep,
        )
        self.strategy.add_gradients(self.loss)
        sums = add_sums(self.accelerator, own)
        norm = self._clip(sums, examples, chosen)
        self.strategy.step()
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
            computed=sums.computed,
        )

    def _forward(self, batch: Batch) -> Float[Tensor, "N *H"]:
        # Autocast is left after each batch: casts cached without a graph must not serve the pass that needs one.
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.bf16):
            return self.strategy.forward(batch)

    def _clip(self, sums: StepSums, examples: Examples, chosen: list[int]) -> float:
        """Clip the gradient; returns its norm before. Raises Diverged where something is not finite."""
        where, rate = f"step {self.progress.step + 1}", self.recipe.learning_rate
        advice = f"lower learning_rate (now {rate:g}), or look at these comparisons"
        if sums.not_finite:
            raise Diverged(f"{where}: scores are not finite for {name_some(list(sums.not_finite))}; {advice}")
        norm = self.strategy.clip(self.recipe.max_grad_norm or math.inf)
        if not math.isfinite(norm):
            names = name_some([examples.names[c] for c in chosen])
            raise Diverged(f"{where}: the gradient is not finite; it came from {names}; {advice}")
        return norm

    def _evaluate_if_due(self) -> None:
        step = self.progress.step
        if self.sets and step and step % self.recipe.eval_steps == 0 and self.progress.evaluated != step:
            self._evaluate()

    def _evaluate(self) -> None:
        """Score every evaluation set with the averaged weights; save `best` if they are."""
        began = time.perf_counter()
        scored: dict[int, tuple[Examples, Float[Tensor, N * H]]] = {}

        def score(examples: Examples) -> Float[Tensor, "N *H"]:
            scores = self._score(examples)
            scored[id(examples)] = examples, scores
            return scores

        with self.average.swapped_in():
            self.metrics = self.evaluate(score, self.sets)
        overall = pool(self.metrics.values())
        value = loss_of(self.recipe, judged(self.recipe, self.metrics))
        progress = self.progress
        better = progress.judge(value, self.recipe.early_stop_improvement)
        progress.evaluated = progress.step
        progress.scores = score_record(scored.values())
        progress.metrics = {name: asdict(set_metrics) for name, set_metrics in self.metrics.items()}
        self.callback(EvaluationDone(progress.step, self.metrics, overall, better, time.perf_counter() - began))
        self.log.evaluation(progress.step, {"overall": overall, **self.metrics}, best=better)
        if better:
            self._save("best", resumable=False)
        self.speed.pause()

    def _score(self, examples: Examples) -> Float[Tensor, "N *H"]:
        """Scores of all rows of a set, each process doing its share of the comparisons."""
        count, size, me = self.strategy.count, self.recipe.per_device_eval_batch_size, self.accelerator.process_index
        heads = [len(self.network.heads)] if len(self.network.heads) > 1 else []
        plan = partial(plan_batches, max_tokens=self.recipe.max_tokens, causal=self.network.causal)
        scores = torch.zeros(len(examples.reply_starts), *heads)
        self.network.train(False)
        for first in range(0, len(examples), count * size):
            chunk = range(first + me, min(first + count * size, len(examples)), count)
            places = [np.arange(examples.groups[c], examples.groups[c + 1]) for c in chunk]
            batches = plan(rows_of(examples, chunk))
            # Agreed before the first pass: one process must not ask while another is still in a pass
            passes = most_of_processes(self.accelerator, len(batches)) if self.strategy.lockstep else len(batches)
            for batch in batches:
                scores[torch.from_numpy(np.concatenate(places)[batch.rows])] = self._forward_only(batch)
            if passes > len(batches):
                spare = plan(rows_of(examples, [first])[:1])[0]
                for _ in range(passes - len(batches)):
                    self._forward_only(spare)
        return self.accelerator.reduce(scores.to(self.accelerator.device), "sum").cpu()

    @torch.no_grad()
    def _forward_only(self, batch: Batch) -> Float[Tensor, "N *H"]:
        return self._forward(batch).cpu()

    def _saved_to_stop(self) -> str:
        """Save; returns the message."""
        folder = self._save("last")
        done = f"stopped after step {self.progress.step} of {self.steps}"
        return f"{done}, saved in {folder}; go on with resume: true"

    def _save(self, name: str, *, resumable: bool = True) -> Path:
        """Write a checkpoint folder, on the main process, with the averaged weights."""
        folder = Path(self.recipe.output_dir) / name
        with ExitStack() as stack:
            more = stack.enter_context(self.strategy.saved_more(folder)) if resumable else None
            stack.enter_context(self.average.swapped_in())
            state = self._state() if resumable else None
            network = stack.enter_context(self.strategy.whole())
            if network is not None:
                save_checkpoint(
                    folder, network, self.encoder, self._record(), state=state, more=more, previous=self.kept
                )
        if self.accelerator.is_main_process:
            for stays in remove_old(folder.parent, keep=self.recipe.save_total_limit):
                if stays not in self.stays:
                    self.callback(stays)
                    self.stays.append(stays)
            self.callback(Saved(self.progress.step, folder))
        self.accelerator.wait_for_everyone()
        self.kept = folder
        return folder

    def _state(self) -> dict[str, Any]:
        """What resuming needs besides the weights, in full, on the main process."""
        return {
            "optimizer": self.strategy.state(),
            "progress": self.progress.state_dict(),
            "average": self.strategy.gather(self.average.state_dict()),
            "loss": self.strategy.gather(self.loss.state_dict()),
        }

    def load_state(self, folder: Path) -> None:
        """Go on from a checkpoint, whichever layout wrote it; its weights were loaded with the network."""
        state = with_own_names(read_state(folder), self.network)
        with state_of(folder):
            self.metrics = {name: SetMetrics(**values) for name, values in self.progress.metrics.items()}
            self.strategy.load_more(folder / "state")
            self.strategy.load_state(state["optimizer"])
            self.average.load_state_dict(self.strategy.spread(state["average"]))
            self.loss.load_state_dict(state["loss"])
        self.kept = folder

    def _record(self) -> dict[str, Any]:
        """The training record of prefrank.json: the run, its data, and how good it was when last evaluated."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "step": self.progress.step,
            "steps": self.steps,
            "comparisons_per_step": self.feed.per_step,
            "processes": self.accelerator.num_processes,
            "device": str(self.accelerator.device),
            "bf16": self.bf16,
            "loss": self.loss.record(),
            "data": {**self.account, "drawn": self.feed.account()},
            "metrics": {"step": self.progress.evaluated, "sets": self.progress.metrics},
            "scores": {"step": self.progress.evaluated, "heads": self.progress.scores},
            "versions": versions_of(_PACKAGES),
            **self.log.record(),
        }
