"""Infinity (infinity_emb/fastapi_schemas), the server's half: /rerank, /classify and /models."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefrank.wire.given import GivenTexts
from prefrank.wire.ranking import against, best_first, scaled
from prefrank.wire.route import About, Answered, Asked, Errors, Page, Question, Refused, Route

ANY_MODEL = "default/not-specified"
"""What its clients send for a model where they mean none."""


def _error(refused: Refused, status: int) -> Any:
    if status == 422:
        place = [int(key) if key.isdigit() else key for key in re.findall(r"[^.\[\]]+", refused.place)]
        return {"detail": [{"loc": ["body", *place], "msg": refused.message, "type": "value_error"}]}
    if status == 401:
        return {"detail": refused.message}
    return {"error": {"message": refused.message, "type": None, "param": refused.place or None, "code": status}}


ERRORS = Errors(_error, {"malformed": 422, "unknown_model": 400, "unsupported": 400})


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """A query and the documents to rank."""

    query: str
    documents: tuple[str, ...]
    return_documents: bool | None = None
    raw_scores: bool | None = None
    model: str | None = None
    top_n: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyRequest:
    """Whole texts."""

    input: GivenTexts
    model: str | None = None
    raw_scores: bool | None = None


def _model(name: str | None) -> str | None:
    return None if name == ANY_MODEL else name


def _frame(answered: Answered, kind: str) -> dict[str, Any]:
    return {
        "object": kind,
        "model": answered.about.name,
        "usage": {"prompt_tokens": answered.tokens, "total_tokens": answered.tokens},
        "id": f"infinity-{answered.id}",
        "created": answered.created,
    }


def _ask_rerank(body: RerankRequest) -> Question:
    def answer(answered: Answered) -> Any:
        scores, raw = answered.scores, bool(body.raw_scores)
        results = []
        for place in best_first(scores, body.top_n):
            document = {"document": body.documents[place]} if body.return_documents else {}
            results.append({"relevance_score": scaled(scores[place], raw=raw), "index": place} | document)
        return _frame(answered, "rerank") | {"results": results}

    return Question(asked=against(body.query, body.documents), answer=answer, model=_model(body.model))


def _ask_classify(body: ClassifyRequest) -> Question:
    def answer(answered: Answered) -> Any:
        label, raw = answered.about.label, bool(body.raw_scores)
        data = [[{"score": scaled(score, raw=raw), "label": label}] for score in answered.scores]
        return _frame(answered, "classify") | {"data": data}

    return Question(asked=tuple(Asked((), text) for text in body.input), answer=answer, model=_model(body.model))


def _models(models: Sequence[About]) -> Any:
    return {"object": "list", "data": [_listed(about) for about in models]}


def _listed(about: About) -> dict[str, Any]:
    # Their `created` is the time of the request, and 0 says as much; of `owned_by` their client knows this one
    return {
        "id": about.name,
        "stats": {},
        "object": "model",
        "owned_by": "infinity",
        "created": 0,
        "backend": "torch",
        "capabilities": ["rerank", "classify"],
    }


def _is_rerank(body: Any) -> bool:
    return isinstance(body, dict) and "documents" in body and ("raw_scores" in body or "return_documents" in body)


def _is_classify(body: Any) -> bool:
    return isinstance(body, dict) and "raw_scores" in body and "text" not in body


ROUTES = (
    Route(
        dialect="infinity",
        paths=("/rerank",),
        request=RerankRequest,
        ask=_ask_rerank,
        errors=ERRORS,
        meant=_is_rerank,
        summary="Documents by how well they go with a query (Infinity)",
    ),
    Route(
        dialect="infinity",
        paths=("/classify",),
        request=ClassifyRequest,
        ask=_ask_classify,
        errors=ERRORS,
        meant=_is_classify,
        summary="Scores of whole texts (Infinity)",
    ),
)
PAGES = (Page(dialect="infinity", paths=("/models",), write=_models, errors=ERRORS, summary="The models (Infinity)"),)
