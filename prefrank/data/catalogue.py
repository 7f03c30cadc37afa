"""The published data sets by name: where they are on the hub, in which files, with which splits."""

from dataclasses import dataclass

from prefrank.data.hh import SUBSETS

PARQUET_BRANCH = "refs/convert/parquet"
"""The hub's own Parquet copy of a data set; the only form of those published as a loader script."""

SPLIT_WORDS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation"}
SPLIT_WORDS |= {"dev": "validation", "test": "test"}
BESIDE_TRAIN = {"eval": "validation", "evaluation": "validation", "holdout": "validation", "testing": "test"}
"""Words that name a split only in a folder where another file is `train`: alone, they may name a subject."""
SUMMARY_SPLITS = {"train": ("train",), "validation": ("valid1", "valid2"), "valid1": ("valid1",), "valid2": ("valid2",)}
"""Splits of the summaries, and the values of their own `split` column that make each."""

EVALUATION_SPLITS = ("validation", "test")
"""What `eval` stands for: the first of these that a source has."""
KNOWN_SPLITS = {**SPLIT_WORDS, "valid1": "valid1", "valid2": "valid2", "eval": "eval", "evaluation": "eval"}


@dataclass(frozen=True, slots=True)
class PublishedSet:
    """A published data set.

    Args:
        format: key in FORMATS.
        hub: its id on the hub; "" if it is not there.
        layout: its files there, `{split}` standing for a split.
        splits: published splits; `train` alone is split by prompt into train and validation.
        revision: branch on the hub; None is the main one.
        published_share: the share of rows that the first implementation held out, where only `train` is published.
    """

    format: str
    hub: str = ""
    layout: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train",)
    revision: str | None = None
    published_share: float = 0.2


def _hh(*subsets: str) -> PublishedSet:
    layout = tuple(f"{subset}/{{split}}.jsonl.gz" for subset in subsets)
    return PublishedSet("hh", "Anthropic/hh-rlhf", layout, ("train", "test"))


def _oasst(number: int) -> PublishedSet:
    return PublishedSet(
        "messages", f"OpenAssistant/oasst{number}", ("data/{split}-*.parquet",), ("train", "validation")
    )


_SUMMARIES = "openai/summarize_from_feedback"
SOURCES: dict[str, PublishedSet] = {
    "starter": PublishedSet("prefrank"),
    "webgpt": PublishedSet(
        "webgpt", "openai/webgpt_comparisons", ("default/{split}/*.parquet",), revision=PARQUET_BRANCH
    ),
    "hfsummary": PublishedSet(
        "summaries", _SUMMARIES, ("comparisons/{split}/*.parquet",), ("train", "validation"), PARQUET_BRANCH
    ),
    "hfsummary_axis": PublishedSet(
        "rated_summaries", _SUMMARIES, ("axis/{split}/*.parquet",), ("validation", "test"), PARQUET_BRANCH
    ),
    "anthropic_rlhf": _hh(*SUBSETS),
    **{f"hh/{subset}": _hh(subset) for subset in SUBSETS},
    "oa_private": PublishedSet("oa_private"),
    "oasst1": _oasst(1),
    "oasst2": _oasst(2),
    "gptsynthetic": PublishedSet(
        "prefrank_pairs", "Dahoas/synthetic-instruct-gptj-pairwise", ("data/{split}-*.parquet",), published_share=0.1
    ),
    "shp": PublishedSet("shp", "stanfordnlp/SHP", ("*/{split}.json",), ("train", "validation", "test")),
    "hellaswag": PublishedSet(
        "hellaswag", "Rowan/hellaswag", ("*/{split}/*.parquet",), ("train", "validation", "test"), PARQUET_BRANCH
    ),
    "helpsteer2": PublishedSet(
        "helpsteer_ratings", "nvidia/HelpSteer2", ("{split}.jsonl.gz",), ("train", "validation")
    ),
    "helpsteer2_preference": PublishedSet("helpsteer_pairs", "nvidia/HelpSteer2", ("preference/preference.jsonl.gz",)),
    "helpsteer3": PublishedSet(
        "helpsteer3", "nvidia/HelpSteer3", ("preference/{split}.jsonl.gz",), ("train", "validation")
    ),
    "ultrafeedback": PublishedSet("ultrafeedback", "openbmb/UltraFeedback", ("*.jsonl",)),
    "ultrafeedback_binarized": PublishedSet(
        "prefrank_pairs",
        "HuggingFaceH4/ultrafeedback_binarized",
        ("data/{split}_prefs-*.parquet",),
        ("train", "test"),
    ),
    "code_ultrafeedback": PublishedSet("code_ultrafeedback", "coseal/CodeUltraFeedback", ("data/{split}-*.parquet",)),
    "nectar": PublishedSet("nectar", "berkeley-nest/Nectar", ("data/*.parquet",)),
    "offsetbias": PublishedSet("outputs", "NCSOFT/offsetbias", ("{split}.jsonl",)),
    "orca_dpo": PublishedSet("question_pairs", "Intel/orca_dpo_pairs", ("*.jsonl",)),
    "safe_rlhf": PublishedSet("safe_rlhf", "PKU-Alignment/PKU-SafeRLHF", ("data/*/{split}.jsonl",), ("train", "test")),
    "stack_exchange": PublishedSet("stack_exchange", "lvwerra/stack-exchange-paired", ("data/reward/*.parquet",)),
    "ultrainteract": PublishedSet("ultrainteract", "openbmb/UltraInteract_pair", ("*.parquet",)),
    "chatbot_arena": PublishedSet("arena", "lmsys/chatbot_arena_conversations", ("data/{split}-*.parquet",)),
    "mt_bench_human": PublishedSet("arena", "lmsys/mt_bench_human_judgments", ("data/human-*.parquet",)),
    "arena_55k": PublishedSet(
        "arena_battles",
        "lmarena-ai/arena-human-preference-55k",
        ("default/{split}/*.parquet",),
        revision=PARQUET_BRANCH,
    ),
    "arena_100k": PublishedSet("arena", "lmarena-ai/arena-human-preference-100k", ("data/arena-*.parquet",)),
    "arena_140k": PublishedSet("arena", "lmarena-ai/arena-human-preference-140k", ("data/{split}-*.parquet",)),
}
ALIASES = {source.hub.lower(): name for name, source in reversed(SOURCES.items()) if source.hub}
ALIASES |= {"hh": "anthropic_rlhf", "alekseykorshuk/hellaswag": "hellaswag"}
