"""vLLM (entrypoints/pooling): /score, /classify, /pooling and /rerank.

Scores are squashed unless a request says otherwise, by `use_activation` or by one of the names it had before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from prefrank.errors import short
from prefrank.io.json_schema import Shape
from prefrank.io.schema import Stored, Wrong
from prefrank.types import Turn
from prefrank.wire.dialect import RAW, Dialect, Placed, only, with_model
from prefrank.wire.given import GivenMessages, GivenTexts
from prefrank.wire.inputs import Messages, TwoTexts
from prefrank.wire.openai import (
    STATUSES,
    Encoding,
    GivenInput,
    activates,
    error_type,
    head,
    texts_or_messages,
    usage,
    written,
)
from prefrank.wire.ranking import against, best_first, scaled
from prefrank.wire.route import About, Answered, Asked, Errors, Page, Question, Refused, Route

_RAW_FLAGS = {"use_activation": False, "activation": False}
"""The present name and the one before; a version that knows neither squashes scores without a word."""


def _pairs(inputs: Sequence[TwoTexts], model: str | None) -> dict[str, Any]:
    texts = {"text_1": [each.prompt for each in inputs], "text_2": [each.reply for each in inputs]}
    return with_model(texts | {"truncate_prompt_tokens": -1} | _RAW_FLAGS, model)


def _read_scores(answer: Any) -> Placed:
    return [(row["index"], row["score"]) for row in answer["data"]]


def _messages(inputs: Sequence[Messages], model: str | None) -> dict[str, Any]:
    messages = [turn.message() for turn in inputs[0].turns]
    body = {"messages": messages, "add_generation_prompt": False, "truncate_prompt_tokens": -1}
    return with_model(body | _RAW_FLAGS, model)


def _read_classes(answer: Any) -> Placed:
    return [(row["index"], only(row["probs"], "classes")) for row in answer["data"]]


def _read_pooled(answer: Any) -> Placed:
    return [(row["index"], only(row["data"], "numbers")) for row in answer["data"]]


SCORE = Dialect(
    name="vllm-score",
    paths=("/score", "/v1/score"),
    takes=TwoTexts,
    holds="pairs",
    write_request=_pairs,
    read_answer=_read_scores,
    scale=f"{RAW} use_activation",
)
CLASSIFY = Dialect(
    name="vllm-classify",
    paths=("/classify", "/v1/classify"),
    takes=Messages,
    holds="reply",
    write_request=_messages,
    read_answer=_read_classes,
    scale=f"{RAW} use_activation",
)
POOLING = Dialect(
    name="vllm-pooling",
    paths=("/pooling",),
    takes=Messages,
    holds="reply",
    write_request=_messages,
    read_answer=_read_pooled,
    scale=f"{RAW} use_activation",
)

# The server's half


def _error(refused: Refused, status: int) -> Any:
    if refused.kind == "unauthorized":
        return {"error": f"Unauthorized: {refused.message}"}  # a string, as vLLM has it
    named = {"message": refused.message, "type": error_type(status), "param": refused.place or None, "code": status}
    return {"error": named}


ERRORS = Errors(_error, STATUSES)


def _read_cut(value: Any) -> int:
    if type(value) is not int or value < -1:
        raise Wrong(value, "-1 for the longest that the model takes, or a whole number from 0")
    return value


def _same(value: Any) -> Any:
    return value


GivenCut = Annotated[int, Stored(_read_cut, _same), Shape({"type": "integer", "minimum": -1})]
"""How many tokens a text may be cut to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest:
    """Whole texts that a chat template has been through, or the messages of one conversation, which ends in the reply.

    A text of too many tokens is cut as the server is set; with `truncate_prompt_tokens` it always is. `task` and
    `encoding_format` are those of /pooling; the only task is one score for a whole text.
    """

    model: str | None = None
    input: GivenInput | None = None
    messages: GivenMessages | None = None
    task: str | None = None
    encoding_format: Encoding | None = None
    use_activation: bool | None = None
    activation: bool | None = None
    softmax: bool | None = None
    truncate_prompt_tokens: GivenCut | None = None
    chat_template: str | None = None
    chat_template_kwargs: Any = None
    add_generation_prompt: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """Prompts and replies under one of four pairs of names: one prompt and its replies, or as many of each."""

    model: str | None = None
    queries: GivenTexts | None = None
    documents: GivenTexts | None = None
    items: GivenTexts | None = None
    text_1: GivenTexts | None = None
    text_2: GivenTexts | None = None
    data_1: GivenTexts | None = None
    data_2: GivenTexts | None = None
    use_activation: bool | None = None
    activation: bool | None = None
    softmax: bool | None = None
    truncate_prompt_tokens: GivenCut | None = None
    instruction: str | None = None
    max_tokens_per_query: int | None = None
    max_tokens_per_doc: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """A prompt and the replies to rank; `top_n` 0 means all."""

    query: str
    documents: GivenTexts
    model: str | None = None
    top_n: int | None = None
    use_activation: bool | None = None
    activation: bool | None = None
    softmax: bool | None = None
    truncate_prompt_tokens: GivenCut | None = None
    instruction: str | None = None
    max_tokens_per_query: int | None = None
    max_tokens_per_doc: int | None = None


