"""Text-embeddings-inference of Hugging Face (router/src/http/types.rs): /predict, /rerank and /info."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from prefrank.io.json_schema import Shape
from prefrank.io.schema import Stored, Wrong
from prefrank.types import Turn
from prefrank.wire.dialect import RAW, Dialect, Placed, Signs, only, ranked
from prefrank.wire.inputs import TwoTexts
from prefrank.wire.ranking import against, best_first, scaled
from prefrank.wire.route import About, Answered, Asked, Errors, Page, Question, Refused, Route

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

_TYPES = {
    "overloaded": "Overloaded",
    "limited": "Overloaded",
    "empty": "Empty",
    "text": "Tokenizer",
    "failed": "Backend",
    "unsupported": "Backend",
    "timeout": "Backend",
    "unavailable": "Unhealthy",
    "unauthorized": "Unauthorized",
}


def _error(refused: Refused, status: int) -> Any:
    """Its own form also where theirs is plain text (no JSON, another form, too many bytes) or empty (no key)."""
    return {"error": refused.message, "error_type": _TYPES.get(refused.kind, "Validation")}


ERRORS = Errors(_error, {"empty": 400, "failed": 424, "unsupported": 424})


@dataclass(frozen=True, slots=True)
class Inputs:
    """What /predict is asked about.

    Args:
        asked: a text alone is a whole one; of two, the second is the reply to the first.
        is_batch: whether the answer is a list for each of them.
    """

    asked: tuple[Asked, ...]
    is_batch: bool


def _read_inputs(value: Any) -> Inputs:
    if isinstance(value, str):
        return Inputs((Asked((), value),), is_batch=False)
    if not isinstance(value, list):
        raise Wrong(value, "a string, a list of one or two strings, or a list of such lists")
    if not any(isinstance(part, list) for part in value):
        return Inputs((_read_texts(value),) if value else (), is_batch=False)
    asked = []
    for place, part in enumerate(value):
        try:
            asked.append(_read_texts(part))
        except Wrong as wrong:
            raise wrong.inside(f"[{place}]") from None
    return Inputs(tuple(asked), is_batch=True)


def _read_texts(value: Any) -> Asked:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Wrong(value, "a list of one or two strings")
    if len(value) not in (1, 2):
        raise Wrong.because(
            f"has {len(value)} strings; wanted one or two, which are a pair; several texts are lists of one string each"
        )
    return Asked((), value[0]) if len(value) == 1 else Asked((Turn("user", value[0]),), value[1])


_TEXT: Mapping[str, Any] = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 2}
GivenInputs = Annotated[
    Inputs,
    Stored(_read_inputs, lambda value: value),
    Shape({"anyOf": [_TEXT, _TEXTS, {"type": "array", "items": _TEXTS, "minItems": 1}]}),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictRequest:
    """A text, a pair, or a list with lists of one or two texts.

    Where texts are cut, they are cut as this server does it, from whichever side is asked for.
    """

    inputs: GivenInputs
    truncate: bool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None
    raw_scores: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """A query and the texts to rank."""

    query: str
    texts: tuple[str, ...]
    truncate: bool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None
    raw_scores: bool | None = None
    return_text: bool | None = None


def _ask_predict(body: PredictRequest) -> Question:
    def answer(answered: Answered) -> Any:
        label, raw = answered.about.label, bool(body.raw_scores)
        each = [[{"score": scaled(score, raw=raw), "label": label}] for score in answered.scores]
        return each if body.inputs.is_batch else each[0]

    return Question(asked=body.inputs.asked, answer=answer, may_cut=body.truncate)


def _ask_rerank(body: RerankRequest) -> Question:
    def answer(answered: Answered) -> Any:
        scores, raw = answered.scores, bool(body.raw_scores)
        ranking = []
        for place in best_first(scores):
            text = {"text": body.texts[place]} if body.return_text else {}
            ranking.append({"index": place} | text | {"score": scaled(scores[place], raw=raw)})
        return ranking

    return Question(asked=against(body.query, body.texts), answer=answer, may_cut=body.truncate)


def _headers(answered: Answered) -> Mapping[str, str]:
    """Theirs; times are whole milliseconds, those of the queue, of tokenizing and of the batch."""
    times = answered.times
    return {
        "x-compute-type": answered.about.device,
        "x-compute-tokens": str(answered.tokens),
        "x-queue-time": f"{1_000 * times.wait_s:.0f}",
        "x-tokenization-time": f"{1_000 * times.tokenize_s:.0f}",
        "x-inference-time": f"{1_000 * times.model_s:.0f}",
    }


def _info(models: Sequence[About]) -> Any:
    about = models[0]
    labels = {"id2label": {"0": about.label}, "label2id": {about.label: 0}}
    return {
        "model_id": about.name,
        "model_sha": about.fingerprint,
        "model_dtype": about.precision,
        "served_model_name": about.name,
        "model_type": {"reranker": labels},
        "max_concurrent_requests": about.max_waiting_rows,
        "max_input_length": about.max_length,
        "max_batch_tokens": about.max_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": about.max_rows,
        "auto_truncate": about.truncates,
        "tokenization_workers": 1,
        "version": about.version,
        "sha": None,
        "docker_label": None,
    }


def _has_texts(body: Any) -> bool:
    return isinstance(body, dict) and "texts" in body


RERANK_ROUTE = Route(
    dialect="tei",
    paths=("/rerank", "/"),  # the latter is theirs for models that rerank
    request=RerankRequest,
    ask=_ask_rerank,
    errors=ERRORS,
    meant=_has_texts,
    summary="Texts by how well they go with a query (text-embeddings-inference)",
    headers=_headers,
)
PREDICT_ROUTE = Route(
    dialect="tei",
    paths=("/predict",),
    request=PredictRequest,
    ask=_ask_predict,
    errors=ERRORS,
    summary="Scores of texts or pairs (text-embeddings-inference)",
    headers=_headers,
)
PAGES = (
    Page(dialect="tei", paths=("/info",), write=_info, errors=ERRORS, summary="What is served, and its limits"),
    Page(
        dialect="tei",
        paths=("/health", "/ping"),
        write=lambda models: None,
        errors=ERRORS,
        summary="Whether requests are answered: an empty body (text-embeddings-inference, vLLM)",
    ),
)
