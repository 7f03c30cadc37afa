"""The comparisons a recipe asks for: what to train on, what to evaluate on, and the account of both.

Data sets are split by prompt, never by row, with stable hashes of how the conversation starts, so that the same
comparisons fall on the same side on every machine. Prompts of an evaluation set are removed from the training data.
Anything that still nearly matches an evaluation set is a leak, and refused. Where evaluation sets are not named but
taken from each training set, leaks are removed too, since the split is our own.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from prefrank.data import Loaded, load_comparisons, split_of
from prefrank.data.candidates import OTHER_SPLIT
from prefrank.data.overlap import prompt_key
from prefrank.data.report import unread_files
from prefrank.data.stream import ComparisonStream
from prefrank.errors import BadData, BadRecipe, NotFound
from prefrank.training.feed.clean import LEAK, Exclusions, Leak, find_leaks, find_repeats
from prefrank.training.feed.splits import Choice, choose_split
from prefrank.training.feed.streams import StreamedSet
from prefrank.training.recipe import DataSource, Recipe
from prefrank.training.records.events import Callback, DataRead, SetRole, ignore
from prefrank.types import Comparison

_EVALUATION = 2
"""Seed of a hash, independent of the ones that make fractions (1) and splits (0)."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Comparisons by purpose.

    Args:
        training: of all training sets, one after the other.
        weights: what each of those counts in the loss.
        evaluation: name -> comparisons.
        record: one entry per set read: its reader's report, and what was left out here, as plain values.
        sets: for each training comparison, the place of its set among the recipe's `datasets`.
        streams: what to draw from, in place of `training`, where a data set streams.
    """

    training: tuple[Comparison, ...]
    weights: tuple[float, ...]
    evaluation: Mapping[str, tuple[Comparison, ...]]
    record: tuple[dict[str, Any], ...]
    sets: tuple[int, ...]
    streams: tuple[StreamedSet, ...] = ()

    def notes(self) -> list[str]:
        """Warnings about the data."""
        opposed, leaks = (sum(entry.get(key, 0) for entry in self.record) for key in ("contradicting", "leaks"))
        read = {entry["name"] for entry in self.record}
        notes = [f"{stream.name} streams: {stream.rule}" for stream in self.streams if stream.name not in read]
        if opposed:
            notes.append(f"{opposed} comparisons prefer a reply that an earlier one of the same prompt judged worse")
        if leaks:
            notes.append(f"{leaks} training comparisons nearly stand in evaluation sets, and leaks is allow")
        return notes


@dataclass(frozen=True, slots=True)
class _Set:
    """One data set as it was read, the rule that applied, and what is kept of it."""

    source: DataSource
    rule: str
    role: SetRole
    read: Loaded
    kept: tuple[Comparison, ...]
    left_out: dict[str, int]
    noted: dict[str, int] = field(default_factory=dict)
    """Counts to record about what is kept."""

    @property
    def name(self) -> str:
        return _named(self.source.source, self.read.report.split)

    def without(self, reasons: Sequence[str]) -> "_Set":
        """The set without the comparisons that have a reason to be left out; "" is none."""
        kept = [None if reason else comparison for comparison, reason in zip(self.kept, reasons, strict=True)]
        return self.take(kept, reasons)

    def take(self, kept: Sequence[Comparison | None], reasons: Sequence[str]) -> "_Set":
        """The set with these comparisons in place of its own; None where one is left out for the reason given."""
        counts = Counter(self.left_out)
        counts.update(reason for comparison, reason in zip(kept, reasons, strict=True) if comparison is None)
        return replace(
            self, kept=tuple(comparison for comparison in kept if comparison is not None), left_out=dict(counts)
        )

    def account(self) -> dict[str, Any]:
        """Counts as plain values; comparisons of another split, which are held out, are not called dropped."""
        report = self.read.report
        lost = {why: count for why, count in report.dropped.items() if why != OTHER_SPLIT}
        counts = {"comparisons": len(self.kept), "dropped": {**lost, **self.left_out}, "left_out": self.left_out}
        split = {"rule": _with_unread(self.rule, report.unread), "held_out": report.dropped.get(OTHER_SPLIT, 0)}
        return {"name": self.name, "role": self.role, **split, **counts, **self.noted, "read": report.to_json()}


def read_corpus(recipe: Recipe, callback: Callback = ignore) -> Corpus:
    """Read every data set of a recipe; of one that streams, only where its files are.

    Raises:
        NotFound: no such data set or split.
        BadData: a row that cannot be read, or nothing left to train on.
        BadRecipe: training data that evaluation sets nearly hold, or evaluation sets without a comparison.
    """
    whole = [number for number, source in enumerate(recipe.datasets) if not source.stream]
    training = [_read(choose_split(recipe, recipe.datasets[number], "training"), "training") for number in whole]
    if recipe.evaluation is None:
        evaluation = list(chain.from_iterable(_own_evaluation(recipe, source) for source in recipe.datasets))
    else:
        evaluation = [_read(choose_split(recipe, source, "evaluation"), "evaluation") for source in recipe.evaluation]
    _check_evaluation(recipe, evaluation)
    held_out = _held_out(recipe, evaluation)
    opened = replace(held_out, keys=frozenset())  # the other leaks are looked for once nothing is repeated
    training = [dataset.without([*map(opened.reason, dataset.kept)]) for dataset in training]
    training = _without_repeats(recipe, training)
    training = _without_leaks(recipe, training, evaluation)
    if recipe.eval_limit is not None:
        evaluation = [_first_by_hash(dataset, recipe.eval_limit) for dataset in evaluation]
    for dataset in [*training, *evaluation]:
        callback(DataRead(dataset.name, dataset.role, len(dataset.kept), dataset.account()))
    streamed = any(source.stream for source in recipe.datasets)
    streams = list(_streams(recipe, dict(zip(whole, training, strict=True)), held_out)) if streamed else []
    for source, drawn in zip(recipe.datasets, streams, strict=False):
        if source.stream:
            callback(DataRead(drawn.name, "training", None, {"rule": drawn.rule}))
    if not streamed and not any(dataset.kept for dataset in training):
        why = "; ".join(f"{dataset.name}: {dataset.left_out or 'no comparison'}" for dataset in training)
        raise BadData(f"no comparison is left to train on ({why}); add data, or evaluate on other prompts")
    return Corpus(
        training=() if streamed else tuple(chain.from_iterable(dataset.kept for dataset in training)),
        weights=()
        if streamed
        else tuple(chain.from_iterable([dataset.source.weight] * len(dataset.kept) for dataset in training)),
        evaluation=_by_name([dataset for dataset in evaluation if dataset.kept]),
        record=tuple(dataset.account() for dataset in [*training, *evaluation]),
        sets=() if streamed else tuple(_numbers(training)),
        streams=tuple(streams),
    )


def _numbers(sets: Iterable[_Set]) -> list[int]:
    """The place of its set, for every comparison of sets one after the other."""
    return [number for number, dataset in enumerate(sets) for _ in dataset.kept]


def _check_evaluation(recipe: Recipe, evaluation: Sequence[_Set]) -> None:
    for dataset in evaluation if recipe.evaluation else ():
        if not dataset.kept:
            raise BadRecipe(
                f"evaluation names {dataset.name}, which has no comparison ({dataset.left_out}); take it out"
            )
    if recipe.early_stop and not any(dataset.kept for dataset in evaluation):
        raise BadRecipe(f"early_stop is {recipe.early_stop}, but there is nothing to evaluate on; name evaluation sets")


def _held_out(recipe: Recipe, evaluation: Iterable[_Set]) -> Exclusions:
    """What evaluation sets hold, and so may not be trained on."""
    prompts = {comparison.prompt for dataset in evaluation for comparison in dataset.kept}
    keys = frozenset() if recipe.leaks == "allow" else frozenset(map(prompt_key, prompts))
    return Exclusions(openings=frozenset(map(split_of, prompts)), keys=keys)


def _without_repeats(recipe: Recipe, training: list[_Set]) -> list[_Set]:
    """The training sets without repeated comparisons; contradictions are counted in any case."""
    repeats = find_repeats(
        [comparison for dataset in training for comparison in dataset.kept],
        _numbers(training),
        merge=recipe.duplicates != "keep",
        near=recipe.duplicates == "near",
    )
    done, cleaned = 0, []
    for dataset in training:
        part = slice(done, done := done + len(dataset.kept))
        opposed = sum(repeats.contradicting[part])
        noted = {**dataset.noted, "contradicting": opposed} if opposed else dataset.noted
        cleaned.append(replace(dataset.take(repeats.kept[part], repeats.reasons[part]), noted=noted))
    return cleaned


def _without_leaks(recipe: Recipe, training: list[_Set], evaluation: Sequence[_Set]) -> list[_Set]:
    """The training sets without what an evaluation set nearly holds, or with a count of it where leaks are allowed.

    Raises:
        BadRecipe: there is a leak, the evaluation sets are named, and leaks are refused.
    """
    everything = [comparison for dataset in training for comparison in dataset.kept]
    leaks = find_leaks(everything, _by_name([dataset for dataset in evaluation if dataset.kept])) if evaluation else []
    if leaks and recipe.leaks == "refuse" and recipe.evaluation is not None:
        raise BadRecipe(_refusal(leaks))
    leaked = {leak.training for leak in leaks}
    done, cleaned = 0, []
    for dataset in training:
        numbers = range(done, done := done + len(dataset.kept))
        if recipe.leaks == "allow":
            count = len(leaked.intersection(numbers))
            cleaned.append(replace(dataset, noted={**dataset.noted, "leaks": count} if count else dataset.noted))
        else:
            cleaned.append(
                dataset.take([None if n in leaked else everything[n] for n in numbers], [LEAK] * len(numbers))
            )
    return cleaned


def _refusal(leaks: Sequence[Leak]) -> str:
    counts = ", ".join(f"{count} of {name}" for name, count in Counter(leak.set for leak in leaks).most_common())
    examples = "; ".join(leak.example for leak in leaks[:2])
    return (
        f"leaks is refuse, and {len(leaks)} training comparisons nearly stand in evaluation sets ({counts}):"
        f" {examples}; set leaks: drop to train without them, or leaks: allow"
    )


def _streams(recipe: Recipe, whole: Mapping[int, _Set], held_out: Exclusions) -> Iterable[StreamedSet]:
    """Every data set of a recipe as something to draw from; `whole` are those that were read, by their places."""
    for number, source in enumerate(recipe.datasets):
        if number in whole and not whole[number].kept:
            raise BadRecipe(f"datasets[{number}] ({source.source}) has no comparison left to draw; take it out")
        yield _in_memory(whole[number]) if number in whole else _from_files(recipe, source, held_out)


def _in_memory(dataset: _Set) -> StreamedSet:
    return StreamedSet(
        name=dataset.name,
        rule=dataset.rule,
        read=lambda dropped: dataset.kept,
        fingerprint=hashlib.sha256(repr(dataset.kept).encode("utf-8", "surrogatepass")).hexdigest(),
        share=dataset.source.share or 1.0,
        weight=dataset.source.weight,
        limit=None,
        buffer=len(dataset.kept),
        excluded=Exclusions(),
    )


def _from_files(recipe: Recipe, source: DataSource, held_out: Exclusions) -> StreamedSet:
    chosen = choose_split(recipe, source, "training")
    stream = ComparisonStream(source.source, split=chosen.source.split, columns=source.columns)
    return StreamedSet(
        name=_named(source.source, stream.split),
        rule=_with_unread(chosen.rule, stream.unread),
        read=stream.read,
        fingerprint=stream.fingerprint(),
        share=source.share or 1.0,
        weight=source.weight,
        limit=source.limit,
        buffer=recipe.shuffle_buffer,
        excluded=replace(held_out, fraction=source.fraction),
    )


def _read(chosen: Choice, role: SetRole) -> _Set:
    source = chosen.source
    loaded = load_comparisons(
        source.source,
        split=source.split,
        limit=source.limit,
        lang=source.lang,
        group=source.group,
        protocol=source.protocol,
        columns=source.columns,
    )
    read = _Set(source, chosen.rule, role, loaded, loaded.comparisons, {})
    return read.without([*map(Exclusions(fraction=source.fraction).reason, read.kept)])


def _with_unread(rule: str, files: Sequence[str]) -> str:
    """The rule, and the files of the set's folder that it leaves out."""
    return "; ".join(filter(None, (rule, unread_files(files))))


