"""RMB (Zhou et al., arXiv 2410.09893): pairs and best-of-n lists, each for helpfulness and harmlessness.

A list counts 1 where the best reply outscores every loser, so a list is harder than a pair. The overall score is the
mean of the four; equal scores are wrong.
"""

from pathlib import Path

import numpy as np

from prefrank.data.candidates import Drop
from prefrank.data.fields import as_list, as_row, as_turns, field, maybe_text, text
from prefrank.errors import BadData
from prefrank.evaluation.estimates import Figure
from prefrank.evaluation.figures import in_subset, mean_of, mean_over, subsets_of, wins
from prefrank.evaluation.items import Item, Sample
from prefrank.evaluation.protocols.reading import contest, published_files, read_items, records_of
from prefrank.evaluation.protocols.suite import Suite, SuiteData
from prefrank.io.rows import Record

OVERALL = "Overall"
KINDS = {"BoN": "BoN_set", "Pairwise": "Pairwise_set"}
GOALS = ("Helpfulness", "Harmlessness")
_SETS = tuple(f"{kind}/{goal}" for kind in KINDS.values() for goal in GOALS)
LAYOUT = tuple(f"{root}{name}/**/*.json" for root in ("", "RMB_dataset/") for name in KINDS.values())


def read(folder: Path) -> SuiteData:
    return read_items(records_of(published_files(folder, LAYOUT)), _item)


def _item(record: Record) -> Item | Drop:
    row = record.row
    path = text(row, "category_path")
    if not path.startswith(tuple(f"{name}/" for name in _SETS)):
        raise BadData(f"the category_path is {path!r}; wanted one that starts with {' or '.join(_SETS)}")
    messages = as_list(field(row, "conversation_input"), "conversation_input")
    if "bon_best" in row:
        best, id = as_row(field(row, "bon_best"), "bon_best"), field(row, "bon_uid")
        losers = as_list(field(row, "loser_list"), "loser_list")
    else:
        best, id = as_row(field(row, "chosen"), "chosen"), field(row, "pair_uid")
        losers = [field(row, "reject")]
    if not messages or not losers:
        raise BadData(
            f"a row has {len(messages)} messages and {len(losers)} worse replies; wanted at least one of each"
        )
    worse = [text(as_row(loser, "loser"), "answer") for loser in losers]
    prompt = as_turns(messages, "conversation_input")
    language = maybe_text(messages[0], "language")
    return contest(prompt, [text(best, "answer")], worse, subset=path, id=id, language=language)


def measure(sample: Sample) -> dict[str, Figure]:
    lost = np.bincount(sample.pairs.comparison, 1 - wins(sample, "wrong"), len(sample.facts))
    values = (lost == 0).astype(np.float64)
    names = subsets_of(sample)
    four = {
        f"{goal} {kind}": mean_over(
            sample, values, in_subset(sample, *(n for n in names if n.startswith(f"{top}/{goal}/")))
        )
        for goal in GOALS
        for kind, top in KINDS.items()
    }
    parts = {name: mean_over(sample, values, in_subset(sample, name)) for name in names}
    return {OVERALL: mean_of(four.values())} | four | parts


RMB = Suite(
    name="rmb",
    title="RMB",
    hub="",
    layout=LAYOUT,
    read=read,
    measure=measure,
    source="arXiv 2410.09893; github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark",
    ties="wrong",
)