_Any = TextRequest | ScoreRequest | RerankRequest


def _values(body: _Any, answered: Answered) -> list[float]:
    """The scores, squashed unless the request says not to."""
    raw = not activates(body.use_activation, body.activation, body.softmax)
    return [scaled(score, raw=raw) for score in answered.scores]


def _may_cut(body: _Any) -> bool | None:
    return None if body.truncate_prompt_tokens is None else True


def _refuse(given: Mapping[str, Any], why: str) -> None:
    """Raises Refused for the first of these settings that is given: it would change the texts that are scored."""
    for name, value in given.items():
        if value:
            raise Refused("unsupported", f"{name} is {short(value)}; {why}, so leave it out", place=name)


def _asked(body: TextRequest) -> tuple[Asked, ...]:
    _refuse({"add_generation_prompt": body.add_generation_prompt}, "what is scored is a reply that is there")
    templates = {"chat_template": body.chat_template, "chat_template_kwargs": body.chat_template_kwargs}
    _refuse(templates, "messages are read as in the model's training")
    return texts_or_messages(body.input, body.messages)


def _refuse_rewriting(body: ScoreRequest | RerankRequest) -> None:
    given = {"max_tokens_per_query": body.max_tokens_per_query, "max_tokens_per_doc": body.max_tokens_per_doc}
    _refuse({"instruction": body.instruction} | given, "prompt and reply are scored as they stand")


def _classify(body: TextRequest) -> Question:
    def answer(answered: Answered) -> Any:
        label = answered.about.label
        rows = [
            {"index": n, "label": label, "probs": [value], "num_classes": 1}
            for n, value in enumerate(_values(body, answered))
        ]
        return head("classify", answered) | {"data": rows, "usage": usage(answered)}

    return Question(asked=_asked(body), answer=answer, model=body.model, may_cut=_may_cut(body))


def _pool(body: TextRequest) -> Question:
    if body.task not in (None, "classify", "score", "reward"):
        raise Refused(
            "unsupported",
            f"the task is {short(body.task)}; this model gives one score for a text, the task classify",
            place="task",
        )

    def answer(answered: Answered) -> Any:
        values = [written(value, body.encoding_format) for value in _values(body, answered)]
        rows = [{"index": n, "object": "pooling", "data": value} for n, value in enumerate(values)]
        return head("pool", answered) | {"data": rows, "usage": usage(answered)}

    return Question(asked=_asked(body), answer=answer, model=body.model, may_cut=_may_cut(body))


_PAIRS_OF_NAMES = (("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2"))


