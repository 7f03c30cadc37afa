"""Sets of an instruction and two or more judged replies, each under the column names it was published with.

LLaMA-Factory's question is `instruction`, a line end, `input`.
"""

from collections.abc import Callable
from typing import Any

from prefrank.data.candidates import Candidate, Drop, best_against_rest
from prefrank.data.conversations import instructed, pair
from prefrank.data.fields import FileRow, as_list, as_rows, field, index_of, maybe_number, text, user
from prefrank.data.own import own, unread
from prefrank.data.pairs import NO_LABEL, asked
from prefrank.errors import BadData, short
from prefrank.io.columns import with_values
from prefrank.types import MAIN_HEAD, Preference, Prompt

SAFETY = "safety"


def pair_of(question: str, chosen: str = "chosen", rejected: str = "rejected") -> Callable[[FileRow], Candidate | Drop]:
    """A reader of pairs whose question stands in the column of that name, after its `history`.

    distilabel's `status` may say that a pair is a tie.

    Args:
        question: the column's name; `input` follows an `instruction`.
        chosen: the better reply's column: a text, or messages that end in it.
        rejected: the worse one's.
    """

    def read(row: FileRow) -> Candidate | Drop:
        if reason := unread(row):
            return reason
        with_input = question == "instruction"
        better, worse = field(row, chosen), field(row, rejected)
        prompt = instructed(row) if with_input else asked(row, text(row, question))
        tie = {"probability": 0.5} if row.get("status") == "tie" else {}
        return pair(with_values(row, tie) if tie else row, prompt, better, worse)

    return read


def stack_exchange(row: FileRow) -> Candidate:
    """lvwerra/stack-exchange-paired: `response_j` had more votes than `response_k`."""
    replies = (text(row, "response_j"), text(row, "response_k"))
    return Candidate(user(text(row, "question")), replies, best_against_rest(2))


def two_outputs(row: FileRow) -> Candidate | Drop:
    """NCSOFT/offsetbias (`label`) and AlpacaFarm (`preference`): the number, 1 or 2, of the better output."""
    name = "label" if "label" in row else "preference"
    better = maybe_number(field(row, name), name)
    if better is None:
        return Drop(NO_LABEL)
    if better not in (1, 2):
        raise BadData(f"{name!r} holds {short(row[name])}; wanted 1 or 2, the better output's number")
    replies = (text(row, "output_1"), text(row, "output_2"))
    return Candidate(instructed(row), replies, best_against_rest(2, int(better) - 1))


def safe_rlhf(row: FileRow) -> Candidate | Drop:
    """PKU-Alignment/PKU-SafeRLHF: which response is better (the main head) and which is safer (head `safety`)."""
    heads = {"better_response_id": MAIN_HEAD, "safer_response_id": SAFETY}
    best = {name: index_of(row[name], name, 2) for name in heads if row.get(name) is not None}
    if not best:
        return Drop(NO_LABEL)
    preferences = tuple(Preference(best_reply, 1 - best_reply, head=heads[name]) for name, best_reply in best.items())
    return Candidate(user(text(row, "prompt")), (text(row, "response_0"), text(row, "response_1")), preferences)


def code_ultrafeedback(row: FileRow) -> Candidate | Drop:
    """coseal/CodeUltraFeedback: responses of four models and a model's rating of each, 1 to 5, on one `preference`,
    such as readability. The two lists are in different orders, so a rating is found by its model's name."""
    responses, annotations = as_rows(row, "responses"), as_rows(row, "annotations")
    ratings = (maybe_number(annotation.get("rating"), "annotations.rating") for annotation in annotations)
    rated = dict(zip((text(annotation, "model") for annotation in annotations), ratings, strict=True))
    return _rated(
        user(text(row, "instruction")),
        [text(response, "response") for response in responses],
        [rated.get(text(response, "model")) for response in responses],
    )


def generations(row: FileRow) -> Candidate | Drop:
    """distilabel's ratings of several generations: `instruction` and `ratings`, in older versions `input`, `rating`."""
    ratings = field(row, "ratings" if "ratings" in row else "rating")
    if ratings is None:
        return Drop(NO_LABEL)
    replies = ["" if reply is None else reply for reply in as_list(field(row, "generations"), "generations")]
    prompt = instructed(row) if "instruction" in row else asked(row, text(row, "input"))
    return _rated(prompt, replies, ratings)


def _rated(prompt: Prompt, replies: list[Any], ratings: object) -> Candidate | Drop:
    return own({"prompt": [turn.message() for turn in prompt], "replies": replies, "ratings": ratings})
