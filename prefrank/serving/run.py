"""A server as a process: it listens while its models load, reloads them at SIGHUP, and drains at SIGTERM or Ctrl-C.

Threads: this one waits for signals, one runs the event loop, one loads and reloads; each model's queue has its
own (`scheduler.py`). A second SIGTERM or Ctrl-C ends the process where it stands.
"""

import math
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from threading import Event, Thread, current_thread, main_thread
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from prefrank.errors import PrefrankError
from prefrank.serving.app import make_app
from prefrank.serving.connection import bounded
from prefrank.serving.hosted import Hosted, Models
from prefrank.serving.listener import load_tls, takes_anybody, url_of
from prefrank.serving.loading import Loaded, check_heads, load_hosted
from prefrank.serving.logs import AccessLog
from prefrank.serving.metrics import Metrics
from prefrank.serving.reload import LOG, leave_out_of_collections, reload_when_asked
from prefrank.serving.settings import ServeSettings

ENDING = (signal.SIGINT, signal.SIGTERM)
RELOADING = getattr(signal, "SIGHUP", None)
"""Windows has none."""
TURN_S = 0.1
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A server that is ready.

    Args:
        seconds: from the first model's loading on.
        needs_key: whether requests need one.
        is_open: whether they need none and can come from other machines.
    """

    url: str
    seconds: float
    needs_key: bool
    is_open: bool
    models: tuple[Loaded, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """A thread's work is done, or failed."""

    what: str
    error: BaseException | None = None


Events = SimpleQueue[int | Ended]


def serve(settings: ServeSettings, listener: socket.socket, *, started: Callable[[Started], None]) -> bool:
    """Serve until a signal says to end, and answer what was accepted until then. The listener is closed.

    Args:
        listener: of `open_listener`.
        started: called once all models are loaded and checked.

    Returns:
        Whether everything was answered and all threads have ended; if not, some may still be in a library's code.

    Raises:
        NotFound, BadModel, BadInput: a model cannot be served.
    """
    for place in settings.models.values():
        if os.path.lexists(os.path.expanduser(place)) or not _HUB_ID.fullmatch(place):  # the hub takes longer
            check_heads(place, settings)
    events: Events = SimpleQueue()
    loaded: dict[str, Loaded] = {}
    metrics = Metrics()

    def load(name: str) -> Hosted:
        hosted, loaded[name] = load_hosted(name, settings, metrics)
        return hosted

    models = Models(tuple(settings.models), load, other_names(settings))
    log = AccessLog(settings.log_format, texts=settings.log_texts)
    app = under(settings.root_path, make_app(models, settings, metrics=metrics, recorders=[log]))
    server = uvicorn.Server(uvicorn_config(app, settings))
    began = time.monotonic()
    with listener, closing(log), _signals_to(events):
        web = _start("http", lambda: server.run([listener]), events)
        LOG.info("listening on %s, loading %s", url_of(settings, listener), ", ".join(settings.models))
        reload = Event()

        def ready() -> None:
            leave_out_of_collections()
            started(_facts(settings, listener, time.monotonic() - began, models, loaded))
            Thread(target=reload_when_asked, args=(models, reload, certificate), kwargs=drain, daemon=True).start()

        def certificate() -> None:
            if server.config.ssl is not None:
                load_tls(server.config.ssl, settings)

        drain = {"drain_s": settings.drain_s}
        try:
            _start("models", models.load_all, events)
            _attend(events, ready, reload.set)
        except BaseException:
            _drain(models, server, web, 0.0)
            raise
        LOG.info("ending; %d rows are still to be answered", models.open_rows)
        ended = _until_drained(events, lambda: _drain(models, server, web, settings.drain_s))
        LOG.info("ended")
    return ended


