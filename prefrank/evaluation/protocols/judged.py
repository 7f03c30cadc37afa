"""JudgeBench, LLMBar and HHH: pairs with one right reply, and plain accuracies by subset.

JudgeBench (Tan et al., arXiv 2410.12784) publishes the share of all pairs; papers that quote the mean of its groups
quote a different number, so both are given. LLMBar (Zeng et al., arXiv 2310.07641) and HHH (Askell et al., arXiv
2112.00861) are led by the mean over the subsets that are in the folder. Equal scores are half a win: the script of
JudgeBench gives them to whichever reply stands second, which is right half the time.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from prefrank.data.candidates import Drop
from prefrank.data.fields import FileRow, as_row, as_text, field, short, text, user
from prefrank.data.hh import transcript
from prefrank.errors import BadData
from prefrank.evaluation.credits import ACCURACY, MACRO_MEAN, pairwise
from prefrank.evaluation.items import Item
from prefrank.evaluation.protocols.reading import contest, published_files, read_items, records_of
from prefrank.evaluation.protocols.suite import Suite, SuiteData
from prefrank.io.json_files import read_fields
from prefrank.io.rows import Record
from prefrank.types import Prompt, Turn

# The part of a source's name before its subject, such as mmlu-pro-law, and its group.
GROUPS = {
    "mmlu-pro": "Knowledge",
    "livebench-reasoning": "Reasoning",
    "livebench-math": "Math",
    "livecodebench": "Coding",
}
JUDGEBENCH_ROWS = {"Knowledge": 154, "Reasoning": 98, "Math": 56, "Coding": 42}
JUDGEBENCH_LAYOUT = ("data/gpt*.jsonl", "data/dataset=judgebench,response_model=gpt-4o-*.jsonl")


def read_judgebench(folder: Path) -> SuiteData:
    """The pairs by GPT-4o, which the published figures of reward models are of."""
    return read_items(records_of(published_files(folder, JUDGEBENCH_LAYOUT)), _judgebench_item)


def _judgebench_item(record: Record) -> Item | Drop:
    row = record.row
    source, label = text(row, "source"), text(row, "label")
    group = next((name for start, name in GROUPS.items() if source.startswith(start)), "")
    if not group:
        raise BadData(f"the source is {source!r}; wanted one that starts with {' or '.join(GROUPS)}")
    if label not in ("A>B", "B>A"):
        raise BadData(f"the label is {label!r}; wanted 'A>B' or 'B>A'")
    replies = [text(row, "response_A"), text(row, "response_B")]
    better, worse = replies if label == "A>B" else reversed(replies)
    return contest(user(text(row, "question")), [better], [worse], subset=group, id=text(row, "pair_id"))


JUDGEBENCH = Suite(
    name="judgebench",
    title="JudgeBench",
    hub="ScalerLab/JudgeBench",
    layout=JUDGEBENCH_LAYOUT,
    read=read_judgebench,
    measure=partial(pairwise, headline=ACCURACY),
    source="arXiv 2410.12784; github.com/ScalerLab/JudgeBench, utils/metrics.py",
    ties="half",
)

LLMBAR_ROWS = {"Natural": 100, "Neighbor": 134, "GPTInst": 92, "GPTOut": 47, "Manual": 46}
LLMBAR_ROWS |= {"FairEval": 66, "LLMEval^2": 200, "MT-Bench": 200}
_LLMBAR_PARTS = ("LLMBar/Natural", "LLMBar/Adversarial/*", "Processed/*")
LLMBAR_LAYOUT = tuple(f"{root}{part}/dataset.json" for root in ("", "Dataset/") for part in _LLMBAR_PARTS)


def read_llmbar(folder: Path) -> SuiteData:
    return read_items(records_of(published_files(folder, LLMBAR_LAYOUT)), _llmbar_item)


def _llmbar_item(record: Record) -> Item | Drop:
    row = record.row
    label = field(row, "label")
    if label not in (1, 2) or label is True:
        raise BadData(f"the label is {short(label)}; wanted 1 or 2")
    better, worse = text(row, f"output_{label}"), text(row, f"output_{3 - label}")
    return contest(user(text(row, "input")), [better], [worse], subset=record.path.parent.name, id=record.line)


LLMBAR = Suite(
    name="llmbar",
    title="LLMBar",
    hub="",
    layout=LLMBAR_LAYOUT,
    read=read_llmbar,
    measure=partial(pairwise, headline=MACRO_MEAN),
    source="arXiv 2310.07641; github.com/princeton-nlp/LLMBar, Dataset",
    ties="half",
)

HHH_ROWS = {"harmless": 58, "helpful": 59, "honest": 61, "other": 43}
HHH_LAYOUT = (*(f"{root}{name}/task.json" for root in ("", "data/") for name in HHH_ROWS), "hhh_alignment_eval.json")
_JUDGED = re.compile(r"###The instruction to evaluate:(.*)###Response to evaluate:(.*?)###Score Rubrics:", re.DOTALL)


def read_hhh(folder: Path) -> SuiteData:
    """BIG-bench's files, or the one of the Prometheus repository, in which each text is wrapped for a judge."""
    files = published_files(folder, HHH_LAYOUT)
    tasks = [path for path in files if path.name == "task.json"]
    if tasks:
        return read_items((record for path in tasks for record in _examples(path)), _task_item)
    return read_items(records_of(files), _wrapped_item)


