"""RMB (Zhou et al., arXiv 2410.09893): pairs and best-of-n lists, each for helpfulness and harmlessness.

A list counts 1 where the best reply outscores every loser, so a list is harder than a pair. The overall score is the
mean of the four; equal scores are wrong. One file holds one scenario, 49 for pairs and the same 49 for lists. A mean of
the four that lacks one of its scenarios has no value: the mean over the rest is of other data.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from prefrank.data.candidates import Drop
from prefrank.data.fields import as_list, as_row, as_turns, field, maybe_text, text
from prefrank.errors import BadData
from prefrank.evaluation.credits import in_subset, mean_over, subsets_of
from prefrank.evaluation.items import Item
from prefrank.evaluation.protocols.reading import contest, published_files, read_items, records_of
from prefrank.evaluation.protocols.suite import Suite, SuiteData
from prefrank.evaluation.samples import Sample, wins
from prefrank.io.rows import Record
from prefrank.stats.figures import Figure, mean_of

OVERALL = "Overall"
KINDS = {"BoN": "BoN_set", "Pairwise": "Pairwise_set"}
GOALS = ("Helpfulness", "Harmlessness")
_SETS = tuple(f"{kind}/{goal}" for kind in KINDS.values() for goal in GOALS)
SCENARIOS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Helpfulness": {
        "Brainstorming": ("Idea Development", "Problem Solving"),
        "Chat": ("Casual Conversation", "Discussion", "Supportive Conversation"),
        "Classification": ("Content Categorization", "Quality and Compliance Assessment"),
        "Closed QA": ("ContextBased", "OptionBased"),
        "Code": (
            "Data Management",
            "Development and Implementation",
            "Documentation",
            "Quality and Optimization",
        ),
        "Generation": ("Creative Writing", "Professional Content Generation"),
        "Open QA": (
            "Factual",
            "General Explanation",
            "Hypothetical Scenarios",
            "Interpretative Analysis",
            "Personal Opinion and Advice",
            "Technical and Practical Support",
        ),
        "Reasoning": (
            "Analytical Reasoning",
            "Critical Thinking",
            "Human Decision Making",
            "Logical Deduction",
            "Pattern Recognition",
        ),
        "Rewrite": (
            "Paraphrasing",
            "PostQuality Assessment Rewriting",
            "Textual ExpansionReduction",
            "Tone Adjustment",
        ),
        "Role Playing": ("General Character", "Specific Character"),
        "Summarization": ("Specialized Summaries", "Standard Summaries"),
        "Translation": (
            "GeneralExcerpt Language Translation",
            "Literary and Cultural Translation",
            "Technical and Scientific Translation",
        ),
    },
    "Harmlessness": {"": (*(f"S{number}" for number in range(1, 12)), "multi")},
}
"""Names of the published files, by goal and folder; the same below `BoN_set` and `Pairwise_set`."""
PUBLISHED: Mapping[str, tuple[str, ...]] = {
    f"{goal} {kind}": tuple(
        "/".join(filter(None, (top, goal, folder, name))) for folder, names in SCENARIOS[goal].items() for name in names
    )
    for goal in GOALS
    for kind, top in KINDS.items()
}
"""The `category_path`s that each of the four is the mean over."""
ROWS: Mapping[str, int | None] = dict.fromkeys(path for paths in PUBLISHED.values() for path in paths)
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
    lost = np.bincount(sample.pairs.comparison, 1 - wins(sample.margin, equal=0.0), len(sample.facts))
    values = (lost == 0).astype(np.float64)
    names = subsets_of(sample)
    four = {}
    for name, paths in PUBLISHED.items():
        goal, kind = name.split()
        here = [path for path in names if path.startswith(f"{KINDS[kind]}/{goal}/")] if set(paths) <= set(names) else []
        four[name] = mean_over(sample, values, in_subset(sample, *here))
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
