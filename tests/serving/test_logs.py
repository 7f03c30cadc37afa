"""The log of requests: one line each, whole, and without what they said."""

import asyncio
import json
import re
import sys
import threading
import time

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from prefrank.errors import BadInput
from prefrank.serving import logs
from prefrank.serving.logs import LIKE, WITHIN_S, AccessLog, as_text, facts_of, without_quotes
from prefrank.serving.recording import Handled, Notes, notes_of, recorded
from prefrank.types import Score, Turn
from prefrank.wire import ROUTES
from prefrank.wire.route import About, Answered, Asked, Failed, Question, Refused, Times
from tests.serving.live import live_server

SECRET = "xyzzyplugh"


def handled(*, status: int = 200, path: str = "/api/score", began: float = 1_800_000_000.5, **given) -> Handled:
    facts = {"id": "f" * 32, "method": "POST", "known": True, "seconds": 0.0125, "client": "10.0.0.7"}
    facts |= {"notes": Notes("prefrank", True)} | given
    return Handled(status=status, path=path, began=began, **facts)


def answered() -> Notes:
    about = About(
        name="m", fingerprint="abc", architecture="Bert", parameters=1, precision="float32", kernels="torch",
        device="cpu", max_length=128, template="pair", causal=False, temperature=None, label="LABEL_0", version="0",
        max_rows=1, max_waiting_rows=1, max_tokens=1, truncates=True,
    )  # fmt: skip
    asked = tuple(Asked((Turn("user", f"{SECRET} prompt"),), f"{SECRET} {n}") for n in range(3))
    outcomes = (Score(1.5, 10, 2, 0, "abc"), Failed(f"the reply {SECRET!r} is bad", "text"), Score(2.0, 7, 0, 0, "abc"))
    value = Answered(outcomes=outcomes, about=about, id="f" * 32, created=1, times=Times(0.001, 0.002, 0.00345))
    question = Question(asked=asked, answer=lambda each: None)
    return Notes("prefrank", True, question=question, answered=value)


class Lines:
    """What a log wrote, once it is closed."""

    def __init__(self, form: str = "text", **options) -> None:
        self.lines: list[str] = []
        self.log = AccessLog(form, write=self.lines.append, **options)

    def of(self, *requests: Handled) -> list[str]:
        for request in requests:
            self.log.handled(request)
        self.log.close()
        return self.lines


def test_a_line_says_who_asked_what_and_how_long_it_took():
    (line,) = Lines().of(handled(notes=answered(), key="trainer"))
    assert line == (
        "2027-01-15T08:00:00.500Z 200 POST /api/score dialect=prefrank model=m rows=3 tokens=17 cut=1 failed=1 ms=12.5"
        f" wait_ms=1.0 tokenize_ms=2.0 model_ms=3.45 key=trainer client=10.0.0.7 id={'f' * 32}\n"
    )


def test_a_line_of_json_holds_the_same():
    (line,) = Lines("json").of(handled(notes=answered(), key="trainer"))
    assert json.loads(line) == {
        "time": "2027-01-15T08:00:00.500Z", "level": "info", "status": 200, "method": "POST", "path": "/api/score",
        "dialect": "prefrank", "model": "m", "rows": 3, "tokens": 17, "cut": 1, "failed": 1, "ms": 12.5,
        "wait_ms": 1.0, "tokenize_ms": 2.0, "model_ms": 3.45, "key": "trainer", "client": "10.0.0.7", "id": "f" * 32,
    }  # fmt: skip


def test_a_refusal_has_its_sentence_without_what_it_quotes():
    notes = Notes("prefrank", True, refused=Refused("invalid", f"replies is '{SECRET}'; wanted a list of strings"))
    (line,) = Lines().of(handled(status=422, notes=notes))
    assert line.endswith('error=invalid message="replies is ...; wanted a list of strings"\n')
    notes = Notes("prefrank", True, refused=Refused("unknown_model", "there is no model 'gpt' here; known: m"))
    (line,) = Lines().of(handled(status=404, notes=notes))
    assert "no model 'gpt' here" in line


@pytest.mark.parametrize(
    ("message", "bare"),
    [
        ("texts[0] is 'a b'; wanted a string", "texts[0] is ...; wanted a string"),
        ("the body is {'prompt': 'it is so; wanted by all... ; wanted an object", "the body is ...; wanted an object"),
        (
            "prompt cannot be used: a message has the keys a b, c; wanted role",
            "prompt cannot be used: a message has ...; wanted role",
        ),
        ("the key 'it\\'s' stands twice in one object", "the key ... stands twice in one object"),
        ("row 3's reply holds \"a 'b' c\" and more", "row 3's reply holds ... and more"),
        ("the reply 'cut before its en", "the reply ..."),
        ("the request has 5,000 rows; at most 4,096 are taken at once",) * 2,
    ],
)
def test_what_a_sentence_quotes_is_left_out(message, bare):
    assert without_quotes(message) == bare


