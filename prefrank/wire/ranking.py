"""What servers that rank have in common: a query and its documents as rows, and answers with the best first."""

from collections.abc import Sequence

from prefrank.types import Score, Turn
from prefrank.wire.route import Asked, sigmoid


def against(query: str, documents: Sequence[str]) -> tuple[Asked, ...]:
    """Each document as the reply to the query."""
    prompt = (Turn("user", query),)
    return tuple(Asked(prompt, document) for document in documents)


def best_first(scores: Sequence[Score], most: int | None = None) -> list[int]:
    """Places by score, the highest first; equal ones as they stand.

    Args:
        most: of them; None or 0 for all.
    """
    places = sorted(range(len(scores)), key=lambda place: -scores[place].value)
    return places[:most] if most else places


def scaled(score: Score, *, raw: bool) -> float:
    """The raw score, or what the sigmoid makes of it: 0 to 1."""
    return score.value if raw else sigmoid(score.value)
