"""The result of an input-format audit: every combination that was tried, and the findings in sentences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from prefrank.io.schema import Between
from prefrank.stats.bounds import Probability

NOTABLE = 0.001
"""Spreads by which a score must depend on its batch, in float32, to be called a fault: far above rounding."""
Distance = Annotated[float, Between(0.0)]


@dataclass(frozen=True, slots=True)
class Combination:
    """One way to run the model, and how its scores differ from the reference's.

    Args:
        engine: "prefrank" or "transformers".
        format: one of `FORMATS`.
        padding_side: None where nothing is padded: prefrank, and rows one at a time.
        dtype: of the weights.
        batch_size: rows scored together.
        max_difference: largest difference of a score, None where one is not a number.
        rms_difference: root mean square of the differences.
        max_spreads, rms_spreads: the same by the standard deviation of the reference's scores.
        batch_difference: largest difference from the same way one row at a time: what padding and batching do.
        flips: of `pairs`, those whose order is another than the reference's; a failed score flips its pairs.
        gained: flips from wrong to right.
        lost: flips from right to wrong or equal.
        pairs: preferences that people decided.
        cut: share of the rows that were cut to fit the model.
        failures: scores that are not numbers.
        reason: why it could not run; "" where it did.
    """

    engine: str
    format: str
    padding_side: str | None
    dtype: str
    batch_size: int
    max_difference: Distance | None = None
    rms_difference: Distance | None = None
    max_spreads: Distance | None = None
    rms_spreads: Distance | None = None
    batch_difference: Distance | None = None
    flips: int | None = None
    gained: int | None = None
    lost: int | None = None
    pairs: int | None = None
    cut: Probability | None = None
    failures: int | None = None
    reason: str = ""

    @property
    def setting(self) -> str:
        side = f", padded on the {self.padding_side}" if self.padding_side else ""
        size = "one at a time" if self.batch_size == 1 else f"batches of {self.batch_size}"
        return f"{self.dtype}, {size}{side}"


@dataclass(frozen=True, slots=True)
class Audit:
    """All combinations of one model.

    Args:
        rows: distinct (prompt, reply) scored.
        pairs: preferences that people decided.
        reference: what differences are from.
        spread: standard deviation of the reference's scores.
        combinations: those that ran and those that could not.
    """

    rows: int
    pairs: int
    reference: str
    spread: float
    combinations: tuple[Combination, ...]

    @property
    def summary(self) -> tuple[str, ...]:
        """What was found, in sentences: the worst of each engine and format, padding faults, and what did not run."""
        return _summary(self)


def _summary(audit: Audit) -> tuple[str, ...]:
    ran = [way for way in audit.combinations if not way.reason]
    failed = [way for way in audit.combinations if way.reason]
    return (
        f"{audit.rows} rows and {audit.pairs} decided pairs; differences are from {audit.reference},"
        f" whose scores have a spread of {audit.spread:.3g}.",
        *(_worst(group) for group in _grouped(ran, lambda way: (way.engine, way.format)).values()),
        *(_batching(group, audit.spread) for group in _grouped(ran, lambda way: (way.engine,)).values()),
        *(_same_tokens(way) for way in ran if _differs_on_the_same_tokens(way, audit.spread)),
        *(
            f"{engine}, {form} format: {len(group)} combinations did not run: {reason}."
            for (engine, form, reason), group in _grouped(
                failed, lambda way: (way.engine, way.format, way.reason.rstrip("."))
            ).items()
        ),
    )


def _grouped(
    combinations: Sequence[Combination], key: Callable[[Combination], tuple[str, ...]]
) -> dict[tuple[str, ...], list[Combination]]:
    groups: dict[tuple[str, ...], list[Combination]] = {}
    for way in combinations:
        groups.setdefault(key(way), []).append(way)
    return groups


def _worst(group: Sequence[Combination]) -> str:
    """The largest difference for one engine and format; a score that is not a number counts as the largest of all."""
    worst = max(group, key=lambda way: (way.flips or 0, _size(way.max_difference)))
    scores = (
        "some scores are not numbers" if worst.max_difference is None else f"scores by up to {worst.max_difference:.2g}"
    )
    return (
        f"{worst.engine}, {worst.format} format: at most {worst.flips} of {worst.pairs} decisions change"
        f" ({worst.gained} become right, {worst.lost} wrong), {scores} ({worst.setting})."
    )


def _batching(group: Sequence[Combination], spread: float) -> str:
    """Of one engine in float32, where rounding cannot be the reason."""
    batches = [way for way in group if way.batch_size > 1 and way.dtype == "float32"]
    if not batches:
        return f"{group[0].engine}: no batches in float32 to judge padding by."
    worst = max(batches, key=lambda way: _size(way.batch_difference))
    size = _size(worst.batch_difference)
    if size <= NOTABLE * spread:
        return f"{worst.engine}: no score depends on its batch (differences of at most {size:.1g} in float32)."
    return (
        f"{worst.engine}: scores depend on their batch, by up to {size:.2g} in {worst.format} format ({worst.setting});"
        " the padding reaches the score."
    )


def _differs_on_the_same_tokens(way: Combination, spread: float) -> bool:
    same = (way.engine, way.format, way.dtype, way.batch_size) == ("transformers", "own", "float32", 1)
    return same and _size(way.max_difference) > NOTABLE * spread


def _same_tokens(way: Combination) -> str:
    return (
        f"transformers: the same tokens without padding score differently, by up to {_size(way.max_difference):.2g}."
        " In a decoder the usual cause is a padding token that also ends the text: transformers passes over it."
    )


def _size(difference: float | None) -> float:
    return float("inf") if difference is None else difference
