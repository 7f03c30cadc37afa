"""Wire formats of servers that score replies: one module for each server, with both halves of what it speaks.

The client's half is a `Dialect`, for `scoring/remote.py`, the server's half a `Route`, for `serving/app.py`. A new
format is a module with one or both, their lines in `DIALECTS` and `ROUTES`, and its example in
`tests/wire/examples.py`. Nothing here opens a connection.
"""

from collections.abc import Mapping
from typing import Any

from prefrank.wire import (
    cohere,
    huggingface,
    infinity,
    llama_factory,
    openrlhf,
    own,
    rerank,
    sglang,
    slime,
    tei,
    vllm,
)
from prefrank.wire.dialect import Dialect
from prefrank.wire.route import Page, Route

DIALECTS: Mapping[str, Dialect[Any]] = {
    dialect.name: dialect
    for dialect in (
        own.PREFRANK,
        tei.PREDICT,
        tei.RERANK,
        rerank.RERANK,
        cohere.COHERE,
        vllm.SCORE,
        vllm.CLASSIFY,
        vllm.POOLING,
        openrlhf.OPENRLHF,
        sglang.CLASSIFY,
        llama_factory.LLAMA_FACTORY,
    )
}
"""By name."""

ROUTES: tuple[Route[Any], ...] = (
    *own.ROUTES,
    tei.RERANK_ROUTE,
    *slime.ROUTES,
    huggingface.ROUTE,
    tei.PREDICT_ROUTE,
    *infinity.ROUTES,
    vllm.CLASSIFY_ROUTE,
    *sglang.ROUTES,  # after the others of /classify: what is refused there unread must not have the key `error`
    *cohere.ROUTES,
    *openrlhf.ROUTES,
    *llama_factory.ROUTES,
    *vllm.ROUTES,
)
"""Those of one path are asked in this order whether a body is meant for them; the last takes the rest."""
PAGES: tuple[Page, ...] = (*own.PAGES, *tei.PAGES, *infinity.PAGES, *vllm.PAGES, *sglang.PAGES)
