"""What a client's half writes is what the server's half of the same dialect reads, and its answers come back whole."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrank.types import Turn
from prefrank.wire import DIALECTS, PAGES, ROUTES, cohere, huggingface, infinity, tei
from prefrank.wire.dialect import scores_of
from prefrank.wire.inputs import TwoTexts
from prefrank.wire.route import STATUSES, Asked, Page, Question, Refused, Route, sigmoid
from tests.wire.asking import ABOUT, answered, ask, route_of, through_json

OURS = (tei.RERANK_ROUTE, huggingface.ROUTE, tei.PREDICT_ROUTE, *infinity.ROUTES, *cohere.ROUTES)
PAIRS = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8), st.floats(-1e6, 1e6)), min_size=1, max_size=4)


def exchange(name: str, path: str, dialect: str, pairs: Sequence[tuple[str, str, float]]) -> list[float]:
    """The scores that the client's half reads of those that the model gives."""
    client = DIALECTS[name]
    body = client.write_request([TwoTexts(prompt, reply) for prompt, reply, _ in pairs], "m")
    assert route_of(path, body).dialect == dialect
    question = ask(path, body)
    assert question.asked == tuple(Asked((Turn("user", prompt),), reply) for prompt, reply, _ in pairs)
    assert question.model == body.get("model")
    reply = question.answer(answered([value for *_, value in pairs]))
    told = scores_of(client, json.dumps(reply).encode(), [reply for _, reply, _ in pairs])
    return [each.value for each in told]


@given(PAIRS)
def test_pairs_come_back_from_text_embeddings_inference(pairs: list[tuple[str, str, float]]) -> None:
    assert exchange("tei-predict", "/predict", "tei", pairs) == [value for *_, value in pairs]


@pytest.mark.parametrize(
    ("name", "path", "dialect"),
    [("tei-rerank", "/rerank", "tei"), ("tei-rerank", "/", "tei"), ("rerank", "/rerank", "infinity")],
)
@given(PAIRS)
def test_rankings_come_back_raw(name: str, path: str, dialect: str, pairs: list[tuple[str, str, float]]) -> None:
    pairs = [(pairs[0][0], reply, value) for _, reply, value in pairs]
    assert exchange(name, path, dialect, pairs) == [value for *_, value in pairs]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
@given(PAIRS)
def test_rankings_come_back_between_0_and_1_where_there_are_no_others(
    path: str, pairs: list[tuple[str, str, float]]
) -> None:
    pairs = [(pairs[0][0], reply, value) for _, reply, value in pairs]
    assert exchange("cohere", path, "cohere", pairs) == [sigmoid(value) for *_, value in pairs]


@pytest.mark.parametrize(
    ("path", "body", "dialect"),
    [
        ("/rerank", {"query": "q", "texts": []}, "tei"),
        ("/rerank", {"query": "q", "texts": [], "documents": []}, "tei"),
        ("/rerank", {"query": "q", "documents": [], "raw_scores": False}, "infinity"),
        ("/rerank", {"query": "q", "documents": [], "return_documents": None}, "infinity"),
        ("/classify", {"input": [], "raw_scores": False}, "infinity"),
        ("/predict", {"inputs": "t"}, "tei"),
        ("/predict", {"inputs": "t", "parameters": {}}, "huggingface"),
        ("/predict", {"inputs": {"text": "t"}}, "huggingface"),
        ("/predict", {"inputs": [{"text": "t"}]}, "huggingface"),
        ("/predict", [], "tei"),
        ("/", {"query": "q", "texts": []}, "tei"),
        ("/", {"inputs": "t"}, "huggingface"),
        ("/", None, "huggingface"),
        ("/v1/rerank", {"query": "q", "documents": []}, "cohere"),
        ("/v2/rerank", {"query": "q", "documents": []}, "cohere"),
    ],
)
def test_a_shared_path_takes_a_body_for_whom_it_is_meant(path: str, body: Any, dialect: str) -> None:
    assert route_of(path, body).dialect == dialect


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def outcome(route: Route[Any], body: Any) -> Question | Refused:
    try:
        return route.read(body)
    except Refused as refused:
        return refused


def strings(value: Any) -> list[str]:
    """All that stand in a JSON value."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value] if isinstance(value, str) else [text for part in parts for text in strings(part)]


@pytest.mark.parametrize("route", OURS, ids=lambda route: "".join((route.dialect, *route.paths)))
@settings(max_examples=50)
@given(st.data())
def test_any_json_is_read_or_refused(route: Route[Any], data: st.DataObject) -> None:
    fields = tuple(route.request.__dataclass_fields__)
    body = data.draw(JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(fields, JSON)))
    read = outcome(route, through_json(body))
    if isinstance(read, Question):
        assert len(read.answer(answered([0.5] * len(read.asked)))) > 0
    else:
        status = route.errors.status(read.kind)
        assert 400 <= status < 430
        assert read.message in strings(route.errors.write(read, status))
    assert route.meant is None or route.meant(body) in (True, False)


@pytest.mark.parametrize("route", OURS, ids=lambda route: "".join((route.dialect, *route.paths)))
@pytest.mark.parametrize("kind", STATUSES)
def test_every_refusal_has_a_body_that_says_why(route: Route[Any], kind: Any) -> None:
    refused = Refused(kind, "it is bad", place="documents[1].text")
    status = route.errors.status(kind)
    assert "it is bad" in json.dumps(route.errors.write(refused, status))
    assert (status in (429, 503)) == (STATUSES[kind] in (429, 503)), "what is sent again is the same everywhere"


def test_every_path_has_one_route_at_the_end_that_takes_the_rest() -> None:
    """Of those that are always asked, none hides another."""
    for path in {path for route in ROUTES for path in route.paths}:
        routes = [route for route in ROUTES if path in route.paths]
        assert all(route.meant is not None for route in routes[:-1]), path


@pytest.mark.parametrize("page", [*tei.PAGES, *infinity.PAGES], ids=lambda page: page.paths[0])
def test_pages_are_json_or_empty(page: Page) -> None:
    assert page in PAGES
    other = replace(ABOUT, name="other", is_default=False)
    written = page.write([ABOUT, other])
    assert written is None if "/health" in page.paths else "m" in json.dumps(written)
