"""The recipe: one frozen, checked value that everything in a training run depends on.

Field names are those of the model card's own configuration, which runs unchanged. A test holds that every field is
documented in docs/recipes.md and read by the training code. `recipe_file.py` reads one from YAML.
"""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from prefrank.data import parse_source
from prefrank.errors import NotFound, short

INHERITED = ("max_length", "turns", "chat_template")
"""Keys whose null is what the model that is trained on says."""
MAX_LENGTH = 512
"""Tokens of a row where neither the recipe nor the model says."""
MOST_COUNT = 10**12
MOST_NUMBER = 1e30
"""Of any number of a recipe: products with it are still finite in float32. And of any count, so that sums are exact."""
_MOST_SEED = 2**32 - 1
"""What numpy's and Python's generators take."""
_MOST_RANK = 2**14
"""No layer is as wide."""
Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]


def _whole(value: Any) -> Any:
    """Let `1e6` count as an integer, as people write it for "never"."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _moderate(value: float) -> float:
    if abs(value) > MOST_NUMBER:
        raise PydanticCustomError("size", f"Input should be at most {MOST_NUMBER:g} in size")
    return value


def _named(value: str) -> str:
    """A name, path or source says something, in one line, without anything for a terminal to obey."""
    if not value.strip():
        raise ValueError(f"{value!r} is not a name; wanted one, or leave the key out")
    if control := _CONTROL.search(value):
        raise ValueError(f"{short(value)} holds the control character {short(control[0])}; remove it")
    return value


def _listed(value: Any) -> Any:
    """One entry stands for a list of one, `none` for an empty list."""
    if value is None:
        return None
    if value == "none":
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _data_source(value: Any) -> Any:
    """A bare name stands for a mapping; `SOURCE:SPLIT`, as the command line takes it, for both."""
    value = {"source": value} if isinstance(value, str) else value
    if not isinstance(value, Mapping) or not isinstance(value.get("source"), str):
        return value
    try:
        source, split = parse_source(value["source"])
    except NotFound as error:
        raise ValueError(f"source is {value['source']!r}: {error}") from None
    if split is None:
        return value
    if value.get("split") not in (None, split):
        raise ValueError(f"source {value['source']!r} names the split {split}, and split is {value['split']}; keep one")
    return {**value, "source": source, "split": split}


Count = Annotated[int, BeforeValidator(_whole), Field(le=MOST_COUNT)]
Number = Annotated[float, AfterValidator(_moderate)]
Name = Annotated[str, AfterValidator(_named)]


class DataSource(BaseModel):
    """One data set of a recipe; a bare name stands for `{source: name}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    source: Name = Field(
        description="A known name, a hub id, or a local file or folder; SOURCE:SPLIT names a split too."
    )
    split: Name | None = Field(
        None,
        description="The split; null: `train` to train on, `eval` (validation, else test) to evaluate on; of files that"
        " name none everything, unless they serve both.",
    )
    columns: dict[str, str] | None = Field(
        None,
        description="Columns by name, such as `{prompt: question, chosen: good, rejected: bad}`; dots for nested ones.",
    )
    fraction: Number = Field(1.0, gt=0, le=1, description="Share of the prompts to use, chosen by a stable hash.")
    limit: Count | None = Field(None, ge=1, description="Read at most this many comparisons, from the start.")
    lang: Name | None = Field(None, description="Of OASST, only trees in this language, such as `en`.")
    group: bool = Field(False, description="Merge the comparisons of one prompt, so that each reply is encoded once.")
    protocol: Literal["by_prompt", "as_published"] = Field(
        "by_prompt", description="How a split that was never published is made; as_published splits rows, and leaks."
    )
    weight: Number = Field(1.0, gt=0, description="What each of its comparisons counts in the loss.")
    share: Number | None = Field(
        None, gt=0, description="Part of each epoch drawn from it, relative to the others' shares; null: by its size."
    )
    samples: Count | None = Field(
        None, ge=1, le=10**6, description="Comparisons drawn from it for each epoch, newly each time; null: all, once."
    )
    per_prompt: Count | None = Field(
        None, ge=1, description="Most comparisons of one prompt in one pass, newly drawn each time; null: all."
    )
    stream: bool = Field(
        False, description="Read it while training, in the memory of shuffle_buffer; JSONL or Parquet."
    )

    @field_validator("columns")
    @classmethod
    def _columns_have_names(cls, columns: dict[str, str] | None) -> dict[str, str] | None:
        if columns is not None and not columns:
            raise ValueError("columns is empty; wanted NAME: COLUMN, or leave it out")
        for name, own in (columns or {}).items():
            if not own:
                raise ValueError(f"columns gives {name} no name; wanted NAME: COLUMN, such as prompt: question")
        return columns


_Source = Annotated[DataSource, BeforeValidator(_data_source)]
Sources = Annotated[tuple[_Source, ...], BeforeValidator(_listed), Field(strict=False)]


class Recipe(BaseModel):
    """Everything a training run depends on, checked before the first forward pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    # What to train, and on what
    model_name: Name = Field(
        description="Where to start from: a local folder, a hub id, or `minilm` (the weights in prefrank[demo])."
    )
    datasets: Sources = Field(min_length=1, description="Training data: names, or mappings with the options below.")
    evaluation: Sources | None = Field(
        None,
        description="Evaluation data, removed from the training data; null: each training set's own split, made by"
        " prompt where there is none; []: none.",
    )
    eval_limit: Count | None = Field(
        2000,
        ge=1,
        description="Most comparisons of each evaluation set, whole prompts chosen by a stable hash; null: all.",
    )
    duplicates: Literal["keep", "exact", "near"] = Field(
        "keep",
        description="exact: merge comparisons of the same prompt and replies; near: drop nearly equal ones too.",
    )
    leaks: Literal["refuse", "drop", "allow"] = Field(
        "refuse",
        description="What to do about training comparisons that an evaluation set nearly holds; docs/training.md.",
    )
    length_balance: bool = Field(
        False, description="Draw as many comparisons whose longer reply is preferred as whose shorter one is."
    )
    shuffle_buffer: Count = Field(10_000, ge=1, description="Comparisons of each stream held in memory to shuffle.")
    output_dir: Annotated[Name, AfterValidator(os.path.expanduser)] = Field(
        "runs/reward-model", description="Folder for checkpoints and logs."
    )
    overwrite: bool = Field(
        False,
        description="Start over where output_dir already holds a run, deleting its checkpoints; resume overrides it.",
    )
    resume: bool = Field(False, description="Resume from the newest checkpoint in output_dir, if there is one.")
    seed: Count = Field(
        0, ge=0, le=_MOST_SEED, description="Seeds the new head, the order of comparisons, and dropout."
    )

    # Text
    max_length: Count | None = Field(
        None,
        ge=8,
        description="Tokens of one (prompt, reply); the prompt is cut first; null: as prefrank trained the model;"
        " of any other, what its tokenizer and positions allow, up to 4,096.",
    )
    turns: Literal["separator", "labels"] | None = Field(
        None,
        description="How the turns of a longer prompt are marked: with separators alone, or with role labels too; null:"
        " as prefrank trained the model, separators for any other.",
    )

    chat_template: Name | None = Field(
        None,
        description="A decoder's chat template: a name among its tokenizer's, a Jinja file, looked for from the"
        " recipe's folder, or turns for plain User: and Assistant: turns; null: as the model has it.",
    )
    pre_rendered: bool = Field(
        False, description="Texts were already rendered by the chat template: their control strings are tokens."
    )

    # Loss
    loss: Literal["bradley_terry", "plackett_luce", "rao_kupper", "davidson", "ordinal", "regression"] = Field(
        "bradley_terry", description="The likelihood of the labels given the scores; docs/losses.md helps to choose."
    )
    heads: Annotated[tuple[Name, ...], BeforeValidator(_listed), Field(strict=False)] = Field(
        ("overall",), min_length=1, description="Labels to train, one score head each; labels of others are left out."
    )
    margin: Number = Field(
        0.0,
        ge=0,
        description="Score difference required per level of strength, in addition to the data's own margins (Llama 2).",
    )
    top_k: Count | None = Field(
        None, ge=1, description="Of plackett_luce: only the first so many places of a ranking count; null: all."
    )
    tie_parameter: Number | None = Field(
        None, gt=0, description="Fixes theta (above 1) of rao_kupper or nu of davidson; null: learned from the ties."
    )
    rating_offset: Number | None = Field(
        None, description="Of regression: the rating that scores 0; null: the mean of the training ratings."
    )
    rating_scale: Number | None = Field(
        None, gt=0, description="Of regression: rating points per unit of score; null: their standard deviation."
    )
    loss_learning_rate: Number = Field(
        0.01, gt=0, description="Peak rate of the loss's own parameters: cut-points and tie parameter."
    )
    weigh: Literal["comparison", "pair"] = Field(
        "comparison", description="What counts 1 in the loss: each comparison (prompt), as InstructGPT, or each pair."
    )
    label_smoothing: Number = Field(0.0, ge=0, le=0.5, description="Chance that a label is the wrong way around.")
    score_l2: Number = Field(
        0.0, ge=0, description="Coefficient of 0.5 * (winner^2 + loser^2): beta of Open Assistant's RMLoss (0.001)."
    )
    centering: Number = Field(0.0, ge=0, description="Coefficient of (winner + loser)^2 (Eisenstein et al. 2023).")

    # Optimizer
    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="AdamW, or with 8-bit moments by bitsandbytes: a quarter of the optimizer's memory."
    )
    learning_rate: Number = Field(gt=0, description="Peak learning rate of AdamW.")
    head_learning_rate: Number | None = Field(
        None, gt=0, description="Peak rate of pooler and score head; null: learning_rate."
    )
    layer_decay: Number = Field(
        1.0, gt=0, le=1, description="Factor on the learning rate for each lower layer (1: none)."
    )
    scheduler: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Learning rate after warm-up: cosine to 0, linear to 0, or constant."
    )
    warmup_steps: Count = Field(0, ge=0, description="Updates over which the learning rate rises from 0.")
    weight_decay: Number = Field(0.01, ge=0, description="Decoupled weight decay; never on biases and norms.")
    adam_beta1: Number = Field(0.9, ge=0, lt=1, description="AdamW's decay of the gradient's mean.")
    adam_beta2: Number = Field(0.999, ge=0, lt=1, description="AdamW's decay of the squared gradient's mean.")
    adam_epsilon: Number = Field(1e-8, gt=0, description="AdamW's epsilon.")
    max_grad_norm: Number = Field(2.0, ge=0, description="Clip the gradient to this norm (0: no clipping).")
    freeze_layers: Count = Field(0, ge=0, description="Do not train the embeddings and this many bottom layers.")
    freeze_embeddings: bool = Field(False, description="Do not train the input embeddings.")
    new_head: Literal[True, False, "auto"] = Field(
        "auto", description="Start from a new output layer; auto: unless the model already has the recipe's heads."
    )
    dropout: Number | None = Field(
        None, ge=0, lt=1, description="Replaces every dropout rate of the model; null: as the model's config says."
    )
    ema_decay: Number = Field(
        0.0, ge=0, lt=1, description="Evaluate and save an exponential average of the weights (0: the weights)."
    )
    average_last: Count = Field(
        0, ge=0, description="Evaluate and save the mean weights of the last so many evaluations (0: the weights)."
    )

    # LoRA
    lora_rank: Count = Field(
        0,
        ge=0,
        le=_MOST_RANK,
        description="Train low-rank updates of this rank, and the head, and freeze the rest (0: train all).",
    )
    lora_alpha: Count = Field(16, ge=1, description="The updates are scaled by alpha / rank.")
    lora_dropout: Number = Field(0.0, ge=0, lt=1, description="Dropout on the input of the updates.")
    lora_targets: Annotated[tuple[Name, ...], BeforeValidator(_listed), Field(strict=False)] = Field(
        ("auto",),
        min_length=1,
        description="Endings of module names, such as query; auto: all linear layers of attention and feed-forward.",
    )

    # Batches
    num_train_epochs: Number = Field(1.0, gt=0, le=1e4, description="Passes over the training data; may be a fraction.")
    max_steps: Count | None = Field(None, ge=1, description="Updates of the run, in place of num_train_epochs.")
    per_device_train_batch_size: Count = Field(
        8, ge=1, description="Prompts (whole comparisons, all replies) per device and accumulation step."
    )
    gradient_accumulation_steps: Count = Field(
        1, ge=1, description="Multiplies the prompts per update; max_tokens decides how they are split."
    )
    num_devices: Count | None = Field(
        None, ge=1, description="Devices the batch size assumes, however many the run has; null: those of the run."
    )
    max_tokens: Count = Field(
        4096, ge=1, description="Tokens of one micro-batch: bounds memory, never changes the gradient."
    )
    max_memory: Annotated[Number, Field(gt=0)] | Literal["auto"] | None = Field(
        None,
        description="GB a device may use: graphs of long comparisons are kept as far as it allows, not computed twice;"
        " auto: what is free at the start; null: one micro-batch's graph at a time.",
    )
    sharding: Literal["auto", "none", "full", "zero2", "zero3"] = Field(
        "auto",
        description="full: weights, gradients and optimizer in shards over all processes (FSDP2); zero2, zero3: by"
        " DeepSpeed; none: whole on each; auto: what the launcher's configuration says.",
    )
    per_device_eval_batch_size: Count = Field(64, ge=1, description="Prompts per evaluation batch.")
    gradient_checkpointing: bool = Field(False, description="Recompute layers in the backward pass to save memory.")
    kernels: Literal["torch", "flash"] = Field(
        "torch", description="Attention on a GPU: a loop over rows of one length, or one kernel call (prefrank[gpu])."
    )
    bf16: Literal[True, False, "auto"] = Field("auto", description="bfloat16 autocast; auto: on GPUs that have it.")

    # Evaluation, checkpoints, logs
    eval_steps: Count = Field(500, ge=1, description="Updates between evaluations; one more always ends the run.")
    save_steps: Count = Field(500, ge=1, description="Updates between checkpoints.")
    save_total_limit: Count = Field(2, ge=1, description="Step checkpoints to keep, besides `best` and `last`.")
    best_metric: Literal["log_loss", "accuracy"] = Field("log_loss", description="What chooses the `best` checkpoint.")
    best_set: Name | None = Field(
        None, description="The evaluation set that chooses it, such as `hh:test`; null: all of them together."
    )
    early_stop: Count = Field(0, ge=0, description="Stop after this many evaluations without a better one (0: never).")
    early_stop_improvement: Number = Field(
        0.0, ge=0, description="Improvement of best_metric that early_stop counts as better."
    )
    logging_steps: Count = Field(
        10, ge=1, description="Updates between entries of the run's curve, in its folder and the trackers."
    )
    trackers: Annotated[tuple[Tracker, ...], BeforeValidator(_listed), Field(strict=False)] = Field(
        ("tensorboard",), description="Where records go: tensorboard, wandb, trackio, mlflow; none for nowhere."
    )

    @model_validator(mode="after")
    def _one_average(self) -> "Recipe":
        if self.ema_decay and self.average_last:
            raise ValueError(
                f"ema_decay is {self.ema_decay:g} and average_last {self.average_last}; set one of them to 0"
            )
        return self

    @model_validator(mode="after")
    def _data_can_be_drawn(self) -> "Recipe":
        """Refuse options of data sets that cannot be honored together."""
        shares = [source.share for source in self.datasets]
        streams = any(source.stream for source in self.datasets)
        if None in shares and len(shares) > 1 and (streams or any(shares)):
            why = "a stream has no size to go by" if streams else "others have one"
            raise ValueError(f"datasets[{shares.index(None)}] has no share, but {why}; give every data set a share")
        for number, source in enumerate(self.datasets):
            if source.share is not None and source.samples is not None:
                raise ValueError(f"datasets[{number}] has both share and samples; keep one of them")
            if source.stream and (source.group or source.lang or source.protocol == "as_published"):
                raise ValueError(f"datasets[{number}] is a stream: group, lang and protocol want it whole; drop them")
        for number, source in enumerate(self.evaluation or ()):
            if source.stream or source.share or source.samples or source.per_prompt:
                raise ValueError(
                    f"evaluation[{number}] has one of stream, share, samples, per_prompt; they are for training sets"
                )
        if streams:
            self._check_streams()
        return self

    def _check_streams(self) -> None:
        if self.max_steps is None:
            raise ValueError("max_steps is null; a stream has no end that epochs could be counted by: set it")
        if self.evaluation is None:
            raise ValueError("evaluation is null, but what a stream keeps for it is unknown; name sets, or give []")
        whole = {"length_balance": self.length_balance, "duplicates": self.duplicates != "keep"}
        for number, source in enumerate(self.datasets):
            whole[f"datasets[{number}].samples"] = source.samples is not None
            whole[f"datasets[{number}].per_prompt"] = source.per_prompt is not None
        for key, is_set in whole.items():
            if is_set:
                raise ValueError(f"{key} needs all comparisons at hand, but a data set is a stream; leave one out")

    def prompts_per_update(self, num_processes: int) -> int:
        """Comparisons behind one optimizer step, over all devices."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * (self.num_devices or num_processes)
