"""A recipe's comparisons encoded, training and evaluation sets, before the first step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

from prefrank.errors import BadData, BadRecipe
from prefrank.text import TextEncoder
from prefrank.training.feed.corpus import Corpus
from prefrank.training.feed.encoding_counts import EncodingCounts, remarks, why_equal
from prefrank.training.feed.examples import Examples, encode
from prefrank.training.feed.pools import Pool, make_pools
from prefrank.training.feed.streams import Mixture, StreamedSet
from prefrank.training.losses.preference_loss import ranked_places
from prefrank.training.recipe import Recipe
from prefrank.training.records.events import Callback, Encoded, Encoding, ignore

STREAM_SAMPLE = 256
"""Comparisons of a stream that are encoded before the run, to judge it by."""


@dataclass(frozen=True, slots=True)
class EncodedCorpus:
    """Everything encoded.

    Args:
        training: examples to train on.
        evaluation: name -> examples.
        counts: set name -> what encoding did to it, as plain values; `training` for the training sets together.
        pools: how epochs draw from `training`.
        streams: what is drawn from in place of it, where a data set streams; then `training` is a sample of the draw,
            and `counts` speak of the sample.
    """

    training: Examples
    evaluation: Mapping[str, Examples]
    counts: Mapping[str, Mapping[str, int]]
    pools: tuple[Pool, ...]
    streams: tuple[StreamedSet, ...]


def encode_corpus(recipe: Recipe, corpus: Corpus, encoder: TextEncoder, callback: Callback = ignore) -> EncodedCorpus:
    """Encode training and evaluation sets, with the labels that the recipe's heads and loss want.

    Raises:
        BadData: no training comparison is left.
    """

    def progress(name: str) -> Callable[[int, int], None]:
        return lambda done, total: callback(Encoding(name, done, total))

    drawn = list(islice(Mixture(corpus.streams, recipe.seed).draw(), STREAM_SAMPLE)) if corpus.streams else None
    comparisons = corpus.training if drawn is None else [comparison for comparison, _ in drawn]
    weights = corpus.weights if drawn is None else [weight for _, weight in drawn]
    training, counted = encode(
        comparisons,
        encoder,
        weights=weights,
        heads=recipe.heads,
        rank=ranked_places(recipe),
        progress=progress("training"),
    )
    if counted.dropped_without_label_of_heads == counted.comparisons:
        raise BadRecipe(
            f"heads is {', '.join(recipe.heads)}, but no training comparison is labeled so;"
            f" the data have {', '.join(training.left_heads)}"
        )
    if not len(training):
        why = why_equal(counted.to_json(), encoder.settings.max_length)
        raise BadData(f"all {counted.comparisons} training comparisons have replies that are equal {why}")
    pools = make_pools(recipe, corpus, training.places) if drawn is None else ()
    counts: dict[str, Mapping[str, int]] = {}

    def count(name: str, counted: EncodingCounts) -> None:
        counts[name] = counted.to_json()
        limit = encoder.settings.max_length
        notes = remarks(counts[name], max_length=limit, pre_rendered=encoder.pre_rendered)
        callback(Encoded(name, counts[name], tuple(notes)))

    count("training", counted)
    evaluation: dict[str, Examples] = {}
    for name, comparisons in corpus.evaluation.items():
        examples, counted = encode(comparisons, encoder, heads=recipe.heads, progress=progress(name))
        count(name, counted)
        if len(examples):
            evaluation[name] = examples
    return EncodedCorpus(training, evaluation, counts, pools, corpus.streams)
