"""A small server for the tests of the page: its files as the real one serves them, and scores one can foresee."""

import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from prefrank.serving.page_files import add_page
from prefrank.wire.own import MOST_COMPARED

WORDS = {"sorry": 1.25, "scumbag": -2.5, "help": 0.75}


@dataclass
class Stub:
    """What the server was asked, and how it is to answer: a path in `refusal` gives (status, sentence)."""

    url: str = ""
    key: str = ""
    models: tuple[str, ...] = ("small",)
    fingerprint: str = "ab" * 32
    refusal: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)


def score(model: str, reply: str) -> float:
    """A word is worth what WORDS says, any letter a little, to the second model the other way round."""
    value = sum(worth for word, worth in WORDS.items() if word in reply) + len(reply) / 1000
    return value if model == "small" else -value


def facts(model: str, index: int, reply: str) -> dict[str, Any]:
    if "POISON" in reply:
        return {"index": index, "score": None, "error": "The score of this reply is not a number."}
    cut = {"cut_prompt": 7, "cut_reply": 0, "past_trained": 0} if "long" in reply else {"cut_prompt": 0, "cut_reply": 0}
    return {"index": index, "score": score(model, reply), "tokens": len(reply.split()) + 4, "past_trained": 0, **cut}


def rank(model: str, body: dict[str, Any]) -> dict[str, Any]:
    rows = [facts(model, index, reply) for index, reply in enumerate(body["replies"])]
    scores = [row["score"] for row in rows]
    total = sum(math.exp(value) for value in scores if value is not None)
    known = sorted((row for row in rows if row["score"] is not None), key=lambda row: -row["score"])
    ranking = [
        {**row, "rank": 1 + sum(other > row["score"] for other in scores if other is not None),
         "weight": math.exp(row["score"]) / total}
        for row in known
    ] + [{**row, "rank": None, "weight": None} for row in rows if row["score"] is None]  # fmt: skip
    chance = [[None if None in (a, b) else 1 / (1 + math.exp(b - a)) for b in scores] for a in scores]
    chance = chance if len(scores) <= MOST_COMPARED else None
    return {"scale": "logit", "temperature": 1.0, "calibrated": False, "ranking": ranking, "win_probability": chance}


def explain(model: str, body: dict[str, Any]) -> dict[str, Any]:
    reply, whole = body["reply"], score(model, body["reply"])
    parts = []
    for found in re.finditer(r"[^.?!]*[.?!]+\s*|[^.?!]+$", reply):
        without = score(model, reply[: found.start()] + reply[found.end() :])
        parts.append({"text": found.group(), "start": found.start(), "end": found.end(), "score_without": without,
                      "difference": whole - without})  # fmt: skip
    return {"scale": "logit", "score": facts(model, 0, reply), "parts": parts}


def about(name: str, fingerprint: str) -> dict[str, Any]:
    return {"name": name, "fingerprint": fingerprint, "architecture": "BertForSequenceClassification",
            "parameters": 22_713_601, "precision": "float32", "kernels": "avx512", "device": "cpu", "max_length": 512,
            "template": None, "causal": False, "calibration": None, "default": name == "small"}  # fmt: skip


def make_stub(stub: Stub) -> Starlette:
    async def api(request: Request) -> Response:
        path = request.path_params["path"]
        body = await request.json() if request.method == "POST" else {}
        stub.asked.append((path, body))
        if stub.key and request.headers.get("authorization") != f"Bearer {stub.key}":
            return refuse(401, "This server wants an API key: send Authorization: Bearer KEY.")
        if path in stub.refusal:
            return refuse(*stub.refusal[path])
        if path == "models":
            return JSONResponse({"version": "0.1.0", "models": [about(name, stub.fingerprint) for name in stub.models]})
        model = body.get("model", "small")
        answer = rank(model, body) if path == "rank" else explain(model, body)
        return JSONResponse({"model": model, "fingerprint": stub.fingerprint, **answer})

    app = Starlette(routes=[Route("/api/{path}", api, methods=["GET", "POST"])])
    add_page(app)
    return Starlette(routes=[Mount("/behind/a/proxy", app), Mount("/", app)])


def refuse(status: int, sentence: str) -> Response:
    headers = {"Retry-After": "3"} if status == 503 else {}
    return JSONResponse({"error": {"type": "failed", "message": sentence}}, status, headers)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The app on a free port of loopback, in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", loop="asyncio"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
