"""Comparisons and scores made by hand, for the tests of this folder."""

from collections.abc import Sequence

from prefrank.evaluation import Scorer
from prefrank.types import Comparison, Preference, Prompt, Score, as_prompt


def preference(winner: int, loser: int, probability: float = 1.0, weight: float = 1.0) -> Preference:
    return Preference(winner, loser, probability, weight)


def comparison(
    replies: Sequence[str],
    preferences: Sequence[Preference],
    *,
    prompt: str = "why?",
    source: str = "set",
    id: str = "0",
) -> Comparison:
    return Comparison(as_prompt(prompt), tuple(replies), tuple(preferences), source, id)


def ranking(count: int, *, prompt: str = "why?", source: str = "set", id: str = "0") -> Comparison:
    """`count` replies, best first, every pair stated."""
    preferences = [preference(i, j) for i in range(count) for j in range(i + 1, count)]
    return comparison([f"reply {i} of {id}" for i in range(count)], preferences, prompt=prompt, source=source, id=id)


def scored(values: Sequence[float], *, cut_prompt: int = 0, cut_reply: int = 0) -> list[Score]:
    return [Score(float(value), 8, cut_prompt, cut_reply, "abc") for value in values]


def table_scorer(values: dict[str, float]) -> Scorer:
    """A scorer that looks replies up."""

    def score_pairs(pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        return scored([values[reply] for _, reply in pairs])

    return score_pairs
