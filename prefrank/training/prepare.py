"""From a recipe to everything a run needs before its first step; `train` and `dry_run` both start here.

Anything wrong with a recipe, its model or its data is refused here, with the same message for both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from accelerate.utils import set_seed

from prefrank.model import Network
from prefrank.model.adapter import read_whole
from prefrank.model.network import trained_positions
from prefrank.text import TextEncoder
from prefrank.training.feed.corpus import Corpus, read_corpus
from prefrank.training.feed.encoded_corpus import EncodedCorpus, encode_corpus
from prefrank.training.feed.feeds import Feed, make_feed
from prefrank.training.loop.best import check_best, evaluation_digest
from prefrank.training.losses.preference_loss import PreferenceLoss, make_loss
from prefrank.training.recipe import Recipe
from prefrank.training.records.events import Callback, ignore
from prefrank.training.records.run_checkpoints import Progress, read_state, state_of
from prefrank.training.start import load_text

N = TypeVar("N", bound=Network | None)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared(Generic[N]):
    """What a run needs before its first step; it keeps no texts, except those that streams draw from memory.

    Args:
        network: what `load` gave: the network with its weights, on its device.
        encoder: the text path.
        encoded: training and evaluation examples, and what encoding did to them.
        feed: what each step trains on.
        loss: started from the training labels, on the CPU.
        progress: where the run stands: at step 0, or where its checkpoint says.
        account: of the data, for the training record: `read`, `encoded` and `digests`, as plain values.
        notes: warnings about the data.
    """

    network: N
    encoder: TextEncoder
    encoded: EncodedCorpus
    feed: Feed
    loss: PreferenceLoss
    progress: Progress
    account: Mapping[str, Any]
    notes: tuple[str, ...]


def prepare(
    recipe: Recipe,
    folder: Path,
    *,
    load: Callable[[], N],
    resumed: bool = False,
    num_processes: int = 1,
    corpus: Corpus | None = None,
    callback: Callback = ignore,
) -> Prepared[N]:
    """Load the model, read and encode the data, and check that the recipe fits them.

    Args:
        folder: the model's, or the checkpoint's to go on from.
        load: makes the network from that folder, once the generators are seeded (`load_model`, or a stand-in for it).
        resumed: whether `folder` is a checkpoint of this very run.
        num_processes: that share each step.
        corpus: comparisons in memory, in place of those that the recipe names.

    Raises:
        BadRecipe, BadData, BadModel, BadText, NotFound: whatever stops the run before its first step.
    """

    def load_both() -> tuple[N, TextEncoder]:
        set_seed(recipe.seed)
        network = load()
        positions = None if network is None else trained_positions(network)
        return network, load_text(recipe, folder, positions=positions, resumed=resumed)

    network, encoder = read_whole(folder, load_both)
    corpus = read_corpus(recipe, callback) if corpus is None else corpus
    encoded = encode_corpus(recipe, corpus, encoder, callback)
    feed = make_feed(recipe, encoded, encoder, num_processes=num_processes)
    loss = make_loss(recipe, encoded.training)
    check_best(recipe, encoded.evaluation)
    digests = {name: examples.digest() for name, examples in encoded.evaluation.items()}
    progress = Progress(feed.digest(), evaluation_digest(digests), feed.per_step)
    account = {
        "read": list(corpus.record),
        "encoded": dict(encoded.counts),
        "digests": {"training": progress.data, **digests},
    }
    if resumed:
        with state_of(folder):
            progress.load_state_dict(read_state(folder)["progress"])
    return Prepared(network, encoder, encoded, feed, loss, progress, account, tuple(corpus.notes()))
