"""Text-embeddings-inference of Hugging Face (router/src/http/types.rs): /predict and /rerank."""

from collections.abc import Sequence
from typing import Any

from prefrank.wire.dialect import RAW, Dialect, Placed, Signs, only, ranked
from prefrank.wire.inputs import TwoTexts

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