def _given_texts(body: ScoreRequest) -> dict[str, tuple[str, ...] | None]:
    numbered = {"text_1": body.text_1, "text_2": body.text_2, "data_1": body.data_1, "data_2": body.data_2}
    return {"queries": body.queries, "documents": body.documents, "items": body.items} | numbered


def _score(body: ScoreRequest) -> Question:
    _refuse_rewriting(body)
    given = {name: texts for name, texts in _given_texts(body).items() if texts is not None}
    names = next((names for names in _PAIRS_OF_NAMES if set(names) == set(given)), None)
    if names is None:
        wanted = ", or ".join(" and ".join(names) for names in _PAIRS_OF_NAMES)
        raise Refused("invalid", f"the body has {' and '.join(given) or 'no texts'}; wanted {wanted}")
    prompts, replies = given[names[0]], given[names[1]]
    if len(prompts) != len(replies) and len(prompts) != 1:
        raise Refused(
            "invalid",
            f"there are {len(prompts)} {names[0]} and {len(replies)} {names[1]}; wanted one of the first, or as many",
            place=names[1],
        )
    prompts = prompts * len(replies) if len(prompts) == 1 else prompts

    def answer(answered: Answered) -> Any:
        rows = [{"index": n, "object": "score", "score": value} for n, value in enumerate(_values(body, answered))]
        return head("score", answered) | {"data": rows, "usage": usage(answered)}

    asked = tuple(Asked((Turn("user", prompt),), reply) for prompt, reply in zip(prompts, replies, strict=True))
    return Question(asked=asked, answer=answer, model=body.model, may_cut=_may_cut(body))


def _rerank(body: RerankRequest) -> Question:
    _refuse_rewriting(body)

    def answer(answered: Answered) -> Any:
        values = _values(body, answered)
        results = [
            {"index": place, "document": {"text": body.documents[place]}, "relevance_score": values[place]}
            for place in best_first(answered.scores, body.top_n)
        ]
        tokens = {"prompt_tokens": answered.tokens, "total_tokens": answered.tokens}
        return {"id": f"rerank-{answered.id}", "model": answered.about.name, "usage": tokens, "results": results}

    return Question(asked=against(body.query, body.documents), answer=answer, model=body.model, may_cut=_may_cut(body))


def _models(models: Sequence[About]) -> Any:
    return {"object": "list", "data": [_model(about) for about in models]}


def _model(about: About) -> dict[str, Any]:
    facts = {"id": about.name, "object": "model", "created": 0, "owned_by": "prefrank", "root": about.name}
    return facts | {"parent": None, "max_model_len": about.max_length, "permission": []}


def _route(paths: tuple[str, ...], request: type[Any], ask: Any, summary: str) -> Route[Any]:
    return Route(dialect="vllm", paths=paths, request=request, ask=ask, errors=ERRORS, summary=summary)


def _page(path: str, write: Any, summary: str) -> Page:
    return Page(dialect="vllm", paths=(path,), write=write, errors=ERRORS, summary=summary)


CLASSIFY_ROUTE = Route(
    dialect="vllm",
    paths=("/classify", "/v1/classify"),
    request=TextRequest,
    ask=_classify,
    errors=ERRORS,
    meant=lambda body: isinstance(body, dict) and ("input" in body or "messages" in body),
    summary="Scores of whole texts or of messages (vLLM)",
)
ROUTES = (
    _route(("/score", "/v1/score"), ScoreRequest, _score, "Scores of replies to prompts (vLLM)"),
    _route(("/rerank",), RerankRequest, _rerank, "Replies to a prompt, best first (vLLM)"),
    _route(("/pooling",), TextRequest, _pool, "Scores of whole texts or of messages (vLLM)"),
)
PAGES = (
    _page("/v1/models", _models, "The models that are served, as OpenAI's API lists them"),
    _page("/version", lambda models: {"version": models[0].version}, "The version of this server"),
)