def _named(source: str, split: str | None) -> str:
    """A set's name: SOURCE:SPLIT, SOURCE where it is read whole."""
    return source if split is None else f"{source}:{split}"


def _own_evaluation(recipe: Recipe, source: DataSource) -> list[_Set]:
    """The evaluation split of a training set, if it has one."""
    unstated = source.model_copy(update={"split": None, "limit": None})
    try:
        return [_read(choose_split(recipe, unstated, "evaluation"), "evaluation")]
    except NotFound:
        return []


def _first_by_hash(dataset: _Set, limit: int) -> _Set:
    """At most `limit` comparisons, whole prompts as the hash orders them, so that a larger limit holds a smaller."""
    places = [split_of(comparison.prompt, seed=_EVALUATION) for comparison in dataset.kept]
    last = sorted(places)[limit - 1] if len(places) > limit else 1.0
    return dataset.without(["beyond eval_limit" if place > last else "" for place in places])


def _by_name(sets: Sequence[_Set]) -> dict[str, tuple[Comparison, ...]]:
    """Sets by name; a repeated name gets a number."""
    named: dict[str, tuple[Comparison, ...]] = {}
    for dataset in sets:
        taken = sum(name.partition(" #")[0] == dataset.name for name in named)
        named[f"{dataset.name} #{taken + 1}" if taken else dataset.name] = dataset.kept
    return named
