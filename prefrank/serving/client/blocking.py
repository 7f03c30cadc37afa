"""The client for ordinary code: the asynchronous one in an event loop of its own, in a thread of its own.

It can be used from any thread, several at once, and also where an event loop runs already, such as in a notebook. A
forked process needs one of its own.
"""

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from prefrank.errors import BadInput
from prefrank.scoring.given import ReplyLike, RowLike
from prefrank.serving.client.answers import Best, Compared, Explanation, Ranking, Scores, ServedModels
from prefrank.serving.client.asking import AsyncClient
from prefrank.serving.client.client_options import ClientOptions
from prefrank.types import PromptLike

T = TypeVar("T")

STOP_S = 5.0
"""For the thread to end."""


class Client:
    """A client of `prefrank serve`. Use it in a `with`, or close it.

    Args:
        urls: the server's address, or those of several replicas of one model.
        options: how to ask.

    Raises:
        BadInput: an address or a key that cannot be used.
        NotFound: httpx is not installed.
    """

    def __init__(self, urls: str | Sequence[str], options: ClientOptions | None = None) -> None:
        self._client = AsyncClient(urls, options)
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_work, args=(self._loop, self._client), daemon=True, name="prefrank-client"
        )
        self._thread.start()
        self._stop = weakref.finalize(self, _stop, self._loop, self._thread)  # also when it is forgotten
        self._stop.atexit = False
        _OPEN.add(self)

    @property
    def urls(self) -> tuple[str, ...]:
        return self._client.urls

    @property
    def options(self) -> ClientOptions:
        return self._client.options

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread; what is being asked for is given up."""
        self._stop()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=STOP_S)

    def score(self, prompt: PromptLike, replies: Iterable[ReplyLike]) -> Scores:
        """The scores of replies to one prompt, in order.

        Raises:
            BadInput: what cannot be sent, or what the server refuses; its sentence says why.
            NotFound: no answer in all tries, or in the time; a model that the server does not have.
            BadModel: an answer of another form, or of another model than is wanted.
        """
        return self._result(self._client.score(prompt, replies))

    def score_pairs(self, pairs: Iterable[RowLike]) -> Scores:
        """The scores of (prompt, reply) pairs, or of rows with `prompt` and `reply`, in order. Errors as `score`."""
        return self._result(self._client.score_pairs(pairs))

    def score_texts(self, texts: Iterable[str]) -> Scores:
        """The scores of whole texts that a chat template has been through, in order. Errors as `score`."""
        return self._result(self._client.score_texts(texts))

    def later(self, pairs: Iterable[RowLike]) -> "Future[Scores]":
        """As `score_pairs`, at once: its result comes later. `asyncio.wrap_future` waits for it in any event loop."""
        return self._later(self._client.score_pairs(pairs))

    def later_texts(self, texts: Iterable[str]) -> "Future[Scores]":
        """As `score_texts`, at once: its result comes later."""
        return self._later(self._client.score_texts(texts))

    def rank(self, prompt: PromptLike, replies: Iterable[ReplyLike]) -> Ranking:
        """The replies, best first, with the probabilities that one beats another. Errors as `score`."""
        return self._result(self._client.rank(prompt, replies))

    def compare(self, prompt: PromptLike, first: ReplyLike, second: ReplyLike) -> Compared:
        """Which of two replies is better, by how much, and how sure that is. Errors as `score`."""
        return self._result(self._client.compare(prompt, first, second))

    def best_of_n(
        self, prompt: PromptLike, replies: Iterable[ReplyLike], *, top_k: int = 1, threshold: float | None = None
    ) -> Best:
        """The best `top_k` replies at most, of those of at least a raw score; what the scores of all are like. Errors
        as `score`."""
        return self._result(self._client.best_of_n(prompt, replies, top_k=top_k, threshold=threshold))

    def explain(self, prompt: PromptLike, reply: ReplyLike) -> Explanation:
        """What each sentence of a reply adds to its score. Errors as `score`."""
        return self._result(self._client.explain(prompt, reply))

    def models(self) -> ServedModels:
        """The models that the server has, with their fingerprints. Errors as `score`."""
        return self._result(self._client.models())

    def ready(self) -> bool:
        """Whether one of the servers is ready to score, asked once."""
        return self._result(self._client.ready())

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until one of the servers is ready to score.

        Raises:
            NotFound: none is in this time.
        """
        self._result(self._client.wait_ready(timeout_s))

    def _result(self, work: Coroutine[Any, Any, T]) -> T:
        future = self._later(work)
        try:
            return future.result()
        except CancelledError:
            raise BadInput("the client was closed before the answer came; close it when all is done") from None
        finally:
            future.cancel()  # where the wait was interrupted, such as by Ctrl-C

    def _later(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        if not self._stop.alive or self._process != os.getpid():
            work.close()
            raise BadInput("the client is closed, or was made in another process; make a new one")
        return asyncio.run_coroutine_threadsafe(work, self._loop)


def _work(loop: asyncio.AbstractEventLoop, client: AsyncClient) -> None:
    """Run the loop until it is stopped; then end what it does and close the connections."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(client.close())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Tell the thread to end, without a wait: the garbage collector calls this wherever it happens to run, such as in
    an import, whose lock the thread may need for its end."""
    if thread.is_alive():
        with suppress(RuntimeError):  # it has just ended by itself
            loop.call_soon_threadsafe(loop.stop)


_OPEN: "weakref.WeakSet[Client]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for client in list(_OPEN):
        client.close()
