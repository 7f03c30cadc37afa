"""From a source to comparisons and their report: read, settle, keep the asked split, drop what repeats.

A split that is not published is made by prompt, by a stable hash of the first user turn, so that no conversation start
falls in two splits; never by row. Counts speak of every row read: those of the other split are counted as such.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from prefrank.checks import is_count
from prefrank.data.candidates import (
    DUPLICATE,
    MERGED,
    OTHER_SPLIT,
    Candidate,
    Candidates,
    Drop,
    carry_over,
    heads_of,
    joined,
    pooled,
    settle,
)
from prefrank.data.catalogue import EVALUATION_SPLITS, SOURCES, SUMMARY_SPLITS
from prefrank.data.fields import text
from prefrank.data.formats import Reader
from prefrank.data.oasst import oasst
from prefrank.data.report import Loaded, ReadingReport, Tally
from prefrank.data.sources import DataFile, Located, known_split, locate
from prefrank.errors import BadData, BadInput, NotFound, short
from prefrank.io.columns import Columns
from prefrank.io.rows import Record
from prefrank.types import Comparison, Prompt, RankedPairs

VALIDATION_SHARE = 0.2
PUBLISHED_SEED = 666
Protocol = Literal["by_prompt", "as_published"]


def split_of(prompt: Prompt, *, seed: int = 0) -> float:
    """A stable place in [0, 1) for a prompt: the SHA-256 of its first user turn's stripped text.

    All rows that open with the same user turn share it, on every machine and in every version.

    Args:
        prompt: a comparison's prompt.
        seed: another number gives another, unrelated place.
    """
    opening = next((turn for turn in prompt if turn.role == "user"), prompt[0]).text.strip()
    digest = hashlib.sha256(f"{seed}\0{opening}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53


def published_validation_rows(num_rows: int, share: float) -> frozenset[int]:
    """The rows that `train_test_split(test_size=share, random_state=666)` of scikit-learn puts in the second part."""
    order = np.random.RandomState(PUBLISHED_SEED).permutation(num_rows)
    return frozenset(order[: math.ceil(share * num_rows)].tolist())


def load_comparisons(
    source: str | Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    lang: str | None = None,
    group: bool = False,
    protocol: Protocol = "by_prompt",
    columns: Columns | None = None,
) -> Loaded:
    """Read a source's comparisons.

    Args:
        source: a known name (`SOURCES`), a hub id, or a file or folder, recognized by its contents.
        split: train, validation or test (valid1 and valid2 too for the summaries); `eval` is validation, or test
            where there is no validation; None reads everything. Where only `train` exists, or files without a
            split, one prompt in five is validation by `split_of`.
        limit: stop after this many comparisons, in file order.
        lang: of OASST, only trees whose first message is in this language, such as "en".
        group: merge the comparisons of one prompt into one that encodes each distinct reply once. Only stated
            preferences are carried over: no order is inferred.
        protocol: "as_published" makes the first implementation's split instead, by row with seed 666, where the data
            set has no published validation split. It leaks: rows of one prompt fall in both parts.
        columns: from the names that readers know, such as `prompt`, to the files' own, nested ones with dots.

    Raises:
        NotFound: no such source or split, or the hub cannot be reached.
        BadData: a malformed file or row, or one that lacks a named column, named with its line; or no comparison.
        BadInput: arguments that do not fit the source.
    """
    split = None if split is None else known_split(split)
    if split == "eval":
        load = partial(
            load_comparisons, source, limit=limit, lang=lang, group=group, protocol=protocol, columns=columns
        )
        return _first_found(load, EVALUATION_SPLITS)
    if limit is not None and not is_count(limit):
        raise BadInput(f"limit is {short(limit)}; wanted a whole number of at least 1")
    located = locate(source, split, columns)
    if split is not None and split not in located.splits:
        raise NotFound(f"{source} has no split {split!r}; it has {', '.join(located.splits)}")
    files, tally = located.files_of(split), Tally()
    by_hash = split is not None and located.made_here
    records = _counted(files, tally)
    if by_hash and protocol == "as_published":
        records = _published_part(records, located, split == "validation", tally)
    elif split is not None and not by_hash:
        records = _column_part(records, files, split, tally)
    wanted = partial(_falls_in, split) if by_hash and protocol == "by_prompt" else None
    comparisons = _settled(_reader(files, lang)(records), located, wanted, tally)
    made = tuple(islice(comparisons, limit))
    if group:
        made = _grouped(made, tally)
    names = tuple(located.shown(file.path) for file in files)
    report = tally.report(made, source=str(source), split=split, files=names, unread=located.unread)
    if not made and OTHER_SPLIT not in tally.dropped:
        raise BadData(f"{source}: no comparison in {report.rows} rows ({_reasons(report)}); wanted at least one")
    return Loaded(made, report)


def load_splits(
    source: str | Path,
    *,
    limit: int | None = None,
    lang: str | None = None,
    group: bool = False,
    protocol: Protocol = "by_prompt",
    columns: Columns | None = None,
) -> dict[str, Loaded]:
    """Every split of a source by its name, as `describe` wants them; `all` alone for files that name no split.

    The arguments and errors are those of `load_comparisons`.
    """
    located = locate(source, None, columns)
    unnamed = located.made_here and not any(file.split for file in located.files)
    names: list[str | None] = [None] if unnamed and located.name not in SOURCES else [*located.splits]
    return {
        name or "all": load_comparisons(
            source, split=name, limit=limit, lang=lang, group=group, protocol=protocol, columns=columns
        )
        for name in names
        if name not in ("valid1", "valid2")
    }


def _first_found(load: Callable[..., Loaded], splits: Sequence[str]) -> Loaded:
    """The first of the splits that the source has; if it has none of them, what is said of the last."""
    for split in splits[:-1]:
        try:
            return load(split=split)
        except NotFound:
            continue
    return load(split=splits[-1])


def _falls_in(split: str | None, prompt: Prompt) -> bool:
    in_validation = split_of(prompt) >= 1 - VALIDATION_SHARE
    return in_validation == (split == "validation")


def _counted(files: Iterable[DataFile], tally: Tally) -> Iterator[Record]:
    for file in files:
        for record in file.records():
            tally.rows += 1
            yield record


def _published_part(records: Iterable[Record], located: Located, validation: bool, tally: Tally) -> Iterator[Record]:
    """The rows of one side of the first implementation's split."""
    if not all(file.format.by_row for file in located.files):
        raise BadInput("protocol='as_published' splits rows, and these rows are parts of trees; use 'by_prompt'")
    rows = list(records)
    share = located.published.published_share if located.published else VALIDATION_SHARE
    held_out = published_validation_rows(len(rows), share)
    for index, record in enumerate(rows):
        if (index in held_out) == validation:
            yield record
        else:
            tally.drop(Drop(OTHER_SPLIT))


