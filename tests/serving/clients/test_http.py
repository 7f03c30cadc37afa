"""What clients that read status, headers and body see of each dialect."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.serving.clients.exchanges import DOCUMENTS, QUERY, ranked
from tests.serving.clients.served import Served

LONG = "bread " * 300
"""More than the model takes."""
TEI = {"query": QUERY, "texts": DOCUMENTS}
COHERE = {"query": QUERY, "documents": DOCUMENTS}
BODIES: dict[str, Any] = {
    "/predict": {"inputs": LONG},
    "/": {"inputs": LONG},
    "/rerank": TEI,
    "/classify": {"input": DOCUMENTS, "raw_scores": False},
    "/v1/rerank": COHERE,
    "/v2/rerank": COHERE,
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


def test_a_long_text_is_cut_and_said_so_unless_that_is_not_wanted(client: httpx.Client, encoder: Served) -> None:
    cut = client.post(f"{encoder.url}/predict", json={"inputs": [QUERY, LONG]})
    assert (cut.status_code, cut.headers["x-prefrank-cut"]) == (200, "1")
    assert (cut.headers["x-compute-type"], cut.headers["x-compute-tokens"]) == ("cpu", "128")
    refused = client.post(f"{encoder.url}/predict", json={"inputs": [QUERY, LONG], "truncate": False})
    assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
    assert "tokens" in refused.json()["error"]


def test_the_path_without_a_name_takes_both_of_its_dialects(client: httpx.Client, encoder: Served) -> None:
    texts = client.post(encoder.url, json=TEI).json()
    assert [[each["index"], each["score"]] for each in texts] == ranked(encoder)
    assert isinstance(client.post(encoder.url, json={"inputs": QUERY}).json()[0], list)


@pytest.mark.parametrize("path", BODIES)
def test_without_the_key_nothing_is_scored(client: httpx.Client, locked: Served, path: str) -> None:
    refused = client.post(locked.url + path, json=BODIES[path])
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert "uthoriz" in refused.text
    taken = client.post(locked.url + path, json=BODIES[path], headers={"authorization": "Bearer k"})
    assert taken.status_code == 200


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("content", [b"", b"{", b'{"query": NaN}', b"\xff"])
def test_what_is_no_json_is_refused_with_a_reason(
    client: httpx.Client, encoder: Served, path: str, content: bytes
) -> None:
    refused = client.post(encoder.url + path, content=content, headers={"content-type": "application/json"})
    assert refused.status_code in (400, 422)
    assert "the body" in refused.text


@pytest.mark.parametrize("path", BODIES)
def test_half_a_character_is_refused_as_the_dialect_does(client: httpx.Client, encoder: Served, path: str) -> None:
    content = json.dumps(BODIES[path]).replace("bread", "\\ud800")
    refused = client.post(encoder.url + path, content=content.replace(DOCUMENTS[1], "\\ud800"))
    assert refused.status_code in (400, 422)
    assert "surrogate" in json.dumps(refused.json())


def test_what_was_not_scored_comes_back_whatever_it_is(client: httpx.Client, encoder: Served) -> None:
    documents = [{"text": "yeast", "other": "\ud800", "deep": [{"a": 1e-300}]}]
    answer = client.post(f"{encoder.url}/v1/rerank", content=json.dumps({"query": QUERY, "documents": documents}))
    assert answer.status_code == 200
    assert answer.json()["results"][0]["document"] == documents[0]


def test_pages_tell_what_is_served(client: httpx.Client, encoder: Served) -> None:
    for path in ("/health", "/ping"):
        page = client.get(encoder.url + path)
        assert (page.status_code, page.content) == (200, b"")
    assert client.get(f"{encoder.url}/info").json()["model_type"] == {
        "reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    }
    assert client.get(f"{encoder.url}/models").json()["data"][0]["id"] == "m"
