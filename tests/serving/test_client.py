"""The clients against a small server of the tests' own on the loopback: what they give, what they refuse, and how they
end."""

import asyncio
import gc
import math
import os
import pickle
import subprocess
import sys
import threading
import time

import pytest

from prefrank.errors import BadInput, BadModel, NotFound
from prefrank.serving.client import AsyncClient, Client, ClientOptions
from prefrank.serving.client.client_options import base_urls
from tests.serving.fake_server import FINGERPRINT, FakeServe, gone, worth

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Because."},
    {"role": "user", "content": "Of what?"},
]
QUICK = ClientOptions(wait_s=0.01)
pytestmark = pytest.mark.usefixtures("no_proxy")


# What the calls give


def test_replies_to_one_prompt_are_scored_in_order_with_their_facts(fake: FakeServe) -> None:
    with Client(fake.url) as client:
        scores = client.score("Why?", ["Because.", "x" * 120])
    assert (scores.model, scores.fingerprint, scores.scale) == ("demo", FINGERPRINT, "logit")
    assert scores.values_or_none() == [7.0, 119.0]
    first, second = scores.all_scored()
    assert (first.value, first.tokens, first.cut_reply, first.model) == (7.0, 8, 0, FINGERPRINT)
    assert (second.tokens, second.cut_reply) == (100, 20)
    assert fake.asked == [("/api/score", {"prompt": "Why?", "replies": ["Because.", "x" * 120]})]


def test_conversations_travel_as_messages_and_single_turns_as_texts(fake: FakeServe) -> None:
    with Client(fake.url) as client:
        scores = client.score_pairs([(CONVERSATION, "Of it."), {"prompt": "Why?", "reply": "So."}])
    assert fake.asked[0][1]["pairs"] == [
        {"prompt": CONVERSATION, "reply": "Of it."},
        {"prompt": "Why?", "reply": "So."},
    ]
    assert scores.values_or_nan() == [worth(CONVERSATION, "Of it."), worth("Why?", "So.")]


def test_whole_texts_are_scored_as_they_are(fake: FakeServe) -> None:
    with Client(fake.url) as client:
        assert client.score_texts(["<|user|>a", "b"]).values_or_nan() == [9.0, 1.0]
    assert fake.asked[0][1] == {"texts": ["<|user|>a", "b"]}


def test_a_failed_reply_is_none_or_nan_or_an_error_as_the_caller_chooses_and_never_a_number(fake: FakeServe) -> None:
    with Client(fake.url) as client:
        scores = client.score("Why?", ["Because.", "poison", "So."])
    assert scores.values_or_none() == [7.0, None, 2.0]
    values = scores.values_or_nan()
    assert (values[0], math.isnan(values[1]), values[2]) == (7.0, True, 2.0)
    assert [row.index for row in scores.failures] == [1]
    with pytest.raises(BadInput, match="1 of 3 rows have no score; row 1: the text cannot be encoded"):
        scores.all_scored()


def test_ranking_comparing_choosing_and_explaining(fake: FakeServe) -> None:
    with Client(fake.url) as client:
        ranking = client.rank("Why?", ["aa", "poison", "aaaa", "bb"])
        compared = client.compare("Why?", "aa", "aaaa")
        best = client.best_of_n("Why?", ["aa", "aaaa", "a"], top_k=2, threshold=1.0)
        explained = client.explain("Why?", "One. Three")
        models = client.models()
    assert [(place.rank, place.index) for place in ranking.ranking] == [(1, 2), (2, 0), (2, 3), (None, 1)]
    assert sum(place.weight or 0 for place in ranking.ranking) == pytest.approx(1)
    assert ranking.win_probability is not None
    assert ranking.win_probability[2][0] == pytest.approx(1 / (1 + math.exp(-1)))
    assert ranking.win_probability[0][1] is None
    assert (ranking.temperature, ranking.calibrated) == (2.0, True)
    assert (compared.winner, compared.margin) == ("second", -2.0)
    assert compared.win_probability == pytest.approx(1 / (1 + math.e))
    assert [(reply.index, reply.reply, reply.score) for reply in best.best] == [(1, "aaaa", 3.0), (0, "aa", 1.0)]
    assert (best.group.n, best.group.min, best.group.max) == (3, 0.0, 3.0)
    assert [(part.text, part.start, part.end) for part in explained.parts] == [("One", 0, 3), ("Three", 5, 10)]
    assert [part.difference for part in explained.parts] == [3.0, 5.0]
    assert models.models[0].calibration is not None
    assert (models.models[0].calibration.temperature, models.models[0].default) == (2.0, True)


