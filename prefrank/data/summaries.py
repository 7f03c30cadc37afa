"""openai/summarize_from_feedback: `comparisons` (two summaries, one choice) and `axis` (summaries rated 1 to 7 on four
axes: overall, accuracy, coverage, coherence; each is a head, and `overall` alone gives the preferences).

Each comparison stands alone: several of one post are never pooled into a ranking, since most pairs of its summaries
were never compared. `extra.confidence` is not read: it exists for a part of the rows only, so weighing by it would
weigh batches; every choice has weight 1.
"""

from collections import defaultdict
from collections.abc import Iterable

from prefrank.data.candidates import (
    EMPTY_REPLY,
    FEW_REPLIES,
    Candidate,
    Candidates,
    Drop,
    best_against_rest,
    from_ratings_of,
    pooled,
)
from prefrank.data.fields import FileRow, as_list, as_number, as_row, field, index_of, maybe_text, text, user
from prefrank.errors import BadData
from prefrank.io.rows import Record
from prefrank.types import MAIN_HEAD, Prompt, Ratings

NOTHING_TO_SUMMARIZE = "neither post nor article"
TWO_TO_SUMMARIZE = "both post and article"
UNRATED = "unrated reply"
CUE = "TL;DR:"
AXES = (MAIN_HEAD, "accuracy", "coverage", "coherence")


def summary_prompt(info: FileRow) -> Prompt | Drop:
    """What is to be summarized, in our own words, ending with the cue `TL;DR:`; a drop without post and article."""
    post, article = (maybe_text(info, name).strip() for name in ("post", "article"))
    if post and article:
        return Drop(TWO_TO_SUMMARIZE)
    if post:
        subreddit, title = maybe_text(info, "subreddit").strip(), maybe_text(info, "title").strip()
        where = f" from r/{subreddit}" if subreddit else ""
        heading = f"Title: {title}\n\n" if title else ""
        return user(f"Summarize this post{where}.\n\n{heading}{post}\n\n{CUE}")
    if article:
        return user(f"Summarize this news article.\n\n{article}\n\n{CUE}")
    return Drop(NOTHING_TO_SUMMARIZE)


def summary_pair(row: FileRow) -> Candidate | Drop:
    """`comparisons`: the summary at index `choice` was preferred; judgments by several workers are all kept."""
    summaries = as_list(field(row, "summaries"), "summaries")
    if len(summaries) != 2:
        raise BadData(f"'summaries' holds {len(summaries)} summaries; wanted 2")
    replies = tuple(text(as_row(s, f"summaries[{i}]"), "text") for i, s in enumerate(summaries))
    choice = index_of(field(row, "choice"), "choice", 2)
    prompt = summary_prompt(as_row(field(row, "info"), "info"))
    if isinstance(prompt, Drop):
        return prompt
    return Candidate(prompt, replies, best_against_rest(2, choice), voter=maybe_text(row, "worker"))


def rated_summaries(records: Iterable[Record]) -> Candidates:
    """`axis`: the summaries of one `info.id`, ordered by `overall`; a summary rated twice takes its mean."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[_key(record)].append(record)
    for key, group in groups.items():
        yield group[0], _rated(key, group)


def _key(record: Record) -> str:
    try:
        return text(record.row, "info.id")
    except BadData as error:
        raise BadData(f"{record.where}: {error}") from None


def _rated(key: str, group: list[Record]) -> Candidate | Drop:
    summaries: list[tuple[tuple[Ratings, ...], tuple[str]]] = []
    left_out: list[str] = []
    for record in group:
        try:
            summary, ratings = _ratings(record.row)
        except BadData as error:
            raise BadData(f"{record.where}: {error}") from None
        unrated = ratings[0].values == (None,)
        if unrated or not summary:
            left_out.append(UNRATED if unrated else EMPTY_REPLY)
        else:
            summaries.append((ratings, (summary,)))
    replies, rated = pooled(summaries)
    prompt = summary_prompt(as_row(field(group[0].row, "info"), "info"))
    if isinstance(prompt, Drop):
        return Drop(prompt.reason, tuple(left_out))
    if len(replies) < 2:
        return Drop(FEW_REPLIES, tuple(left_out))
    return Candidate(prompt, replies, from_ratings_of(rated[0]), id=key, left_out=tuple(left_out), ratings=rated)


def _ratings(row: FileRow) -> tuple[str, tuple[Ratings, ...]]:
    """A summary, and its one rating on each axis, `overall` first."""
    axes = as_row(field(row, "summary.axes"), "summary.axes")
    given = {axis: field(axes, axis) if axis == MAIN_HEAD else axes.get(axis) for axis in AXES}
    return text(row, "summary.text").strip(), tuple(
        Ratings((None if value is None else as_number(value, f"summary.axes.{axis}"),), axis)
        for axis, value in given.items()
    )
