"""What the clients try again, for how long, and on which of several servers; and what they never make up."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from prefrank.errors import BadInput, BadModel, NotFound
from prefrank.scoring.exchange import Answer
from prefrank.serving.client import AsyncClient, Client, ClientOptions
from prefrank.serving.client.tries import Replicas, Tries, asked_wait
from tests.serving.fake_server import FINGERPRINT, FakeServe, Fault, gone, worth

QUICK = ClientOptions(wait_s=0.01)
pytestmark = pytest.mark.usefixtures("no_proxy")


# What is tried again


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_an_overloaded_or_broken_server_is_asked_again_with_the_same_request(fake: FakeServe, status: int) -> None:
    fake.faults.extend([Fault(status), Fault(status)])
    with Client(fake.url, QUICK) as client:
        assert client.score("Why?", ["Because."]).values_or_none() == [7.0]
    assert len(fake.asked) == 3
    assert len({str(body) for _, body in fake.asked}) == 1
    assert len({headers["x-request-id"] for headers in fake.headers}) == 1


@pytest.mark.parametrize("fault", [Fault(breaks_off=True), Fault(sleeps_s=0.4)])
def test_broken_connections_and_silence_are_tried_again(fake: FakeServe, fault: Fault) -> None:
    fake.faults.append(fault)
    with Client(fake.url, ClientOptions(wait_s=0.01, timeout_s=0.2)) as client:
        assert client.score("Why?", ["Because."]).values_or_none() == [7.0]
    assert len(fake.asked) == 2


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (Fault(400, message="no JSON"), BadInput, "status 400: no JSON"),
        (Fault(401, message="wants a key"), BadInput, "wants a key.*PREFRANK_SERVER_KEY"),
        (Fault(404, message="no model x"), NotFound, "no model x"),
        (Fault(408, message="too slow"), BadInput, "too slow"),
        (Fault(422, message="no prompt"), BadInput, "status 422: no prompt"),
        (Fault(302, message="elsewhere"), BadModel, "status 302"),
        (Fault(200, body="<html>"), BadModel, "answered <html>"),
        (Fault(200, body="[]"), BadModel, "wanted an object"),
        (Fault(200, body="[" * 100_000), BadModel, "nested too deeply"),
    ],
)
def test_refusals_and_other_answers_are_errors_at_once(
    fake: FakeServe, fault: Fault, error: type[Exception], says: str
) -> None:
    fake.faults.append(fault)
    with Client(fake.url, QUICK) as client, pytest.raises(error, match=says):
        client.score("Why?", ["Because."])
    assert len(fake.asked) == 1


def test_a_server_that_is_not_there_is_given_up_after_the_tries() -> None:
    with Client(gone(), ClientOptions(tries=3, wait_s=0.01)) as client, pytest.raises(NotFound, match="tried 3 times"):
        client.score("Why?", ["Because."])


def test_a_server_that_comes_back_answers_what_was_asked_for_while_it_was_gone() -> None:
    url = gone()
    with Client(url, ClientOptions(tries=100, wait_s=0.05, longest_wait_s=0.1)) as client:
        future = client.later([("Why?", "Because.")])
        time.sleep(0.2)
        assert not future.done()
        server = FakeServe(port=int(url.rpartition(":")[2]))
        try:
            assert future.result(timeout=30).values_or_none() == [7.0]
        finally:
            server.close()


def test_the_deadline_ends_a_call_whatever_the_tries_and_the_server_ask_for(fake: FakeServe) -> None:
    fake.faults.extend([Fault(headers={"retry-after": "20"})] * 3)
    began = time.monotonic()
    with Client(fake.url, ClientOptions(deadline_s=1.0)) as client, pytest.raises(NotFound, match="1 s are over"):
        client.score("Why?", ["Because."])
    assert time.monotonic() - began < 1  # no wait that ends after the deadline
    assert len(fake.asked) == 1


def test_requests_that_wait_for_their_place_end_with_the_deadline_too(fake: FakeServe) -> None:
    fake.sleeps_s = 0.3
    options = ClientOptions(deadline_s=0.5, concurrency=1, batch=1, tries=1)
    with Client(fake.url, options) as client, pytest.raises(NotFound, match=r"deadline_s|no answer"):
        client.score("Why?", ["a"] * 20)
    assert len(fake.asked) <= 2


def test_the_first_error_of_a_piece_ends_the_others(fake: FakeServe) -> None:
    fake.sleeps_s = 0.05
    with Client(fake.url, ClientOptions(batch=1, concurrency=1)) as client:
        with pytest.raises(BadInput, match="a reply is forbidden"):
            client.score("Why?", ["forbidden"] + ["a"] * 50)
        assert client.score("Why?", ["Because."]).values_or_none() == [7.0]
    assert len(fake.asked) < 10


@pytest.mark.parametrize(
    "places", [[0], [0, 1, 2], [1, 0], [0, 0], [0, 2]], ids=["too few", "too many", "turned", "twice", "beyond"]
)
def test_scores_that_are_not_those_of_the_rows_are_an_error(fake: FakeServe, places: list[int]) -> None:
    scores = [{"index": place, "score": 1.0} for place in places]
    answer = {"model": "demo", "fingerprint": FINGERPRINT, "scale": "logit", "scores": scores}
    fake.faults.append(Fault(200, body=json.dumps(answer)))
    with Client(fake.url) as client, pytest.raises(BadModel, match="was asked for 2 scores"):
        client.score("Why?", ["a", "b"])


def test_a_closed_asynchronous_client_says_so(fake: FakeServe) -> None:
    async def work() -> None:
        client = AsyncClient(fake.url)
        await client.close()
        with pytest.raises(BadInput, match="the client is closed"):
            await client.score("Why?", ["a"])

    asyncio.run(work())


@pytest.mark.parametrize("header", ["0.3", "date"])
def test_retry_after_is_waited_for_in_seconds_and_as_a_date(fake: FakeServe, header: str) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    date = {"date": format_datetime(now, usegmt=True)}
    after = header if header != "date" else format_datetime(now + timedelta(seconds=1), usegmt=True)
    fake.faults.append(Fault(429, headers={"retry-after": after} | (date if header == "date" else {})))
    began = time.monotonic()
    with Client(fake.url, ClientOptions(wait_s=0.0, longest_wait_s=0.5)) as client:
        client.score("Why?", ["Because."])
    assert 0.29 < time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("header", "date", "seconds"),
    [
        ("7", None, 7.0),
        ("1.5", None, 1.5),
        ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:30 GMT", 7.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", None, 0.0),
        ("soon", None, None),
        ("-3", None, None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None, None),
        (None, None, None),
    ],
)
def test_a_wait_is_read_from_seconds_and_from_dates(
    header: str | None, date: str | None, seconds: float | None
) -> None:
    headers = {name: value for name, value in (("retry-after", header), ("date", date)) if value is not None}
    assert asked_wait(Answer(503, headers, b"")) == seconds


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_waits_double_are_drawn_at_random_and_are_bounded() -> None:
    clock = Clock()
    options = ClientOptions(tries=6, wait_s=1.0, longest_wait_s=5.0)
    tries = Tries(Replicas(["http://a"], clock=clock), options, ends=1000.0, draw=lambda: 0.5, clock=clock)
    waits = []
    for asked in (None, None, 4.0, 4000.0, None):
        waits.append(tries.next().wait_s)
        tries.failed("failed", asked)
    waits.append(tries.next().wait_s)
    assert waits == [0.0, 0.5, 1.0, 5.0, 5.0, 2.5]  # 4 asked for and a second's jitter; no more than 5
    tries.failed("failed")
    with pytest.raises(NotFound, match="http://a failed; tried 6 times"):
        tries.next()


# Several servers


def test_replicas_are_asked_in_turn_and_failed_ones_last() -> None:
    clock = Clock()
    replicas = Replicas(["a", "b", "c"], clock=clock)
    assert [replicas.order()[0] for _ in range(4)] == ["a", "b", "c", "a"]
    replicas.failed("b", 10.0)
    assert [replicas.order() for _ in range(3)] == [["c", "a", "b"], ["c", "a", "b"], ["a", "c", "b"]]
    clock.now += 11
    assert replicas.order() == ["b", "c", "a"]


def test_load_is_spread_over_replicas_and_one_that_is_gone_is_passed_over(fake: FakeServe, other: FakeServe) -> None:
    pairs = [("Why?", "x" * size) for size in range(1, 13)]
    with Client([fake.url, gone(), other.url], ClientOptions(batch=1, wait_s=5.0)) as client:
        began = time.monotonic()
        assert client.score_pairs(pairs).values_or_nan() == [worth(*pair) for pair in pairs]
    assert time.monotonic() - began < 4  # the next replica is asked without a wait
    assert min(len(fake.asked), len(other.asked)) >= 3
    assert len(fake.asked) + len(other.asked) == 12


def test_an_overloaded_replica_hands_over_at_once_whatever_wait_it_asks_for(fake: FakeServe, other: FakeServe) -> None:
    fake.faults.append(Fault(429, headers={"retry-after": "30"}))
    began = time.monotonic()
    with Client([fake.url, other.url]) as client:
        for _ in range(4):
            client.score("Why?", ["Because."])
    assert time.monotonic() - began < 5
    assert (len(fake.asked), len(other.asked)) == (1, 4)


def test_replicas_of_two_models_are_an_error(fake: FakeServe, other: FakeServe) -> None:
    other.fingerprint = "e" * 64
    both = Client([fake.url, other.url], ClientOptions(batch=1))
    with both as client, pytest.raises(BadModel, match=r"scores of two models, [ef]{12} and [ef]{12}"):
        client.score("Why?", ["a", "b"])
