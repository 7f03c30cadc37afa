"""What the client's half of a dialect writes is read by the server's half as it was meant, and answers come back."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrank.types import Prompt, Turn
from prefrank.wire import DIALECTS, llama_factory, openrlhf, sglang, slime, vllm
from prefrank.wire.dialect import scores_of
from prefrank.wire.inputs import LABELLED, Messages, OneText, OpenedText, Pair, inputs_of, query_of
from prefrank.wire.route import STATUSES, Asked, Question, Refused, Route
from tests.wire.asking import ABOUT, answered, ask, route_of, through_json

OURS = (vllm.CLASSIFY_ROUTE, *vllm.ROUTES, *sglang.ROUTES, *openrlhf.ROUTES, *slime.ROUTES, *llama_factory.ROUTES)
WHOSE = {
    "vllm-score": "vllm",
    "vllm-classify": "vllm",
    "vllm-pooling": "vllm",
    "openrlhf": "openrlhf",
    "sglang-classify": "sglang",
    "llama-factory": "llama-factory",
}

# Without a colon nothing in a text looks like a label; control strings would be some to the policy too
texts = st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]), max_size=8)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    roles = ["user", "assistant"] * draw(st.integers(0, 1)) + ["user"]
    turns = [Turn(role, draw(texts)) for role in roles]  # type: ignore[arg-type]
    return (Turn("system", draw(texts)), *turns) if draw(st.booleans()) else tuple(turns)


def meant(takes: type[Any], pair: Pair) -> Asked:
    """What a server is asked that is given a pair in that form."""
    prompt, reply = pair
    if takes in (Messages, OpenedText):
        return Asked(prompt, reply)
    return Asked((), LABELLED.text(*pair)) if takes is OneText else Asked((Turn("user", query_of(prompt)),), reply)


@pytest.mark.parametrize("name", WHOSE)
@settings(max_examples=40)
@given(pairs=st.lists(st.tuples(prompts(), texts), min_size=1, max_size=3), data=st.data())
def test_pairs_are_read_as_they_were_meant_and_raw_scores_come_back(
    name: str, pairs: list[Pair], data: st.DataObject
) -> None:
    client = DIALECTS[name]
    pairs = pairs[:1] if client.holds == "reply" else pairs
    inputs = inputs_of(pairs, client.takes, turns="all", writing=LABELLED, adds_bos=client.adds_bos)
    body = through_json(client.write_request(inputs, "m"))
    values = [data.draw(st.floats(-1e6, 1e6)) for _ in pairs]
    for path in client.paths:
        assert route_of(path, body).dialect == WHOSE[name]
        question = ask(path, body)
        assert question.asked == tuple(meant(client.takes, pair) for pair in pairs)
        assert question.model == body.get("model")
        written = json.dumps(question.answer(answered(values)), allow_nan=False).encode()
        told = scores_of(client, written, [reply for _, reply in pairs])
        assert [each.value for each in told] == values


@pytest.mark.parametrize(
    ("path", "body", "dialect"),
    [
        ("/classify", {"text": "a"}, "sglang"),
        ("/classify", {"input_ids": [1]}, "sglang"),
        ("/classify", {"input": "a"}, "vllm"),
        ("/classify", {"messages": []}, "vllm"),
        ("/classify", None, "sglang"),
        ("/classify", {"input": "a", "raw_scores": True}, "infinity"),
        ("/v1/classify", {"text": "a"}, "vllm"),
        ("/rerank", {"query": "a", "documents": ["b"]}, "vllm"),
        ("/rerank", {"query": "a", "texts": ["b"]}, "tei"),
        ("/score", {"query": "a", "items": ["b"]}, "vllm"),
        ("/v1/score", {"query": "a", "items": ["b"]}, "sglang"),
        ("/v1/score", {"label_token_ids": [1]}, "sglang"),
        ("/v1/score", {"queries": "a", "items": ["b"]}, "vllm"),
        ("/v1/score", {"text_1": "a", "text_2": "b"}, "vllm"),
        ("/", {"prompt": "a", "response": "b"}, "slime"),
    ],
)
def test_a_shared_path_takes_a_body_for_whom_it_is_meant(path: str, body: Any, dialect: str) -> None:
    assert route_of(path, body).dialect == dialect


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("route", OURS, ids=lambda route: "".join((route.dialect, *route.paths)))
@settings(max_examples=30)
@given(data=st.data())
def test_any_json_is_read_or_refused(route: Route[Any], data: st.DataObject) -> None:
    fields = tuple(route.request.__dataclass_fields__)
    body = data.draw(JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(fields, JSON)))
    try:
        read: Question | Refused = route.read(through_json(body))
    except Refused as refused:
        read = refused
    if isinstance(read, Question):
        json.dumps(read.answer(answered([0.5] * len(read.asked))), allow_nan=False)
    else:
        status = route.errors.status(read.kind)
        assert 400 <= status < 430
        assert json.loads(json.dumps(route.errors.write(read, status)))
    assert route.meant is None or route.meant(body) in (True, False)


@pytest.mark.parametrize("route", OURS, ids=lambda route: "".join((route.dialect, *route.paths)))
@pytest.mark.parametrize("kind", STATUSES)
def test_every_refusal_has_a_body_that_says_why(route: Route[Any], kind: Any) -> None:
    refused = Refused(kind, "it is bad", place="documents[1].text")
    assert "it is bad" in json.dumps(route.errors.write(refused, route.errors.status(kind)))


@pytest.mark.parametrize("page", [*vllm.PAGES, *sglang.PAGES], ids=lambda page: page.paths[0])
def test_pages_are_json(page: Any) -> None:
    assert json.dumps(page.write([ABOUT]), allow_nan=False)
