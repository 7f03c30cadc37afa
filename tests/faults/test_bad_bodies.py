"""Bodies that are no JSON, of another form, or hold texts that are none: never a fault of the server."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefrank.io.json_schema import json_schema
from prefrank.wire import ROUTES
from prefrank.wire.route import Route
from tests.faults.hooks import ask, scores, solo
from tests.faults.raw import Reply, connected, exchange, read_reply, request
from tests.serving.live import Live

BY_PATH = {path: route for route in ROUTES for path in route.paths}


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url) as client:
        yield client


@pytest.mark.parametrize(
    "text",
    ["\ufeffhello", "a\x00b", "\u202eolleh", "a\u200bb\u200d", "[SEP] [CLS] [PAD]", "</s><|end|><s>", "😀",
     "e\u0301" * 20, "a" * 50_000, " ", "", "\n\t\r", "\U000e0001", "\uffff\ufdd0", "ǆ" * 500],
)  # fmt: skip
def test_odd_texts_have_the_score_that_they_have_alone(live: Live, text: str) -> None:
    assert scores(live, text, "hello") == solo(live, text, "hello")


def test_a_control_token_in_a_text_is_text(live: Live) -> None:
    model = live.models.of(None).model
    plain, marked = (model.score("hi", [reply])[0].tokens for reply in ("a b", "a [SEP] b"))
    assert marked > plain + 1  # its brackets and letters, and not one token
    assert scores(live, "a [SEP] b") == solo(live, "a [SEP] b")


@pytest.mark.parametrize("path", BY_PATH)
def test_halves_of_characters_are_refused_in_every_dialect(client: httpx.Client, path: str) -> None:
    for body in bodies_of(BY_PATH[path], '"a \\ud800 b"'):
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code < 500, (body, answer.text)
        assert_strict(answer)


def bodies_of(route: Route[Any], text: str) -> list[str]:
    """Bodies of a route's fields, all texts the same, as far as its schema tells."""
    schema = json_schema(route.request)
    fields = {name: shape for name, shape in schema["properties"].items() if name != "model"}
    texts = ", ".join(f'"{name}": {text}' for name in fields)
    lists = ", ".join(f'"{name}": [{text}]' for name in fields)
    mixed = ", ".join(
        f'"{name}": {text if "array" not in json.dumps(shape) else f"[{text}]"}' for name, shape in fields.items()
    )
    return [f"{{{texts}}}", f"{{{lists}}}", f"{{{mixed}}}"]


def assert_strict(answer: httpx.Response) -> None:
    """JSON without NaN, in UTF-8, or plain text."""
    if answer.headers.get("content-type", "").startswith("application/json"):
        json.loads(answer.content.decode("utf-8"), parse_constant=lambda name: pytest.fail(f"it holds {name}"))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b" \r\n", "the body is empty"),
        (b"{", "cannot be read as JSON"),
        (b'{"prompt": "a",}', "cannot be read as JSON"),
        (b"{'prompt': 'a'}", "cannot be read as JSON"),
        (b'{"prompt": NaN, "replies": ["a"]}', "it holds NaN"),
        (b'{"prompt": "a", "replies": ["a"], "threshold": -Infinity}', "it holds -Infinity"),
        (b'{"prompt": "a", "prompt": "b", "replies": ["a"]}', "stands twice"),
        (b'{"prompt": "\xff\xfe", "replies": ["a"]}', "it is not UTF-8"),
        (b'{"prompt": "\xed\xa0\x80", "replies": ["a"]}', "it is not UTF-8"),
        ('{"prompt": "a", "replies": ["a"]}'.encode("utf-16"), "it is not UTF-8"),
        (b'{"prompt": "a\x01", "replies": ["a"]}', "control character"),
        (b'{"prompt": "a", "replies": ["a"]} {}', "Extra data"),
        (b'{"prompt": "\\ud", "replies": ["a"]}', "escape"),
    ],
)
def test_what_is_no_json_is_400_and_says_where(client: httpx.Client, body: bytes, words: str) -> None:
    for path in BY_PATH:
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == BY_PATH[path].errors.status("malformed"), (path, answer.text)
        assert words in answer.text, (path, answer.text)


