"""One contender of the training benchmark in a process of its own, trained in stretches of some steps.

    python train_worker.py --contender trl --folder MODEL --task TASK --output FOLDER --cores 0 1

It trains through its library's own loop, from the first step to the last, and stops wherever the task says: before the
first step, after the first (which warms up, and whose gradient it writes down), and after every stretch. There it
answers with a line of JSON, CPU and wall seconds of the stretch, the losses of its steps and what it computed, and
waits for a line on standard input. At the end it writes its weights.

Each contender runs where its library is installed, so this file imports numpy alone; the rest is imported by the
function that needs it. What libraries print goes to standard error.
"""

import argparse
import hashlib
import json
import math
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from score_worker import Rows, config_of, forget_peak, is_typed, one_line, pad, peak_megabytes, versions

PACKAGES = ("prefrank", "torch", "transformers", "accelerate", "datasets", "trl", "sentence-transformers", "numpy")
DEFAULT_BATCH = 8
"""Rows of data a trainer takes at once where nobody says otherwise."""
RANKNET = 1 / math.log(2)
"""RankNetLoss takes logarithms to the base 2: its losses and gradients are so many times the others'. With the clipping
limit and Adam's epsilon multiplied alike, its updates are the same."""


@dataclass(eq=False)
class Task:
    """What every contender trains on.

    Args:
        rows: of all groups, in the order of training.
        group_size: rows of a group.
        pairs: (winner, loser) of each group, as places in the group; equally many in all.
        per_step: groups of an optimizer step.
        stops: numbers of steps done at which a contender stops, the last one at the end.
        settings: of the optimizer, the same for all.
        digests: digest of every parameter's initial value -> its name.
        data: folder of the same comparisons as texts.
    """

    rows: Rows
    group_size: int
    pairs: list[list[tuple[int, int]]]
    per_step: int
    stops: list[int]
    settings: dict[str, float]
    digests: dict[str, str]
    data: str

    @classmethod
    def read(cls, folder: Path) -> "Task":
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        return cls(rows=Rows.read(str(folder / "rows.npz")), **plan)

    @property
    def steps(self) -> int:
        return self.stops[-1]

    @property
    def pairs_per_step(self) -> int:
        return self.per_step * len(self.pairs[0])

    def ids(self, row: int) -> np.ndarray:
        return self.rows.ids[self.rows.starts[row] : self.rows.starts[row + 1]]

    def row_pairs(self, groups: range) -> list[tuple[int, int]]:
        """(winner's row, loser's row) of every pair of the groups."""
        size = self.group_size
        return [(size * g + winner, size * g + loser) for g in groups for winner, loser in self.pairs[g]]

    def wins(self, group: int) -> list[float]:
        """How many others each reply of a group beats: its relevance in a strict ranking."""
        winners = [winner for winner, _ in self.pairs[group]]
        return [float(winners.count(place)) for place in range(self.group_size)]


@dataclass
class Work:
    """What forward passes were given since the last stop."""

    encodings: int = 0
    tokens: int = 0
    slots: int = 0


@dataclass
class Course:
    """Where the training stands: hears of every step from a contender's loop, and stops it where the task says."""

    task: Task
    answers: Any
    output: Path
    factor: float
    losses: list[float] = field(default_factory=list)
    work: Work = field(default_factory=Work)
    done: int = 0
    clocks: tuple[float, float] = (0.0, 0.0)

    def begin(self) -> None:
        """Training is about to take its first step."""
        forget_peak()
        self._dump_first_gradient()
        self._wait({"base_mb": resident_megabytes()})

    def step(self, loss: float) -> None:
        """An optimizer step is done."""
        self.losses.append(loss / self.factor)
        self.done += 1
        if self.done in self.task.stops:
            cpu, wall = (after - before for after, before in zip(clock(), self.clocks, strict=True))
            peak = peak_megabytes()
            forget_peak()  # and freed memory with it, which others may need while this process waits
            self._wait({"cpu_s": cpu, "wall_s": wall, "losses": self.losses, "peak_mb": peak, **vars(self.work)})

    def count(self, encodings: int, tokens: int, slots: int) -> None:
        self.work.encodings += encodings
        self.work.tokens += tokens
        self.work.slots += slots

    def _wait(self, answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=self.answers, flush=True)
        if not sys.stdin.readline():
            raise SystemExit(0)
        self.losses, self.work, self.clocks = [], Work(), clock()

    def _dump_first_gradient(self) -> None:
        """Have the first optimizer step write down what gradient it was given, by the parameters' names.

        Loops that build their own model name no parameters to us, so each is known by its initial value.
        """
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        def dump(optimizer: Any, arguments: Any, options: Any) -> None:
            hook.remove()
            gradients = {}
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    name = self.task.digests[digest(parameter.detach().numpy())]
                    if parameter.grad is not None:
                        gradients[name] = parameter.grad.to_dense().numpy()
            np.savez(self.output / "gradient.npz", **gradients)

        hook = register_optimizer_step_pre_hook(dump)


