"""The formats we read: how each is recognised by its columns, which reader it has, which columns it needs.

A registry is a dict. Order matters where one format's columns contain another's: the first that fits is taken.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prefrank.data.arena import FLAGS, arena_battle, arena_vote, battle_of_texts
from prefrank.data.candidates import Candidate, Drop
from prefrank.data.conversations import (
    conversation_pair,
    nectar,
    one_reply_each,
    swift_messages,
    swift_query,
    swift_response,
)
from prefrank.data.fields import Row
from prefrank.data.hh import hh
from prefrank.data.hints import hint
from prefrank.data.instructions import (
    code_ultrafeedback,
    generations,
    pair_of,
    safe_rlhf,
    stack_exchange,
    two_outputs,
)
from prefrank.data.oasst import oasst
from prefrank.data.own import COLUMNS as OWN_COLUMNS
from prefrank.data.own import own
from prefrank.data.pairs import hellaswag, oa_private, ranked_list, shp, webgpt
from prefrank.data.pointwise import by_prompt, kto, kto_conversation, kto_instruction
from prefrank.data.rated import (
    ATTRIBUTES,
    PREDICTIONS,
    finegrained,
    helpsteer3,
    helpsteer_pair,
    helpsteer_ratings,
    ultrafeedback,
)
from prefrank.data.summaries import rated_summaries, summary_pair
from prefrank.errors import BadData
from prefrank.io.rows import Record

Found = Iterator[tuple[Record, Candidate | Drop]]
Reader = Callable[[Iterable[Record]], Found]


@dataclass(frozen=True, slots=True)
class Format:
    """One way of writing comparisons down.

    Args:
        read: records to candidates, each with the record it begins at.
        keys: columns a row must have to be of this format.
        columns: the only Parquet columns to read; None reads all.
        by_row: whether every row is one candidate; else rows are gathered into groups first.
        fits: what else must be true of a row that has the keys.
    """

    read: Reader
    keys: frozenset[str]
    columns: tuple[str, ...] | None = None
    by_row: bool = True
    fits: Callable[[Row], bool] = lambda row: True


def each_row(read: Callable[[Row], Candidate | Drop]) -> Reader:
    """A reader of records from a reader of one row; its errors get file and line."""

    def reader(records: Iterable[Record]) -> Found:
        for record in records:
            try:
                found = read(record.row)
            except ValueError as error:
                raise BadData(f"{record.where}: {error}") from None
            yield record, found

    return reader


def _is_transcript(row: Row) -> bool:
    chosen = row["chosen"]
    return row.get("prompt") is None and isinstance(chosen, str) and chosen.startswith("\n\nHuman:")


def _without(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(row.get(name) is None for name in names)


def _ends_in_reply(row: Row) -> bool:
    """Whether `messages` end in a reply that `label` calls good or bad: no class of a text, as ms-swift has too."""
    messages = row["messages"]
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(row["label"], bool) and isinstance(last, Mapping) and last.get("role") == "assistant"


_SCORED = ("question.full_text", "answer_0", "answer_1", "score_0", "score_1")
_SHP = ("history", "labels", *(f"{name}_{s}" for name in ("human_ref", "score", "created_at_utc") for s in "AB"))
_MESSAGE = ("message_id", "parent_id", "text", "role", "lang", "rank", "tree_state")
_REVIEW = ("deleted", "synthetic", "review_result")
_SAFE = ("prompt", "response_0", "response_1", "better_response_id", "safer_response_id")
_CONVERSATIONS = ("conversation_a", "conversation_b", "full_conversation")
_VOTE = ("id", "question_id", *_CONVERSATIONS, "evaluation_order", "turn", "winner", "judge")
_ARENA, _OUTPUTS, _CONVERSATION = map(each_row, (arena_vote, two_outputs, conversation_pair))
_KTO = by_prompt(kto_conversation)
_BATTLE = ("id", "prompt", "response_a", "response_b")

FORMATS: dict[str, Format] = {
    "webgpt": Format(each_row(webgpt), frozenset({"question", "answer_0", "answer_1"}), _SCORED),
    "summaries": Format(
        each_row(summary_pair),
        frozenset({"info", "summaries", "choice"}),
        ("info", "summaries", "choice", "worker", "split"),
    ),
    "rated_summaries": Format(rated_summaries, frozenset({"info", "summary"}), ("info", "summary"), by_row=False),
    "hh": Format(each_row(hh), frozenset({"chosen", "rejected"}), fits=_is_transcript),
    "oa_private": Format(each_row(oa_private), frozenset({"prompt", "pos", "neg_replies"})),
    "messages": Format(oasst, frozenset({"message_id", "role", "text"}), (*_MESSAGE, *_REVIEW), by_row=False),
    "trees": Format(oasst, frozenset({"message_tree_id", "prompt"}), by_row=False),
    "threads": Format(oasst, frozenset({"thread_id", "thread"}), by_row=False),
    "shp": Format(each_row(shp), frozenset({"history", "human_ref_A", "human_ref_B"}), _SHP),
    "hellaswag": Format(each_row(hellaswag), frozenset({"ctx", "endings"}), ("ctx", "endings", "label")),
    "helpsteer_ratings": Format(
        helpsteer_ratings,
        frozenset({"prompt", "response", "helpfulness"}),
        ("prompt", "response", *ATTRIBUTES),
        by_row=False,
    ),
    "helpsteer_pairs": Format(
        each_row(helpsteer_pair),
        frozenset({"prompt", "response_1", "response_2", "preference_strength"}),
        ("prompt", "response_1", "response_2", "preference_strength"),
    ),
    "helpsteer3": Format(
        each_row(helpsteer3),
        frozenset({"context", "response1", "response2", "overall_preference"}),
        ("context", "response1", "response2", "overall_preference"),
    ),
    "ultrafeedback": Format(
        each_row(ultrafeedback), frozenset({"instruction", "completions"}), ("instruction", "completions")
    ),
    "finegrained": Format(
        each_row(finegrained),
        frozenset({"question", "preference", *PREDICTIONS}),
        ("question", "passages", "preference", *PREDICTIONS),
    ),
    "kto_instructions": Format(
        by_prompt(kto_instruction), frozenset({"instruction", "output", "kto_tag"}), by_row=False
    ),
    "ranked_lists": Format(
        each_row(ranked_list),
        frozenset({"instruction", "output"}),
        fits=lambda row: not isinstance(row["output"], str),
    ),
    "safe_rlhf": Format(
        each_row(safe_rlhf), frozenset({"prompt", "response_0", "response_1", "better_response_id"}), _SAFE
    ),
    "nectar": Format(each_row(nectar), frozenset({"prompt", "answers"}), ("prompt", "answers")),
    "outputs": Format(_OUTPUTS, frozenset({"instruction", "output_1", "output_2", "label"})),
    "preferred_outputs": Format(_OUTPUTS, frozenset({"instruction", "output_1", "output_2", "preference"})),
    "code_ultrafeedback": Format(
        each_row(code_ultrafeedback),
        frozenset({"instruction", "responses", "annotations"}),
        ("instruction", "responses", "annotations"),
        fits=_without("chosen"),
    ),
    "generations": Format(
        each_row(generations), frozenset({"instruction", "generations", "ratings"}), fits=_without("chosen")
    ),
    "stack_exchange": Format(
        each_row(stack_exchange),
        frozenset({"question", "response_j", "response_k"}),
        ("question", "response_j", "response_k"),
    ),
    "arena": Format(_ARENA, frozenset({"conversation_a", "conversation_b", "winner"}), _VOTE),
    "arena_sessions": Format(_ARENA, frozenset({"full_conversation", "winner"}), _VOTE),
    "arena_battles": Format(
        each_row(arena_battle), frozenset({"prompt", "response_a", "response_b", *FLAGS}), (*_BATTLE, *FLAGS)
    ),
    "battles": Format(
        each_row(battle_of_texts), frozenset({"prompt", "response_a", "response_b", "winner"}), (*_BATTLE, "winner")
    ),
    "kto": Format(by_prompt(kto), frozenset({"prompt", "completion", "label"}), by_row=False),
    "kto_sharegpt": Format(_KTO, frozenset({"conversations", "kto_tag"}), by_row=False),
    "kto_tagged": Format(_KTO, frozenset({"messages", "kto_tag"}), by_row=False),
    "kto_messages": Format(_KTO, frozenset({"messages", "label"}), by_row=False, fits=_ends_in_reply),
    "swift": Format(each_row(swift_response), frozenset({"messages", "rejected_response"})),
    "swift_messages": Format(each_row(swift_messages), frozenset({"messages", "rejected_messages"})),
    "swift_query": Format(each_row(swift_query), frozenset({"query", "response", "rejected_response"})),
    "ultrainteract": Format(
        _CONVERSATION,
        frozenset({"trajectory", "chosen", "rejected"}),
        ("id", "trajectory", "chosen", "rejected"),
    ),
    "sharegpt": Format(_CONVERSATION, frozenset({"conversations", "chosen", "rejected"}), fits=one_reply_each),
    "messages_pairs": Format(_CONVERSATION, frozenset({"messages", "chosen", "rejected"}), fits=one_reply_each),
    "instruction_pairs": Format(
        each_row(pair_of("instruction")), frozenset({"instruction", "chosen", "rejected"}), fits=_without("prompt")
    ),
    "question_pairs": Format(
        each_row(pair_of("question")),
        frozenset({"question", "chosen", "rejected"}),
        fits=_without("prompt", "instruction"),
    ),
    "input_pairs": Format(
        each_row(pair_of("input")),
        frozenset({"input", "chosen", "rejected"}),
        fits=_without("prompt", "instruction", "question"),
    ),
    "responses": Format(
        each_row(pair_of("instruction", "chosen_response", "rejected_response")),
        frozenset({"instruction", "chosen_response", "rejected_response"}),
    ),
    "prefrank": Format(each_row(own), frozenset({"prompt", "replies"}), OWN_COLUMNS),
    "prefrank_pairs": Format(each_row(own), frozenset({"chosen", "rejected"}), OWN_COLUMNS),
}


def recognise(row: Row, where: str) -> str:
    """The name of the row's format.

    Raises:
        BadData: the columns are those of none; names a near miss such as `response` for `replies`.
    """
    for name, format in FORMATS.items():
        if format.keys <= row.keys() and format.fits(row):
            return name
    raise BadData(
        f"{where}: columns {', '.join(map(str, row)) or '(none)'} are those of no known format{hint(row)};"
        " wanted prompt + replies + ranks (or ratings, or preferences), prompt + chosen + rejected,"
        " or a published data set's columns (docs/formats.md)"
    )