@pytest.mark.parametrize(
    "body",
    [[], "text", 5, True, {}, {"prompt": None}, {"prompt": 1, "replies": ["a"]}, {"prompt": "a", "replies": 5},
     {"prompt": "a", "replies": [1]}, {"prompt": "a", "replies": [None]}, {"prompt": "a", "replies": {}},
     {"prompt": [], "replies": ["a"]}, {"prompt": [{}], "replies": ["a"]}, {"prompt": [1], "replies": ["a"]},
     {"prompt": [{"role": "user"}], "replies": ["a"]}, {"prompt": [{"role": [], "content": "a"}], "replies": ["a"]},
     {"prompt": [{"role": "user", "content": {"a": 1}}], "replies": ["a"]}, {"texts": [[]]}, {"pairs": [[]]},
     {"pairs": [{"prompt": "a"}]}, {"pairs": {"prompt": "a", "reply": "b"}}, {"prompt": "a", "replies": []},
     {"prompt": "a", "replies": ["a"], "model": 7}, {"prompt": "a", "replies": ["a"], "pairs": []}],
)  # fmt: skip
def test_another_form_is_422_and_names_what_came(client: httpx.Client, body: Any) -> None:
    answer = client.post("/api/score", json=body)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["type"] in ("invalid", "empty")
    assert 10 < len(error["message"]) < 1_000


def test_explicit_nulls_are_as_if_they_were_not_there(client: httpx.Client) -> None:
    body = ask("hello") | {"model": None, "texts": None, "pairs": None, "unknown": None}
    assert client.post("/api/score", json=body).json() == client.post("/api/score", json=ask("hello")).json()


def test_a_byte_order_mark_is_passed_over(client: httpx.Client) -> None:
    content = b"\xef\xbb\xbf" + json.dumps(ask("hello")).encode()
    assert client.post("/api/score", content=content).status_code == 200


@pytest.mark.parametrize(
    ("kind", "status"),
    [(None, 200), ("application/json", 200), ("APPLICATION/JSON; charset=UTF-8", 200),
     ("application/vnd.api+json", 200),
     ('application/json; charset="utf-8"', 200), ("text/plain", 415),
     ("application/x-www-form-urlencoded", 415),
     ("multipart/form-data; boundary=x", 415), ("application/json; charset=latin-1", 415), ("", 415), ("json", 415),
     ("application/jsonp", 415)],
)  # fmt: skip
def test_a_content_type_is_json_or_none(live: Live, kind: str | None, status: int) -> None:
    headers = {} if kind is None else {"content_type": kind}
    for path in ("/api/score", "/rerank"):
        body = ask("hello") if path == "/api/score" else {"query": "a", "texts": ["b"]}
        reply = exchange(live.port, request(body, path=path, **headers))
        assert reply.status == status, reply
        assert status == 200 or "content type" in reply.body.decode() or "charset" in reply.body.decode()


def test_a_page_of_another_origin_must_say_its_content_type(live: Live) -> None:
    # With it a browser asks first, and is told no
    assert exchange(live.port, request(ask("hello"), origin="http://elsewhere")).status == 415


RANDOM = pytest.mark.filterwarnings("ignore:Do not use the `random` module")
"""The checks of signatures use it, on the server's thread."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module"
)  # the server's thread does, under the tests' checks
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_json_value_is_a_fault_of_the_server(client: httpx.Client, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(BY_PATH)))
    names = list(BY_PATH[path].request.__dataclass_fields__)
    body = data.draw(VALUES | st.dictionaries(st.sampled_from(names), VALUES, max_size=6))
    answer = client.post(path, json=body)
    assert answer.status_code < 500, (path, body, answer.text)
    assert_strict(answer)


@pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module"
)  # the server's thread does, under the tests' checks
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    place=st.integers(0, 200), change=st.binary(min_size=1, max_size=3), kind=st.sampled_from(["put", "cut", "replace"])
)
def test_no_broken_body_is_a_fault_of_the_server(client: httpx.Client, place: int, change: bytes, kind: str) -> None:
    content = json.dumps(ask("hello", "mix flour") | {"model": "m"}).encode()
    place %= len(content)
    rest = {"put": content[place:], "cut": b"", "replace": content[place + len(change) :]}[kind]
    answer = client.post("/api/score", content=content[:place] + change + rest)
    assert answer.status_code in (200, 400, 404, 422), answer.text
    assert_strict(answer)


def test_an_error_that_nobody_thought_of_is_500_in_the_dialects_form_and_logged_once(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = "secret /path"

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError(words)

    monkeypatch.setattr("prefrank.serving.app._check_size", broken)
    replies: list[Reply] = []
    with connected(live.port) as line:
        for path, body in (("/api/score", ask("hello")), ("/rerank", {"query": "a", "texts": ["b"]})):
            line.sendall(request(body, path=path))
            replies.append(read_reply(line)[0])  # on one connection, which goes on
    assert [reply.status for reply in replies] == [500, 424]
    assert replies[0].json()["error"]["type"] == "failed"
    assert replies[1].json()["error_type"] == "Backend"
    assert not any(b"secret" in reply.body or b"Traceback" in reply.body for reply in replies)
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 2
    assert all("failed with ZeroDivisionError" in line and "in broken" in line for line in logged)
    assert words not in "".join(logged)
