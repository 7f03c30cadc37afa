"""Quantize a reward model and say what it does to its scores, on real texts and before anything is written.

A quantized folder carries its parity figures in prefrank.json. One that would reorder replies is refused.
"""

import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from prefrank.checks import is_count, is_finite
from prefrank.data import load_comparisons, parse_source
from prefrank.errors import BadInput, BadModel, short
from prefrank.io.atomic import atomic_folder
from prefrank.model.hub import resolve_model
from prefrank.model.integer_weights import check_quantised
from prefrank.model.save import check_target, write_checkpoint
from prefrank.scoring.reward_model import RewardModel
from prefrank.stats.correlation import rank_correlation
from prefrank.types import Prompt

MAX_FLIPS = 0.5
MAX_ERROR = 1.0


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the scores of a quantized model are from those of its float32 original, on the same rows.

    Args:
        rows: scored by both.
        spread: standard deviation of the original's scores.
        rms: root mean square of the differences, in score units.
        rms_percent: the same, in percent of the spread.
        largest: the largest difference, in score units.
        largest_percent: the same, in percent of the spread.
        largest_tokens: length of the row that has it.
        spearman: rank correlation.
        pairs: pairs of rows whose original scores differ.
        flips_percent: of those pairs, the ones in another order or equal now.
    """

    rows: int
    spread: float
    rms: float
    rms_percent: float
    largest: float
    largest_percent: float
    largest_tokens: int
    spearman: float
    pairs: int
    flips_percent: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def parity(
    reference: Float[np.ndarray, " N"], scores: Float[np.ndarray, " N"], tokens: Int[np.ndarray, " N"]
) -> Parity:
    """Compare two models' scores of the same rows; `tokens` are the rows' lengths.

    Raises:
        BadInput: reference scores that are all equal, so that there is no order and no spread.
    """
    reference, scores = reference.astype(np.float64), scores.astype(np.float64)
    spread = float(reference.std())
    if not spread > 0:
        raise BadInput(f"the model gives all {len(reference)} rows the same score; compare on rows whose scores differ")
    off = np.abs(scores - reference)
    worst = int(off.argmax())
    rms = float(np.sqrt(np.mean(off**2)))
    pairs = flips = 0
    for row in range(1, len(reference)):  # row by row, so that many rows need no matrix of pairs
        order = np.sign(reference[row] - reference[:row])
        pairs += int(np.count_nonzero(order))
        flips += int(np.count_nonzero((order != 0) & (order != np.sign(scores[row] - scores[:row]))))
    return Parity(
        rows=len(reference),
        spread=spread,
        rms=rms,
        rms_percent=100 * rms / spread,
        largest=float(off[worst]),
        largest_percent=100 * float(off[worst]) / spread,
        largest_tokens=int(tokens[worst]),
        spearman=rank_correlation(reference, scores) or 0.0,
        pairs=pairs,
        flips_percent=100 * flips / pairs,
    )


def quantise_folder(
    source: str | Path,
    target: str | Path,
    precision: str,
    *,
    head: str | None = None,
    kernels: str | None = None,
    num_threads: int | None = None,
    max_tokens: int | None = None,
    template: str | None = None,
    data: str = "starter",
    num_rows: int = 500,
    max_flips: float | None = None,
    force: bool = False,
) -> Parity:
    """Write a folder with integer weights that `RewardModel.load` reads, and compare its scores with the original's.

    Args:
        source: a float model folder or hub id; its weights are stored in any float type.
        target: the new folder, which appears whole or not at all.
        precision: "int16" or "int8".
        head: of a model with several, the one to keep; by default the first of those that prefrank trained.
        kernels, num_threads, max_tokens: as `RewardModel.load`, for the scoring of both.
        template: as `RewardModel.load`; the new folder has it.
        data: SOURCE or SOURCE:SPLIT whose prompts and replies are scored by both models.
        num_rows: at most this many of its (prompt, reply) rows, evenly spaced.
        max_flips: percent of pairs whose order may change. By default 0.5, and the root mean square difference may be
            1 % of the spread; a limit given here stands for both.
        force: write the folder whatever the figures are.

    Raises:
        BadInput: an unknown precision or head, a target that holds the source, or rows whose scores are all equal.
        BadModel: scores that differ by more than that, a model that cannot be quantized or is already, torn files.
        NotFound, BadData: no such model or data.
        CannotWrite: the target cannot be written or the disk is full.
    """
    check_quantised(precision)
    if max_flips is not None and not (is_finite(max_flips) and 0 <= max_flips <= 100):
        raise BadInput(f"max_flips is {short(max_flips)}; wanted a percentage from 0 to 100")
    folder = Path(os.path.realpath(resolve_model(str(source))))
    check_target(target, folder, "model")
    pairs = _rows(data, num_rows)
    load = partial(
        RewardModel.load,
        folder,
        head=head,
        device="cpu",
        kernels=kernels,
        num_threads=num_threads,
        max_tokens=max_tokens,
        template=template,
    )
    model = load(precision="float32")
    reference = model.score_pairs(pairs)
    original, training, files = model.fingerprint, model.training, model.files
    del model  # the float weights leave memory before the integers come
    model = load(precision=precision)
    if model.files != files:
        raise BadModel(f"{folder} was replaced while it was quantized; wait until nobody writes there, and try again")
    scores = model.score_pairs(pairs)
    figures = parity(
        np.array([score.value for score in reference]),
        np.array([score.value for score in scores]),
        np.array([score.tokens for score in reference]),
    )
    if not force:
        _check(figures, str(source), precision, data, max_flips)
    facts = {"precision": precision, "original": original, "data": data, "parity": figures.to_json()}
    with atomic_folder(Path(target)) as temporary:
        write_checkpoint(temporary, model.network, model.encoder, training, quantised=facts)
    return figures


def _check(figures: Parity, source: str, precision: str, data: str, max_flips: float | None) -> None:
    flips = MAX_FLIPS if max_flips is None else max_flips
    if figures.flips_percent <= flips and (max_flips is not None or figures.rms_percent <= MAX_ERROR):
        return
    limits = f"at most {flips:g} %" if max_flips is not None else f"at most {flips:g} % and {MAX_ERROR:g} %"
    advice = "quantize to int16, or " if precision == "int8" else ""
    raise BadModel(
        f"{precision} changes the order of {figures.flips_percent:.2g} % of pairs and scores by"
        f" {figures.rms_percent:.2g} % of their spread (wanted {limits}) for {source} on {figures.rows} rows of {data};"
        f" {advice}allow it with --max-flips or --force"
    )


def _rows(data: str, num_rows: int) -> list[tuple[Prompt, str]]:
    if not is_count(num_rows) or num_rows < 2:
        raise BadInput(f"num_rows is {short(num_rows)}; wanted a whole number of at least 2, to have pairs")
    name, split = parse_source(data)
    comparisons = load_comparisons(name, split=split).comparisons
    distinct = list(
        dict.fromkeys((comparison.prompt, reply) for comparison in comparisons for reply in comparison.replies)
    )
    kept = np.unique(np.linspace(0, len(distinct) - 1, num_rows).round().astype(int))
    return [distinct[row] for row in kept]
