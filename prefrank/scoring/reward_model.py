"""`RewardModel`: load a checkpoint, score replies, rank them, save it again.

A score is the model's raw logit for one (prompt, reply) and does not depend on what it is scored beside. Equal pairs
are scored once. Nothing is standardized or clipped silently: `empty_score` is the one rule that can replace a score,
and only when asked for.
"""

import math
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prefrank.checks import is_count, is_finite
from prefrank.errors import BadInput, BadModel, short
from prefrank.io.atomic import atomic_folder
from prefrank.io.pinned import changed_lately
from prefrank.model import Network, make_engine, run
from prefrank.model.adapter import is_adapter, read_whole, text_folder
from prefrank.model.hub import resolve_model
from prefrank.model.integer_weights import stored_precision
from prefrank.model.network import precision_of, trained_positions, weights_digest, with_text
from prefrank.model.record import read_record, text_settings
from prefrank.model.save import write_checkpoint
from prefrank.model.threads import check_fork, computed, find_device
from prefrank.model.weights import read_config
from prefrank.scoring.carried import Origin, origin_of, pack, unpack
from prefrank.scoring.given import ReplyLike, RowLike, as_given_prompt, as_pairs, as_replies
from prefrank.scoring.temperature import check_temperature, is_for
from prefrank.text import TextEncoder, TextSettings, count_tokens, distinct_rows, plan_batches
from prefrank.types import Causal, Prompt, PromptLike, Row, Score

