"""Which comparisons of a step are scored together: parts of whole comparisons, cut before anything is scored.

Rows of a network that reads from left to right share what they begin with, also those of several comparisons. So its
comparisons stand together by their prompts first, and a part holds as many as fit into one tree of segments.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from jaxtyping import Int64

from prefrank.text import plan_batches
from prefrank.text.sharing import GrowingTree, Ordered, put_in_order
from prefrank.training.feed.examples import Examples
from prefrank.types import Batch, Causal, Row


@dataclass(frozen=True, slots=True)
class Lockstep:
    """Passes that processes which share one sharded model make together; who has less to do repeats a spare row.

    Args:
        plans: of every process, the micro-batches of each of its parts.
        spare: a batch to repeat.
    """

    plans: tuple[tuple[int, ...], ...]
    spare: Batch

    @property
    def num_parts(self) -> int:
        return max(map(len, self.plans))

    def passes(self, part: int) -> int:
        """Passes with a graph that every process makes in this part; one fewer has none."""
        return max(plan[part] for plan in self.plans if part < len(plan))


def plan_comparisons(
    examples: Examples, chosen: Sequence[int], *, max_tokens: int, causal: Causal | None = None
) -> list[list[int]]:
    """Split comparisons, by length, into parts of at most `max_tokens` tokens; a longer one is a part by itself.

    Args:
        causal: of a network that reads from left to right: comparisons that begin alike stand together, and what they
            share counts once. A part of several comparisons is one batch of `plan_batches`.
    """
    if causal is not None and len(chosen):
        return _plan_alike(examples, chosen, max_tokens, causal)
    parts: list[list[int]] = []
    room = -1
    for comparison in sorted(chosen, key=examples.longest):
        tokens = examples.tokens(comparison)
        if tokens > room:
            parts.append([])
            room = max_tokens
        parts[-1].append(comparison)
        room -= tokens
    return parts


def plan_lockstep(
    examples: Examples, shares: Sequence[Sequence[int]], *, max_tokens: int, causal: Causal | None = None
) -> Lockstep:
    """The passes of every process of a step, from each one's share of its comparisons."""
    plans = tuple(
        tuple(
            len(plan_batches(rows_of(examples, part), max_tokens=max_tokens, causal=causal))
            for part in plan_comparisons(examples, share, max_tokens=max_tokens, causal=causal)
        )
        for share in shares
    )
    shortest = min((comparison for share in shares for comparison in share), key=examples.longest)
    spare = plan_batches(rows_of(examples, [shortest])[:1], max_tokens=max_tokens, causal=causal)[0]
    return Lockstep(plans, spare)


def rows_of(examples: Examples, chosen: Sequence[int]) -> list[Row]:
    """Every row of the chosen comparisons, in their order."""
    return [row for comparison in chosen for row in examples.rows(comparison)]


def _plan_alike(examples: Examples, chosen: Sequence[int], max_tokens: int, causal: Causal) -> list[list[int]]:
    ordered = put_in_order(rows_of(examples, chosen), causal)
    sizes = [examples.size(comparison) for comparison in chosen]
    owner = np.repeat(np.arange(len(chosen)), sizes)[ordered.order]
    places = np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])

    def fits(numbers: Sequence[int]) -> bool:
        together = np.sort(np.concatenate([places[number] for number in numbers]))
        return _is_one_batch(_only(ordered, together), max_tokens)

    parts: list[list[int]] = []
    for part in _fill(_families(ordered, places), fits):  # of a family in two parts, the prompt would be computed twice
        parts += [part] if fits(part) else _fill([[number] for number in part], fits)
    return [[chosen[number] for number in part] for part in parts]


def _families(ordered: Ordered, places: Sequence[Int64[np.ndarray, " _"]]) -> list[list[int]]:
    """Numbers of comparisons by family: those with rows that have half of the shorter one in common. Families come by
    their longest rows.
    """
    lengths = np.array([len(ids) for ids in ordered.ids])
    families: list[list[int]] = []
    for number in sorted(range(len(places)), key=lambda number: int(places[number][0])):
        place = int(places[number][0])  # the row before it is of a comparison that has been put in already
        if not families or 2 * ordered.common[place] < lengths[place - 1 : place + 1].min():
            families.append([])
        families[-1].append(number)
    return sorted(families, key=lambda family: max(int(lengths[places[number]].max()) for number in family))


def _only(ordered: Ordered, places: Int64[np.ndarray, " n"]) -> Ordered:
    """Some of the rows, at ascending places; two have in common what all that stand between them have."""
    spans = np.stack([places[:-1] + 1, places[1:] + 1], 1).ravel()
    between = np.minimum.reduceat(np.append(ordered.common, 0), spans)[::2] if len(spans) else spans
    return replace(
        ordered,
        order=ordered.order[places],
        ids=[ordered.ids[place] for place in places],
        types=[ordered.types[place] for place in places],
        lengths=ordered.lengths[places],
        common=np.concatenate([[0], between]),
    )


def _is_one_batch(ordered: Ordered, max_tokens: int) -> bool:
    """Whether `plan_batches` makes one batch of these rows."""
    tree = GrowingTree(ordered, 0)
    for _ in ordered.ids:
        if not tree.has_room(max_tokens):
            return False
        tree.add()
    return True


def _fill(units: Sequence[list[int]], fits: Callable[[Sequence[int]], bool]) -> list[list[int]]:
    """Units put together, one after the other, as many as fit; one that does not fit stands alone."""
    parts: list[list[int]] = []
    first = 0
    while first < len(units):
        most = len(units) - first

        def holds(count: int, first: int = first) -> bool:
            return fits(list(chain(*units[first : first + count])))

        low, high = 1, 2
        while high <= most and holds(high):
            low, high = high, 2 * high
        high = min(high, most + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        parts.append(list(chain(*units[first : first + low])))
        first += low
    return parts
