"""What a dialect is, and how its answers are read: functions of plain values. Nothing here opens a connection."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal

from prefrank.errors import short
from prefrank.io.json_files import unique_keys
from prefrank.wire.inputs import Input

Placed = list[tuple[Any, Any]]
"""(place in the request, score), both as the server gave them; a `Told` where it said more than the score."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a server says of a reply: the score, as it gave it, and the facts of `types.Score`, 0 where it says none."""

    value: Any
    tokens: int = 0
    cut_prompt: int = 0
    cut_reply: int = 0
    past_trained: int = 0


@dataclass(frozen=True, slots=True)
class Signs:
    """What identifies a server whose paths other servers have too.

    Args:
        pages: paths to look at, in this order.
        key: that the object on one of these pages has.
    """

    pages: tuple[str, ...]
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect(Generic[Input]):
    """A wire format: the client's half.

    Args:
        name: in the table, in options and in records.
        paths: endings of a URL that mean it; the first is asked where a URL has no path.
        takes: what a prompt and a reply become.
        holds: what a request may hold: any pairs, replies to one prompt, or a single reply.
        write_request: the body, of what the server takes and the model to ask for.
        read_answer: the scores in an answer, which is any parsed JSON; raises LookupError, TypeError or the like for
            one of another form, or `Unreadable` to say more.
        scale: which scores are asked for, for the record.
        signs: what identifies the server where another dialect has the same path; without them that one is meant.
        root_signs: those that identify the server where a URL has no path.
        adds_bos: whether the server puts the tokenizer's beginning before a text itself.
        tells_cuts: whether it says what it cut.
    """

    name: str
    paths: tuple[str, ...]
    takes: type[Input]
    holds: Literal["pairs", "replies", "reply"]
    write_request: Callable[[Sequence[Input], str | None], dict[str, Any]]
    read_answer: Callable[[Any], Placed]
    scale: str
    signs: Signs | None = None
    root_signs: Signs | None = None
    adds_bos: bool = False
    tells_cuts: bool = False


RAW = "raw, as asked for by"
AS_GIVEN = "as the server gives them: the protocol has no other"
"""What `scale` says of most dialects."""


class Unreadable(ValueError):
    """An answer that the dialect does not allow; says what came."""


def with_model(body: dict[str, Any], model: str | None) -> dict[str, Any]:
    """The body of a request with the model's name, where there is one."""
    return body if model is None else {"model": model} | body


def only(values: Any, what: str) -> Any:
    """The one value for a text.

    Raises:
        Unreadable: none or several, as of a model with several outputs.
    """
    if len(values) != 1:
        raise Unreadable(f"{len(values)} {what} for one text; wanted one, of a model with one output")
    return values[0]


def ranked(answer: Any) -> Placed:
    """The scores of a list of results, best first: the answer itself, or `results` of an object."""
    results = answer["results"] if isinstance(answer, dict) else answer
    return [
        (result["index"], result["relevance_score"] if "relevance_score" in result else result["score"])
        for result in results
    ]


def scores_of(dialect: Dialect[Any], content: bytes, replies: Sequence[str]) -> list[Told]:
    """The scores in an answer, one for each reply that was asked about, as numbers; NaN for null.

    Raises:
        Unreadable: no JSON, no answer of the dialect, or not one score for each reply.
    """
    try:
        placed = dialect.read_answer(parse(content))
        return _in_order(placed, replies)
    except Unreadable:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise Unreadable(f"it is not an answer of {dialect.name}") from error


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys(ValueError))


def parse(content: bytes) -> Any:
    """The value of a JSON text. NaN and Infinity are read: many servers write them for a failure.

    Raises:
        ValueError: no JSON, a key twice in one object, nested too deeply, or a number with too many digits.
    """
    try:
        return _DECODER.decode(content.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _in_order(placed: Placed, replies: Sequence[str]) -> list[Told]:
    """Scores by place, each there once: two for one reply are two answers, of which none is known to be right."""
    values: dict[int, Told] = {}
    for place, value in placed:
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(replies):
            raise Unreadable(f"a score for text {short(place)} of {len(replies)}")
        if place in values:
            raise Unreadable(f"two scores for text {place}")
        told = value if isinstance(value, Told) else Told(value)
        values[place] = replace(told, value=_number(told.value))
    if missing := [place for place in range(len(replies)) if place not in values]:
        first = missing[0]
        raise Unreadable(
            f"no score for {len(missing)} of {len(replies)} texts, the first is text {first} ({replies[first][:60]!r})"
        )
    return [values[place] for place in range(len(replies))]


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable(f"{short(value)} for a score")
    return float(value)
