"""The formats we read: how each is recognised by its columns, which reader it has, which columns it needs.

A registry is a dict. Of several formats that fit a row, one whose columns contain another's is taken before it; of
two that are left, none is: the row is refused.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

from prefrank.data.candidates import Candidate, Drop, under_system
from prefrank.data.fields import SYSTEM_COLUMNS, Row, system_of
from prefrank.data.implicit import is_transcript
from prefrank.data.oasst import oasst
from prefrank.data.own import COLUMNS as OWN_COLUMNS
from prefrank.data.own import READ, own
from prefrank.data.pairs import hellaswag, oa_private, ranked_list, shp, webgpt
from prefrank.data.rated import (
    ATTRIBUTES,
    PREDICTIONS,
    finegrained,
    helpsteer3,
    helpsteer_pair,
    helpsteer_ratings,
    ultrafeedback,
)
from prefrank.data.summaries import rated_summaries, summary_pair
from prefrank.errors import BadData, suggest
from prefrank.io.columns import Columns
from prefrank.io.rows import Record

Found = Iterator[tuple[Record, Candidate | Drop]]
Reader = Callable[[Iterable[Record]], Found]


@dataclass(frozen=True, slots=True)
class Format:
    """One way of writing comparisons down.

    Args:
        read: records to candidates, each with the record it begins at.
        keys: columns a row must have to be of this format.
        columns: the columns that are read (of Parquet, the only ones, and those of a system turn); None reads all.
        by_row: whether every row is one candidate; else rows are gathered into groups first.
        fits: what else a row must be, where columns alone do not say.
        whole: whether all Parquet columns are looked at: one that is not read may change what the others mean.
    """

    read: Reader
    keys: frozenset[str]
    columns: tuple[str, ...] | None = None
    by_row: bool = True
    fits: Callable[[Row], bool] = lambda row: True
    whole: bool = False

    def is_of(self, row: Row, names: Set[str]) -> bool:
        """Whether a row with columns of these names is of this format."""
        return self.keys <= names and self.fits(row)

    def reads(self, name: str) -> bool:
        """Whether a column of this name is read."""
        known = (*SYSTEM_COLUMNS, *(self.columns or ()))
        return self.columns is None or any(name == one or one.startswith(f"{name}.") for one in known)


def each_row(read: Callable[[Row], Candidate | Drop]) -> Reader:
    """A reader of records from a reader of one row: its errors get file and line, its prompts the row's system turn."""

    def reader(records: Iterable[Record]) -> Found:
        for record in records:
            try:
                found = under_system(read(record.row), system_of(record.row))
            except ValueError as error:
                raise BadData(f"{record.where}: {error}") from None
            yield record, found

    return reader


_SCORED = ("question.full_text", "answer_0", "answer_1", "score_0", "score_1")
_SHP = ("history", "labels", *(f"{name}_{s}" for name in ("human_ref", "score", "created_at_utc") for s in "AB"))
_MESSAGE = ("message_id", "parent_id", "text", "role", "lang", "rank", "tree_state")
_FLAGS = ("deleted", "synthetic", "review_result")
_OWN = each_row(own)
_PAIR = frozenset({"chosen", "rejected"})

