"""A server's half without a server: the route that a body is meant for, and its answer from scores that are given."""

import json
from collections.abc import Sequence
from typing import Any

from prefrank.types import Score
from prefrank.wire import ROUTES
from prefrank.wire.route import About, Answered, Question, Refused, Route

ABOUT = About(
    name="m", fingerprint="f" * 64, architecture="A", parameters=3, precision="float32", kernels="torch", device="cpu",
    max_length=512, template="pair", causal=False, temperature=None, label="LABEL_0", version="1", max_rows=8,
    max_waiting_rows=9, max_tokens=10, truncates=True,
)  # fmt: skip


def score(value: float, **facts: int) -> Score:
    return Score(value, tokens=7, cut_prompt=0, cut_reply=0, model="f" * 64, **facts)


def route_of(path: str, body: Any) -> Route[Any]:
    """The one that the server takes."""
    routes = [route for route in ROUTES if path in route.paths]
    return next((route for route in routes if route.meant is not None and route.meant(body)), routes[-1])


def through_json(value: Any) -> Any:
    """What arrives of it."""
    return json.loads(json.dumps(value, allow_nan=False))


def ask(path: str, body: Any) -> Question:
    """What a body asks for."""
    body = through_json(body)
    return route_of(path, body).read(body)


def answered(values: Sequence[float]) -> Answered:
    """By the model "m"."""
    return Answered(outcomes=tuple(map(score, values)), about=ABOUT, id="0" * 32, created=1)


def answer(question: Question, *values: float) -> Any:
    """The reply's body."""
    return through_json(question.answer(answered(values)))


def refusal(path: str, body: Any) -> tuple[str, int, Any]:
    """Of a body that is refused: the dialect, status and body of its error."""
    route = route_of(path, body)
    try:
        question = route.read(body)
    except Refused as refused:
        status = route.errors.status(refused.kind)
        return route.dialect, status, through_json(route.errors.write(refused, status))
    raise AssertionError(f"{body} is not refused: {question}")
