"""`RewardModel`: load a checkpoint, score replies, rank them, save it again.

A score is the model's raw logit for one (prompt, reply) and does not depend on what it is scored beside. Equal pairs
are scored once. Nothing is standardised or clipped silently: `empty_score` is the one rule that can replace a score,
and only when asked for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from prefrank.errors import BadInput, BadModel, CannotWrite
from prefrank.io.atomic import atomic_folder
from prefrank.model import Network, fingerprint, load_for_scoring, make_engine, run
from prefrank.model.adapter import text_folder
from prefrank.model.hub import resolve_model
from prefrank.model.record import Record, read_record, write_checkpoint, write_record
from prefrank.text import TextEncoder, TextSettings, check_texts, distinct_rows, plan_batches
from prefrank.types import Prompt, PromptLike, Row, Score, as_prompt


@dataclass(frozen=True, slots=True)
class Ranked:
    """One reply's place: `rank` 0 is best, equal scores share a rank; `index` is its place in the caller's list."""

    rank: int
    index: int
    reply: str
    score: Score


class RewardModel:
    """A network, its text path and what is known of it. Make one with `RewardModel.load`.

    Args:
        network: a reward model in evaluation mode; its weights must not change from here on.
        encoder: turns (prompt, reply) into rows.
        training: the training record of the checkpoint, if it has one.
        calibration: the calibration record of the checkpoint; kept only if it is for this model's very scores.
        max_tokens: tokens per batch; changes speed and memory, never a score.
        empty_score: the score given to blank replies in place of the model's; None leaves them to the model.
        kernels, deterministic, num_threads: see `load`.
    """

    def __init__(
        self,
        network: Network,
        encoder: TextEncoder,
        *,
        training: dict | None = None,
        calibration: dict[str, Any] | None = None,
        max_tokens: int = 1024,
        empty_score: float | None = None,
        kernels: str | None = None,
        deterministic: bool = False,
        num_threads: int | None = None,
    ) -> None:
        positions = network.max_positions
        if positions is not None and encoder.settings.max_length > positions:
            raise BadModel(
                f"max_length is {encoder.settings.max_length} tokens but the model has positions for {positions};"
                " pass a smaller max_length"
            )
        self.network = network
        self.engine = make_engine(network, kernels=kernels, deterministic=deterministic, num_threads=num_threads)
        self.encoder = encoder
        self.training = training
        self.max_tokens = max_tokens
        self.empty_score = empty_score
        self.fingerprint = fingerprint(network, extra=encoder.fingerprint_bytes())
        fits = calibration is not None and calibration.get("model") == self.fingerprint
        self.calibration = calibration if fits else None

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        head: str | None = None,
        device: str | None = None,
        precision: str | None = None,
        max_length: int | None = None,
        max_tokens: int | None = None,
        empty_score: float | None = None,
        kernels: str | None = None,
        deterministic: bool = False,
        num_threads: int | None = None,
    ) -> "RewardModel":
        """Load a folder or hub id: one of ours, any sequence classifier of transformers, or a LoRA adapter of either.

        A plain checkpoint (no prefrank.json) gets the text defaults of `TextEncoder.load`.

        Args:
            head: of a model with several, the one that scores; by default the first of those that prefrank trained.
                Other programs' models of several outputs are refused without it.
            device: such as "cpu" or "cuda:1"; the first GPU if there is one.
            precision: float32 (exact, the default), bfloat16 or float16; int16 or int8 on the native kernels, with the
                error that docs/performance.md states. A quantised folder has its own.
            max_length: replaces the checkpoint's tokens per row; the fingerprint changes with it.
            max_tokens: tokens per batch; by default 1,024 on a CPU and 16,384 on a GPU.
            kernels: what runs the model: torch, or avx512, avx2 or portable on a CPU, or flash on a GPU (the gpu
                extra); by default the fastest there is, and never flash.
            deterministic: equal to the bit in any batch, order and thread count. The native kernels always are; torch
                scores row by row for it, at one thread count.
            num_threads: cores to use, by default torch's number of threads.

        Raises:
            NotFound: no such folder or hub id.
            BadModel: not a reward model, torn files, several outputs of another program with no word on which.
            BadInput: a head, precision or kernels that are unknown or not to be had here.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        folder = resolve_model(str(name))
        record = read_record(folder)
        network = load_for_scoring(folder, precision=precision, head=head, device=torch.device(device))
        settings = TextSettings.from_json(record.text) if record else None
        encoder = TextEncoder.load(text_folder(folder), settings, positions=network.max_positions)
        if max_length is not None:
            encoder = TextEncoder(encoder.source, replace(encoder.settings, max_length=max_length))
        return cls(
            network,
            encoder,
            training=record.training if record else None,
            calibration=record.calibration if record else None,
            max_tokens=max_tokens or (1024 if device == "cpu" else 16_384),
            empty_score=empty_score,
            kernels=kernels,
            deterministic=deterministic,
            num_threads=num_threads,
        )

    def save(self, folder: str | Path) -> Path:
        """Write a plain transformers folder plus prefrank.json, whole or not at all.

        Raises:
            CannotWrite: the folder cannot be written or the disk is full; what was there stays.
        """
        target = Path(folder)
        with atomic_folder(target) as temporary:
            write_checkpoint(temporary, self.network, self.encoder, self.training, calibration=self.calibration)
        return target

    def score(self, prompt: PromptLike, replies: Sequence[str]) -> list[Score]:
        """Score replies to one prompt, in the given order.

        Raises:
            BadInput: no replies, or something that is not text.
        """
        if isinstance(replies, str):
            raise BadInput("replies is one string; wanted a list of strings, such as [reply]")
        if not len(replies):
            raise BadInput("there are no replies to score; give at least one")
        return self.score_pairs([(prompt, reply) for reply in replies])

    def score_pairs(self, pairs: Sequence[tuple[PromptLike, str]], *, allow_failures: bool = False) -> list[Score]:
        """Score many (prompt, reply) pairs, of any prompts, in the given order; equal pairs are scored once.

        Args:
            allow_failures: give a score that is not finite as it is, for an evaluation to count; otherwise it is an
                error.

        Raises:
            BadModel: a score that is not finite.
        """
        wanted = [(_prompt(prompt, number), reply) for number, (prompt, reply) in enumerate(pairs)]
        if not all(isinstance(reply, str) for _, reply in wanted):
            check_texts(wanted)
        distinct = list(dict.fromkeys(wanted))
        scores = dict(zip(distinct, self._score_distinct(distinct), strict=True))
        if not allow_failures:
            _check_finite(scores, self.engine.precision)
        return [scores[pair] for pair in wanted]

    def rank(self, prompt: PromptLike, replies: Sequence[str]) -> list[Ranked]:
        """The replies, best first; equal scores share a rank and keep the given order."""
        scores = self.score(prompt, replies)
        order = sorted(range(len(scores)), key=lambda index: -scores[index].value)
        places = [sum(other.value > scores[index].value for other in scores) for index in order]
        return [Ranked(place, index, replies[index], scores[index]) for place, index in zip(places, order, strict=True)]

    def _score_distinct(self, pairs: list[tuple[Prompt, str]]) -> list[Score]:
        rows = self.encoder.encode_pairs(pairs)
        distinct, places = distinct_rows(rows)  # texts that differ may be cut to the same tokens
        values = run(self.engine, plan_batches(distinct, max_tokens=self._budget(distinct)))[places].tolist()
        return [self._as_score(*each) for each in zip(pairs, rows, values, strict=True)]

    def _budget(self, rows: list[Row]) -> int:
        """Tokens per batch, so that every stream gets as many batches as the others."""
        streams, tokens = self.engine.streams, sum(len(row.ids) for row in rows)
        rounds = -(-tokens // (self.max_tokens * streams))
        return max(1, -(-tokens // (rounds * streams))) if streams > 1 and rounds else self.max_tokens

    def _as_score(self, pair: tuple[Prompt, str], row: Row, value: float) -> Score:
        if self.empty_score is not None and not pair[1].strip():
            value = self.empty_score
        return Score(value, len(row.ids), row.cut_prompt, row.cut_reply, self.fingerprint)


def win_probability(first: Score, second: Score, *, temperature: float = 1.0) -> float:
    """P(people prefer the first reply) under the Bradley-Terry model the losses assume: sigmoid(difference).

    Args:
        temperature: what the difference is divided by, such as `model.calibration["temperature"]`.

    Raises:
        BadInput: scores of two different models, which are not on one scale; a temperature that is not above 0.
    """
    if not 0 < temperature < float("inf"):
        raise BadInput(f"temperature is {temperature}; wanted a finite number above 0")
    if first.model != second.model:
        raise BadInput(f"scores of two models ({first.model[:12]}, {second.model[:12]}) are not on one scale")
    return float(torch.sigmoid(torch.tensor((first.value - second.value) / temperature, dtype=torch.float64)))


def _check_finite(scores: Mapping[tuple[Prompt, str], Score], precision: str) -> None:
    """float16 ends at 65,504, which the hidden states of models that were trained in bfloat16 may pass."""
    narrow = {"float16": "bfloat16 or float32", "bfloat16": "float32"}.get(precision)
    why = f"it was computed in {precision}; load the model in {narrow}" if narrow else "its weights are not usable"
    for (_, reply), score in scores.items():
        if not math.isfinite(score.value):
            raise BadModel(f"the model's score of the reply {reply[:60]!r} is {score.value}; {why}")


def check_calibratable(name: str | Path) -> tuple[Path, Record]:
    """The folder that a calibration is stored in, and its record.

    Raises:
        BadInput: not a folder with prefrank.json here, or a checkpoint to resume training from, whose files are sealed.
        NotFound, BadModel: as `RewardModel.load`.
    """
    folder = resolve_model(str(name))
    record = read_record(folder) if Path(name).expanduser().is_dir() else None
    if record is None:
        raise BadInput(
            f"{name} is not a folder with prefrank.json, where a calibration is kept; save a copy first, with"
            f" RewardModel.load({str(name)!r}).save(FOLDER), and calibrate that"
        )
    if (folder / "state").is_dir():
        raise BadInput(
            f"{folder} is a checkpoint to resume training from, which must stay as it is; calibrate the run's best"
            " checkpoint, or a copy made with RewardModel.load(...).save(FOLDER)"
        )
    return folder, record


def store_calibration(name: str | Path, calibration: dict[str, Any]) -> Path:
    """Write a calibration into the prefrank.json of a folder, replacing one that was there; all else stays.

    Args:
        calibration: plain values, with at least `temperature` and `model`, the fingerprint it is for.

    Raises:
        BadInput, NotFound, BadModel: as `check_calibratable`; or a temperature that is not above 0.
        CannotWrite: prefrank.json cannot be written; what was there stays.
    """
    folder, record = check_calibratable(name)
    if not 0 < calibration["temperature"] < float("inf"):
        raise BadInput(f"temperature is {calibration['temperature']}; wanted a finite number above 0")
    try:
        write_record(folder, replace(record, calibration=calibration))
    except OSError as error:
        raise CannotWrite(f"cannot write {folder / 'prefrank.json'}: {error.strerror or error}") from error
    return folder


def _prompt(prompt: PromptLike, number: int) -> Prompt:
    try:
        return as_prompt(prompt)
    except (ValueError, TypeError) as error:
        raise BadInput(f"pair {number}: {error}") from error
