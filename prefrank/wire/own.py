"""Prefrank's own format: raw scores with all their facts, ranks, win probabilities, and what a score is made of.

Its paths begin with /api/, which no other server has: /api/score, /api/rank, /api/compare, /api/best_of_n,
/api/explain, and /api/models, which says what is served. A row that fails alone has null for a score and says why.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Annotated, Any

from prefrank.io.json_schema import Shape, json_schema
from prefrank.io.schema import Stored, Wrong
from prefrank.types import Prompt, Score
from prefrank.wire.dialect import Dialect, Placed, Signs, Told, Unreadable, with_model
from prefrank.wire.given import GivenPrompt, GivenTexts, read_prompt
from prefrank.wire.inputs import Messages
from prefrank.wire.route import About, Answered, Asked, Errors, Failed, Outcome, Page, Question, Refused, Route, sigmoid
from prefrank.wire.sentences import sentences


def _error(refused: Refused, status: int) -> Any:
    return {"error": {"type": refused.kind, "message": refused.message}}


ERRORS = Errors(_error)


def _read_pairs(value: Any) -> tuple[Asked, ...]:
    if not isinstance(value, list):
        raise Wrong(value, "a list of objects with prompt and reply")
    asked = []
    for place, pair in enumerate(value):
        try:
            if not isinstance(pair, dict) or "prompt" not in pair or not isinstance(pair.get("reply"), str):
                raise Wrong(pair, "an object with prompt and reply, a string")
            asked.append(Asked(read_prompt(pair["prompt"]), pair["reply"]))
        except Wrong as wrong:
            raise wrong.inside(f"[{place}]") from None
    return tuple(asked)


_PAIR = {
    "type": "object",
    "required": ["prompt", "reply"],
    "properties": {"prompt": json_schema(GivenPrompt), "reply": {"type": "string"}},
}
_Pairs = Annotated[
    tuple[Asked, ...], Stored(_read_pairs, lambda value: value), Shape({"type": "array", "items": _PAIR})
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """Replies to one prompt; or pairs of a prompt and a reply; or whole texts that a chat template has been through."""

    model: str | None = None
    prompt: GivenPrompt | None = None
    replies: GivenTexts | None = None
    pairs: _Pairs | None = None
    texts: GivenTexts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRequest:
    """Replies to one prompt."""

    prompt: GivenPrompt
    replies: GivenTexts
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRequest:
    """Two replies to one prompt."""

    prompt: GivenPrompt
    first: str
    second: str
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BestRequest:
    """Replies to one prompt, how many of them are wanted, and the raw score that they need at least."""

    prompt: GivenPrompt
    replies: GivenTexts
    top_k: int = 1
    threshold: float | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainRequest:
    """One reply to one prompt."""

    prompt: GivenPrompt
    reply: str
    model: str | None = None


def _score(body: ScoreRequest) -> Question:
    given = [body.replies, body.pairs, body.texts]
    if sum(part is not None for part in given) != 1 or (body.prompt is None) != (body.replies is None):
        raise Refused("invalid", "wanted prompt and replies; or pairs, each with prompt and reply; or texts")
    asked = body.pairs or tuple(Asked((), text) for text in body.texts or ())
    if body.prompt is not None and body.replies is not None:
        asked = _asked(body.prompt, body.replies)
    return Question(
        asked=asked, answer=lambda answered: _head(answered) | _scored(answered), model=body.model, partial=True
    )


def _asked(prompt: Prompt, replies: Sequence[str]) -> tuple[Asked, ...]:
    return tuple(Asked(prompt, reply) for reply in replies)


def _head(answered: Answered) -> dict[str, Any]:
    return {"model": answered.about.name, "fingerprint": answered.about.fingerprint, "scale": "logit"}


def _temperature(about: About) -> dict[str, Any]:
    return {"temperature": about.temperature or 1.0, "calibrated": about.temperature is not None}


def facts_of(outcome: Outcome) -> dict[str, Any]:
    """A score and its facts; null and why for a row without one."""
    if isinstance(outcome, Failed):
        return {"score": None, "error": outcome.reason}
    return {
        "score": outcome.value,
        "tokens": outcome.tokens,
        "cut_prompt": outcome.cut_prompt,
        "cut_reply": outcome.cut_reply,
        "past_trained": outcome.past_trained,
    }


def _scored(answered: Answered) -> dict[str, Any]:
    return {"scores": [{"index": n} | facts_of(outcome) for n, outcome in enumerate(answered.outcomes)]}


def _best_first(outcomes: Sequence[Outcome]) -> list[int]:
    """Places by score, the highest first; those that failed last."""
    keys = [-outcome.value if isinstance(outcome, Score) else math.inf for outcome in outcomes]
    return sorted(range(len(outcomes)), key=keys.__getitem__)


def win_probabilities(values: Sequence[float | None], temperature: float) -> list[list[float | None]]:
    """P(the row's reply is preferred to the column's) by Bradley and Terry; null where one has no score."""
    return [
        [None if first is None or second is None else sigmoid((first - second) / temperature) for second in values]
        for first in values
    ]


def _values(outcomes: Sequence[Outcome]) -> list[float | None]:
    return [outcome.value if isinstance(outcome, Score) else None for outcome in outcomes]


def _rank(body: RankRequest) -> Question:
    return Question(asked=_asked(body.prompt, body.replies), answer=_ranking, model=body.model, partial=True)


def _ranking(answered: Answered) -> dict[str, Any]:
    outcomes, temperature = answered.outcomes, answered.about.temperature or 1.0
    values = _values(outcomes)
    known = [value for value in values if value is not None]
    top = max(known, default=0.0)
    total = sum(math.exp((value - top) / temperature) for value in known)
    ranking: list[dict[str, Any]] = []
    for place, index in enumerate(_best_first(outcomes), start=1):
        value = values[index]
        equal = ranking and ranking[-1]["score"] == value
        rank = None if value is None else ranking[-1]["rank"] if equal else place
        weight = None if value is None else math.exp((value - top) / temperature) / total
        ranking.append({"rank": rank, "index": index, "weight": weight} | facts_of(outcomes[index]))
    table = win_probabilities(values, temperature) if len(values) <= MOST_COMPARED else None
    return _head(answered) | _temperature(answered.about) | {"ranking": ranking, "win_probability": table}


def _compare(body: CompareRequest) -> Question:
    return Question(asked=_asked(body.prompt, (body.first, body.second)), answer=_comparison, model=body.model)


def _comparison(answered: Answered) -> dict[str, Any]:
    first, second = answered.scores
    margin, temperature = first.value - second.value, answered.about.temperature or 1.0
    winner = "tie" if margin == 0 else "first" if margin > 0 else "second"
    verdict = {"winner": winner, "margin": margin, "win_probability": sigmoid(margin / temperature)}
    return _head(answered) | _temperature(answered.about) | verdict | _scored(answered)


def _best(body: BestRequest) -> Question:
    replies = body.replies
    if body.top_k < 1:
        raise Refused("invalid", f"top_k is {body.top_k}; wanted at least 1", place="top_k")

    def answer(answered: Answered) -> dict[str, Any]:
        outcomes = answered.outcomes
        least = -math.inf if body.threshold is None else body.threshold
        passed = [index for index in _best_first(outcomes) if _passes(outcomes[index], least)]
        best = [{"index": n, "reply": replies[n]} | facts_of(outcomes[n]) for n in passed[: body.top_k]]
        failed = [{"index": n} | facts_of(each) for n, each in enumerate(outcomes) if isinstance(each, Failed)]
        return _head(answered) | {"best": best, "failed": failed, "group": _group(answered.scores)}

    return Question(asked=_asked(body.prompt, replies), answer=answer, model=body.model, partial=True)


def _passes(outcome: Outcome, least: float) -> bool:
    return isinstance(outcome, Score) and outcome.value >= least


def _group(scores: Sequence[Score]) -> dict[str, Any]:
    """Of the raw scores; the standard deviation is that of these replies, divided by n."""
    values = [score.value for score in scores]
    if not values:
        return {"n": 0, "mean": None, "std": None, "min": None, "max": None}
    return {"n": len(values), "mean": fmean(values), "std": pstdev(values), "min": min(values), "max": max(values)}


MOST_WITHOUT = 64_000_000
"""Characters of all rows that explain one reply: each is nearly the whole of it."""
MOST_COMPARED = 256
"""Replies of a ranking of which the win probabilities of all pairs are told."""


def _explain(body: ExplainRequest) -> Question:
    parts = sentences(body.reply)
    if len(parts) * len(body.reply) > MOST_WITHOUT:
        raise Refused("too_long", f"a reply of {len(body.reply):,} characters is too long to explain", place="reply")
    without = [body.reply[:start] + body.reply[end:] for start, end in parts]

    def answer(answered: Answered) -> dict[str, Any]:
        whole, *others = answered.outcomes
        listed = []
        for (start, end), other in zip(parts, others, strict=True):
            known = (whole.value, other.value) if isinstance(whole, Score) and isinstance(other, Score) else None
            left = {"score_without": known and known[1], "difference": known and known[0] - known[1]}
            listed.append({"text": body.reply[start:end], "start": start, "end": end} | left)
        return _head(answered) | {"score": facts_of(whole), "parts": listed}

    asked = _asked(body.prompt, (body.reply, *without))
    return Question(asked=asked, answer=answer, model=body.model, partial=True, own_rows=1)


def _models(models: Sequence[About]) -> Any:
    return {"version": models[0].version, "models": [_model(about) for about in models]}


def _model(about: About) -> dict[str, Any]:
    return {
        "name": about.name,
        "fingerprint": about.fingerprint,
        "architecture": about.architecture,
        "parameters": about.parameters,
        "precision": about.precision,
        "kernels": about.kernels,
        "device": about.device,
        "max_length": about.max_length,
        "template": about.template,
        "causal": about.causal,
        "calibration": None if about.temperature is None else {"temperature": about.temperature},
        "default": about.is_default,
    }


def _route(path: str, request: type[Any], ask: Any, summary: str) -> Route[Any]:
    return Route(dialect="prefrank", paths=(path,), request=request, ask=ask, errors=ERRORS, summary=summary)


ROUTES = (
    _route("/api/score", ScoreRequest, _score, "Raw scores with their facts"),
    _route("/api/rank", RankRequest, _rank, "Replies to one prompt, best first, with win probabilities"),
    _route("/api/compare", CompareRequest, _compare, "Which of two replies people would prefer"),
    _route("/api/best_of_n", BestRequest, _best, "The best of several replies, and what the group is like"),
    _route("/api/explain", ExplainRequest, _explain, "How the score changes without each sentence of the reply"),
)
PAGES = (
    Page(
        dialect="prefrank", paths=("/api/models",), write=_models, errors=ERRORS, summary="The models that are served"
    ),
)

# The client's half


def _request(inputs: Sequence[Messages], model: str | None) -> dict[str, Any]:
    pairs = [{"prompt": [turn.message() for turn in each.turns[:-1]], "reply": each.turns[-1].text} for each in inputs]
    return with_model({"pairs": pairs}, model)


def _read(answer: Any) -> Placed:
    return [(row["index"], _told(row)) for row in answer["scores"]]


def _told(row: Any) -> Told:
    names = ("tokens", "cut_prompt", "cut_reply", "past_trained")
    counts = {name: row.get(name, 0) for name in names}
    if any(type(count) is not int or count < 0 for count in counts.values()):
        raise Unreadable(f"counts of tokens that are none: {counts}")
    return Told(row["score"], **counts)


PREFRANK = Dialect(
    name="prefrank",
    paths=("/api/score",),
    takes=Messages,
    holds="pairs",
    write_request=_request,
    read_answer=_read,
    scale="raw",
    root_signs=Signs(pages=("/api/models",), key="models"),
    tells_cuts=True,
)
