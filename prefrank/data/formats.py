"""The formats we read: how each is recognised by its columns, which reader it has, which columns it needs.

A registry is a dict. Order matters where one format's columns contain another's: the first that fits is taken.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from prefrank.data.candidates import Candidate, Drop
from prefrank.data.fields import Row
from prefrank.data.hh import hh
from prefrank.data.oasst import oasst
from prefrank.data.own import COLUMNS as OWN_COLUMNS
from prefrank.data.own import own
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
from prefrank.errors import BadData
from prefrank.io.rows import Record

Found = Iterator[tuple[Record, Candidate | Drop]]
Reader = Callable[[Iterable[Record]], Found]


@dataclass(frozen=True, slots=True)
class Format:
    """One way of writing comparisons down.

    Args:
        read: records to candidates, each with the record it begins at.
        keys: columns a row must have to be of this format.
        columns: the only Parquet columns to read; None reads all.
        by_row: whether every row is one candidate; else rows are gathered into groups first.
    """

    read: Reader
    keys: frozenset[str]
    columns: tuple[str, ...] | None = None
    by_row: bool = True


def each_row(read: Callable[[Row], Candidate | Drop]) -> Reader:
    """A reader of records from a reader of one row; its errors get file and line."""

    def reader(records: Iterable[Record]) -> Found:
        for record in records:
            try:
                found = read(record.row)
            except ValueError as error:
                raise BadData(f"{record.where}: {error}") from None
            yield record, found

    return reader


_SCORED = ("question.full_text", "answer_0", "answer_1", "score_0", "score_1")
_SHP = ("history", "labels", *(f"{name}_{s}" for name in ("human_ref", "score", "created_at_utc") for s in "AB"))
_MESSAGE = ("message_id", "parent_id", "text", "role", "lang", "rank", "tree_state")
_FLAGS = ("deleted", "synthetic", "review_result")

FORMATS: dict[str, Format] = {
    "webgpt": Format(each_row(webgpt), frozenset({"question", "answer_0", "answer_1"}), _SCORED),
    "summaries": Format(
        each_row(summary_pair),
        frozenset({"info", "summaries", "choice"}),
        ("info", "summaries", "choice", "worker", "split"),
    ),
    "rated_summaries": Format(rated_summaries, frozenset({"info", "summary"}), ("info", "summary"), by_row=False),
    "hh": Format(each_row(hh), frozenset({"chosen", "rejected"})),
    "oa_private": Format(each_row(oa_private), frozenset({"prompt", "pos", "neg_replies"})),
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
    "ranked_lists": Format(each_row(ranked_list), frozenset({"instruction", "output"})),
    "prefrank": Format(each_row(own), frozenset({"prompt", "replies"}), OWN_COLUMNS),
    "prefrank_pairs": Format(each_row(own), frozenset({"chosen", "rejected"}), OWN_COLUMNS),
}


def recognise(row: Row, where: str) -> str:
    """The name of the row's format.

    Raises:
        BadData: the columns are those of none; names a near miss such as `response` for `replies`.
    """
    for name, format in FORMATS.items():
        if format.keys <= row.keys() and (name != "hh" or _is_transcript(row)):
            return name
    raise BadData(
        f"{where}: columns {', '.join(map(str, row)) or '(none)'} are those of no known format{_near_miss(row)};"
        " wanted prompt + replies + ranks (or ratings, or preferences), prompt + chosen + rejected,"
        " or a published data set's columns (docs/formats.md)"
    )


def _is_transcript(row: Row) -> bool:
    chosen = row["chosen"]
    return row.get("prompt") is None and isinstance(chosen, str) and chosen.startswith("\n\nHuman:")


def _near_miss(row: Row) -> str:
    for column in row:
        if column not in OWN_COLUMNS and (near := get_close_matches(str(column), OWN_COLUMNS, n=1, cutoff=0.6)):
            return f" (is {column!r} meant to be {near[0]!r}?)"
    return ""
