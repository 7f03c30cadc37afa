"""Cohere's and Jina's rerank, versions 1 and 2, after their reference pages."""

from collections.abc import Sequence
from typing import Any

from prefrank.wire.dialect import Dialect, ranked, with_model
from prefrank.wire.inputs import TwoTexts


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