def test_texts_and_scores_stand_in_it_only_where_they_are_asked_for():
    (line,) = Lines("json").of(handled(notes=answered()))
    assert SECRET not in line
    (line,) = Lines("json", texts=True).of(handled(notes=answered()))
    assert json.loads(line)["texts"] == [
        {"prompt": [["user", f"{SECRET} prompt"]], "reply": f"{SECRET} {n}", "score": score}
        for n, score in enumerate((1.5, None, 2.0))
    ]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_terminal_obeys_nothing_and_a_line_is_one(form):
    odd = "/\x1b[2J\n\u202e\x9b\ud800"
    (line,) = Lines(form).of(handled(status=404, path=odd, known=False))
    assert line.count("\n") == 1
    assert line.isascii()
    assert "\\u202e" in line
    if form == "json":
        assert json.loads(line)["path"] == odd


def test_words_that_hold_spaces_or_signs_are_quoted():
    assert as_text({"time": "t", "a": "x y", "b": 'q"=', "c": "", "d": 3}) == 't a="x y" b="q\\"=" c="" d=3'


def test_repeated_errors_have_a_bounded_rate_and_are_counted():
    start = 1_800_000_000.0
    refused = Notes("tei", True, refused=Refused("overloaded", "full"))
    flood = [handled(status=429, notes=refused, began=start + n / 1_000) for n in range(500)]
    other = handled(status=429, path="/rerank", notes=refused, began=start + 0.6)
    good = [handled(began=start + n / 1_000) for n in range(50)]
    later = handled(status=429, notes=refused, began=start + WITHIN_S + 1)
    lines = Lines("json").of(*flood, other, *good, later)
    facts = [json.loads(line) for line in lines]
    assert [each["status"] for each in facts] == [429] * LIKE + [429] + [200] * 50 + [429]
    assert facts[-1]["more_like_it"] == 500 - LIKE
    assert not any("more_like_it" in each for each in facts[:-1])


def test_what_was_left_out_is_said_when_the_log_closes():
    refused = Notes("tei", True, refused=Refused("overloaded", "full"))
    lines = Lines("json").of(*(handled(status=429, notes=refused) for _ in range(LIKE + 7)))
    assert len(lines) == LIKE + 1
    last = json.loads(lines[-1])
    assert (last["level"], last["error"], last["more_like_it"]) == ("warning", "overloaded", 7)


def test_paths_that_are_not_there_are_alike_and_fill_no_memory():
    lines = Lines()
    written = lines.of(*(handled(status=404, path=f"/{n}", known=False) for n in range(1_000)))
    assert len(written) == LIKE + 1
    assert not lines.log._repeated


def test_what_monitors_ask_is_quiet_while_it_is_well():
    lines = Lines().of(handled(path="/live"), handled(path="/metrics"), handled(path="/ready", status=503))
    assert [line.split()[1:4] for line in lines] == [["503", "POST", "/ready"]]


def test_a_log_that_cannot_be_written_holds_nothing_up_and_counts_what_it_lost(monkeypatch):
    monkeypatch.setattr(logs, "_MOST_WAITING", 3)
    free, lines = threading.Event(), []

    def slow(line: str) -> None:
        free.wait(10)
        lines.append(line)

    log = AccessLog("json", write=slow)
    began = time.perf_counter()
    for _ in range(20):
        log.handled(handled())
    assert time.perf_counter() - began < 1
    free.set()
    time.sleep(0.05)
    log.handled(handled())
    log.close()
    facts = [json.loads(line) for line in lines]
    lost = sum(each.get("lines_lost_before", 0) for each in facts)
    assert lost > 0
    assert len(facts) + lost == 21


def test_a_closed_pipe_ends_no_requests():
    tried = []

    def broken(line: str) -> None:
        tried.append(line)
        raise BrokenPipeError

    log = AccessLog("text", write=broken)
    for _ in range(5):
        log.handled(handled())
    log.close()
    assert tried


def test_a_form_that_there_is_not_is_refused_and_none_writes_nothing(capfd):
    with pytest.raises(BadInput, match="log_format is 'xml'; wanted one of text, json, none"):
        AccessLog("xml")
    log = AccessLog("none")
    log.handled(handled())
    log.close()
    assert capfd.readouterr() == ("", "")


def test_lines_go_to_standard_error(capsys):
    log = AccessLog("text")
    log.handled(handled())
    log.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("2027-01-15T08:00:00.500Z 200 POST /api/score")
    assert "logging" not in vars(sys.modules["prefrank.serving.logs"])


def test_a_fault_that_nothing_expected_is_recorded_and_goes_on():
    told: list[Handled] = []

    class Recorder:
        def handled(self, handled: Handled) -> None:
            told.append(handled)

    async def fail(request: Request) -> PlainTextResponse:
        notes_of(request).dialect = "odd"
        raise KeyError(SECRET)

    app = Starlette(routes=[Route("/fail", fail)])
    app.add_middleware(recorded, recorders=(Recorder(),), dialects={})
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/fail")

    assert asyncio.run(ask()).status_code == 500
    (one,) = told
    assert (one.status, one.fault, one.notes.dialect, one.known) == (500, "KeyError", "odd", True)
    facts = facts_of(one, texts=False)
    assert (facts["error"], facts["message"]) == ("fault", "KeyError")


