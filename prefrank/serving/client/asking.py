"""The client inside an event loop: requests in pieces, tried again until they are answered or their time is over."""

import asyncio
import math
import time
from collections.abc import Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from prefrank.checks import check_number, check_whole
from prefrank.errors import BadInput, BadModel, NotFound
from prefrank.scoring.given import ReplyLike, RowLike, as_given_prompt, as_pairs, as_replies, as_reply, values_of
from prefrank.serving.client.answer_reading import (
    check_fingerprint,
    check_rows,
    is_too_much,
    joined,
    read_answer,
)
from prefrank.serving.client.answers import Best, Compared, Explanation, Ranking, Scores, ServedModels
from prefrank.serving.client.client_options import ClientOptions
from prefrank.serving.client.transport import Transport
from prefrank.types import Prompt, PromptLike

T = TypeVar("T")
Judged = TypeVar("Judged", Scores, Ranking, Compared, Best, Explanation)

READY_EVERY_S = 0.25


class AsyncClient:
    """A client of `prefrank serve`, of one event loop.

    Args:
        urls: the server's address, or those of several replicas of one model.
        options: how to ask.

    Raises:
        BadInput: an address or a key that cannot be used.
        NotFound: httpx is not installed.
    """

    def __init__(self, urls: str | Sequence[str], options: ClientOptions | None = None) -> None:
        self.options = options or ClientOptions()
        self._transport = Transport(urls, self.options)

    @property
    def urls(self) -> tuple[str, ...]:
        return self._transport.urls

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def score(self, prompt: PromptLike, replies: Iterable[ReplyLike]) -> Scores:
        """The scores of replies to one prompt, in order.

        Raises:
            BadInput: what cannot be sent, or what the server refuses; its sentence says why.
            NotFound: no answer in all tries, or in the time; a model that the server does not have.
            BadModel: an answer of another form, or of another model than is wanted.
        """
        asked, texts = _prompt(prompt), as_replies(replies)
        return await self._score([{"prompt": asked, "replies": part} for part in self._parts(texts)], "replies")

    async def score_pairs(self, pairs: Iterable[RowLike]) -> Scores:
        """The scores of (prompt, reply) pairs, or of rows with `prompt` and `reply`, in order. Errors as `score`."""
        rows = [{"prompt": _wire(prompt), "reply": reply} for prompt, reply in as_pairs(pairs)]
        if not rows:
            raise BadInput("there are no pairs to score; give at least one")
        return await self._score([{"pairs": part} for part in self._parts(rows)], "pairs")

    async def score_texts(self, texts: Iterable[str]) -> Scores:
        """The scores of whole texts that a chat template has been through, in order. Errors as `score`."""
        given = [as_reply(text, f"text {place}") for place, text in enumerate(values_of(texts, "texts", "strings"))]
        if not given:
            raise BadInput("there are no texts to score; give at least one")
        return await self._score([{"texts": part} for part in self._parts(given)], "texts")

    async def rank(self, prompt: PromptLike, replies: Iterable[ReplyLike]) -> Ranking:
        """The replies, best first, with the probabilities that one beats another. Errors as `score`."""
        texts = as_replies(replies)
        ranking = await self._judge(Ranking, "/api/rank", {"prompt": _prompt(prompt), "replies": texts})
        if sorted(place.index for place in ranking.ranking) != list(range(len(texts))):
            raise BadModel(f"{self._where} was asked to rank {len(texts)} replies and answered with others")
        return ranking

    async def compare(self, prompt: PromptLike, first: ReplyLike, second: ReplyLike) -> Compared:
        """Which of two replies is better, by how much, and how sure that is. Errors as `score`."""
        texts = {"first": as_reply(first, "the first reply"), "second": as_reply(second, "the second reply")}
        return await self._judge(Compared, "/api/compare", {"prompt": _prompt(prompt), **texts})

    async def best_of_n(
        self, prompt: PromptLike, replies: Iterable[ReplyLike], *, top_k: int = 1, threshold: float | None = None
    ) -> Best:
        """The best replies, and what the scores of all are like.

        Args:
            top_k: so many at most.
            threshold: only those of at least this raw score.

        Raises:
            BadInput, NotFound, BadModel: as `score`.
        """
        check_whole("top_k", top_k, least=1)
        if threshold is not None:
            check_number("threshold", threshold)
        body: dict[str, Any] = {"prompt": _prompt(prompt), "replies": as_replies(replies), "top_k": top_k}
        return await self._judge(Best, "/api/best_of_n", body | ({} if threshold is None else {"threshold": threshold}))

    async def explain(self, prompt: PromptLike, reply: ReplyLike) -> Explanation:
        """What each sentence of a reply adds to its score. Errors as `score`."""
        body = {"prompt": _prompt(prompt), "reply": as_reply(reply, "the reply")}
        return await self._judge(Explanation, "/api/explain", body)

    async def models(self) -> ServedModels:
        """The models that the server has, with their fingerprints. Errors as `score`."""
        answer = await self._transport.ask("GET", "/api/models", None, time.monotonic() + self.options.deadline_s)
        return read_answer(ServedModels, self._transport.sound(answer), self._where)

    async def ready(self) -> bool:
        """Whether one of the servers is ready to score, asked once."""
        return any(await _all([self._transport.ready(url) for url in self.urls]))

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until one of the servers is ready to score.

        Raises:
            NotFound: none is in this time.
        """
        check_number("timeout_s", timeout_s, above=0.0)
        ends = time.monotonic() + timeout_s
        while not await self.ready():
            if time.monotonic() + READY_EVERY_S > ends:
                raise NotFound(f"{self._where} was not ready in {timeout_s:g} s; is it up, and is its model loaded?")
            await asyncio.sleep(READY_EVERY_S)

    @property
    def _where(self) -> str:
        return self._transport.where

    def _parts(self, rows: list[T]) -> list[list[T]]:
        return [rows[start : start + self.options.batch] for start in range(0, len(rows), self.options.batch)]

    async def _score(self, bodies: list[dict[str, Any]], rows: str) -> Scores:
        """Args:
        rows: the key of the rows in each body.
        """
        ends = time.monotonic() + self.options.deadline_s
        parts = await _all([self._score_part(body, rows, ends) for body in bodies])
        return joined(parts, self._where)

    async def _score_part(self, body: dict[str, Any], rows: str, ends: float) -> Scores:
        """The scores of one request; of its halves, where it is too much for the server."""
        answer = await self._transport.ask("POST", "/api/score", body, ends)
        given = body[rows]
        if is_too_much(answer) and len(given) > 1:
            half = math.ceil(len(given) / 2)
            halves = [await self._score_part(body | {rows: p}, rows, ends) for p in (given[:half], given[half:])]
            return joined(halves, self._where)
        scores = read_answer(Scores, self._transport.sound(answer), self._where)
        check_fingerprint(scores.fingerprint, self.options.fingerprint, self._where)
        check_rows(scores, len(given), self._where)
        return scores

    async def _judge(self, kind: type[Judged], path: str, body: dict[str, Any]) -> Judged:
        answer = await self._transport.ask("POST", path, body, time.monotonic() + self.options.deadline_s)
        judged = read_answer(kind, self._transport.sound(answer), self._where)
        check_fingerprint(judged.fingerprint, self.options.fingerprint, self._where)
        return judged


async def _all(work: list[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order; the first error ends the rest."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _prompt(prompt: PromptLike) -> str | list[dict[str, Any]]:
    return _wire(as_given_prompt(prompt))


def _wire(prompt: Prompt) -> str | list[dict[str, Any]]:
    """A prompt as it is sent: one user turn as its text, a conversation as messages."""
    if len(prompt) == 1 and prompt[0].role == "user" and not prompt[0].extra:
        return prompt[0].text
    return [turn.message() for turn in prompt]
