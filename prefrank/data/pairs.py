"""One row, one comparison: WebGPT, SHP, HellaSwag, the Open Assistant private format, ranked lists.

What to know about them: a WebGPT score counts by its sign alone and 0 is a tie; an SHP preference is valid only if the
preferred comment was not the earlier one; the private format orders the best reply against each other one and those
not among themselves.
"""

import re
from collections.abc import Mapping
from itertools import chain

from prefrank.data.candidates import LABEL_AGAINST_SCORES, Candidate, Drop, best_against_rest, from_ranks
from prefrank.data.fields import (
    FileRow,
    as_list,
    as_text,
    as_texts,
    as_turns,
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
EARLIER_WON = "the preferred comment was written earlier"

_ONE = r"\[\s*[1-9]\d?(?:\s*,\s*[1-9]\d?)*\s*\]"
_MARKERS = re.compile(
    r"(?P<code>```.*?(?:```|\Z)|`[^`\n]*`|^(?: {4}|\t)[^\n]*)"
    rf"|(?P<space>[ \t]*){_ONE}(?:[ \t]*{_ONE})*(?P<rest>[ \t]*)",
    re.MULTILINE | re.DOTALL,
)
_PLAIN_WORD = re.compile(r"(?:^|[\s(\u201c])[^\W\d_]{3,}\Z")
_ENDS_SENTENCE = re.compile(r"[.!?](?:\s|\Z)")


def without_markers(answer: str) -> str:
    """An answer without its reference markers `[1]`, `[1, 2]`, `[ 1 ]` and the space before them.

    The quotes they point to are not shown to a reward model, so their number must not be a clue. Markers have one or
    two digits and count from 1: a year in brackets is none. Nor is what is code: text between backticks or indented by
    four, a list after an operator or a bracket, and an index, which stands right after a name. A marker may stand right
    after punctuation, or after a plain word that ends a sentence.

    >>> without_markers("Cats purr [1][2]. [ 3 ] They also hiss[1, 12].")
    'Cats purr. They also hiss.'
    >>> without_markers("Take x[0], or args[1] [2].")
    'Take x[0], or args[1].'
    """
    return _MARKERS.sub(_unmarked, answer)


def _unmarked(match: re.Match[str]) -> str:
    """What stays of code (all) or of markers (the space after them, but at the beginning of a line)."""
    if match["code"] is not None:
        return match[0]
    before, after = match.string[: match.start()], match.string[match.end() :]
    if before == "" or before.endswith("\n"):
        return ""
    last = before.rstrip()[-1:]
    attached = not match["space"] and not before[-1].isspace()
    if last in "=([{<>+*/|&%" or (
        attached
        and last not in ".,;:!?\u201d\u2019"
        and not (_PLAIN_WORD.search(before[-80:]) and _ENDS_SENTENCE.match(match["rest"] + after[:2]))
    ):
        return match[0]
    return match["rest"] or (match["space"] if after[:1].isalnum() else "")


def webgpt(row: FileRow) -> Candidate:
    """openai/webgpt_comparisons. "An answer is preferred if and only if its score is positive"; 0 is a tie (card)."""
    difference = number(row, "score_0") - number(row, "score_1")
    answers = (without_markers(text(row, "answer_0")), without_markers(text(row, "answer_1")))
    return Candidate(user(text(row, "question.full_text")), answers, from_ranks([-difference, difference]))


def shp(row: FileRow) -> Candidate | Drop:
    """stanfordnlp/SHP: `labels` 1 prefers A; a higher score means something only for the later comment (card)."""
    a_wins = index_of(field(row, "labels"), "labels", 2) == 1
    winner, loser = ("A", "B") if a_wins else ("B", "A")
    difference = number(row, f"score_{winner}") - number(row, f"score_{loser}")
    if difference == 0:
        return Drop(EQUAL_SCORES)
    if difference < 0:
        return Drop(LABEL_AGAINST_SCORES)
    if number(row, f"created_at_utc_{winner}") < number(row, f"created_at_utc_{loser}"):
        return Drop(EARLIER_WON)
    replies = (text(row, f"human_ref_{winner}"), text(row, f"human_ref_{loser}"))
    return Candidate(user(text(row, "history")), replies, best_against_rest(2))


def hellaswag(row: FileRow) -> Candidate | Drop:
    """Rowan/hellaswag and its copies: the gold ending against all three distractors; `label` is an int or a string."""
    endings = as_texts(field(row, "endings"), "endings")
    if field(row, "label") == "":
        return Drop(NO_LABEL)
    gold = index_of(field(row, "label"), "label", len(endings))
    return Candidate(user(text(row, "ctx")), endings, best_against_rest(len(endings), gold))


def oa_private(row: FileRow) -> Candidate:
    """Open Assistant's rm_*.jsonl: prompt, history [[prompter, assistant], ...], pos, neg_replies."""
    replies = (text(row, "pos"), *as_texts(field(row, "neg_replies"), "neg_replies"))
    return Candidate(asked(row, text(row, "prompt")), replies, best_against_rest(len(replies)))


def ranked_list(row: FileRow) -> Candidate:
    """instruction, input, output [best, ..., worst], history [[question, answer], ...]."""
    question = "\n\n".join(
        part for part in (text(row, "instruction").strip(), maybe_text(row, "input").strip()) if part
    )
    replies = as_texts(field(row, "output"), "output")
    return Candidate(asked(row, question), replies, from_ranks(range(len(replies))))


def asked(row: FileRow, question: str) -> Prompt:
    """The turns of `history`, then the question."""
    return (*earlier_turns(row), Turn("user", question))


def earlier_turns(row: FileRow) -> Prompt:
    """The turns of `history`: exchanges [question, answer], or messages."""
    history = as_list(row.get("history") or [], "history")
    if all(isinstance(turn, Mapping) for turn in history):
        return as_turns(history, "history")
    return tuple(chain.from_iterable(_exchange(pair, f"history[{i}]") for i, pair in enumerate(history)))


def _exchange(pair: object, name: str) -> tuple[Turn, Turn]:
    texts = as_list(pair, name)
    if len(texts) != 2:
        raise BadData(f"{name!r} holds {len(texts)} texts; wanted [question, answer]")
    return Turn("user", as_text(texts[0], name)), Turn("assistant", as_text(texts[1], name))