def clock() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def digest(value: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(value).tobytes() + str(value.shape).encode()).hexdigest()


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def trl(folder: Path, task: Task, course: Course, *, batch: int = 0, checkpointing: bool = False) -> Any:
    """RewardTrainer on tokenized pairs; K replies make K(K - 1)/2 of them. `batch` 0: the whole step at once."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    pairs = task.row_pairs(range(len(task.pairs)))
    rows = [{"chosen_ids": task.ids(a).tolist(), "rejected_ids": task.ids(b).tolist()} for a, b in pairs]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    arguments = RewardConfig(
        **trainer_settings(task, course, batch or task.pairs_per_step, task.pairs_per_step),
        train_sampling_strategy="sequential",
        eos_token=tokenizer.eos_token or tokenizer.sep_token,
        max_length=max(512, int(task.rows.lengths.max())),
        gradient_checkpointing=checkpointing,
    )
    model = transformers_model(folder, course)
    trainer = RewardTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        callbacks=[trainer_callback(course)],
    )  # fmt: skip
    trainer.train()
    return model


def sentence_transformers(folder: Path, task: Task, course: Course) -> Any:
    """CrossEncoder with RankNetLoss on lists of replies, which it tokenizes as it goes."""
    import torch
    from datasets import Dataset
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )
    from torch.utils.data import BatchSampler, SequentialSampler

    texts, size = task.rows.texts, task.group_size
    replies = [texts[size * g : size * (g + 1)] for g in range(len(task.pairs))]
    rows = [
        {"query": group[0][0], "docs": [reply for _, reply in group], "label": task.wins(g)}
        for g, group in enumerate(replies)
    ]
    model = CrossEncoder(str(folder), num_labels=1, max_length=512, activation_fn=torch.nn.Identity(), device="cpu")
    network = next(module for module in model.modules() if type(module).__name__.endswith("SequenceClassification"))
    count_work(network, course)

    def in_order(dataset: Any, batch_size: int, drop_last: bool, **others: Any) -> BatchSampler:
        return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)

    arguments = CrossEncoderTrainingArguments(
        **trainer_settings(task, course, task.per_step, task.per_step), batch_sampler=in_order
    )
    CrossEncoderTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(rows), loss=losses.RankNetLoss(model),
        callbacks=[trainer_callback(course)],
    ).train()  # fmt: skip
    return network


def plain(folder: Path, task: Task, course: Course) -> Any:
    """The loop one would write: all distinct replies of a step in one padded batch, the mean over its pairs."""
    import torch
    from torch.nn.functional import logsigmoid

    settings = task.settings
    model = transformers_model(folder, course).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        lr=settings["learning_rate"], weight_decay=settings["weight_decay"], eps=settings["adam_epsilon"],
    )  # fmt: skip
    course.begin()
    typed, padding = is_typed(folder), config_of(folder).get("pad_token_id", 0)
    for step in range(task.steps):
        groups = range(step * task.per_step, (step + 1) * task.per_step)
        rows = np.arange(task.group_size * groups.start, task.group_size * groups.stop)
        inputs = {name: torch.from_numpy(x) for name, x in pad(task.rows, rows, typed, padding).items()}
        scores = model(**inputs).logits[:, 0]
        winners, losers = (torch.tensor(side) - int(rows[0]) for side in zip(*task.row_pairs(groups), strict=True))
        loss = -logsigmoid(scores[winners] - scores[losers]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["max_grad_norm"])
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * (1 - step / task.steps)
        optimizer.step()
        optimizer.zero_grad()
        course.step(loss.item())
    return model


def ours(folder: Path, task: Task, course: Course) -> Any:
    """What `prefrank train` runs, on the same comparisons as texts; the order follows from the seed."""
    from prefrank.cli.allocator import keep_freed_memory
    from prefrank.training import train
    from prefrank.training.records.events import Event, Started, StepDone

    def hear(event: Event) -> None:
        match event:
            case Started():
                course.begin()
            case StepDone():
                course.count(task.per_step * task.group_size, event.tokens, event.tokens)
                course.step(event.loss)

    recipe = own_recipe(folder, task.data, task.per_step, task.settings, course.output / "run")
    with keep_freed_memory():
        return train(recipe, callback=hear).last


def own_recipe(folder: Path, data: str, per_step: int, settings: dict[str, float], output: Path) -> Any:
    """The recipe that says what the other contenders are told."""
    from prefrank.training import make_recipe

    return make_recipe(
        {
            "model_name": str(folder),
            "datasets": [{"source": data, "split": "train"}],
            "evaluation": [],
            "output_dir": str(output),
            "overwrite": True,
            "weigh": "pair",
            "scheduler": "linear",
            **settings,
            "per_device_train_batch_size": per_step,
            "save_steps": 10**6,
            "eval_steps": 10**6,
            "trackers": [],
        }
    )


def transformers_model(folder: Path, course: Course) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    count_work(model, course)
    return model


def count_work(model: Any, course: Course) -> None:
    """Count what every forward pass is given, at the backbone: not all libraries call the whole model."""

    def before(module: Any, arguments: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        ids, mask = arguments[0] if arguments else inputs["input_ids"], inputs["attention_mask"]
        course.count(len(ids), int(mask.sum()), ids.numel())

    model.base_model.register_forward_pre_hook(before, with_kwargs=True)


def trainer_settings(task: Task, course: Course, batch: int, per_step: int) -> dict[str, Any]:
    """What both libraries on transformers' Trainer are told.

    Raises:
        ValueError: a step is not a whole number of batches, which the Trainer would weigh unequally.
    """
    settings, batch = task.settings, min(batch, per_step)
    if per_step % batch:
        raise ValueError(f"a step of {per_step} is not a whole number of batches of {batch}")
    return {
        "output_dir": str(course.output / "run"),
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": per_step // batch,
        "num_train_epochs": 1,
        "learning_rate": settings["learning_rate"],
        "weight_decay": settings["weight_decay"],
        "adam_epsilon": settings["adam_epsilon"] * course.factor,
        "max_grad_norm": settings["max_grad_norm"] * course.factor,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": False,
        "use_cpu": True,
    }


def trainer_callback(course: Course) -> Any:
    from transformers import TrainerCallback

    class Hear(TrainerCallback):
        def on_train_begin(self, *arguments: Any, **others: Any) -> None:
            course.begin()

        def on_log(self, arguments: Any, state: Any, control: Any, logs: dict[str, Any], **others: Any) -> None:
            if "loss" in logs:
                course.step(float(logs["loss"]))

    return Hear()


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to train.

    Args:
        environment: "own", or a file of `train-requirements`.
        run: trains, telling the course of every step; returns the model, or the folder it was saved in.
        factor: by which its loss is larger than the mean of -log sigmoid over pairs.
        once: whether it is measured in the first round alone.
    """

    label: str
    environment: str
    run: Callable[[Path, Task, Course], Any]
    factor: float = 1.0
    once: bool = False


