"""One row, one comparison: WebGPT, SHP, HellaSwag, the Open Assistant private format, ranked lists.

Surprising in them: a WebGPT score counts by its sign alone and 0 is a tie; an SHP preference is valid only if the
preferred comment was not the earlier one; the private format orders the best reply against each other one and those
not among themselves.
"""

import re
from itertools import chain

from prefrank.data.candidates import Candidate, Drop, best_against_rest, from_ranks
from prefrank.data.fields import (
    Row,
    as_list,
    as_text,
    as_texts,
    field,
    index_of,
    maybe_text,
    number,
    text,
    user,
)
from prefrank.errors import BadData
from prefrank.types import Prompt, Turn

NO_LABEL = "no label"
EQUAL_SCORES = "equal scores"
LABEL_AGAINST_SCORES = "label against the scores"
EARLIER_WON = "the preferred comment was written earlier"

_MARKERS = r"(?:[ \t]*\[\s*\d{1,2}(?:\s*,\s*\d{1,2})*\s*\])+"
_MARKER = re.compile(rf"^{_MARKERS}[ \t]*|{_MARKERS}", re.MULTILINE)


def without_markers(answer: str) -> str:
    """An answer without its reference markers `[1]`, `[1, 2]`, `[ 1 ]` and the space before them.

    The quotes they point to are not shown to a reward model, so their number must not be a clue. A year in brackets
    is no marker: markers have one or two digits.

    >>> without_markers("Cats purr [1][2]. [ 3 ] They also hiss[1, 12].")
    'Cats purr. They also hiss.'
    """
    return _MARKER.sub("", answer)


def webgpt(row: Row) -> Candidate:
    """openai/webgpt_comparisons. "An answer is preferred if and only if its score is positive"; 0 is a tie (card)."""
    lead = number(row, "score_0") - number(row, "score_1")
    answers = (without_markers(text(row, "answer_0")), without_markers(text(row, "answer_1")))
    return Candidate(user(text(row, "question.full_text")), answers, from_ranks([-lead, lead]))


def shp(row: Row) -> Candidate | Drop:
    """stanfordnlp/SHP: `labels` 1 prefers A; a higher score means something only for the later comment (card)."""
    a_wins = index_of(field(row, "labels"), "labels", 2) == 1
    winner, loser = ("A", "B") if a_wins else ("B", "A")
    lead = number(row, f"score_{winner}") - number(row, f"score_{loser}")
    if lead == 0:
        return Drop(EQUAL_SCORES)
    if lead < 0:
        return Drop(LABEL_AGAINST_SCORES)
    if number(row, f"created_at_utc_{winner}") < number(row, f"created_at_utc_{loser}"):
        return Drop(EARLIER_WON)
    replies = (text(row, f"human_ref_{winner}"), text(row, f"human_ref_{loser}"))
    return Candidate(user(text(row, "history")), replies, best_against_rest(2))


def hellaswag(row: Row) -> Candidate | Drop:
    """Rowan/hellaswag and its copies: the gold ending against all three distractors; `label` is an int or a string."""
    endings = as_texts(field(row, "endings"), "endings")
    if field(row, "label") == "":
        return Drop(NO_LABEL)
    gold = index_of(field(row, "label"), "label", len(endings))
    return Candidate(user(text(row, "ctx")), endings, best_against_rest(len(endings), gold))


def oa_private(row: Row) -> Candidate:
    """Open Assistant's rm_*.jsonl: prompt, history [[prompter, assistant], ...], pos, neg_replies."""
    replies = (text(row, "pos"), *as_texts(field(row, "neg_replies"), "neg_replies"))
    return Candidate(_conversation(row, text(row, "prompt")), replies, best_against_rest(len(replies)))


def ranked_list(row: Row) -> Candidate:
    """instruction, input, output [best, ..., worst], history [[question, answer], ...]."""
    question = "\n\n".join(
        part for part in (text(row, "instruction").strip(), maybe_text(row, "input").strip()) if part
    )
    replies = as_texts(field(row, "output"), "output")
    return Candidate(_conversation(row, question), replies, from_ranks(range(len(replies))))


def _conversation(row: Row, question: str) -> Prompt:
    """The turns of `history`, then the question."""
    history = as_list(row.get("history") or [], "history")
    earlier = chain.from_iterable(_exchange(pair, f"history[{i}]") for i, pair in enumerate(history))
    return (*earlier, Turn("user", question))


def _exchange(pair: object, name: str) -> tuple[Turn, Turn]:
    texts = as_list(pair, name)
    if len(texts) != 2:
        raise BadData(f"{name!r} holds {len(texts)} texts; wanted [question, answer]")
    return Turn("user", as_text(texts[0], name)), Turn("assistant", as_text(texts[1], name))
