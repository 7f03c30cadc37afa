"""openai/summarize_from_feedback: `comparisons` (two summaries, one choice) and `axis` (summaries rated 1 to 7).

Each comparison stands alone: several of one post are never pooled into a ranking, since most pairs of its summaries
were never compared. `extra.confidence` is not read: it exists for a part of the rows only, so weighing by it would
weigh batches; every choice has weight 1.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from statistics import fmean

from prefrank.data.candidates import EMPTY_REPLY, FEW_REPLIES, Candidate, Drop, best_against_rest, from_ratings
from prefrank.data.fields import Row, as_list, as_number, as_row, field, index_of, maybe_text, text, user
from prefrank.data.files import Record
from prefrank.errors import BadData
from prefrank.types import Prompt

NOTHING_TO_SUMMARIZE = "neither post nor article"
UNRATED = "unrated reply"
CUE = "TL;DR:"


def summary_prompt(info: Row) -> Prompt | None:
    """What is to be summarised, in our own words, ending with the cue `TL;DR:`; None without post and article."""
    if post := maybe_text(info, "post").strip():
        subreddit, title = maybe_text(info, "subreddit").strip(), maybe_text(info, "title").strip()
        where = f" from r/{subreddit}" if subreddit else ""
        heading = f"Title: {title}\n\n" if title else ""
        return user(f"Summarize this post{where}.\n\n{heading}{post}\n\n{CUE}")
    if article := maybe_text(info, "article").strip():
        return user(f"Summarize this news article.\n\n{article}\n\n{CUE}")
    return None


def summary_pair(row: Row) -> Candidate | Drop:
    """`comparisons`: the summary at index `choice` was preferred; judgements by several workers are all kept."""
    summaries = as_list(field(row, "summaries"), "summaries")
    if len(summaries) != 2:
        raise BadData(f"'summaries' holds {len(summaries)} summaries; wanted 2")
    replies = tuple(text(as_row(s, f"summaries[{i}]"), "text") for i, s in enumerate(summaries))
    choice = index_of(field(row, "choice"), "choice", 2)
    prompt = summary_prompt(as_row(field(row, "info"), "info"))
    if prompt is None:
        return Drop(NOTHING_TO_SUMMARIZE)
    return Candidate(prompt, replies, best_against_rest(2, choice), voter=maybe_text(row, "worker"))


def rated_summaries(records: Iterable[Record]) -> Iterator[tuple[Record, Candidate | Drop]]:
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
    ratings: dict[str, list[float]] = defaultdict(list)
    left_out: list[str] = []
    for record in group:
        try:
            summary, rating = _rating(record.row)
        except BadData as error:
            raise BadData(f"{record.where}: {error}") from None
        if rating is None or not summary:
            left_out.append(UNRATED if rating is None else EMPTY_REPLY)
        else:
            ratings[summary].append(rating)
    prompt = summary_prompt(group[0].row["info"])
    if prompt is None:
        return Drop(NOTHING_TO_SUMMARIZE, tuple(left_out))
    if len(ratings) < 2:
        return Drop(FEW_REPLIES, tuple(left_out))
    means = [fmean(values) for values in ratings.values()]
    return Candidate(prompt, tuple(ratings), from_ratings(means), id=key, left_out=tuple(left_out))


def _rating(row: Row) -> tuple[str, float | None]:
    overall = field(row, "summary.axes.overall")
    rating = None if overall is None else as_number(overall, "summary.axes.overall")
    return text(row, "summary.text").strip(), rating
