"""Cohere's and Jina's rerank, versions 1 and 2, after their reference pages.

vLLM has the same paths: one answer and one form of errors serve the clients of all three.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from prefrank.errors import short
from prefrank.io.json_schema import Shape
from prefrank.io.schema import Stored, Wrong
from prefrank.types import Score
from prefrank.wire.dialect import Dialect, ranked, with_model
from prefrank.wire.inputs import TwoTexts
from prefrank.wire.openai import activates, error_type
from prefrank.wire.ranking import against, best_first, scaled
from prefrank.wire.route import Answered, Errors, Question, Refused, Route


def rerank_request(inputs: Sequence[TwoTexts], model: str | None) -> dict[str, Any]:
    """The body that asks for the scores of all replies to one prompt."""
    documents = [each.reply for each in inputs]
    return with_model({"query": inputs[0].prompt, "documents": documents, "top_n": len(documents)}, model)


COHERE = Dialect(
    name="cohere",
    paths=("/v2/rerank", "/v1/rerank"),
    takes=TwoTexts,
    holds="replies",
    write_request=rerank_request,
    read_answer=ranked,
    scale="as the server gives them: the protocol has no raw scores, Cohere and Jina give 0 to 1",
)

# The server's half


def _error(refused: Refused, status: int) -> Any:
    """Cohere's clients read `message`, Jina's `detail`, vLLM's `error`."""
    named = {"message": refused.message, "type": error_type(status)}
    error = named | {"param": refused.place or None, "code": status}
    return {"message": refused.message, "detail": refused.message, "error": error}


ERRORS = Errors(_error, dict.fromkeys(("invalid", "empty", "text", "too_long", "too_many", "unsupported"), 400))
"""What got 408, 429, or 500 and above is sent again by Cohere's clients."""

Document = str | Mapping[str, Any]


def _read_documents(value: Any) -> tuple[Document, ...]:
    if not isinstance(value, list):
        raise Wrong(value, "a list of strings, or of objects")
    for place, document in enumerate(value):
        if not isinstance(document, str | dict):
            raise Wrong(document, "a string, or an object with text").inside(f"[{place}]")
    return tuple(value)


GivenDocuments = Annotated[
    tuple[Document, ...],
    Stored(_read_documents, lambda value: value),
    Shape({"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}}),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """A query and the documents to rank.

    What Cohere cuts of a document, `max_chunks_per_doc` and `max_tokens_per_doc`, is passed over: a row is cut where it
    is longer than the model takes.

    Args:
        top_n: null or 0 for all.
        return_documents: unless it is false, they are returned, as vLLM does.
        rank_fields: of documents that are objects: the text of one, or lines of "name: text" of several; null: `text`.
        use_activation: vLLM's: false asks for raw scores.
        activation, softmax: what older versions of vLLM call it.
    """

    query: str
    documents: GivenDocuments
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    rank_fields: tuple[str, ...] | None = None
    use_activation: bool | None = None
    activation: bool | None = None
    softmax: bool | None = None


def _text_of(document: Document, names: Sequence[str], place: int) -> str:
    """What is ranked of a document.

    Raises:
        Refused: it lacks a field, or has no text in it.
    """
    if isinstance(document, str):
        return document
    for name in names:
        if not isinstance(document.get(name), str):
            came = f"is {short(document[name])}; wanted a string" if name in document else "is missing"
            raise Refused("invalid", f"documents[{place}].{name} {came}", place=f"documents[{place}].{name}")
    if len(names) == 1:
        return str(document[names[0]])
    return "\n".join(f"{name}: {document[name]}" for name in names)


def _ask(body: RerankRequest, version: str) -> Question:
    names = body.rank_fields or ("text",)
    texts = [_text_of(document, names, place) for place, document in enumerate(body.documents)]
    raw = not activates(body.use_activation, body.activation, body.softmax)

    def result(scores: Sequence[Score], place: int) -> dict[str, Any]:
        found = {"index": place, "relevance_score": scaled(scores[place], raw=raw)}
        if body.return_documents is False:
            return found
        given = body.documents[place]
        return found | {"document": {"text": texts[place]} | (dict(given) if isinstance(given, Mapping) else {})}

    def answer(answered: Answered) -> Any:
        scores = answered.scores
        return {
            "id": answered.id,
            "model": answered.about.name,
            "results": [result(scores, place) for place in best_first(scores, body.top_n)],
            "meta": {"api_version": {"version": version}, "billed_units": {"search_units": 1}},
            "usage": {"prompt_tokens": answered.tokens, "total_tokens": answered.tokens},
        }

    return Question(asked=against(body.query, texts), answer=answer, model=body.model)


def _route(version: str) -> Route[RerankRequest]:
    return Route(
        dialect="cohere",
        paths=(f"/v{version}/rerank",),
        request=RerankRequest,
        ask=lambda body: _ask(body, version),
        errors=ERRORS,
        summary="Documents by how well they go with a query (Cohere, Jina, vLLM)",
    )


ROUTES = (_route("1"), _route("2"))
