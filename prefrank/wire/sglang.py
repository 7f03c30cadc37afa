"""SGLang's own /classify (srt/entrypoints/http_server.py)."""

from collections.abc import Sequence
from typing import Any

from prefrank.wire.dialect import Dialect, Placed, Signs, only, with_model
from prefrank.wire.inputs import OneText


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
