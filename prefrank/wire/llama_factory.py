"""LLaMA-Factory's scores of whole texts (api/protocol.py)."""

from collections.abc import Sequence
from typing import Any

from prefrank.wire.dialect import AS_GIVEN, Dialect, Placed
from prefrank.wire.inputs import OneText


def _request(inputs: Sequence[OneText], model: str | None) -> dict[str, Any]:
    """The server wants some name and looks at none."""
    return {"model": model or "reward-model", "messages": [each.text for each in inputs]}


def _read(answer: Any) -> Placed:
    return list(enumerate(answer["scores"]))


LLAMA_FACTORY = Dialect(
    name="llama-factory",
    paths=("/v1/score/evaluation", "/score/evaluation"),
    takes=OneText,
    holds="pairs",
    write_request=_request,
    read_answer=_read,
    scale=AS_GIVEN,
)
