"""How well could any scorer do where people disagree? The ceiling that several votes on one pair set.

Surprising: the ceiling is too high where votes are few, for the larger of two noisy shares is more than the larger of
the true ones (two votes on a coin toss give 0.75 where 0.5 is true). `vote_agreement` errs the other way: one voter
against the others is what a scorer as good as one voter gets. The truth lies between the two.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from prefrank.evaluation.items import ItemFacts
from prefrank.evaluation.samples import Pairs, Sample
from prefrank.stats.arrays import distinct
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.estimates import Estimate, estimate_all
from prefrank.stats.figures import mean_figure

Votes = Float64[np.ndarray, " V"]
"""Probability that the reply of lower index wins, one for each vote: 1, 0, or 0.5 for a tie."""


def noise_ceiling(sample: Sample, bootstrap: Bootstrap | None = None) -> Estimate:
    """The most accuracy on the votes that any scorer can reach: the mean share of the larger side.

    Over pairs with at least two votes, a tied vote half for each side; averaged as accuracy is, inside items by votes,
    then over items. Without value where no pair has two votes.
    """
    return _mean(sample, lambda votes: max(votes.mean(), 1 - votes.mean()), bootstrap)


def vote_agreement(sample: Sample, bootstrap: Bootstrap | None = None) -> Estimate:
    """How often one voter is on the side most of the others took; half where either is tied. Averaged as above."""
    return _mean(sample, _one_against_others, bootstrap)


def _one_against_others(votes: Votes) -> float:
    side, others = np.sign(votes - 0.5), np.sign(np.round(votes.sum() - votes - (len(votes) - 1) / 2, 9))
    return float(np.mean((1 + side * others) / 2))


def _mean(sample: Sample, of: Callable[[Votes], float], bootstrap: Bootstrap | None) -> Estimate:
    kept = _voted(sample.pairs, len(sample.values))
    voted = {i: [votes for votes in votes_of(sample.facts[i]) if len(votes) > 1] for i in kept}
    values = np.array([np.average([of(v) for v in voted[i]], weights=[len(v) for v in voted[i]]) for i in kept])
    count = sum(len(votes) for i in kept for votes in voted[i])
    figure = mean_figure(values.astype(np.float64), sample.pairs.prompt[kept], n=count, unit="votes")
    return estimate_all({"": figure}, bootstrap or Bootstrap())[""]


def _voted(pairs: Pairs, num_replies: int) -> list[int]:
    """The items with several votes on a pair: most data have none, and a long ranking has millions of pairs."""
    low, high = np.minimum(pairs.ahead, pairs.behind), np.maximum(pairs.ahead, pairs.behind)
    key = np.sort(low * num_replies + high)
    rows = key[1:][key[1:] == key[:-1]] // max(num_replies, 1)
    return distinct(np.searchsorted(pairs.first, rows, side="right") - 1).tolist()


def votes_of(facts: ItemFacts) -> list[Votes]:
    """The votes on each pair of an item's replies, whichever way round a preference names them."""
    by_pair: dict[tuple[int, int], list[float]] = {}
    for vote in facts.preferences:
        pair = (min(vote.winner, vote.loser), max(vote.winner, vote.loser))
        by_pair.setdefault(pair, []).append(vote.probability if vote.winner < vote.loser else 1 - vote.probability)
    return [np.array(votes) for votes in by_pair.values()]