def test_a_live_server_logs_each_request_once(bert):
    lines = Lines("json")
    with live_server(bert, recorders=[lines.log]) as live, httpx.Client(base_url=live.url) as client:
        body = {"prompt": f"{SECRET} how", "replies": ["salt", "yeast"]}
        good = client.post("/api/rank", json=body)
        client.get("/live")
        client.post("/api/rank", json=body | {"replies": SECRET * 3, "prompt": {SECRET: SECRET}})
        client.get(f"/api/models?{SECRET}")
    lines.log.close()
    facts = [json.loads(line) for line in lines.lines]
    assert [(each["status"], each["path"]) for each in facts] == [
        (200, "/api/rank"), (422, "/api/rank"), (200, "/api/models"),
    ]  # fmt: skip
    assert facts[0]["id"] == good.headers["x-request-id"]
    assert (facts[0]["model"], facts[0]["rows"], facts[0]["client"]) == ("m", 2, "127.0.0.1")
    assert facts[0]["ms"] >= facts[0]["wait_ms"] + facts[0]["tokenize_ms"] + facts[0]["model_ms"] - 0.03
    assert not any(SECRET in line for line in lines.lines)


def test_a_key_never_stands_in_it_and_a_request_without_one_does(bert):
    lines = Lines("json")
    with live_server(bert, recorders=[lines.log], keys=(SECRET,)) as live, httpx.Client(base_url=live.url) as client:
        for key in ({}, {"authorization": f"Bearer {SECRET}-not"}, {"authorization": f"Bearer {SECRET}"}):
            client.post("/api/score", json={"prompt": "how", "replies": ["salt"]}, headers=key)
        metrics = client.get("/metrics").text
    lines.log.close()
    facts = [json.loads(line) for line in lines.lines]
    assert [each["status"] for each in facts if each["path"] == "/api/score"] == [401, 401, 200]
    assert [each.get("error") for each in facts[:3]] == ["unauthorized", "unauthorized", None]
    assert 'dialect="prefrank",model="",reason="unauthorized"} 2.0' in metrics
    assert SECRET not in metrics
    assert not any(SECRET in line for line in lines.lines)


_texts = st.sampled_from([SECRET, f"it's {SECRET}", f'"{SECRET}', f"'{SECRET}' is {SECRET}; wanted {SECRET}",
                          f"{SECRET} " * 30, f"\n{SECRET}\x1b", f"{SECRET}\ud800"])  # fmt: skip
_odd = st.one_of(st.none(), st.booleans(), st.integers(-2, 9), _texts)
_values = st.recursive(
    _odd, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_texts, inner, max_size=2)), max_leaves=5
)
_FIELDS = sorted({name for route in ROUTES for name in route.request.__dataclass_fields__} - {"model"})
_PATHS = sorted({path for route in ROUTES for path in route.paths})
_BODIES = st.one_of(_values, st.dictionaries(st.sampled_from(_FIELDS), _values, min_size=1, max_size=4))


@pytest.fixture(scope="module")
def watched(bert):
    lines: list[str] = []
    log = AccessLog("text", write=lines.append)
    with live_server(bert, recorders=[log]) as live, httpx.Client(base_url=live.url) as client:
        yield client, lines, log
    log.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(_PATHS), body=_BODIES)
def test_no_text_of_any_request_gets_into_logs_or_metrics(watched, path, body):
    client, lines, log = watched
    log._repeated.clear()  # so that every error has its line
    answer = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code < 600
    until = time.monotonic() + 5
    while not (lines and answer.headers["x-request-id"] in lines[-1]) and time.monotonic() < until:
        time.sleep(0.001)
    (line,) = [line for line in lines if answer.headers["x-request-id"] in line]
    assert SECRET not in line
    assert not re.search(f"{SECRET[:5]}|{SECRET[-5:]}", line)
    lines.clear()


def test_nor_into_metrics_and_drift(watched):
    client, *_ = watched
    body = {"model": SECRET, "prompt": SECRET, "replies": [f"{SECRET} a", SECRET]}
    assert client.post("/api/score", json=body).status_code == 404
    assert client.post("/api/score", json=body | {"model": "m"}).status_code == 200
    client.get(f"/{SECRET}")
    for page in ("/metrics", "/api/drift"):
        assert SECRET not in client.get(page).text


def test_the_page_at_the_root_is_no_dialects(bert_server):
    lines = []
    log = AccessLog("json", write=lines.append)
    with live_server(bert_server.settings.models["m"], recorders=[log]) as live:
        assert httpx.get(live.url + "/").status_code == 200
        assert httpx.post(live.url + "/", json={"inputs": "a"}).status_code == 200
    log.close()
    looked, asked = (json.loads(line) for line in lines)
    assert looked.get("dialect") is None
    assert asked["dialect"] == "huggingface"
