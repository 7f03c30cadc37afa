"""What a queue, and the model behind it, tell of their work, for metrics."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from prefrank.wire.route import Asked, Outcome


@runtime_checkable
class Observer(Protocol):
    """Called on the threads where things happen, at times with the queue's lock held: it must be quick."""

    def read(self, rows: int, seconds: float) -> None:
        """Texts of so many rows were tokenized together."""

    def reused(self, rows: int) -> None:
        """So many rows were equal to one that waits, is under way, or is remembered."""

    def refused(self, rows: int) -> None:
        """The queue was too long for so many rows."""

    def dropped(self, rows: int) -> None:
        """Nobody waited any longer for so many rows, which were not scored."""

    def batch(self, *, rows: int, tokens: int, computed: int, seconds: float, waited: Sequence[float]) -> None:
        """A batch was scored.

        Args:
            tokens: of its rows.
            computed: of these, those that rows begin with in common counted once.
            seconds: that it took.
            waited: seconds that each row had waited.
        """


@runtime_checkable
class Watcher(Observer, Protocol):
    """Told of the queue's work and of what came of it."""

    def answered(self, asked: Sequence[Asked], outcomes: Sequence[Outcome], reply_tokens: Sequence[int]) -> None:
        """A request got what came of its rows.

        Args:
            asked, outcomes: of the rows that are the client's own, in order.
            reply_tokens: of each row's reply, as far as it was scored; 0 of a row that was not.
        """


class Silent:
    """A watcher that keeps nothing."""

    def read(self, rows: int, seconds: float) -> None:
        pass

    def reused(self, rows: int) -> None:
        pass

    def refused(self, rows: int) -> None:
        pass

    def dropped(self, rows: int) -> None:
        pass

    def batch(self, *, rows: int, tokens: int, computed: int, seconds: float, waited: Sequence[float]) -> None:
        pass

    def answered(self, asked: Sequence[Asked], outcomes: Sequence[Outcome], reply_tokens: Sequence[int]) -> None:
        pass