def _examples(path: Path) -> Iterator[Record]:
    """The examples of a BIG-bench task, which is one object over many lines."""
    for number, row in enumerate(read_fields(path, BadData).objects("examples"), start=1):
        yield Record(row.raw, path, number)


def _task_item(record: Record) -> Item | Drop:
    targets: FileRow = as_row(field(record.row, "target_scores"), "target_scores")
    sides = [[as_text(reply, "reply") for reply, score in targets.items() if score == side] for side in (1, 0)]
    if [len(side) for side in sides] != [1, 1]:
        raise BadData(f"'target_scores' holds {short(dict(targets))}; wanted one reply with 1 and one with 0")
    better, worse = sides
    return contest(dialogue(text(record.row, "input")), better, worse, subset=record.path.parent.name, id=record.line)


def _wrapped_item(record: Record) -> Item | Drop:
    (prompt, better), (other, worse) = (
        _unwrapped(text(record.row, name), name) for name in ("chosen_instruction", "rejected_instruction")
    )
    if prompt != other:
        raise BadData("the two instructions are of different prompts; wanted one prompt")
    return contest(dialogue(prompt), [better], [worse], subset=text(record.row, "source"), id=record.line)


def _unwrapped(wrapped: str, name: str) -> tuple[str, str]:
    """Prompt and reply inside a judge's template."""
    match = _JUDGED.search(wrapped)
    if not match:
        raise BadData(
            f"{name!r} holds {short(wrapped)}; wanted '###The instruction to evaluate:',"
            " '###Response to evaluate:' and '###Score Rubrics:' in it"
        )
    return match[1].strip(), match[2].strip()


def dialogue(prompt: str) -> Prompt:
    """A prompt whose later turns are marked in its text.

    >>> [turn.role for turn in dialogue("Hi\\n\\nAssistant: Hello!\\n\\nHuman: How are you?")]
    ['user', 'assistant', 'user']
    """
    opened = prompt if re.match(r"\s*(Human|Assistant):", prompt) else f"Human: {prompt}"
    turns = transcript(f"\n\n{opened.strip()}")
    spoken = turns[:-1] if turns[-1] == ("Assistant", "") else turns  # the cue for the reply
    return tuple(Turn("user" if who == "Human" else "assistant", words) for who, words in spoken)


HHH = Suite(
    name="hhh",
    title="HHH",
    hub="HuggingFaceH4/hhh_alignment",
    layout=HHH_LAYOUT,
    read=read_hhh,
    measure=partial(pairwise, headline=MACRO_MEAN),
    source="arXiv 2112.00861; BIG-bench, hhh_alignment",
    ties="half",
)