def test_many_pairs_go_in_pieces_at_once_within_bounds_and_come_back_in_order(fake: FakeServe) -> None:
    fake.sleeps_s = 0.02
    pairs = [("Why?", "x" * size) for size in range(1, 41)]
    with Client(fake.url, ClientOptions(batch=3, concurrency=4)) as client:
        scores = client.score_pairs(pairs)
    assert scores.values_or_nan() == [worth(*pair) for pair in pairs]
    assert [row.index for row in scores.scores] == list(range(40))
    assert len(fake.asked) == 14
    assert max(len(body["pairs"]) for _, body in fake.asked) == 3
    assert 1 < fake.most_busy <= 4


@pytest.mark.parametrize("status", [413, 422])
def test_what_is_too_much_for_the_server_is_asked_in_halves(fake: FakeServe, status: int) -> None:
    fake.most_rows, fake.too_much = 2, status
    pairs = [("Why?", "x" * size) for size in range(1, 8)]
    with Client(fake.url) as client:
        assert client.score_pairs(pairs).values_or_nan() == [worth(*pair) for pair in pairs]
    fake.most_rows = 0
    with Client(fake.url) as client, pytest.raises(BadInput, match=f"status {status}: 1 rows; wanted 0 at most"):
        client.score("Why?", ["a", "b"])


def test_the_asynchronous_client_gives_the_same(fake: FakeServe) -> None:
    async def work() -> list[list[float]]:
        async with AsyncClient(fake.url, QUICK) as client:
            many = await asyncio.gather(*[client.score("Why?", ["x" * size]) for size in range(1, 20)])
            await client.wait_ready(5.0)
            return [scores.values_or_nan() for scores in many]

    assert asyncio.run(work()) == [[worth("Why?", "x" * size)] for size in range(1, 20)]
    assert fake.most_busy <= QUICK.concurrency


def test_one_client_serves_many_threads_and_event_loops(fake: FakeServe) -> None:
    with Client(fake.url, QUICK) as client:

        async def work() -> float:
            scores = await asyncio.wrap_future(client.later([("Why?", "abc")]))
            return scores.values_or_nan()[0] + client.score("Why?", ["a"]).values_or_nan()[0]

        found: list[float] = []
        threads = [threading.Thread(target=lambda: found.append(asyncio.run(work()))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [2.0] * 4


# Which model, which key


def test_a_model_that_changed_under_a_run_is_an_error(fake: FakeServe) -> None:
    with Client(fake.url, ClientOptions(fingerprint=FINGERPRINT)) as client:
        assert client.score("Why?", ["Because."]).fingerprint == FINGERPRINT
        fake.fingerprint = "e" * 64
        with pytest.raises(BadModel, match="answered with model eeeeeeeeeeee, and ffffffffffff is wanted"):
            client.score("Why?", ["Because."])
        with pytest.raises(BadModel, match="was exchanged"):
            client.compare("Why?", "a", "b")


def test_the_model_is_asked_for_by_name(fake: FakeServe) -> None:
    with Client(fake.url, ClientOptions(model="demo")) as client:
        client.score("Why?", ["Because."])
    assert fake.asked[0][1]["model"] == "demo"
    with (
        Client(fake.url, ClientOptions(model="big")) as client,
        pytest.raises(NotFound, match="no model 'big'"),
    ):
        client.score("Why?", ["Because."])


def test_the_key_is_sent_given_or_of_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServe(key="s3cret")
    try:
        with Client(server.url) as client, pytest.raises(BadInput, match="wants a key"):
            client.score("Why?", ["Because."])
        with Client(server.url, ClientOptions(key="s3cret")) as client:
            client.score("Why?", ["Because."])
        monkeypatch.setenv("PREFRANK_SERVER_KEY", "s3cret")
        with Client(server.url) as client:
            client.score("Why?", ["Because."])
    finally:
        server.close()
    assert "s3cret" not in repr(ClientOptions(key="s3cret"))
    with pytest.raises(BadInput, match="no header can") as raised:
        ClientOptions(key="s3cret\n")
    assert "s3cret" not in str(raised.value)


def test_ready_is_waited_for(fake: FakeServe) -> None:
    fake.is_ready = False
    with Client(fake.url) as client:
        assert not client.ready()
        with pytest.raises(NotFound, match=r"was not ready in 0\.3 s"):
            client.wait_ready(0.3)
        threading.Timer(0.3, lambda: setattr(fake, "is_ready", True)).start()
        client.wait_ready(10.0)
    with Client([gone(), fake.url]) as client:
        assert client.ready()
    with Client(gone()) as client:
        assert not client.ready()


# What is refused before anything is sent


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "not the address"), ("127.0.0.1:80", "not the address"), ("ftp://a", "not the address"),
        ("http://", "not the address"), ("http://a:x", "not the address"), ("http://a?key=s3cret", "has a query"),
        ("http://me:s3cret@a", "has a query or a user"), ("http://a/api/score", "without /api/score"),
        ([], "no address"),
    ],
)  # fmt: skip
def test_addresses_that_are_none_are_refused(url: str | list[str], says: str) -> None:
    with pytest.raises(BadInput, match=says) as raised:
        base_urls(url)
    assert "s3cret" not in str(raised.value)


