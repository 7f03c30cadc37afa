"""Each dialect's requests and answers, as plain values."""

import ast
import json
import math
from pathlib import Path
from typing import Any

import pytest

from prefrank import wire
from prefrank.wire import DIALECTS
from prefrank.wire.dialect import Told, Unreadable, parse, scores_of
from tests.wire.examples import EXAMPLES

INDEXED = ("tei-rerank", "rerank", "cohere", "vllm-score", "vllm-classify", "vllm-pooling")
"""Dialects whose answers name the place of each score."""


def read(name: str, answer: Any) -> list[float]:
    replies = [f"reply {place}" for place in range(len(EXAMPLES[name].inputs))]
    return [told.value for told in scores_of(DIALECTS[name], json.dumps(answer).encode(), replies)]


def results_of(answer: Any) -> list[Any]:
    """The list in an answer that holds a score for each place."""
    results = answer if isinstance(answer, list) else answer.get("results", answer.get("data"))
    assert isinstance(results, list)
    return results


def test_every_dialect_has_an_example_and_its_own_name() -> None:
    assert set(EXAMPLES) == set(DIALECTS)
    assert all(isinstance(example.inputs[0], DIALECTS[name].takes) for name, example in EXAMPLES.items())


@pytest.mark.parametrize("name", DIALECTS)
def test_a_request_is_written_as_the_server_reads_it(name: str) -> None:
    example = EXAMPLES[name]
    assert DIALECTS[name].write_request(example.inputs, "m") == example.request


@pytest.mark.parametrize("name", DIALECTS)
def test_a_request_without_a_model_names_none(name: str) -> None:
    body = DIALECTS[name].write_request(EXAMPLES[name].inputs, None)
    stand_in = {"model": "reward-model"} if name == "llama-factory" else {}  # it wants some name
    assert body == {key: value for key, value in EXAMPLES[name].request.items() if key != "model"} | stand_in


@pytest.mark.parametrize("name", DIALECTS)
def test_an_answer_is_read_as_the_server_writes_it(name: str) -> None:
    assert read(name, EXAMPLES[name].answer) == list(EXAMPLES[name].scores)


@pytest.mark.parametrize("name", INDEXED)
def test_the_places_in_an_answer_give_the_order(name: str) -> None:
    answer = json.loads(json.dumps(EXAMPLES[name].answer))
    results_of(answer).reverse()
    assert read(name, answer) == list(EXAMPLES[name].scores)


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("change", ["same score", "another score", "in place of the other"])
def test_a_place_that_stands_twice_is_refused(name: str, change: str) -> None:
    """Which of the two is right cannot be told, even where the scores agree: a reply of theirs may have got lost."""
    answer = json.loads(json.dumps(EXAMPLES[name].answer))
    results = results_of(answer)
    extra = json.loads(json.dumps(results[0]))
    if change == "another score":
        extra = json.loads(json.dumps(extra).replace("0.5", "7.5").replace("-1.25", "7.5"))
    if change == "in place of the other":
        results[1:] = []
    results.append(extra)
    with pytest.raises(Unreadable, match=r"^two scores for text 0$"):
        read(name, answer)


@pytest.mark.parametrize("place", [-1, 2, True, 0.0, "0", None])
def test_a_place_that_was_not_asked_about_is_refused(place: Any) -> None:
    answer = {"data": [{"index": place, "score": 1.0}]}
    with pytest.raises(Unreadable, match=r"^a score for text .* of 2$"):
        read("vllm-score", answer)


def test_a_missing_score_is_counted_and_its_reply_named() -> None:
    with pytest.raises(Unreadable, match=r"^no score for 1 of 2 texts, the first is text 1 \('reply 1'\)$"):
        read("vllm-score", {"data": [{"index": 0, "score": 1.0}]})


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("answer", [None, 3, "text", {}, [3], {"error": "no"}])
def test_what_is_no_answer_of_a_dialect_is_said_so(name: str, answer: Any) -> None:
    with pytest.raises(Unreadable, match=rf"it is not an answer of {name}|for one text|for a score|no score for"):
        read(name, answer)


def test_null_and_nan_are_scores_that_failed() -> None:
    answer = b'\xef\xbb\xbf{"rewards": [null, NaN, Infinity, 1]}'
    null, nan, infinite, finite = (told.value for told in scores_of(DIALECTS["openrlhf"], answer, ["a"] * 4))
    assert math.isnan(null)
    assert math.isnan(nan)
    assert (infinite, finite) == (math.inf, 1.0)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b'{"a": 1, "a": 2}', b"[" * 100_000, b"9" * 5_000], ids=lambda content: content[:9]
)
def test_what_is_no_json_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(content)


CONNECTING = {"httpx", "http", "socket", "ssl", "urllib.request", "asyncio", "requests", "aiohttp", "threading"}
MODULES = sorted(Path(wire.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_module_opens_a_connection(path: Path) -> None:
    tree = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
    for node in tree:
        if isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    opened = {name for name in names if any(f"{name}.".startswith(f"{unwanted}.") for unwanted in CONNECTING)}
    assert opened == set()


def test_our_own_server_tells_tokens_and_cuts() -> None:
    row = {"index": 0, "score": 0.5, "tokens": 7, "cut_prompt": 2, "cut_reply": 1, "past_trained": 3}
    answer = json.dumps({"scores": [row]}).encode()
    assert scores_of(DIALECTS["prefrank"], answer, ["a"]) == [Told(0.5, 7, 2, 1, 3)]
    with pytest.raises(Unreadable, match="counts of tokens that are none"):
        scores_of(DIALECTS["prefrank"], answer.replace(b"7", b"-7"), ["a"])
