"""A server on the loopback with the paths of `prefrank serve`, scores that can be computed by hand, and faults."""

import json
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FINGERPRINT = "f" * 64
MODEL = {
    "name": "demo", "fingerprint": FINGERPRINT, "architecture": "bert", "parameters": 22_000_000,
    "precision": "float32", "kernels": "native", "device": "cpu", "max_length": 512, "template": None,
    "causal": False, "calibration": {"temperature": 2.0}, "default": True,
}  # fmt: skip


def gone() -> str:
    """An address on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def text_of(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else "".join(turn["content"] for turn in prompt)


def worth(prompt: Any, reply: str) -> float:
    return len(reply) - 0.25 * len(text_of(prompt))


def facts(index: int, prompt: Any, reply: str) -> dict[str, Any]:
    if "poison" in reply:
        return {"index": index, "score": None, "error": "the text cannot be encoded"}
    cut = max(len(reply) - 100, 0)
    tokens = len(reply) - cut
    return {"index": index, "score": worth(prompt, reply), "tokens": tokens, "cut_prompt": 0, "cut_reply": cut,
            "past_trained": 0}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """What happens to one request in place of its answer: a status, silence, or a broken connection."""

    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "the queue is full"
    sleeps_s: float = 0.0
    breaks_off: bool = False
    body: str | None = None


class FakeServe:
    """Answers as the real one; `faults` are used up by the first requests, one each."""

    def __init__(self, key: str | None = None, port: int = 0) -> None:
        self.fingerprint = FINGERPRINT
        self.key = key
        self.faults: deque[Fault] = deque()
        self.asked: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.is_ready = True
        self.sleeps_s = 0.0
        self.most_rows = 10_000
        self.too_much = 422
        self.fails: set[int] = set()
        self.busy = 0
        self.most_busy = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/ready":
                    self.reply(200 if outer.is_ready else 503, {"ready": outer.is_ready})
                elif not outer.fault(self):
                    models = {"version": "0.1.0", "models": [MODEL | {"fingerprint": outer.fingerprint}]}
                    self.reply(*((200, models) if self.path == "/api/models" else outer.error(404, "no such path")))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer.lock:
                    outer.asked.append((self.path, body))
                    outer.headers.append({key.lower(): value for key, value in self.headers.items()})
                    outer.busy += 1
                    outer.most_busy = max(outer.most_busy, outer.busy)
                try:
                    time.sleep(outer.sleeps_s)
                    if not outer.fault(self):
                        self.reply(*outer.answer(self.path, body, self.headers.get("authorization")))
                finally:
                    with outer.lock:
                        outer.busy -= 1

            def reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
                content = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                self.send_response_only(status)  # without a date of its own
                for name, text in (headers or {}).items():
                    self.send_header(name, text)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients that give up are what the tests are about."""

        self.server = Server(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=lambda: self.server.serve_forever(poll_interval=0.01), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def fault(self, handler: Any) -> bool:
        """Whether the next fault stood in for the answer."""
        with self.lock:
            fault = self.faults.popleft() if self.faults else None
        if fault is None:
            return False
        time.sleep(fault.sleeps_s)
        if fault.breaks_off:
            handler.close_connection = True
            return True
        value = {"error": {"type": "overloaded", "message": fault.message}} if fault.body is None else fault.body
        handler.reply(fault.status, value, fault.headers)
        return True

    def error(self, status: int, message: str, kind: str = "invalid") -> tuple[int, Any]:
        return status, {"error": {"type": kind, "message": message}}

    def answer(self, path: str, body: Any, key: str | None) -> tuple[int, Any]:
        if self.key is not None and key != f"Bearer {self.key}":
            return self.error(401, "this server wants a key")
        if body.get("model", "demo") != "demo":
            return self.error(404, f"there is no model {body['model']!r}; there is demo")
        routes: dict[str, Callable[[Any], tuple[int, Any]]] = {
            "/api/score": self.score, "/api/rank": self.rank, "/api/compare": self.compare,
            "/api/best_of_n": self.best, "/api/explain": self.explain,
        }  # fmt: skip
        status, value = routes[path](body)
        named = {"model": "demo", "fingerprint": self.fingerprint, "scale": "logit"} if status == 200 else {}
        return status, named | value

    def score(self, body: Any) -> tuple[int, Any]:
        if "pairs" in body:
            rows = [(pair["prompt"], pair["reply"]) for pair in body["pairs"]]
        elif "texts" in body:
            rows = [("", text) for text in body["texts"]]
        else:
            rows = [(body["prompt"], reply) for reply in body["replies"]]
        if len(rows) > self.most_rows:
            return self.too_much, self.error(0, f"{len(rows)} rows; wanted {self.most_rows} at most", "too_many")[1]
        if any("forbidden" in reply for _, reply in rows):
            return self.error(422, "a reply is forbidden")
        failed = {"score": None, "error": "this place fails"}
        scores = [facts(index, *row) | (failed if index in self.fails else {}) for index, row in enumerate(rows)]
        return 200, {"scores": scores}

    def rank(self, body: Any) -> tuple[int, Any]:
        rows = [facts(index, body["prompt"], reply) for index, reply in enumerate(body["replies"])]
        values = [row["score"] for row in rows]
        sound = [value for value in values if value is not None]
        total = sum(math.exp(value / 2) for value in sound)
        order = sorted(rows, key=lambda row: -math.inf if row["score"] is None else -row["score"])
        order.sort(key=lambda row: row["score"] is None)
        ranking = [
            row | {"rank": None if row["score"] is None else 1 + sum(other > row["score"] for other in sound),
                   "weight": None if row["score"] is None else math.exp(row["score"] / 2) / total}
            for row in order
        ]  # fmt: skip
        wins = [[None if None in (a, b) else 1 / (1 + math.exp((b - a) / 2)) for b in values] for a in values]
        return 200, {"temperature": 2.0, "calibrated": True, "ranking": ranking, "win_probability": wins}

    def compare(self, body: Any) -> tuple[int, Any]:
        scores = [facts(index, body["prompt"], body[name]) for index, name in enumerate(("first", "second"))]
        margin = scores[0]["score"] - scores[1]["score"]
        winner = "tie" if margin == 0 else "first" if margin > 0 else "second"
        return 200, {"winner": winner, "margin": margin, "win_probability": 1 / (1 + math.exp(-margin / 2)),
                     "temperature": 2.0, "calibrated": True, "scores": scores}  # fmt: skip

    def best(self, body: Any) -> tuple[int, Any]:
        rows = [facts(i, body["prompt"], reply) | {"reply": reply} for i, reply in enumerate(body["replies"])]
        values = [row["score"] for row in rows]
        least = body.get("threshold", -math.inf)
        best = sorted((row for row in rows if row["score"] >= least), key=lambda row: -row["score"])[: body["top_k"]]
        mean = sum(values) / len(values)
        group = {"n": len(values), "mean": mean, "std": 0.0, "min": min(values), "max": max(values)}
        return 200, {"best": best, "group": group}

    def explain(self, body: Any) -> tuple[int, Any]:
        whole = facts(0, body["prompt"], body["reply"])
        parts, start = [], 0
        for sentence in body["reply"].split(". "):
            without = body["reply"].replace(sentence, "")
            score = worth(body["prompt"], without)
            parts.append({"text": sentence, "start": start, "end": start + len(sentence), "score_without": score,
                          "difference": whole["score"] - score})  # fmt: skip
            start += len(sentence) + 2
        return 200, {"score": whole, "parts": parts}