def test_addresses_may_have_a_path_and_a_slash() -> None:
    assert base_urls(["http://a:1/", "https://b/reward/"]) == ("http://a:1", "https://b/reward")


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch", 0), ("concurrency", True), ("tries", 1.5), ("timeout_s", 0), ("deadline_s", math.inf), ("wait_s", -1),
     ("longest_wait_s", math.nan), ("model", ""), ("fingerprint", 3)],
)  # fmt: skip
def test_options_that_cannot_be_meant_are_refused(name: str, value: object) -> None:
    with pytest.raises((BadInput, TypeError), match=name):
        ClientOptions(**{name: value})


def test_what_is_no_text_is_refused_before_it_is_sent(fake: FakeServe) -> None:
    with Client(fake.url) as client:
        for wrong in (
            lambda: client.score("Why?", []),
            lambda: client.score_pairs([]),
            lambda: client.score_texts([]),
            lambda: client.score("Why?", [3]),
            lambda: client.score([{"role": "poet", "content": "a"}], ["a"]),
            lambda: client.best_of_n("Why?", ["a"], top_k=0),
            lambda: client.best_of_n("Why?", ["a"], threshold=math.nan),
        ):
            with pytest.raises((BadInput, TypeError)):
                wrong()
    assert fake.asked == []


# Processes, threads, ends


def test_a_closed_client_says_so_and_closing_twice_is_nothing(fake: FakeServe) -> None:
    client = Client(fake.url)
    client.score("Why?", ["Because."])
    client.close()
    client.close()
    with pytest.raises(BadInput, match="the client is closed"):
        client.score("Why?", ["Because."])


def test_a_forgotten_client_ends_its_thread(fake: FakeServe) -> None:
    before = threading.active_count()
    client = Client(fake.url)
    client.score("Why?", ["Because."])
    thread = next(thread for thread in threading.enumerate() if thread.name == "prefrank-client")
    del client
    gc.collect()
    thread.join(timeout=10.0)
    assert not thread.is_alive()
    assert before >= 1


def test_whoever_collects_a_forgotten_client_does_not_wait_for_its_end(
    fake: FakeServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As garbage is collected anywhere, also where a lock is held that the client's end needs."""
    lock, close_really = threading.Lock(), AsyncClient.close

    async def close(client: AsyncClient) -> None:
        with lock:
            await close_really(client)

    monkeypatch.setattr(AsyncClient, "close", close)
    client = Client(fake.url)
    client.score("Why?", ["Because."])
    thread = next(thread for thread in threading.enumerate() if thread.name == "prefrank-client")
    began = time.monotonic()
    with lock:
        del client
        gc.collect()
    assert time.monotonic() - began < 2.0
    thread.join(timeout=10.0)
    assert not thread.is_alive()


def test_closing_gives_up_what_is_asked_for(fake: FakeServe) -> None:
    fake.sleeps_s = 1.0
    client = Client(fake.url)
    future = client.later([("Why?", "Because.")])
    time.sleep(0.1)
    began = time.monotonic()
    client.close()
    assert future.cancelled()
    assert time.monotonic() - began < 0.9


def test_a_thread_that_waits_for_a_client_that_is_closed_is_told(fake: FakeServe) -> None:
    fake.sleeps_s = 1.0
    client = Client(fake.url)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            client.score("Why?", ["Because."])
        except BadInput as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.1)
    client.close()
    thread.join()
    assert ["was closed before the answer came" in str(error) for error in errors] == [True]


def test_options_travel_to_other_processes() -> None:
    options = ClientOptions(model="demo", key="k", fingerprint="f")
    assert pickle.loads(pickle.dumps(options)) == options


def test_the_client_imports_without_the_server_and_without_torch() -> None:
    code = (
        "import sys; import prefrank.serving.client, prefrank.serving.rewards;"
        "print([name for name in ('torch', 'fastapi', 'starlette', 'uvicorn', 'httpx', 'transformers', 'pydantic')"
        " if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_process_that_ends_with_an_open_client_ends_at_once_and_says_nothing(fake: FakeServe) -> None:
    code = (
        "from prefrank.serving.client import Client\n"
        f"client = Client({fake.url!r})\n"
        "print(client.score('Why?', ['Because.']).values_or_none())\n"
    )
    began = time.monotonic()
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"NO_PROXY": "127.0.0.1"})
    assert (result.stdout.strip(), result.stderr) == ("[7.0]", "")
    assert time.monotonic() - began < 60
