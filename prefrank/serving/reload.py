"""Models that are loaded again while they are served: by SIGHUP all of them, by POST /api/reload one.

The new model is loaded and checked beside the old one, which answers until then, and what it has accepted after that.
A model that cannot be loaded, or does not pass its check, changes nothing.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

from prefrank.errors import PrefrankError
from prefrank.io.schema import Wrong, read
from prefrank.serving.hosted import Hosted, Models
from prefrank.wire.route import Refused

RELOAD = "/api/reload"
LOG = logging.getLogger("prefrank.serving")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadRequest:
    """The model to load again; without a name the default."""

    model: str | None = None


async def reload_for(models: Models, body: Any, *, drain_s: float) -> dict[str, Any]:
    """Load the model again that a request's body names.

    Returns:
        The answer: its name, and its fingerprint before and now.

    Raises:
        Refused: there is no such model, the body is of another form, or the model cannot be loaded.
    """
    try:
        asked = read(ReloadRequest, body)
    except Wrong as wrong:
        raise Refused("invalid", str(wrong) if wrong.place else f"the body {wrong.reason}", place=wrong.place) from None
    name = models.of(asked.model).about.name
    try:
        before, now = await _on_a_thread(lambda: reload_one(models, name, drain_s=drain_s))
    except Exception as error:
        why = str(error) if isinstance(error, PrefrankError) else type(error).__name__
        raise Refused("failed", f"the model {name!r} is the same as before, as it cannot be loaded: {why}") from None
    return {"model": name, "before": before.about.fingerprint, "fingerprint": now.about.fingerprint}


def reload_one(models: Models, name: str, *, drain_s: float) -> tuple[Hosted, Hosted]:
    """`Models.reload`, with a line in the log of what came of it."""
    began = time.monotonic()
    try:
        before, now = models.reload(name, drain_s=drain_s)
    except Exception as error:
        LOG.error("%s was not reloaded and is served as before: %s", name, error)
        raise
    leave_out_of_collections()
    short = (before.about.fingerprint[:12], now.about.fingerprint[:12])
    seconds = time.monotonic() - began
    if short[0] == short[1]:
        LOG.info("%s was reloaded in %.1f s and is the same, %s", name, seconds, short[0])
    else:
        LOG.info("%s was reloaded in %.1f s: %s in place of %s", name, seconds, short[1], short[0])
    return before, now


def leave_out_of_collections() -> None:
    """Take what is in memory now out of the garbage collector's rounds: a full one over what torch and transformers
    bring takes some 0.4 s, in which nobody is answered. A model that was replaced is freed first.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def reload_when_asked(models: Models, asked: Event, before_each: Callable[[], None], *, drain_s: float) -> None:
    """Reload all models whenever the event is set, for as long as the process lives; to be run on a daemon thread.

    Args:
        before_each: read what else has changed, such as certificates; raises PrefrankError.
    """
    while True:
        asked.wait()
        asked.clear()  # what comes from here on is about newer files
        try:
            before_each()
        except PrefrankError as error:
            LOG.error("%s", error)
        for name in models.names:
            with suppress(Exception):  # it is in the log
                reload_one(models, name, drain_s=drain_s)


async def _on_a_thread(work: Callable[[], Any]) -> Any:
    """What comes of work that takes long; it goes on if nobody waits for it, and does not keep the process alive."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    def run() -> None:
        value, failure = None, None
        try:
            value = work()
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, value, failure)

    Thread(target=run, name="prefrank-reload", daemon=True).start()
    return await done
