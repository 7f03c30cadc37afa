"""The server's half of a wire format: what a request asks for, and how its answer and its errors are written.

Pure functions of plain values, as the client's half (`dialect.py`): `serving/app.py` reads bodies and scores rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from prefrank.io.schema import Wrong, read
from prefrank.types import Prompt, Score

Kind = Literal[
    "malformed",
    "media",
    "invalid",
    "empty",
    "text",
    "too_long",
    "too_many",
    "too_large",
    "slow",
    "unauthorized",
    "unknown_model",
    "unknown_path",
    "method",
    "unsupported",
    "overloaded",
    "limited",
    "timeout",
    "unavailable",
    "failed",
]
STATUSES: Mapping[Kind, int] = {
    "malformed": 400,
    "media": 415,
    "invalid": 422,
    "empty": 422,
    "text": 422,
    "too_long": 422,
    "too_many": 422,
    "too_large": 413,
    "slow": 408,
    "unauthorized": 401,
    "unknown_model": 404,
    "unknown_path": 404,
    "method": 405,
    "unsupported": 422,
    "overloaded": 429,
    "limited": 429,
    "timeout": 504,
    "unavailable": 503,
    "failed": 500,
}
"""Of our own paths; a dialect names those in which it differs.

malformed: no JSON. media: another content type. invalid: another form. empty: nothing to score. text: a text that
cannot be encoded. too_long: a row that would have to be cut, where that is not allowed. too_many: rows in one request.
too_large, slow: the body's bytes, and their arrival. method: of HTTP, that a path does not take. unsupported: what this
model is not. overloaded: the queue. limited: the key's own share. timeout: the deadline. unavailable: not ready,
draining or standing still. failed: the model's own fault, such as a score that is not a number.
"""


class Refused(Exception):
    """A request that gets an error in place of scores.

    Args:
        message: what came, what was wanted, what to do.
        place: of the fault in the body, such as `documents[1]`; "" where it has none.
        retry_after_s: when to come again.
    """

    def __init__(self, kind: Kind, message: str, *, place: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.place = place
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Asked:
    """A text to be scored.

    Args:
        prompt: the turns; () where `reply` is the whole, prompt and reply, as a chat template or the tokenizer's pair
            has written it: control strings in it are tokens.
        reply: of the assistant.
    """

    prompt: Prompt
    reply: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Of a row without a score: why, and what that is as an error of the whole request."""

    reason: str
    kind: Kind = "failed"


Outcome = Score | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a server says of one of its models, and of itself.

    Args:
        name: as requests call it.
        parameters: of the network.
        max_length: tokens of a row.
        temperature: that makes win probabilities of differences, where one is stored with the model.
        label: of its one output, as config.json has it.
        max_rows, max_waiting_rows, max_tokens: of a request, of the queue, of a batch.
        truncates: whether rows are cut where a request says nothing.
    """

    name: str
    fingerprint: str
    architecture: str
    parameters: int
    precision: str
    kernels: str
    device: str
    max_length: int
    template: str
    causal: bool
    temperature: float | None
    label: str
    version: str
    max_rows: int
    max_waiting_rows: int
    max_tokens: int
    truncates: bool
    is_default: bool = True


@dataclass(frozen=True, slots=True)
class Times:
    """Where the time of a row went, in seconds; of a request, the longest of its rows' each.

    Args:
        wait_s: in the queue, for its turn to be tokenized and to be scored.
        tokenize_s: of all texts that were tokenized together with it.
        model_s: of the batch that it was in.
    """

    wait_s: float = 0.0
    tokenize_s: float = 0.0
    model_s: float = 0.0


NO_TIME = Times()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came of a question.

    Args:
        outcomes: one for each row asked about, in order.
        id: of the request, 32 hexadecimal digits.
        created: seconds since 1970.
        times: where its time went.
    """

    outcomes: tuple[Outcome, ...]
    about: About
    id: str
    created: int
    times: Times = NO_TIME

    @property
    def scores(self) -> list[Score]:
        """Of all rows. Only a question that is `partial` can have others."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Score)]

    @property
    def tokens(self) -> int:
        """Of all scored rows."""
        return sum(score.tokens for score in self.scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a request asks for.

    Args:
        asked: the rows.
        answer: the reply's body, a JSON value.
        model: that the request names.
        may_cut: whether a row of too many tokens may be cut; None: as the server is set.
        partial: whether the answer takes rows that failed; otherwise one of them is the request's error.
        any_name: whether servers of this dialect pass over the name: where one model is served, any name means it.
        own_rows: how many of the rows, from the first, are what the client has; the others were made from them, and
            say nothing of its texts. None: all.
    """

    asked: tuple[Asked, ...]
    answer: Callable[[Answered], Any]
    model: str | None = None
    may_cut: bool | None = None
    partial: bool = False
    any_name: bool = False
    own_rows: int | None = None


@dataclass(frozen=True, slots=True)
class Errors:
    """How a dialect says that a request is refused.

    Args:
        write: the body for a refusal and its status: a JSON value, or a str for plain text, or None for an empty one.
        statuses: where they differ from `STATUSES`.
    """

    write: Callable[[Refused, int], Any]
    statuses: Mapping[Kind, int] = field(default_factory=dict)

    def status(self, kind: Kind) -> int:
        return self.statuses.get(kind, STATUSES[kind])


Request = TypeVar("Request")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[Request]):
    """A way to ask for scores.

    Args:
        dialect: whose it is, for metrics and logs.
        paths: that take it.
        request: the body's dataclass, whose annotations are its schema; fields that it lacks are passed over.
        ask: what a body asks for; raises `Refused`.
        errors: how it is refused.
        meant: whether a body is of this dialect, where others have the path too; None: the last, which takes the rest.
        summary: one line for the page of the API.
        headers: that an answer has besides our own.
    """

    dialect: str
    paths: tuple[str, ...]
    request: type[Request]
    ask: Callable[[Request], Question]
    errors: Errors
    meant: Callable[[Any], bool] | None = None
    summary: str = ""
    headers: Callable[[Answered], Mapping[str, str]] | None = None

    def read(self, body: Any) -> Question:
        """What a parsed body asks for.

        Raises:
            Refused: it is of another form, or asks for nothing.
        """
        try:
            question = self.ask(read(self.request, body, strict=False))
        except Wrong as wrong:
            message = f"the body {wrong.reason}" if not wrong.place else str(wrong)
            raise Refused("invalid", message, place=wrong.place) from None
        if not question.asked:
            raise Refused("empty", "there is nothing to score in the request; give at least one text")
        return question


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A GET that tells something about the models.

    Args:
        write: its body, of all models, the default one first: a JSON value, or None for an empty body.
    """

    dialect: str
    paths: tuple[str, ...]
    write: Callable[[Sequence[About]], Any]
    errors: Errors
    summary: str = ""


def detailed(statuses: Mapping[Kind, int] | None = None) -> Errors:
    """Errors as FastAPI writes those of applications: under the key `detail`."""
    return Errors(lambda refused, status: {"detail": refused.message}, statuses or {})


def sigmoid(value: float) -> float:
    """Of a raw score, in double precision, without overflow."""
    from math import exp

    return 1 / (1 + exp(-value)) if value >= 0 else exp(value) / (1 + exp(value))
