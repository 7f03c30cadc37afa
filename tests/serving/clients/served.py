"""A server of one model on loopback, and the model to compare with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefrank.scoring import RewardModel
from tests.serving.live import live_server


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
    with live_server(folder, keys=keys) as live:
        yield Served(live.url, live.models.of(None).model)
