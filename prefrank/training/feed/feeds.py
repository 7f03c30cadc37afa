"""What each step trains on, a pure function of the step: from examples in memory, or from streams.

A stream is asked for steps in order; a resumed run draws and encodes again all that came before its step. Every process
reads the whole stream and trains on its share of each step.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from prefrank.errors import BadData
from prefrank.text import TextEncoder
from prefrank.training.feed.encoded_corpus import EncodedCorpus
from prefrank.training.feed.encoding_counts import EncodingCounts
from prefrank.training.feed.examples import Examples, encode
from prefrank.training.feed.order import Order, check_step, check_warmup, count_steps, make_order
from prefrank.training.feed.streams import Mixture
from prefrank.training.losses.preference_loss import check_ranked, ranked_places
from prefrank.training.recipe import Recipe
from prefrank.types import Comparison


@dataclass(frozen=True, slots=True)
class MemoryFeed:
    """Steps of examples that were all encoded before the first.

    Args:
        examples: all of them.
        order: which make which step.
        steps: of the whole run.
    """

    examples: Examples
    order: Order
    steps: int

    @property
    def per_step(self) -> int:
        """Comparisons of a step; an epoch's last may have fewer."""
        return self.order.per_step

    @property
    def comparisons(self) -> int:
        """Comparisons in the first epoch."""
        return len(self.order.epoch(0))

    def take(self, step: int) -> tuple[Examples, list[int]]:
        """Step number `step`, from 0: all examples, and the numbers of the step's comparisons."""
        return self.examples, self.order.chosen(step)

    def digest(self) -> str:
        """A hash of everything the run trains on, so that a resumed run can tell whether its data changed."""
        return self.examples.digest()

    def account(self) -> list[dict[str, Any]]:
        """What an epoch draws from each data set, as plain values; nothing where it takes everything once."""
        return self.order.account()


class StreamFeed:
    """Steps drawn and encoded on demand, in the memory of one step and the shuffle buffers.

    `per_step` comparisons make a step, `steps` the run, of `comparisons` in all.
    """

    def __init__(self, recipe: Recipe, encoded: EncodedCorpus, encoder: TextEncoder, *, num_processes: int) -> None:
        assert recipe.max_steps is not None, "the recipe refuses streams without max_steps"
        self.per_step, self.steps = recipe.prompts_per_update(num_processes), recipe.max_steps
        self.comparisons = self.per_step * self.steps
        self._mixture = Mixture(encoded.streams, recipe.seed)
        self._encode = partial(encode, encoder=encoder, heads=recipe.heads, rank=ranked_places(recipe))
        self._check = partial(check_ranked, recipe)
        self._start()

    def take(self, step: int) -> tuple[Examples, list[int]]:
        """The comparisons of step number `step`; an earlier step than the last one asked for starts from the first.

        Raises:
            BadData: a file that cannot be read on, or a data set of which nothing can be used.
            BadText: a text that cannot be encoded.
            BadRecipe: comparisons that a ranking loss cannot rank.
        """
        if step < self._step:
            self._start()
        while self._step < step:
            self._examples = self._draw_step()
            self._step += 1
        return self._examples, list(range(len(self._examples)))

    def digest(self) -> str:
        """A hash of the files that are drawn from, by their names, sizes and ends, and of how they are drawn from."""
        return self._mixture.digest()

    def account(self) -> list[dict[str, Any]]:
        """What was drawn and dropped so far, as plain values."""
        return [*self._mixture.account(), {"name": "all, while encoding", "dropped": dict(self._dropped)}]

    def _start(self) -> None:
        self._source = self._mixture.draw()
        self._step = -1
        self._dropped: Counter[str] = Counter()

    def _draw_step(self) -> Examples:
        """The next examples, with others in place of those that encoding drops."""
        kept: list[tuple[Comparison, float]] = []
        tried = 0
        while True:
            drawn = list(islice(self._source, self.per_step - len(kept)))
            examples, counts = self._encode_weighted(drawn)
            self._check(examples)
            self._dropped.update({key: n for key, n in counts.to_json().items() if key.startswith("dropped_") and n})
            kept += [drawn[place] for place in examples.places]
            tried += len(drawn)
            if len(kept) == self.per_step:
                break
            if not kept and tried > 100 * self.per_step:
                raise BadData(f"the last {tried} comparisons of the streams were all dropped ({dict(self._dropped)})")
        return self._encode_weighted(kept)[0] if tried > self.per_step else examples

    def _encode_weighted(self, drawn: Sequence[tuple[Comparison, float]]) -> tuple[Examples, EncodingCounts]:
        return self._encode([comparison for comparison, _ in drawn], weights=[weight for _, weight in drawn])


Feed = MemoryFeed | StreamFeed


def make_feed(recipe: Recipe, encoded: EncodedCorpus, encoder: TextEncoder, *, num_processes: int) -> Feed:
    """What a recipe's steps train on.

    Raises:
        BadRecipe: a step larger than an epoch, fewer prompts a step than processes, a set that cannot be balanced, or
            a warm-up that the run ends before.
    """
    if encoded.streams:
        check_step(recipe, num_processes)
        feed: Feed = StreamFeed(recipe, encoded, encoder, num_processes=num_processes)
    else:
        size = len(encoded.training)
        order = make_order(recipe, comparisons=size, num_processes=num_processes, pools=encoded.pools)
        feed = MemoryFeed(encoded.training, order, count_steps(recipe, order))
    check_warmup(recipe, feed.steps)
    return feed
