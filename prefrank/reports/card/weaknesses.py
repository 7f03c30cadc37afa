"""What a card warns of, as sentences in Markdown: the weaknesses that were measured, and what follows from them."""

import re
from collections.abc import Iterator, Mapping, Sequence

from prefrank.evaluation.protocols import missing_in_words
from prefrank.reports.card.subject import PROBES, Measured, Subject
from prefrank.reports.card.training_words import set_name
from prefrank.reports.markdown import plain
from prefrank.reports.numbers import stated_estimate
from prefrank.stats.estimates import Estimate

_FEW_SURE = 0.9
"""A probe that is told from a good reply less often than this is named as a weakness."""


def weaknesses(subject: Subject) -> Iterator[str]:
    """What the card warns of: weaknesses of the training data, then those found on each suite."""
    yield from _of_training(subject)
    for measured in subject.measured.values():
        yield from _of_length(measured)
        yield from _of_parts(measured)
        yield from _of_slices(measured)
        yield from _of_counts(measured)
        yield from _of_missing_items(measured)
        yield from _of_contamination(measured)


def _of_training(subject: Subject) -> Iterator[str]:
    if subject.training is None:
        return
    yield (
        f"It learned from {subject.training.data.learned_from:,} comparisons. What they do not hold (other languages,"
        " subjects, or people with other tastes) it does not know."
    )
    sets = subject.training.data.read
    for data_set in sets:
        comparisons = f"comparisons of {plain(set_name(data_set.name))}"
        if data_set.contradicting:
            yield (
                f"Training data: {data_set.contradicting:,} {comparisons} prefer a reply that an earlier one of the"
                " same prompt judged worse."
            )
        if data_set.leaks:
            yield (
                f"Training data: {data_set.leaks:,} {comparisons} nearly stand in evaluation sets, so figures on those"
                " are too good."
            )
    chose = {data_set.name for data_set in sets if data_set.role == "evaluation"}
    for name in subject.measured:
        if name in chose:
            yield f"{plain(name)} also chose the checkpoint, which makes its figures a little too good."


def _of_length(measured: Measured) -> Iterator[str]:
    style = measured.result.style
    sides = {"longer": style.longer, "shorter": style.shorter}
    accuracies = {side: estimate.value for side, estimate in sides.items() if estimate.value is not None}
    if measured.name == PROBES or len(accuracies) < len(sides):
        return
    less, more = sorted(accuracies, key=accuracies.__getitem__)
    high, low = sides[less].high, sides[more].low
    lean = f"It leans toward {more} replies" if high is not None and low is not None and high < low else "No clear lean"
    yield (
        f"Length, {plain(measured.suite.title)}: accuracy is {stated_estimate(style.longer)} where people preferred the"
        f" longer reply and {stated_estimate(style.shorter)} where they preferred the shorter one. {lean}; rank"
        f" correlation of score margin and length difference {stated_estimate(style.spearman)}."
    )


def _of_parts(measured: Measured) -> Iterator[str]:
    """Probes by kind; of other suites the weakest and the strongest part, and those about harm and help."""
    parts = _parts(measured)
    order = sorted(parts, key=lambda name: parts[name].value or 0.0)
    if measured.name == PROBES:
        yield "Probes, how often a good reply beats a cheat: " + _listed(order, parts) + "."
    elif len(parts) > 1:
        rest = [name for name in order[1:-1] if re.search("harm|help|safe|refus", name.lower())]
        more = f"; parts on help and harm: {_listed(rest, parts)}" if rest else ""
        yield (
            f"Parts of {plain(measured.suite.title)}: weakest {_listed(order[:1], parts)}, strongest"
            f" {_listed(order[-1:], parts)}{more}."
        )


def _parts(measured: Measured) -> dict[str, Estimate]:
    """Accuracy of each part that has one; equal scores are lost where they are in the suite, else half."""
    ties_lost = measured.suite.ties == "wrong"
    parts = {
        name: metrics.accuracy_ties_lost if ties_lost else metrics.accuracy
        for name, metrics in measured.result.subsets.items()
    }
    return {name: estimate for name, estimate in parts.items() if estimate.value is not None}


def _listed(names: Sequence[str], parts: Mapping[str, Estimate]) -> str:
    return ", ".join(f"{plain(name)} {stated_estimate(parts[name])}" for name in names) or "none has a value"


def _of_slices(measured: Measured) -> Iterator[str]:
    for part in measured.result.slices:
        if part.worst and part.name != "subset":  # those are told as parts
            where = f"{plain(part.name)} = {plain(part.value)}"
            accuracy = stated_estimate(part.accuracy)
            yield f"Worst slice of {plain(measured.suite.title)}: {where}, accuracy {accuracy}."


def _of_counts(measured: Measured) -> Iterator[str]:
    counts, title = measured.result.overall.counts, plain(measured.suite.title)
    cut, replies = max(counts.cut_prompts, counts.cut_replies), counts.replies
    if cut:
        yield (
            f"Truncation, {title}: of {replies:,} replies {counts.cut_prompts:,} lost a part of their prompt and"
            f" {counts.cut_replies:,} a part of their own end, at least {cut / replies:.1%} of all."
        )
    if counts.failures:
        yield f"Failures, {title}: {counts.failures:,} of {replies:,} scores are not finite and count as lost."


def _of_missing_items(measured: Measured) -> Iterator[str]:
    missing = measured.suite.rows.missing
    if missing:
        counted = {name: (here, published) for name, (here, published) in missing.items() if published is not None}
        rows = ", ".join(f"{plain(name)} {here:,} of {published:,}" for name, (here, published) in counted.items())
        absent = missing_in_words({name: counts for name, counts in missing.items() if name not in counted})
        parts = "; ".join([*([f"rows of {rows}"] if rows else []), *map(plain, absent)])
        yield (f"Not the whole of {plain(measured.suite.title)}, and not comparable with published figures: {parts}.")


def _of_contamination(measured: Measured) -> Iterator[str]:
    contamination, accuracies = measured.suite.contamination, measured.result.contamination
    if contamination is None:
        return
    apart = ""
    if accuracies and accuracies.clean and accuracies.contaminated and accuracies.contaminated.n:
        clean, contaminated = stated_estimate(accuracies.clean), stated_estimate(accuracies.contaminated)
        apart = f"; accuracy on the others {clean}, on these {contaminated}"
    yield (
        f"Overlap, {plain(measured.suite.title)}: {len(contamination.contaminated):,} of {contamination.items:,} items"
        f" stand, or nearly stand, in the training data{apart}."
    )


def advice(subject: Subject) -> Iterator[str]:
    """What follows from the weaknesses."""
    yield "Compare scores of replies to one prompt only, and read a small margin as a guess."
    calibration = subject.main.result.calibration
    if calibration.temperature is not None:
        yield (
            f"Where a probability is needed, divide the difference of two scores by the temperature"
            f" {calibration.temperature:.3g} before the sigmoid (fitted: {plain(calibration.fitted_on)})."
        )
    if subject.probes is None:
        yield "It was not measured on prefrank's probes; measure it before optimizing against it."
    elif weak := [name for name, estimate in _parts(subject.probes).items() if (estimate.value or 0.0) < _FEW_SURE]:
        yield f"Filter replies before scoring where these cheats can occur: {', '.join(map(plain, weak))}."
    yield (
        f"Keep prompt and reply within {subject.checkpoint.text.max_length} tokens, and look at how many of your own"
        " rows are cut (every score says so)."
    )
    yield "Measure it on comparisons of your own before relying on it; what people prefer differs by task."
