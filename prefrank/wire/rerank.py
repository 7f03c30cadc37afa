"""/rerank as Infinity (fastapi_schemas), vLLM and SGLang have it: a query and its documents."""

from collections.abc import Sequence
from typing import Any

from prefrank.wire.cohere import rerank_request
from prefrank.wire.dialect import RAW, Dialect, ranked
from prefrank.wire.inputs import TwoTexts


def _request(inputs: Sequence[TwoTexts], model: str | None) -> dict[str, Any]:
    """Infinity's flag and vLLM's; each ignores the other's."""
    return rerank_request(inputs, model) | {"return_documents": False, "raw_scores": True, "use_activation": False}


RERANK = Dialect(
    name="rerank",
    paths=("/rerank",),
    takes=TwoTexts,
    holds="replies",
    write_request=_request,
    read_answer=ranked,
    scale=f"{RAW} raw_scores and use_activation, if the server knows either",
)
