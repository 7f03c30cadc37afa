"""The formats we read: how each is recognized by its columns, which reader it has, which columns it needs.

A registry is a dict. Of several formats that fit a row, one whose columns contain another's is taken before it; of
two that are left, none is: the row is refused.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import NoReturn

from prefrank.data.arena import FLAGS, arena_battle, arena_vote, battle_of_texts
from prefrank.data.candidates import Candidate, Candidates, Drop, under_system
from prefrank.data.conversations import (
    conversation_pair,
    has_ranked_answers,
    nectar,
    one_reply_each,
    swift_exchanges,
    swift_instruction,
    swift_messages,
    swift_query,
    swift_response,
)
from prefrank.data.fields import SYSTEM_COLUMNS, FileRow, label, system_of
from prefrank.data.hints import hint
from prefrank.data.implicit import QUESTIONS, is_transcript, refuse_second_prompt
from prefrank.data.instructions import (
    code_ultrafeedback,
    generations,
    pair_of,
    safe_rlhf,
    stack_exchange,
    two_outputs,
)
from prefrank.data.oasst import oasst
from prefrank.data.own import READ, own
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
from prefrank.errors import BadData, suggest
from prefrank.io.columns import Columns
from prefrank.io.rows import Record

ANY_ROW = (*SYSTEM_COLUMNS, "id")
"""Columns that are read in every format whose rows are candidates."""
Reader = Callable[[Iterable[Record]], Candidates]


@dataclass(frozen=True, slots=True)
class Format:
    """One way of writing comparisons down.

    Args:
        read: records to candidates, each with the record it begins at.
        keys: columns a row must have to be of this format.
        columns: the columns that are read (of Parquet, the only ones beside `ANY_ROW`); None reads all.
        by_row: whether every row is one candidate; else rows are gathered into groups first.
        fits: what else a row must be, where columns alone do not say.
        whole: whether all Parquet columns are looked at: one that is not read may change what the others mean.
    """

    read: Reader
    keys: frozenset[str]
    columns: tuple[str, ...] | None = None
    by_row: bool = True
    fits: Callable[[FileRow], bool] = lambda row: True
    whole: bool = False

    def is_of(self, row: FileRow, names: Set[str]) -> bool:
        """Whether a row with columns of these names is of this format."""
        return self.keys <= names and self.fits(row)

    @property
    def beside(self) -> tuple[str, ...]:
        """Columns that are looked at, since a text of the prompt must not be lost in them."""
        return tuple(name for name in QUESTIONS if name not in self.keys)

    def check(self, record: Record, candidate: Candidate) -> None:
        """Refuse a row with a further text that may belong to its prompt.

        Raises:
            BadData: with file and line.
        """
        texts = [*(turn.text for turn in candidate.prompt), *candidate.replies]
        try:
            refuse_second_prompt(record.row, self.keys, texts)
        except BadData as error:
            raise BadData(f"{record.where}: {error}") from None

    def reads(self, name: str) -> bool:
        """Whether a column of this name is read."""
        known = (*ANY_ROW, *(self.columns or ()))
        return self.columns is None or any(name == column or column.startswith(f"{name}.") for column in known)


def each_row(read: Callable[[FileRow], Candidate | Drop]) -> Reader:
    """A reader of records from a reader of one row: its errors get file and line.

    What any row may have is read here: a `system` turn before the prompt, and an `id`, which tells votes from copies.
    """

    def reader(records: Iterable[Record]) -> Candidates:
        for record in records:
            try:
                candidate = under_system(read(record.row), system_of(record.row))
                if isinstance(candidate, Candidate) and not candidate.id and (id := label(record.row, "id")):
                    candidate = replace(candidate, id=id)
            except ValueError as error:
                raise BadData(f"{record.where}: {error}") from None
            yield record, candidate

    return reader


def _without(*names: str) -> Callable[[FileRow], bool]:
    return lambda row: not any(map(row.get, names))


def _ends_in_reply(row: FileRow) -> bool:
    """Whether `messages` end in a reply that `label` calls good or bad: no class of a text, as ms-swift has too."""
    messages = row.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(row.get("label"), bool) and isinstance(last, Mapping) and last.get("role") == "assistant"


_SCORED = ("question.full_text", "answer_0", "answer_1", "score_0", "score_1")
_SHP = ("history", "labels", *(f"{name}_{s}" for name in ("human_ref", "score", "created_at_utc") for s in "AB"))
_MESSAGE = ("message_id", "parent_id", "text", "role", "lang", "rank", "tree_state")
_REVIEW = ("deleted", "synthetic", "review_result")
_SAFE = ("prompt", "response_0", "response_1", "better_response_id", "safer_response_id")
_CONVERSATIONS = ("conversation_a", "conversation_b", "full_conversation")
_VOTE = ("id", "question_id", *_CONVERSATIONS, "evaluation_order", "turn", "winner", "judge")
_BATTLE = ("id", "prompt", "response_a", "response_b")
_OWN, _ARENA, _OUTPUTS, _CONVERSATION = map(each_row, (own, arena_vote, two_outputs, conversation_pair))
_GENERATIONS = each_row(generations)
_KTO = by_prompt(kto_conversation)
_PAIR = frozenset({"chosen", "rejected"})

FORMATS: dict[str, Format] = {
    "webgpt": Format(each_row(webgpt), frozenset({"question", "answer_0", "answer_1"}), _SCORED),
    "summaries": Format(
        each_row(summary_pair),
        frozenset({"info", "summaries", "choice"}),
        ("info", "summaries", "choice", "worker", "split"),
    ),
    "rated_summaries": Format(rated_summaries, frozenset({"info", "summary"}), ("info", "summary"), by_row=False),
    "hh": Format(_OWN, _PAIR, READ, fits=is_transcript, whole=True),
    "oa_private": Format(
        each_row(oa_private), frozenset({"prompt", "pos", "neg_replies"}), ("prompt", "history", "pos", "neg_replies")
    ),
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
        ("instruction", "input", "output", "history"),
        fits=lambda row: not isinstance(row.get("output"), str),
    ),
    "safe_rlhf": Format(
        each_row(safe_rlhf), frozenset({"prompt", "response_0", "response_1", "better_response_id"}), _SAFE
    ),
    "nectar": Format(
        each_row(nectar), frozenset({"prompt", "answers"}), ("prompt", "answers"), fits=has_ranked_answers
    ),
    "outputs": Format(_OUTPUTS, frozenset({"instruction", "output_1", "output_2", "label"})),
    "preferred_outputs": Format(_OUTPUTS, frozenset({"instruction", "output_1", "output_2", "preference"})),
    "code_ultrafeedback": Format(
        each_row(code_ultrafeedback),
        frozenset({"instruction", "responses", "annotations"}),
        ("instruction", "responses", "annotations"),
        fits=_without("chosen"),
    ),
    "generations": Format(_GENERATIONS, frozenset({"instruction", "generations", "ratings"}), fits=_without("chosen")),
    "rated_generations": Format(_GENERATIONS, frozenset({"input", "generations", "rating"}), fits=_without("chosen")),
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
    "swift_exchanges": Format(each_row(swift_exchanges), frozenset({"conversation", "rejected_response"})),
    "swift_sharegpt": Format(each_row(swift_response), frozenset({"conversations", "rejected_response"})),
    "swift_instruction": Format(each_row(swift_instruction), frozenset({"instruction", "output", "rejected_response"})),
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
    "responses_to_prompts": Format(
        each_row(pair_of("prompt", "chosen_response", "rejected_response")),
        frozenset({"prompt", "chosen_response", "rejected_response"}),
    ),
    "prefrank": Format(_OWN, frozenset({"prompt", "replies"}), READ),
    "prefrank_pairs": Format(_OWN, _PAIR | {"prompt"}, READ),
    "implicit_pairs": Format(_OWN, _PAIR, READ, fits=lambda row: not is_transcript(row), whole=True),
}


def recognise(row: FileRow, where: str, columns: Columns | None = None) -> str:
    """The name of the row's format.

    Args:
        row: its columns under the names that readers know.
        where: file and line.
        columns: the mapping that gave it those names; only a format that reads them all is taken.

    Raises:
        BadData: the columns are those of none, and a near miss such as `response` for `replies` is named; or of two.
    """
    stated = columns or {}
    names = row.keys() | {name.partition(".")[0] for name in stated}
    fitting = {name: format for name, format in FORMATS.items() if format.is_of(row, names)}
    read = {name: format for name, format in fitting.items() if all(map(format.reads, stated))}
    if fitting and not read:
        _refuse_names(where, stated, fitting)
    filled = {name: format for name, format in read.items() if all(_is_given(row, key) for key in format.keys)} or read
    best = [name for name, format in filled.items() if not any(format.keys < other.keys for other in filled.values())]
    if len({FORMATS[name].read for name in best}) > 1:
        raise BadData(
            f"{where}: the columns are those of {' and of '.join(best)}; name those of one: columns:"
            f" {{{', '.join(f'{key}: {key}' for key in sorted(FORMATS[best[-1]].keys))}}}"
        )
    if best:
        return best[0]
    raise BadData(
        f"{where}: columns {', '.join(map(str, row)) or '(none)'} are those of no known format{hint(row)};"
        " wanted prompt + replies + ranks (or ratings, or preferences), prompt + chosen + rejected,"
        " or a published data set's columns (docs/formats.md); columns of other names are named by columns:"
        " {prompt: question, ...} (--columns prompt=question,...)"
    )


def _is_given(row: FileRow, name: str) -> bool:
    """Whether there is more than null or an empty text in a column of the row."""
    return name not in row or row.get(name) not in (None, "")


def _refuse_names(where: str, columns: Columns, fitting: Mapping[str, Format]) -> NoReturn:
    """Name the first column of a mapping that no format reads which fits the row."""
    read = sorted({name for format in fitting.values() for name in format.columns or ()})
    by_nobody = (name for name in columns if not any(format.reads(name) for format in fitting.values()))
    name = next(by_nobody, next(iter(columns)))
    raise BadData(f"{where}: columns name {name!r}, which is not read in {' or '.join(fitting)}{suggest(name, read)}")
