"""Where keys are set, no path that an application has, or has not, scores or names a model without one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Route

from prefrank.serving.gate import OPEN, OPEN_ENDINGS, is_open
from prefrank.wire import PAGES, ROUTES
from tests.faults.hooks import ask
from tests.faults.raw import connected, exchange, read_reply, request
from tests.serving.live import Live, live_server

KEY = "correct-horse-battery-staple"
WRONG = {
    "none": {},
    "empty": {"authorization": ""},
    "scheme alone": {"authorization": "Bearer"},
    "another": {"authorization": "Bearer wrong"},
    "part": {"authorization": f"Bearer {KEY[:-1]}"},
    "more": {"authorization": f"Bearer {KEY}x"},
    "case": {"authorization": f"Bearer {KEY.upper()}"},
    "name": {"authorization": "Bearer trainer"},
    "named": {"authorization": f"Bearer trainer {KEY}"},
    "basic": {"authorization": f"Basic {KEY}"},
    "bare": {"authorization": KEY},
    "long": {"authorization": "Bearer " + "a" * 50_000},
    "latin": {"authorization": "Bearer \xff\xfe"},
    "query": {"x_api_key": KEY},
}


@pytest.fixture(scope="module")
def locked(bert: Path) -> Iterator[Live]:
    with live_server(bert, keys=(f"trainer {KEY}", "other-key"), cors_origins=("https://page.example",)) as live:
        yield live


def paths_of(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of all that an application takes."""
    found = []
    for route in app.routes:
        assert isinstance(route, Route), f"{route} is of a kind that this test does not know; teach it"
        found += [(method, route.path.replace("{", "").replace("}", "")) for method in route.methods or ()]
    return found


def test_only_what_is_listed_is_open(locked: Live) -> None:
    found = paths_of(locked.app)
    assert {path for method, path in found if method == "POST"} >= {path for route in ROUTES for path in route.paths}
    unlocked = {path for method, path in found if is_open(method, path)}
    assert unlocked <= OPEN | {path for _, path in found if path.endswith(OPEN_ENDINGS)}
    assert not [path for method, path in found if is_open(method, path) and method not in ("GET", "HEAD")]
    named = {path for page in PAGES for path in page.paths}
    assert not (named - {"/health", "/ping"}) & unlocked


@pytest.mark.parametrize("wrong", WRONG)
def test_every_path_is_401_without_a_key_in_its_dialects_form(locked: Live, wrong: str) -> None:
    errors = {path: route.errors for route in ROUTES for path in route.paths}
    with connected(locked.port) as line:
        for method, path in [*paths_of(locked.app), ("GET", "/unknown"), ("POST", "/live"), ("PUT", "/api/score")]:
            if method == "HEAD" or is_open(method, path):
                continue
            line.sendall(request(method=method, path=path, content_length=0, **WRONG[wrong]))
            reply = read_reply(line)[0]
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer"), (method, path)
            if path in errors and "error" in (body := reply.json()):
                assert "no valid key" in str(body["error"])


def test_a_key_opens_every_path(locked: Live) -> None:
    for key in (KEY, "other-key"):
        for method, path in paths_of(locked.app):
            if method != "HEAD":
                reply = exchange(locked.port, request(method=method, path=path, authorization=f"Bearer {key}"))
                assert reply.status != 401, (method, path)
        reply = exchange(locked.port, request(ask("hello"), authorization=f"bearer  {key}"))
        assert reply.status == 200
    assert exchange(locked.port, request(path="/unknown", authorization=f"Bearer {KEY}")).status == 404


def test_a_key_of_more_than_a_head_is_refused_unread(locked: Live) -> None:
    reply = exchange(locked.port, request(ask("hello"), authorization="Bearer " + "a" * 100_000))
    assert reply.status == 431


def test_a_request_without_a_key_is_refused_before_its_body(locked: Live) -> None:
    with connected(locked.port) as line:
        line.sendall(request(b"", content_length=1_000_000, expect="100-continue"))
        reply = read_reply(line)[0]
        assert (reply.status, reply.headers["connection"]) == (401, "close")


@pytest.mark.parametrize(
    "spoofed",
    [
        request(ask("hello"), host="localhost/live"),
        request(ask("hello"), host="127.0.0.1", x_original_url="/live", x_rewrite_url="/live"),
        request(ask("hello"), x_forwarded_for="127.0.0.1", x_forwarded_prefix="/live", forwarded="for=127.0.0.1"),
        request(ask("hello"), path="http://localhost/api/score"),
        request(ask("hello"), path="/api/score?/live"),
        request(ask("hello"), path="/api/score#/live"),
        request(ask("hello"), path="/live/../api/score"),
        request(ask("hello"), path="/page.js/../api/score"),
        request(ask("hello"), path="/%61pi/score"),
        request(ask("hello"), x_http_method_override="GET"),
        request(method="GET", path="/api/models.js"),
        request(method="GET", path="/live/"),
    ],
)
def test_no_word_of_the_client_stands_for_a_key(locked: Live, spoofed: bytes) -> None:
    with connected(locked.port) as line:
        line.sendall(spoofed)
        assert read_reply(line)[0].status in (400, 401)


def preflight(**headers: Any) -> bytes:
    return request(
        method="OPTIONS",
        path="/api/score",
        access_control_request_method="POST",
        access_control_request_headers="authorization,content-type",
        **headers,
    )


def test_a_page_of_a_listed_origin_may_ask_and_send_its_key(locked: Live) -> None:
    reply = exchange(locked.port, preflight(origin="https://page.example"))
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == "https://page.example"
    assert "authorization" in reply.headers["access-control-allow-headers"].lower()
    for authorization, status in ((f"Bearer {KEY}", 200), ("Bearer wrong", 401)):
        asked = request(
            ask("hello"), origin="https://page.example", authorization=authorization, content_type="application/json"
        )
        reply = exchange(locked.port, asked)
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (status, "https://page.example")


def test_pages_of_other_origins_are_told_nothing(locked: Live, live: Live) -> None:
    for server, status in ((locked, 400), (live, 405)):
        reply = exchange(server.port, preflight(origin="https://evil.example"))
        assert reply.status == status
        assert "access-control-allow-origin" not in reply.headers
    reply = exchange(live.port, request(ask("hello"), origin="https://evil.example", content_type="application/json"))
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_a_keys_share_is_its_own(bert: Path) -> None:
    with live_server(bert, keys=("first-key", "second-key"), rows_per_s=0.5) as live:

        def asked(key: str, count: int) -> Any:
            body = ask(*["hello"] * count)
            return exchange(live.port, request(body, authorization=f"Bearer {key}"))

        assert asked("first-key", 30).status == 200  # overdrawn
        reply = asked("first-key", 1)
        assert reply.status == 429
        assert reply.json()["error"]["type"] == "limited"
        assert 40 <= int(reply.headers["retry-after"]) <= 60
        assert asked("second-key", 1).status == 200