def under(root_path: str, app: ASGIApp) -> ASGIApp:
    """The application under a path as well, for proxies that pass on the whole path as for those that take it off."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path == root_path or path.startswith(f"{root_path}/"):
            scope = {**scope, "path": path.removeprefix(root_path) or "/"}
        await app(scope, receive, send)

    return run if root_path else app


def uvicorn_config(app: ASGIApp, settings: ServeSettings) -> uvicorn.Config:
    """How uvicorn runs the application: in this process, without a word of what it is."""
    return uvicorn.Config(
        app,
        loop="uvloop" if find_spec("uvloop") else "asyncio",
        http=bounded(settings),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        workers=1,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        backlog=settings.backlog,
        timeout_keep_alive=max(1, round(settings.keep_alive_s)),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )


def other_names(settings: ServeSettings) -> dict[str, str]:
    """What requests may also call the models: as they were given, a path or a hub id."""
    return {place: name for name, place in settings.models.items() if place not in settings.models}


def _facts(
    settings: ServeSettings, listener: socket.socket, seconds: float, models: Models, loaded: dict[str, Loaded]
) -> Started:
    return Started(
        url=url_of(settings, listener),
        seconds=seconds,
        needs_key=bool(settings.keys),
        is_open=takes_anybody(settings),
        models=tuple(replace(loaded[about.name], about=about) for about in models.abouts()),
    )


def _start(what: str, work: Callable[[], object], events: Events) -> Thread:
    def run() -> None:
        try:
            work()
        except BaseException as error:
            events.put(Ended(what, error))
        else:
            events.put(Ended(what))

    thread = Thread(target=run, name=f"prefrank-{what}", daemon=True)
    thread.start()
    return thread


def _attend(events: Events, ready: Callable[[], None], reload: Callable[[], None]) -> None:
    """See to what comes, until a signal says to end.

    Args:
        ready: called when all models are loaded.
        reload: called when they are to be loaded again; before they are ready, it takes effect then.

    Raises:
        PrefrankError: a model cannot be served, or the listener has ended by itself.
    """
    while True:
        event = next_event(events)
        if isinstance(event, Ended):
            if event.what == "http":
                raise PrefrankError("the server's event loop has ended by itself") from event.error
            if event.error is not None:
                raise event.error
            ready()
        elif event == RELOADING:
            reload()
        else:
            return


def next_event(events: Events) -> int | Ended:
    """The next event, waited for in short turns: handlers of signals run on this thread alone, and a wait without an
    end does not see a signal that another thread of the process was given."""
    while True:
        with suppress(Empty):
            return events.get(timeout=TURN_S)


def _until_drained(events: Events, drain: Callable[[], bool]) -> bool:
    """What draining comes to; this thread stays free for the signal that cuts it short."""
    ended: list[bool] = []
    _start("ending", lambda: ended.append(drain()), events)
    while True:
        event = next_event(events)
        if isinstance(event, Ended) and event.what == "ending":
            if event.error is not None:
                raise event.error
            return ended[0]


def _drain(models: Models, server: uvicorn.Server, web: Thread, drain_s: float) -> bool:
    """Answer what was accepted, refuse the rest, and end; whether all of that was done in this time."""
    until = time.monotonic() + drain_s
    done = models.close(drain_s)
    if not done and drain_s:
        LOG.error("%d rows were not answered within %g s", models.open_rows, drain_s)
    server.config.timeout_graceful_shutdown = max(1, math.ceil(until - time.monotonic()))
    server.should_exit = True
    web.join(server.config.timeout_graceful_shutdown + 1)
    return done and not web.is_alive() and not models.is_changing


@contextmanager
def _signals_to(events: Events) -> Iterator[None]:
    """Inside the block, signals come as events; after the first that says to end, the next one ends the process.

    What the caller had ignored stays so, but for SIGHUP: a server under nohup can be told to reload.
    """
    if current_thread() is not main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, _force)
        events.put(number)

    def reload(number: int, frame: FrameType | None) -> None:
        events.put(number)

    wanted: dict[int, Callable[[int, FrameType | None], None]] = dict.fromkeys(ENDING, end)
    wanted = {number: handler for number, handler in wanted.items() if signal.getsignal(number) != signal.SIG_IGN}
    if RELOADING is not None:
        wanted[RELOADING] = reload
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _force(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)  # and no default action: the first process of a container has none
