"""Reads answers into values and checks them against what was asked: a score for each row, of the wanted model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from prefrank.errors import BadModel
from prefrank.io.schema import Wrong, read
from prefrank.scoring.exchange import Answer, shown
from prefrank.serving.client.answers import Scores
from prefrank.wire.dialect import parse

T = TypeVar("T")


def read_answer(kind: type[T], answer: Answer, url: str) -> T:
    """The value that an answer holds.

    Raises:
        BadModel: it holds no such value.
    """
    try:
        return read(kind, parse(answer.content), strict=False)
    except (ValueError, Wrong) as error:
        raise BadModel(
            f"{url} answered {shown(answer.text)}: {error}. Is it the address of `prefrank serve`, of this version?"
        ) from None


def message_of_error(answer: Answer) -> str:
    """The sentence in an error of our own API, or what came in its place."""
    message = _error(answer).get("message")
    return shown(message if isinstance(message, str) else answer.text)


def is_too_much(answer: Answer) -> bool:
    """Whether the server refuses a request for its size, of which a part might pass."""
    return answer.status == 413 or (answer.status == 422 and _error(answer).get("type") == "too_many")


def _error(answer: Answer) -> dict[str, Any]:
    try:
        error = parse(answer.content)["error"]
    except (ValueError, LookupError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}


def check_rows(scores: Scores, rows: int, url: str) -> None:
    """See that there is one score for each row, in order, and a reason where there is none.

    Raises:
        BadModel: there is not.
    """
    places = [row.index for row in scores.scores]
    if places != list(range(rows)):
        raise BadModel(f"{url} was asked for {rows} scores and answered with {len(places)}, or in another order")


def joined(parts: Sequence[Scores], url: str) -> Scores:
    """The scores of several requests as those of one.

    Raises:
        BadModel: they are of more than one model.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.fingerprint != first.fingerprint:
            raise BadModel(
                f"{url} answered with scores of two models, {first.fingerprint[:12]} and {part.fingerprint[:12]}, which"
                " are not on one scale; was the model exchanged, or are the replicas not of one model?"
            )
    rows = [row for part in parts for row in part.scores]
    return replace(first, scores=tuple(replace(row, index=index) for index, row in enumerate(rows)))


def check_fingerprint(answered: str, wanted: str | None, url: str) -> None:
    """See that an answer is of the model that is wanted.

    Raises:
        BadModel: it is of another one.
    """
    if wanted is not None and answered != wanted:
        raise BadModel(
            f"{url} answered with model {answered[:12]}, and {wanted[:12]} is wanted (fingerprint): the model was"
            " exchanged. Scores of the two are not on one scale; serve the first one again, or start anew"
        )
