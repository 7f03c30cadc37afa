"""A server of one model on loopback, in a thread of the tests' process."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from prefrank.scoring import RewardModel
from prefrank.serving.app import make_app
from prefrank.serving.hosted import Models, host
from prefrank.serving.settings import ServeSettings


@dataclass(frozen=True)
class Served:
    """A server, and its model to compare with."""

    url: str
    model: RewardModel

    def raw(self, prompt: str, replies: Sequence[str]) -> list[float]:
        """The scores that the model gives without a server."""
        return [score.value for score in self.model.score(prompt, list(replies))]


@contextmanager
def serve(folder: Path, keys: tuple[str, ...] = ()) -> Iterator[Served]:
    """A server of one model under the name "m"."""
    model = RewardModel.load(str(folder))
    settings = ServeSettings(models={"m": str(folder)}, port=0, keys=keys)
    models = Models(["m"], lambda name: host(name, model, settings))
    models.load_all()
    config = uvicorn.Config(make_app(models, settings), port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended before it began"
            time.sleep(0.005)
        yield Served(f"http://127.0.0.1:{socket.getsockname()[1]}", model)
    finally:
        server.should_exit = True
        thread.join()
        socket.close()
        models.close(5.0)