_TRIES = 4
_WAIT_S = 0.2
"""Of reading a folder that was just written to, and whose files do not belong together."""


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
        origin: how the network was loaded, if it was.

    It can be pickled and sent to other processes (`carried.py`), and used in forked ones. A copy, deep or not, shares
    network and engine.

    Raises:
        BadInput: max_tokens or num_threads below 1, an empty_score that is not a finite number, or as `load`.
        BadModel: more tokens a row than the model has positions.
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
        origin: Origin | None = None,
    ) -> None:
        if not is_count(max_tokens):
            raise BadInput(f"max_tokens is {short(max_tokens)}; wanted a whole number of at least 1 token a batch")
        if empty_score is not None and not is_finite(empty_score):
            raise BadInput(f"empty_score is {short(empty_score)}; wanted a finite number, or None to ask the model")
        positions = network.max_positions
        if positions is not None and encoder.settings.max_length > positions:
            raise BadModel(
                f"max_length is {encoder.settings.max_length} tokens but the model has positions for {positions};"
                " pass a smaller max_length"
            )
        self.network = network
        self._engine_options: dict[str, Any] = {
            "kernels": kernels,
            "deterministic": deterministic,
            "num_threads": num_threads,
        }
        self.engine = computed(partial(make_engine, network, **self._engine_options))
        self.encoder = encoder
        self.training = training
        self.max_tokens = max_tokens
        self.empty_score = empty_score
        self._origin = origin
        self._device = next(iter(network.parameters())).device
        digest, self._saved_digest = computed(partial(weights_digest, network, network.uncut))
        self.fingerprint = with_text(digest, encoder.fingerprint_bytes())
        fits = calibration is not None and is_for(
            calibration, self.fingerprint, pre_rendered=encoder.pre_rendered, empty_score=empty_score
        )
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
        pre_rendered: bool = False,
        template: str | None = None,
        trust_remote_code: bool = False,
    ) -> "RewardModel":
        """Load a folder or hub id: one of ours, any sequence classifier of transformers, or a LoRA adapter of either.

        A plain checkpoint (no prefrank.json) gets the text defaults of `TextEncoder.load`: of its length, what its
        tokenizer and config say, up to 4,096 tokens. A decoder that comes without a template is refused unless one is
        named.

        Args:
            head: of a model with several, the one that scores; by default the first of those that prefrank trained.
                Other programs' models of several outputs are refused without it.
            device: such as "cpu" or "cuda:1"; the first GPU if there is one.
            precision: float32 (exact, the default), bfloat16 or float16; int16 or int8 on the native kernels, with the
                error that docs/performance.md states. A quantized folder has its own.
            max_length: tokens per row, in place of the checkpoint's own or the default above; the fingerprint changes
                with it.
            max_tokens: tokens per batch, those that rows begin with in common counted once; by default 1,024 on a CPU,
                2,048 for decoders, and 16,384 on a GPU.
            kernels: what runs the model: torch, or avx512, avx2 or portable on a CPU, or flash on a GPU (the gpu
                extra); by default the fastest there is, and never flash.
            deterministic: equal to the bit in any batch, order and thread count. The native kernels always are; torch
                scores row by row for it, at one thread count.
            num_threads: cores to use, by default torch's number of threads.
            pre_rendered: take the model's control strings in texts as its control tokens, for prompts that a chat
                template has been through already; otherwise a text is text.
            template: of a decoder that comes without one: a Jinja file, or `turns` for plain `User:` and `Assistant:`
                turns; the fingerprint says which.
            trust_remote_code: run the Python code that the folder brings, where its model is made of such.

        Raises:
            NotFound: no such folder or hub id.
            BadModel: not a reward model, torn files, several outputs of another program with no word on which, a
                decoder without a template.
            BadInput: a head, precision or kernels that are unknown or not to be had here; a template for a model that
                has its own.
        """
        names = {"head": head, "device": device, "precision": precision, "kernels": kernels, "template": template}
        for option, value in names.items():
            if value is not None and (not isinstance(value, str) or not value):
                raise BadInput(f"{option} is {short(value)}; give a name, or leave it out")
        if max_length is not None and not is_count(max_length):
            raise BadInput(f"max_length is {short(max_length)}; wanted a whole number of at least 1 token")
        place = find_device(device)
        folder = resolve_model(str(name))
        options: dict[str, Any] = {"kernels": kernels, "deterministic": deterministic, "num_threads": num_threads}
        options |= {"empty_score": empty_score, "max_tokens": max_tokens}
        read = partial(
            cls._read,
            folder,
            head=head,
            place=place,
            precision=precision,
            max_length=max_length,
            pre_rendered=pre_rendered,
            template=template,
            trust_remote_code=trust_remote_code,
            options=options,
        )
        for number in range(_TRIES):
            model, saved = read_whole(folder, read)
            if saved is None or number == _TRIES - 1 or not changed_lately(folder):
                break
            time.sleep(_WAIT_S)  # somebody may be copying into it, file by file
        if saved is not None:
            warnings.warn(
                f"the model in {folder} is not the one that was saved there: weights, tokenizer or text settings are"
                f" not those that prefrank.json was written for (fingerprint {saved[:12]}); copy or download it again",
                UserWarning,
                stacklevel=2,
            )
        return model

    @classmethod
    def _read(
        cls,
        folder: Path,
        *,
        head: str | None,
        place: torch.device,
        precision: str | None,
        max_length: int | None,
        pre_rendered: bool,
        template: str | None,
        trust_remote_code: bool,
        options: Mapping[str, Any],
    ) -> "tuple[RewardModel, str | None]":
        """`load` of a folder that is there; and the fingerprint of its prefrank.json, where the model has another."""
        record = read_record(folder)
        origin = origin_of(folder, precision=precision, head=head, device=place, trust_remote_code=trust_remote_code)
        network = computed(origin.load)
        if options["max_tokens"] is None:
            options = {**options, "max_tokens": _most_tokens(place, network)}
        stored = text_settings(folder)
        settings = None if stored is None else TextSettings.from_json(stored)
        saved = settings
        if settings is not None and max_length is not None:
            settings = replace(settings, max_length=max_length)
        encoder = TextEncoder.load(
            text_folder(folder),
            settings,
            positions=trained_positions(network),
            max_length=max_length,
            pre_rendered=pre_rendered,
            template=template,
        )
        model = cls(
            network,
            encoder,
            training=record.training if record else None,
            calibration=record.calibration if record else None,
            origin=origin,
            **options,
        )
        if record is not None and saved is not None and not is_adapter(folder):
            text = TextEncoder(encoder.source, saved)
            if model._is_another(folder, record.fingerprint, text.fingerprint_bytes()):
                return model, record.fingerprint
        return model, None

    def _is_another(self, folder: Path, saved: str, text: bytes) -> bool:
        """Whether a folder's model is known not to be the one that its prefrank.json was written for.

        It is not known of a model in another precision than it was saved in, nor of one that was cut to one of its
        heads where its weights would have to be read twice for it; nor of an adapter, whose sums are not the same bits
        on every processor.
        """
        config = read_config(folder)  # the network's own says what it was made into
        precision = stored_precision(config) or str(config.get("dtype", "float32"))
        if precision_of(self.network) != precision or self._saved_digest is None:
            return False
        return with_text(self._saved_digest, text) != saved

    @property
    def files(self) -> tuple[tuple[str, int, int], ...]:
        """Name, bytes and time of change of the files that it was loaded from; none of a model made otherwise."""
        return self._origin.files if self._origin else ()

    def save(self, folder: str | Path) -> Path:
        """Write a plain transformers folder plus prefrank.json, whole or not at all.

        Raises:
            CannotWrite: the folder cannot be written or the disk is full; what was there stays.
        """
        target = Path(folder)
        with atomic_folder(target) as temporary:
            write_checkpoint(temporary, self.network, self.encoder, self.training, calibration=self.calibration)
        return target

    def __reduce__(self) -> tuple[Any, ...]:
        network = pack(self.network, self._origin)
        known: dict[str, Any] = {"training": self.training, "calibration": self.calibration, "origin": self._origin}
        known |= {"max_tokens": self.max_tokens, "empty_score": self.empty_score, **self._engine_options}
        return _unpickled, (network, self.encoder, known, self.fingerprint)

    def __copy__(self) -> "RewardModel":
        twin = object.__new__(RewardModel)
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: object) -> "RewardModel":
        return self.__copy__()

    def score(self, prompt: PromptLike, replies: Iterable[ReplyLike]) -> list[Score]:
        """Score replies to one prompt, in the given order.

        Args:
            prompt: a string, or a conversation: turns or chat messages, whose content may be text parts.
            replies: any sequence or iterable, read by position; a reply is a string or an assistant message.

        Raises:
            BadInput: no replies, or something that is not text.
        """
        turns = as_given_prompt(prompt)
        return self._score([(turns, reply) for reply in as_replies(replies)])

    def score_pairs(self, pairs: Iterable[RowLike], *, allow_failures: bool = False) -> list[Score]:
        """Score many prompts with a reply each, in the given order; equal pairs are scored once.

        Args:
            pairs: any sequence or iterable of (prompt, reply) pairs, or of rows with `prompt` and `reply`; both as for
                `score`.
            allow_failures: give a score that is not finite as it is, for an evaluation to count; otherwise it is an
                error.

        Raises:
            BadInput: something that is not a pair, or not text.
            BadModel: a score that is not finite.
        """
        return self._score(as_pairs(pairs), allow_failures=allow_failures)

    def rank(self, prompt: PromptLike, replies: Iterable[ReplyLike]) -> list[Ranked]:
        """The replies, best first; equal scores share a rank and keep the given order. As `score` otherwise."""
        turns, texts = as_given_prompt(prompt), as_replies(replies)
        scores = self._score([(turns, text) for text in texts])
        order = sorted(range(len(scores)), key=lambda index: -scores[index].value)
        ranked: list[Ranked] = []
        for place, index in enumerate(order):
            equal = ranked and ranked[-1].score.value == scores[index].value
            ranked.append(Ranked(ranked[-1].rank if equal else place, index, texts[index], scores[index]))
        return ranked

    def control_strings(self, pairs: Iterable[RowLike]) -> int:
        """How many different texts `texts_with_control_strings` finds.

        Raises:
            BadInput: as `score_pairs`.
        """
        return len(self.texts_with_control_strings(pairs))

    def texts_with_control_strings(self, pairs: Iterable[RowLike]) -> set[str]:
        """The texts of these rows, turns and replies, that hold a string which stands for control in this model, such
        as `<|im_end|>`. They are scored as text, unless the model was loaded with `pre_rendered`.

        Raises:
            BadInput: as `score_pairs`.
        """
        texts = {text for prompt, reply in as_pairs(pairs) for text in (*(turn.text for turn in prompt), reply)}
        return {text for text in texts if self.encoder.holds_control_strings((), text)}

    def _score(self, pairs: list[tuple[Prompt, str]], *, allow_failures: bool = False) -> list[Score]:
        check_fork(self._device)
        distinct = list(dict.fromkeys(pairs))
        scores = dict(zip(distinct, self._score_distinct(distinct), strict=True))
        if not allow_failures:
            _check_finite(scores, self.engine.precision)
        return [scores[pair] for pair in pairs]

    def _score_distinct(self, pairs: list[tuple[Prompt, str]]) -> list[Score]:
        rows = self.encoder.encode_pairs(pairs)
        distinct, places = distinct_rows(rows)  # texts that differ may be cut to the same tokens
        causal = self.network.causal
        batches = plan_batches(distinct, max_tokens=self._budget(distinct, causal), causal=causal)
        values = computed(partial(run, self.engine, batches)).numpy()[places].tolist()
        return [self.as_score(row, value, reply) for (_, reply), row, value in zip(pairs, rows, values, strict=True)]

    def _budget(self, rows: list[Row], causal: Causal | None) -> int:
        """Tokens per batch, so that every stream gets as many batches as the others."""
        streams = self.engine.streams
        tokens = 0 if streams == 1 else count_tokens(rows, causal)
        rounds = -(-tokens // (self.max_tokens * streams))
        return max(1, -(-tokens // (rounds * streams))) if streams > 1 and rounds else self.max_tokens

    def as_score(self, row: Row, value: float, reply: str) -> Score:
        """The score with its facts, of what the engine said of a reply's row."""
        if self.empty_score is not None and not reply.strip():
            value = self.empty_score
        tokens = len(row.ids)
        past = max(0, tokens - (trained_positions(self.network) or tokens))
        return Score(value, tokens, row.cut_prompt, row.cut_reply, self.fingerprint, past)


def _most_tokens(place: torch.device, network: Network) -> int:
    """Tokens of a batch, unless they are given. Where rows share their beginnings a batch should hold all replies to a
    prompt, and narrow weights are widened once for each batch: hence more for decoders on a CPU.
    """
    if place.type != "cpu":
        return 16_384
    return 1024 if network.causal is None else 2048


def _unpickled(network: Origin | bytes, encoder: TextEncoder, known: dict[str, Any], wanted: str) -> RewardModel:
    model = RewardModel(computed(partial(unpack, network)), encoder, **known)
    if model.fingerprint != wanted:
        raise BadModel(
            f"the pickled model is {wanted[:12]}, but the folder it was loaded from now holds {model.fingerprint[:12]};"
            " load it again"
        )
    return model


def win_probability(first: Score, second: Score, *, temperature: float = 1.0) -> float:
    """P(people prefer the first reply) under the Bradley-Terry model the losses assume: sigmoid(difference).

    Args:
        temperature: what the difference is divided by, such as `model.calibration["temperature"]`.

    Raises:
        BadInput: scores of two different models, which are not on one scale; a temperature that is not above 0.
    """
    check_temperature(temperature)
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
