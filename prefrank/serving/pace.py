"""How a queue is bounded and emptied."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a queue is bounded and emptied.

    Args:
        max_tokens: of a batch, those that rows begin with in common counted once.
        window: of the oldest rows, how many a batch is chosen from.
        gather_s: how long a free stream waits for rows that are still being read; for networks that read from left to
            right also for those that may come, as a prompt that they share would be computed twice.
        max_waiting_rows: that are neither scored nor refused; more are refused.
        max_wait_s: that the queue may be expected to take, from its length and the speed so far; past it, rows are
            refused.
        kept_scores: distinct rows whose scores are remembered; 0 for none.
        stall_s: after which a batch that has not ended is given up: those who wait are refused, and nobody is taken
            until it ends.
    """

    max_tokens: int
    window: int = 512
    gather_s: float = 0.002
    max_waiting_rows: int = 20_000
    max_wait_s: float = 30.0
    kept_scores: int = 0
    stall_s: float = 120.0
