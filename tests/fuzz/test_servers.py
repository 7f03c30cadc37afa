"""Servers that answer what they should not, and that hang up: scores, or an error of one line. All on the loopback."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prefrank.wire import DIALECTS
from tests.fuzz import breaking, targets
from tests.fuzz.profiles import fuzz
from tests.fuzz.runner import Worker

SCORES = [1.5, 0.5, -2.0]
ANSWERS: list[Any] = [
    [[{"score": score, "label": "LABEL_0"}] for score in SCORES],
    [{"index": n, "score": score} for n, score in enumerate(SCORES)],
    {"results": [{"index": n, "relevance_score": score} for n, score in enumerate(SCORES)], "model": "m"},
    {"object": "list", "data": [{"index": n, "score": score} for n, score in enumerate(SCORES)]},
    {"data": [{"index": 0, "label": "LABEL_0", "probs": [0.5], "num_classes": 1}]},
    {"data": [{"index": 0, "object": "pooling", "data": [0.5]}]},
    {"rewards": SCORES, "scores": SCORES, "extra_logs": {}},
    {"error": {"message": "no", "code": 400}},
]
"""What servers of the protocols answer of three pairs."""
PAGES: list[Any] = [
    {"model_id": "m", "model_sha": "a", "max_client_batch_size": 2},
    {"data": [{"id": "m", "root": "m"}]},
    {},
]
"""What they say of themselves."""
HEADERS = ["", "Retry-After: 0", "Retry-After: nan", "Retry-After: -1", "Retry-After: 1e400",
           "Content-Encoding: gzip", "Content-Length: 9",
           "Location: http://127.0.0.1:1/x", "Content-Type: text/html; charset=nothing", "Transfer-Encoding: chunked",
           "X: " + "y" * 70_000, "Set-Cookie: \xff"]  # fmt: skip


@fuzz
@given(data=st.data(), protocol=st.sampled_from([None, *DIALECTS]))
def test_what_a_server_answers_is_a_score_or_refused_in_one_line(
    worker: Worker, data: st.DataObject, protocol: str | None
) -> None:
    answer = data.draw(breaking.json_of(data.draw(st.sampled_from(ANSWERS)))).content
    page = json.dumps(breaking.pick(data.draw, PAGES)).encode()
    if data.draw(st.booleans()):
        page = data.draw(breaking.json_of(breaking.pick(data.draw, PAGES))).content
    status = data.draw(st.sampled_from([200, 200, 200, 200, 204, 302, 400, 413, 429, 503, 99, 999]))
    worker.check(targets.ask_server, answer, page, status, data.draw(st.sampled_from(HEADERS)), protocol, files={})


def test_a_sound_answer_is_a_score(worker: Worker) -> None:
    answer = json.dumps(ANSWERS[0]).encode()
    assert worker.check(targets.ask_server, answer, b"{}", 200, "", "tei-predict", files={}) == SCORES
