"""vLLM (entrypoints/pooling): /score, /classify and /pooling."""

from collections.abc import Sequence
from typing import Any

from prefrank.wire.dialect import RAW, Dialect, Placed, only, with_model
from prefrank.wire.inputs import Messages, TwoTexts

_RAW_FLAGS = {"use_activation": False, "activation": False}
"""The present name and the one before; a version that knows neither squashes scores without a word."""


def _score(inputs: Sequence[TwoTexts], model: str | None) -> dict[str, Any]:
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
    write_request=_score,
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
