"""Sets that say more than who won: HelpSteer 2 and 3, UltraFeedback, finegrained-rlhf.

`overall` of HelpSteer's ratings is what it calls helpfulness ("overall helpfulness of the response"), so
that the main head means the same everywhere; the other attributes keep their names and are heads of their own. A
strength is the published one, 1 slightly better to 3 much better, never made up from a difference of ratings.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from prefrank.data.candidates import (
    FEW_REPLIES,
    Candidate,
    Candidates,
    Drop,
    from_ratings_of,
    pooled,
    under_system,
)
from prefrank.data.fields import (
    FileRow,
    as_list,
    as_number,
    as_row,
    as_rows,
    as_text,
    as_turns,
    field,
    maybe_number,
    short,
    system_of,
    text,
    user,
)
from prefrank.errors import BadData
from prefrank.io.rows import Record
from prefrank.types import MAIN_HEAD, Preference, Prompt, Ratings, Role, Turn

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
AGAINST_OVERALL = "overall score against the scores of the aspects"
PREDICTIONS = tuple(f"prediction {number}" for number in range(1, 5))

_ROLE = re.compile(r"\s*<extra_id_1>(User|Assistant)\s*\n")
_ROLES: dict[str, Role] = {"User": "user", "Assistant": "assistant"}


def helpsteer_ratings(records: Iterable[Record]) -> Candidates:
    """nvidia/HelpSteer and HelpSteer2: one response rated 0 to 4 on five attributes; those of one prompt compared."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[_at(record, lambda row: (system_of(row), text(row, "prompt")))].append(record)
    for (system, prompt), group in groups.items():
        replies, ratings = pooled([_at(record, _rated_response) for record in group])
        if len(replies) < 2:
            yield group[0], Drop(FEW_REPLIES)
            continue
        made = Candidate(_helpsteer_prompt(prompt), replies, from_ratings_of(ratings[0]), ratings=ratings)
        yield group[0], under_system(made, system)


def _at(record: Record, read: Any) -> Any:
    """What a row gives, its errors with file and line."""
    try:
        return read(record.row)
    except BadData as error:
        raise BadData(f"{record.where}: {error}") from None


def _rated_response(row: FileRow) -> tuple[tuple[Ratings, ...], tuple[str]]:
    ratings = tuple(
        Ratings((as_number(field(row, name), name),), MAIN_HEAD if name == "helpfulness" else name)
        for name in ATTRIBUTES
    )
    return ratings, (text(row, "response").strip(),)


def _helpsteer_prompt(prompt: str) -> Prompt:
    """HelpSteer writes a longer conversation as one text, with a line `<extra_id_1>Assistant` before each turn."""
    first, *rest = _ROLE.split(prompt)
    later = tuple(Turn(_ROLES[who], content) for who, content in zip(rest[::2], rest[1::2], strict=True))
    return (*user(first), *later)


def helpsteer_pair(row: FileRow) -> Candidate:
    """nvidia/HelpSteer2, `preference`: two responses and a strength from -3 (the first much better) to 3."""
    replies = (text(row, "response_1"), text(row, "response_2"))
    return Candidate(_helpsteer_prompt(text(row, "prompt")), replies, (_signed(row, "preference_strength"),))


def helpsteer3(row: FileRow) -> Candidate:
    """nvidia/HelpSteer3, `preference`: messages, two responses and a strength from -3 (the first much better) to 3."""
    replies = (text(row, "response1"), text(row, "response2"))
    return Candidate(as_turns(field(row, "context"), "context"), replies, (_signed(row, "overall_preference"),))


def _signed(row: FileRow, name: str) -> Preference:
    value = as_number(field(row, name), name)
    if value not in range(-3, 4):
        raise BadData(f"{name!r} holds {short(value)}; wanted a whole number from -3 to 3")
    strength = abs(int(value))
    if not strength:
        return Preference(0, 1, probability=0.5, strength=0)
    return Preference(0, 1, strength=strength) if value < 0 else Preference(1, 0, strength=strength)


def ultrafeedback(row: FileRow) -> Candidate | Drop:
    """openbmb/UltraFeedback: four completions, rated by GPT-4 as a whole (1 to 10) and on four aspects (1 to 5).

    They are ordered by the mean of their aspects, since some overall scores are wrong (a known fault: completions
    with 1 on every aspect have an overall score of 10). Where the overall scores order two completions the other way
    round, nothing is said about the two. Completions without any aspect are ordered by the overall score alone.
    """
    completions = as_rows(row, "completions")
    rated = {
        aspect: tuple(maybe_number(_aspect(each, aspect), f"annotations.{aspect}.Rating") for each in completions)
        for aspect in ASPECTS
    }
    overall = tuple(maybe_number(completion.get("overall_score"), "overall_score") for completion in completions)
    by_aspect = zip(*rated.values(), strict=True)
    fine = tuple(_fine_score(completion, aspects) for completion, aspects in zip(completions, by_aspect, strict=True))
    ratings = [Ratings(overall if all(value is None for value in fine) else fine)]
    ratings += [Ratings(values, aspect) for aspect, values in rated.items() if any(v is not None for v in values)]
    stated = from_ratings_of(ratings[0])
    preferences = tuple(preference for preference in stated if not _opposed(preference, overall))
    left_out = (AGAINST_OVERALL,) * (len(stated) - len(preferences))
    if left_out and not preferences:
        return Drop(AGAINST_OVERALL, left_out)
    replies = tuple(text(completion, "response") for completion in completions)
    prompt = user(text(row, "instruction"))
    return Candidate(prompt, replies, preferences, left_out=left_out, ratings=tuple(ratings))


def _aspect(completion: FileRow, aspect: str) -> object:
    annotations = as_row(completion.get("annotations") or {}, "annotations")
    return as_row(annotations.get(aspect) or {}, f"annotations.{aspect}").get("Rating")


def _fine_score(completion: FileRow, aspects: Sequence[float | None]) -> float | None:
    """The mean of the aspects that were rated, or the published one."""
    given = [value for value in aspects if value is not None]
    return fmean(given) if given else maybe_number(completion.get("fine-grained_score"), "fine-grained_score")


def _opposed(preference: Preference, scores: Sequence[float | None]) -> bool:
    winner, loser = scores[preference.winner], scores[preference.loser]
    return not preference.tie and winner is not None and loser is not None and winner < loser


def finegrained(row: FileRow) -> Candidate:
    """allenai/FineGrainedRLHF, long-form answers: of each two of four, 1 or 2 is better, 0 neither.

    The prompt is the passages that people judged by, then the question, so that cutting takes passages first.
    """
    answers = tuple(text(row, name) for name in PREDICTIONS)
    votes = as_list(field(row, "preference"), "preference")
    pairs = list(combinations(range(len(answers)), 2))
    if len(votes) != len(pairs) or any(vote not in (0, 1, 2) for vote in votes):
        raise BadData(f"'preference' holds {short(votes)}; wanted six numbers, each 0, 1 or 2")
    preferences = tuple(
        Preference(a, b, probability=0.5) if vote == 0 else Preference(a, b) if vote == 1 else Preference(b, a)
        for (a, b), vote in zip(pairs, votes, strict=True)
    )
    passages = [
        " ".join(as_text(part, "passages") for part in as_list(passage, "passages"))
        for passage in as_list(row.get("passages") or [], "passages")
    ]
    return Candidate(user("\n\n".join([*passages, text(row, "question")])), answers, preferences)