def _column_part(records: Iterable[Record], files: Iterable[DataFile], split: str, tally: Tally) -> Iterator[Record]:
    """Of the summaries, the rows whose own `split` column belongs to the split; of others, all rows."""
    if any(file.format_name != "summaries" for file in files):
        yield from records
        return
    for record in records:
        if _split_column(record) in SUMMARY_SPLITS[split]:
            yield record
        else:
            tally.drop(Drop(OTHER_SPLIT))


def _split_column(record: Record) -> str:
    try:
        return text(record.row, "split")
    except BadData as error:
        raise BadData(f"{record.where}: {error}") from None


def _reader(files: Sequence[DataFile], lang: str | None) -> Reader:
    reader = files[0].format.read
    if lang is None:
        return reader
    if reader is not oasst:
        raise BadInput(f"lang={lang!r} is for OASST trees; this source names no language")
    return partial(oasst, lang=lang)


def _settled(
    candidates: Candidates, located: Located, wanted: Callable[[Prompt], bool] | None, tally: Tally
) -> Iterator[Comparison]:
    """The comparisons to keep, each once, with distinct ids; equal prompts share one value in memory."""
    ids: set[str] = set()
    prompts: dict[Prompt, Prompt] = {}
    judged: set[tuple[int, frozenset[str]]] = set()
    seen: set[tuple[object, ...]] = set()
    names = {file.path: (located.label(file.path), located.shown(file.path)) for file in located.files}
    formats = {file.path: file.format for file in located.files}
    for record, stated in candidates:
        if isinstance(stated, Candidate):
            formats[record.path].check(record, stated)
        kept = stated if isinstance(stated, Drop) else settle(stated)
        if isinstance(kept, Candidate) and wanted and not wanted(kept.prompt):
            kept = Drop(OTHER_SPLIT)
        if isinstance(kept, Candidate):
            prompt = prompts.setdefault(kept.prompt, kept.prompt)
            texts = id(prompt), frozenset(kept.replies)
            meaning = texts, _judgement(kept)
            if meaning in seen:
                kept = Drop(DUPLICATE)
        if isinstance(kept, Drop):
            tally.drop(kept)
            continue
        source, name = names[record.path]
        place = f"{name}:{record.line}"
        own_id = f"{kept.id} ({place})" if kept.id in ids else kept.id or place
        ids.add(own_id)
        tally.votes += texts in judged
        judged.add(texts)
        seen.add(meaning)
        tally.left_out.update(kept.left_out)
        yield Comparison(prompt, kept.replies, kept.preferences, source, own_id, kept.ratings)


def _judgement(kept: Candidate) -> tuple[object, ...]:
    """What makes two comparisons of the same prompt and replies the same: judgments, voter and id, in whatever order
    written.

    Rows with ids, or voters, of their own are the votes of several people; the same row without an id is a copy.
    """
    stated: list[tuple[object, ...]] = []
    ranks = kept.preferences.ranks if isinstance(kept.preferences, RankedPairs) else ()
    places = {rank: place for place, rank in enumerate(sorted({rank for rank in ranks if rank is not None}))}
    for reply, rank in zip(kept.replies if ranks else (), ranks, strict=True):
        stated.append((reply, -1 if rank is None else places[rank], heads_of(kept.preferences).pop()))
    for p in () if isinstance(kept.preferences, RankedPairs) else kept.preferences:
        sides = (kept.replies[p.winner], kept.replies[p.loser])
        how = (p.probability, p.weight, p.margin, -1 if p.strength is None else p.strength, p.head)
        stated.append((tuple(sorted(sides)) if p.tie else sides, how))
    rated = {(given.head, pair) for given in kept.ratings for pair in zip(kept.replies, given.values, strict=True)}
    return tuple(sorted(stated)), frozenset(rated), kept.voter, kept.id


def _grouped(comparisons: Iterable[Comparison], tally: Tally) -> tuple[Comparison, ...]:
    """One comparison for each prompt of a source: the union of its replies and of its stated preferences."""
    groups: dict[tuple[str, Prompt], list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        groups[comparison.source, comparison.prompt].append(comparison)
    for group in groups.values():
        tally.dropped[MERGED] += len(group) - 1
    return tuple(_union(group) for group in groups.values())


def _union(group: Sequence[Comparison]) -> Comparison:
    replies, ratings = pooled([(comparison.ratings, comparison.replies) for comparison in group])
    carried = (carry_over(comparison.preferences, comparison.replies, replies) for comparison in group)
    return replace(group[0], replies=replies, preferences=joined([*carried]), ratings=ratings)


def _reasons(report: ReadingReport) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in report.dropped.items()) or "none was a candidate"
