"""Text-embeddings-inference of Hugging Face (router/src/http/types.rs): /predict and /rerank."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prefrank.types import Turn
from prefrank.wire.dialect import RAW, Dialect, Placed, Signs, only, ranked
from prefrank.wire.inputs import TwoTexts
from prefrank.wire.route import About, Answered, Asked, Errors, Page, Question, Refused, Route, sigmoid

SIGNS = Signs(pages=("/info",), key="model_type")
"""Of the page that names the model and its limits."""


def _predict(inputs: Sequence[TwoTexts], model: str | None) -> dict[str, Any]:
    # A flat list of two strings would be one pair, so a batch is always a list of pairs
    return {"inputs": [[each.prompt, each.reply] for each in inputs], "raw_scores": True, "truncate": True}


def _read_predictions(answer: Any) -> Placed:
    """A list of labels for each pair, or one label where a pair was sent alone."""
    each = [labels if isinstance(labels, list) else [labels] for labels in answer]
    return [(place, only(labels, "labels")["score"]) for place, labels in enumerate(each)]


def _rerank(inputs: Sequence[TwoTexts], model: str | None) -> dict[str, Any]:
    texts = [each.reply for each in inputs]
    return {"query": inputs[0].prompt, "texts": texts, "raw_scores": True, "truncate": True}


PREDICT = Dialect(
    name="tei-predict",
    paths=("/predict",),
    takes=TwoTexts,
    holds="pairs",
    write_request=_predict,
    read_answer=_read_predictions,
    scale=f"{RAW} raw_scores",
    root_signs=SIGNS,
)
RERANK = Dialect(
    name="tei-rerank",
    paths=("/rerank",),
    takes=TwoTexts,
    holds="replies",
    write_request=_rerank,
    read_answer=ranked,
    scale=f"{RAW} raw_scores",
    signs=SIGNS,
)

# The server's half


def _error(refused: Refused, status: int) -> Any:
    return {"error": refused.message, "error_type": _TYPES.get(refused.kind, "Validation")}


_TYPES = {
    "overloaded": "Overloaded",
    "empty": "Empty",
    "text": "Tokenizer",
    "failed": "Backend",
    "unsupported": "Backend",
}
ERRORS = Errors(_error, {"empty": 400, "failed": 424, "unsupported": 424})


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """A query and the texts to rank."""

    query: str
    texts: tuple[str, ...]
    truncate: bool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None
    raw_scores: bool | None = None
    return_text: bool | None = None


def _ask_rerank(body: RerankRequest) -> Question:
    asked = tuple(Asked((Turn("user", body.query),), text) for text in body.texts)

    def answer(answered: Answered) -> Any:
        values = [score.value if body.raw_scores else sigmoid(score.value) for score in answered.scores]
        order = sorted(range(len(values)), key=lambda place: -answered.scores[place].value)
        texts = [{"text": body.texts[place]} if body.return_text else {} for place in range(len(values))]
        return [{"index": place, "score": values[place]} | texts[place] for place in order]

    return Question(asked=asked, answer=answer, may_cut=body.truncate)


def _info(models: Sequence[About]) -> Any:
    about = models[0]
    return {"model_id": about.name, "model_sha": about.fingerprint, "model_type": {"reranker": {}}}


ROUTES = (
    Route(
        dialect="tei",
        paths=("/rerank",),
        request=RerankRequest,
        ask=_ask_rerank,
        errors=ERRORS,
        meant=lambda body: isinstance(body, dict) and "texts" in body,
        summary="Texts by how well they go with a query (text-embeddings-inference)",
    ),
)
PAGES = (Page(dialect="tei", paths=("/info",), write=_info, errors=ERRORS, summary="What is served"),)