FORMATS: dict[str, Format] = {
    "webgpt": Format(each_row(webgpt), frozenset({"question", "answer_0", "answer_1"}), _SCORED),
    "summaries": Format(
        each_row(summary_pair),
        frozenset({"info", "summaries", "choice"}),
        ("info", "summaries", "choice", "worker", "split"),
    ),
    "rated_summaries": Format(rated_summaries, frozenset({"info", "summary"}), ("info", "summary"), by_row=False),
    "hh": Format(_OWN, _PAIR, READ, fits=is_transcript, whole=True),
    "oa_private": Format(
        each_row(oa_private), frozenset({"prompt", "pos", "neg_replies"}), ("prompt", "history", "pos", "neg_replies")
    ),
    "messages": Format(oasst, frozenset({"message_id", "role", "text"}), (*_MESSAGE, *_FLAGS), by_row=False),
    "trees": Format(oasst, frozenset({"message_tree_id", "prompt"}), by_row=False),
    "threads": Format(oasst, frozenset({"thread_id", "thread"}), by_row=False),
    "shp": Format(each_row(shp), frozenset({"history", "human_ref_A", "human_ref_B"}), _SHP),
    "hellaswag": Format(each_row(hellaswag), frozenset({"ctx", "endings"}), ("ctx", "endings", "label")),
    "helpsteer_ratings": Format(
        helpsteer_ratings,
        frozenset({"prompt", "response", "helpfulness"}),
        ("prompt", "response", *ATTRIBUTES),
        by_row=False,
    ),
    "helpsteer_pairs": Format(
        each_row(helpsteer_pair),
        frozenset({"prompt", "response_1", "response_2", "preference_strength"}),
        ("prompt", "response_1", "response_2", "preference_strength"),
    ),
    "helpsteer3": Format(
        each_row(helpsteer3),
        frozenset({"context", "response1", "response2", "overall_preference"}),
        ("context", "response1", "response2", "overall_preference"),
    ),
    "ultrafeedback": Format(
        each_row(ultrafeedback), frozenset({"instruction", "completions"}), ("instruction", "completions")
    ),
    "finegrained": Format(
        each_row(finegrained),
        frozenset({"question", "preference", *PREDICTIONS}),
        ("question", "passages", "preference", *PREDICTIONS),
    ),
    "ranked_lists": Format(
        each_row(ranked_list), frozenset({"instruction", "output"}), ("instruction", "input", "output", "history")
    ),
    "prefrank": Format(_OWN, frozenset({"prompt", "replies"}), READ),
    "prefrank_pairs": Format(_OWN, _PAIR | {"prompt"}, READ),
    "implicit_pairs": Format(_OWN, _PAIR, READ, fits=lambda row: not is_transcript(row), whole=True),
}


def recognise(row: Row, where: str, columns: Columns | None = None) -> str:
    """The name of the row's format.

    Args:
        row: its columns under the names that readers know.
        where: file and line.
        columns: the mapping that gave it those names; only a format that reads them all is taken.

    Raises:
        BadData: the columns are those of none, and a near miss such as `response` for `replies` is named; or of two.
    """
    stated = columns or {}
    names = row.keys() | {name.partition(".")[0] for name in stated}
    found = {name: one for name, one in FORMATS.items() if one.is_of(row, names)}
    read = {name: one for name, one in found.items() if all(map(one.reads, stated))}
    if found and not read:
        _refuse_names(where, stated, found)
    best = [name for name, one in read.items() if not any(one.keys < other.keys for other in read.values())]
    if len({FORMATS[name].read for name in best}) > 1:
        raise BadData(
            f"{where}: the columns are those of {' and of '.join(best)}; name those of one: columns:"
            f" {{{', '.join(f'{key}: {key}' for key in sorted(FORMATS[best[-1]].keys))}}}"
        )
    if best:
        return best[0]
    raise BadData(
        f"{where}: columns {', '.join(map(str, row)) or '(none)'} are those of no known format{_near_miss(row)};"
        " wanted prompt + replies + ranks (or ratings, or preferences), prompt + chosen + rejected,"
        " or a published data set's columns (docs/formats.md); columns of other names are named by columns:"
        " {prompt: question, ...} (--columns prompt=question,...)"
    )


def _refuse_names(where: str, columns: Columns, found: Mapping[str, Format]) -> NoReturn:
    """Name the first column of a mapping that no format reads which fits the row."""
    read = sorted({name for one in found.values() for name in one.columns or ()})
    name = next((name for name in columns if not any(one.reads(name) for one in found.values())), next(iter(columns)))
    raise BadData(f"{where}: columns name {name!r}, which is not read in {' or '.join(found)}{suggest(name, read)}")


def _near_miss(row: Row) -> str:
    for column in row:
        if column not in OWN_COLUMNS and (near := get_close_matches(str(column), OWN_COLUMNS, n=1, cutoff=0.6)):
            return f" (is {column!r} meant to be {near[0]!r}?)"
    return ""
