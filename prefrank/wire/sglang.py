"""SGLang (srt/entrypoints/http_server.py): its own /classify, /v1/embeddings as rewards, and /v1/score of classifiers.

Scores are raw. Servers of this kind pass over the name of the model. AReaL takes any answer that has the key `error`
for rewards of 0, whatever its status, so errors are SGLang's flat ones, at which it stops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from prefrank.io.json_schema import Shape
from prefrank.io.schema import Stored
from prefrank.types import Score
from prefrank.wire import policy
from prefrank.wire.dialect import Dialect, Placed, Signs, only, with_model
from prefrank.wire.given import GivenTexts, read_texts
from prefrank.wire.inputs import OneText
from prefrank.wire.openai import STATUSES, Encoding, GivenInput, error_type, usage, written
from prefrank.wire.route import About, Answered, Asked, Errors, Page, Question, Refused, Route


def _request(inputs: Sequence[OneText], model: str | None) -> dict[str, Any]:
    """Always a list, also of one text."""
    return with_model({"text": [each.text for each in inputs]}, model)


def _read(answer: Any) -> Placed:
    each = answer if isinstance(answer, list) else [answer]
    return [(place, only(result["embedding"], "numbers")) for place, result in enumerate(each)]


CLASSIFY = Dialect(
    name="sglang-classify",
    paths=("/classify",),  # its /v1/classify speaks as vLLM's
    takes=OneText,
    holds="pairs",
    write_request=_request,
    read_answer=_read,
    scale="raw: the output of the model's head",
    signs=Signs(pages=("/get_model_info", "/model_info"), key="model_path"),  # the former name and the present one
    adds_bos=True,
)

# The server's half


def _error(refused: Refused, status: int) -> Any:
    named = {"object": "error", "message": refused.message, "type": error_type(status)}
    return named | {"param": refused.place or None, "code": status}


ERRORS = Errors(_error, STATUSES)


def _read_texts(value: Any) -> tuple[tuple[str, ...], bool]:
    return read_texts(value), isinstance(value, str)


_Texts = Annotated[
    tuple[tuple[str, ...], bool],
    Stored(_read_texts, lambda value: value),
    Shape({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One or several, and whether it is one alone, whose answer is no list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyRequest:
    """Whole texts that a chat template has been through."""

    text: _Texts | None = None
    input_ids: Any = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Whole texts that a chat template has been through."""

    input: GivenInput
    model: str | None = None
    encoding_format: Encoding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """A prompt and replies to it; the prompt may be the text that a policy was given, in its chat markup."""

    query: str | None = None
    items: GivenTexts | None = None
    model: str | None = None
    label_token_ids: Any = None
    apply_softmax: bool | None = None
    item_first: bool | None = None


def _classify(body: ClassifyRequest) -> Question:
    if body.text is None or body.input_ids is not None:
        raise Refused(
            "invalid",
            "wanted text, a string or a list of strings, or input or messages as for vLLM; and no input_ids, as the"
            " model reads with its own tokenizer",
            place="text" if body.input_ids is None else "input_ids",
        )
    texts, is_alone = body.text

    def answer(answered: Answered) -> Any:
        results = [_result(score, f"{answered.id}-{n}") for n, score in enumerate(answered.scores)]
        return results[0] if is_alone else results

    return Question(asked=_whole(texts), answer=answer, model=body.model, any_name=True)


def _whole(texts: Sequence[str]) -> tuple[Asked, ...]:
    return tuple(Asked((), text) for text in texts)


def _result(score: Score, name: str) -> dict[str, Any]:
    cut = score.cut_prompt + score.cut_reply
    return {"embedding": [score.value], "meta_info": {"id": name, "prompt_tokens": score.tokens, "cut_tokens": cut}}


def _embed(body: EmbeddingRequest) -> Question:
    def answer(answered: Answered) -> Any:
        values = [written(score.value, body.encoding_format) for score in answered.scores]
        rows = [{"object": "embedding", "index": n, "embedding": value} for n, value in enumerate(values)]
        return {"object": "list", "data": rows, "model": answered.about.name, "usage": usage(answered)}

    return Question(asked=_whole(body.input), answer=answer, model=body.model, any_name=True)


def _score(body: ScoreRequest) -> Question:
    if body.label_token_ids is not None:
        raise Refused(
            "unsupported",
            "label_token_ids are for models that generate text; this one gives one score, so leave them out",
            place="label_token_ids",
        )
    if body.query is None or body.items is None:
        raise Refused("invalid", "wanted query, a string, and items, a list of strings")
    if body.apply_softmax:
        raise Refused(
            "unsupported", "apply_softmax would make 1 of every score of its own; leave it out", place="apply_softmax"
        )
    pairs = [(item, body.query) if body.item_first else (body.query, item) for item in body.items]

    def answer(answered: Answered) -> Any:
        scores = [[score.value] for score in answered.scores]
        return {"scores": scores, "model": answered.about.name, "usage": usage(answered), "object": "scoring"}

    asked = tuple(policy.reply_to(*pair) for pair in pairs)
    return Question(asked=asked, answer=answer, model=body.model, any_name=True)


def _info(models: Sequence[About]) -> Any:
    about = models[0]
    facts = {"model_path": about.name, "tokenizer_path": about.name, "is_generation": False}
    return facts | {"model_type": about.architecture, "weight_version": about.fingerprint}


def _route(path: str, request: type[Any], ask: Any, keys: tuple[str, ...], summary: str) -> Route[Any]:
    """Args:
    keys: of which a body has one, if it is meant for SGLang.
    """
    return Route(
        dialect="sglang",
        paths=(path,),
        request=request,
        ask=ask,
        errors=ERRORS,
        meant=lambda body: isinstance(body, dict) and any(key in body for key in keys),
        summary=summary,
    )


ROUTES = (
    _route("/classify", ClassifyRequest, _classify, ("text", "input_ids"), "Raw scores of whole texts (SGLang, AReaL)"),
    _route("/v1/embeddings", EmbeddingRequest, _embed, ("input",), "Raw scores of whole texts (SGLang, verl)"),
    _route("/v1/score", ScoreRequest, _score, ("query", "label_token_ids"), "Raw scores of replies (SGLang)"),
)
PAGES = (
    Page(
        dialect="sglang",
        paths=("/model_info", "/get_model_info"),
        write=_info,
        errors=ERRORS,
        summary="What is served (SGLang)",
    ),
)
