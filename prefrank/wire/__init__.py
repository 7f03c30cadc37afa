"""Wire formats of servers that score replies: one module for each server, one `Dialect` value for each format.

A new format is a `Dialect` in a module of its own, its line in `DIALECTS`, and its example in
`tests/wire/examples.py`. Nothing here opens a connection: `scoring/remote.py` does.
"""

from collections.abc import Mapping
from typing import Any

from prefrank.wire import cohere, llama_factory, openrlhf, rerank, sglang, tei, vllm
from prefrank.wire.dialect import Dialect

DIALECTS: Mapping[str, Dialect[Any]] = {
    dialect.name: dialect
    for dialect in (
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
