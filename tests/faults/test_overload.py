"""More requests at once than the queue takes: refused at once and told when to come again, none answered wrong."""

import asyncio
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.hooks import hooked, scores, solo
from tests.faults.raw import request
from tests.serving.live import Live, live_server

WORDS = "mix flour water salt and yeast the dough needs an hour to rise hello there".split()  # noqa: SIM905


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of every connection are files of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 6_000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this process may open {hard} files; the test opens {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def ask_at_once(live: Live, replies: list[str]) -> list[tuple[int, dict[str, str], bytes, float]]:
    """Status, headers, body and seconds of a request for each reply, all sent before the first is read."""

    async def ask_one(reply: str) -> tuple[int, dict[str, str], bytes, float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        try:
            body = {"prompt": "how do I bake bread", "replies": [reply]}
            began = time.monotonic()
            writer.write(request(body, connection="close"))
            head, _, content = (await reader.read()).partition(b"\r\n\r\n")
            seconds = time.monotonic() - began
        finally:
            writer.close()
            await writer.wait_closed()
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), headers, content, seconds

    return await asyncio.gather(*(ask_one(reply) for reply in replies))


def flood(live: Live, count: int) -> None:
    """Send so many requests at once, and see that each is answered right or refused as it should be."""
    replies = [f"{WORDS[place % 15]} {WORDS[place // 15 % 15]} {place}" for place in range(count)]
    with hooked(live, before=lambda batch: time.sleep(0.02)):
        answers = asyncio.run(asyncio.wait_for(ask_at_once(live, replies), 60))
    answered = [(reply, body) for reply, (status, _, body, _) in zip(replies, answers, strict=True) if status == 200]
    refused = [(headers, body) for status, headers, body, _ in answers if status == 429]
    assert len(answered) + len(refused) == count, {status for status, *_ in answers}
    assert len(answered) >= 20
    assert len(refused) >= count // 4
    for headers, body in refused:
        assert int(headers["retry-after"]) >= 1
        assert json.loads(body)["error"]["type"] == "overloaded"
    model = live.models.of(None).model
    pairs = [("how do I bake bread", reply) for reply, _ in answered]
    right = [score.value for score in model.score_pairs(pairs)]
    assert [json.loads(body)["scores"][0]["score"] for _, body in answered] == right
    began = time.monotonic()
    assert scores(live, "hello") == solo(live, "hello")  # as soon as the flood is over
    assert time.monotonic() - began < 3
    assert live.models.of(None).scheduler.waiting().open_rows == 0


def test_more_than_the_queue_takes_is_refused_and_the_rest_answered_right(bert: Path, many_files: None) -> None:
    with live_server(bert, max_waiting_rows=20) as live:
        flood(live, 300)


@pytest.mark.slow
def test_two_thousand_at_once(bert: Path, many_files: None) -> None:
    with live_server(bert, max_waiting_rows=50) as live:
        flood(live, 2_000)
