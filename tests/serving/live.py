"""A server on loopback, in a thread of the tests' process, with models that are really loaded."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn
from fastapi import FastAPI

from prefrank import RewardModel
from prefrank.serving.app import make_app
from prefrank.serving.hosted import Models, host
from prefrank.serving.metrics import Metrics
from prefrank.serving.observer import Watcher
from prefrank.serving.recording import Recorder
from prefrank.serving.run import uvicorn_config
from prefrank.serving.settings import ServeSettings

STARTS_IN_S = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """A server that answers.

    Args:
        url: without a closing slash.
        port: on 127.0.0.1.
    """

    url: str
    port: int
    models: Models
    settings: ServeSettings
    app: FastAPI


@contextmanager
def live_server(
    models: Path | str | Mapping[str, Path | str],
    *,
    load: bool = True,
    recorders: Sequence[Recorder] = (),
    observer: Watcher | None = None,
    **settings: Any,
) -> Iterator[Live]:
    """A server of these models, named, or of one that is called "m".

    Args:
        recorders: told of its requests.
        load: whether the models are loaded; otherwise the server is not ready until `live.models.load_all()`.
        observer: of all queues.
        settings: of `ServeSettings`.
    """
    folders = models if isinstance(models, Mapping) else {"m": models}
    given = ServeSettings(models={n: str(f) for n, f in folders.items()}, port=0, **{"drain_s": 5.0} | settings)

    metrics = Metrics()

    def load_one(name: str) -> Any:
        model = RewardModel.load(given.models[name], **given.loading)
        return host(name, model, given, observer or metrics.watcher(name, model))

    served = Models(list(given.models), load_one)
    if load:
        served.load_all()
    app = make_app(served, given, metrics=metrics, recorders=recorders)
    config = uvicorn_config(app, given)
    config.port, config.timeout_graceful_shutdown = 0, 5
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, name="live-server", daemon=True)
    thread.start()
    try:
        until = time.monotonic() + STARTS_IN_S
        while not server.started:
            assert thread.is_alive(), "the server ended before it began"
            assert time.monotonic() < until, "the server did not begin"
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Live(f"http://127.0.0.1:{port}", port, served, given, app)
    finally:
        server.should_exit = True
        thread.join(STARTS_IN_S)
        served.close(5.0)