CONTENDERS = {
    "trl": Contender("TRL", "train-peers", trl),
    "trl_accumulating": Contender("TRL, 8 pairs at a time", "train-peers", lambda *all: trl(*all, batch=DEFAULT_BATCH)),
    "trl_checkpointing": Contender(
        "TRL, checkpointing (its default)", "train-peers", lambda *all: trl(*all, checkpointing=True), once=True
    ),
    "sentence_transformers": Contender("sentence-transformers", "train-peers", sentence_transformers, RANKNET),
    "plain": Contender("plain loop", "train-peers", plain),
    "ours": Contender("ours", "own", ours),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contender", choices=CONTENDERS, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cores", type=int, nargs="+", required=True)
    options = parser.parse_args()
    os.sched_setaffinity(0, set(options.cores))
    warnings.filterwarnings("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contender = CONTENDERS[options.contender]
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        course = Course(Task.read(options.task), answers, options.output, contender.factor)
        trained = contender.run(options.folder, course.task, course)
        save(trained, options.output / "model.safetensors")
        answer: dict[str, Any] = {"versions": versions(PACKAGES)}
    except Exception as error:  # a contender that fails is a line of the report, not the end of the run
        import traceback

        traceback.print_exc()
        answer = {"error": one_line(error)}
    print(json.dumps(answer), file=answers, flush=True)


def save(trained: Any, path: Path) -> None:
    """The weights of a model, or of the folder it was saved in, as one file."""
    if isinstance(trained, Path):
        path.write_bytes((trained / "model.safetensors").read_bytes())
        return
    from safetensors.torch import save_model

    save_model(trained, str(path))


if __name__ == "__main__":
    main()
