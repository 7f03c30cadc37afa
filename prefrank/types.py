"""The values that flow through prefrank: frozen, checked once when they are made.

A comparison is one prompt, K replies and weighted preferences between them; pairs are K = 2, and
nothing assumes a total order. A batch is packed: one flat run of token ids and row boundaries, as
numpy arrays, so that reading and encoding need no torch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int8, Int64

from prefrank.errors import BadInput, short
from prefrank.preferences import MAIN_HEAD, Preference, Preferences, RankedPairs, Ratings

__all__ = [
    "MAIN_HEAD",
    "MESSAGE_EXTRAS",
    "ROLES",
    "Batch",
    "Causal",
    "Comparison",
    "Counts",
    "Message",
    "Preference",
    "Preferences",
    "Prompt",
    "PromptLike",
    "RankedPairs",
    "Ratings",
    "Role",
    "Row",
    "Score",
    "Tree",
    "Turn",
    "as_prompt",
    "as_turn",
    "reply_types",
]

Role = Literal["system", "user", "assistant", "developer", "tool", "function"]
ROLES: tuple[str, ...] = get_args(Role)
MESSAGE_EXTRAS = ("tool_calls", "tool_call_id", "function_call", "name", "reasoning_content")
"""What a message may hold beside role and content and a chat template may read."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation.

    Args:
        role: who speaks.
        text: what is said.
        extra: what else of `MESSAGE_EXTRAS` the message holds, as the text of one JSON object; "" for nothing.
    """

    role: Role
    text: str
    extra: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise BadInput(f"a turn's role is {self.role!r}; wanted one of {', '.join(ROLES)}")
        if not isinstance(self.text, str):
            raise BadInput(f"a turn's text is of type {type(self.text).__name__}; wanted a string")

    def message(self) -> dict[str, Any]:
        """The turn as a chat template wants it: role, content, and what else the message held."""
        return {"role": self.role, "content": self.text, **(json.loads(self.extra) if self.extra else {})}


Prompt = tuple[Turn, ...]
Message = Mapping[str, Any]
"""A chat message: `{"role": ..., "content": ...}`; content is a string or OpenAI's list of parts of type text."""
PromptLike = str | Turn | Message | Sequence[Turn | Message]
"""What the public edge takes: a `str` is one user turn."""


def as_turn(message: object) -> Turn:
    """A chat message as a turn.

    Raises:
        BadInput: an unknown role, content that is not text (a part of another type is named), or none at all.
    """
    if isinstance(message, Turn):
        return message
    if not isinstance(message, Mapping):
        raise BadInput(f"a message is {short(message)}; wanted an object with role and content")
    if "role" not in message:
        raise BadInput(f"a message has the keys {', '.join(map(str, message)) or '(none)'}; wanted role and content")
    role, content = message["role"], message.get("content")
    if role not in ROLES:
        raise BadInput(f"a message has the role {short(role)}; wanted one of {', '.join(ROLES)}")
    extra = {name: message[name] for name in MESSAGE_EXTRAS if message.get(name) not in (None, [], {}, "")}
    if content is None and not ({"tool_calls", "function_call"} & extra.keys()):
        raise BadInput("a message has no content; wanted a string")
    text = "" if content is None else content if isinstance(content, str) else _joined(content)
    try:
        return Turn(role, text, json.dumps(extra, ensure_ascii=False) if extra else "")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"a message has {', '.join(extra)} that cannot be JSON ({error})") from None


def _joined(content: object) -> str:
    """OpenAI's content parts as one text, the texts put one after the other as chat templates do."""
    if not isinstance(content, Sequence):
        raise BadInput(f"a message's content is {short(content)}; wanted a string or a list of text parts")
    texts = []
    for number, part in enumerate(content):
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        text = part.get("text") if isinstance(part, Mapping) else part
        if kind != "text" or not isinstance(text, str):
            what = f"of type {kind}" if kind != "text" else f"{short(part)}"
            raise BadInput(f"content[{number}] of a message is {what}; wanted parts of type text only")
        texts.append(text)
    return "".join(texts)


def as_prompt(prompt: PromptLike) -> Prompt:
    """The structured form of a prompt; a `str` becomes one user turn, a message one turn.

    Raises:
        BadInput: an empty list of turns, or something that is neither a turn nor a message.
    """
    if isinstance(prompt, str):
        return (Turn("user", prompt),)
    if isinstance(prompt, Turn | Mapping):
        return (as_turn(prompt),)
    if isinstance(prompt, bytes) or not isinstance(prompt, Sequence):
        raise BadInput(f"a prompt is of type {type(prompt).__name__}; wanted a string or a list of turns")
    if not prompt:
        raise BadInput("a prompt has no turns; give a string or at least one turn")
    turns = []
    for turn in prompt:
        if not isinstance(turn, Turn | Mapping):
            raise BadInput(f"a prompt holds a {type(turn).__name__}; wanted Turn(role, text) values or one string")
        turns.append(as_turn(turn))
    return tuple(turns)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt, K >= 2 distinct replies, and at least one preference between them.

    Args:
        prompt: the turns before the reply, oldest first.
        replies: distinct texts; each is encoded once, however many preferences name it.
        preferences: index pairs into `replies`; those of a long ranked list as `RankedPairs`.
        source: the data set it came from.
        id: unique inside its source.
        ratings: at most one entry for each head. Preferences of a head that only has ratings are derived from them
            where that head is trained (`training.examples`); those of the main head stand in `preferences` already.
    """

    prompt: Prompt
    replies: tuple[str, ...]
    preferences: Preferences
    source: str
    id: str
    ratings: tuple[Ratings, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt:
            raise BadInput(f"comparison {self.id} has no prompt turn")
        if len(self.replies) < 2:
            raise BadInput(f"comparison {self.id} has {len(self.replies)} replies; wanted at least 2")
        if len(set(self.replies)) < len(self.replies):
            raise BadInput(f"comparison {self.id} has equal replies; wanted distinct ones")
        if not self.preferences:
            raise BadInput(f"comparison {self.id} has no preference between its replies")
        if isinstance(self.preferences, RankedPairs) and len(self.preferences.ranks) != len(self.replies):
            raise BadInput(
                f"comparison {self.id} has {len(self.preferences.ranks)} ranks for {len(self.replies)} replies"
            )
        for preference in () if isinstance(self.preferences, RankedPairs) else self.preferences:
            if not (0 <= preference.winner < len(self.replies) and 0 <= preference.loser < len(self.replies)):
                raise BadInput(
                    f"comparison {self.id} prefers reply {preference.winner} to {preference.loser}"
                    f" but has replies 0 to {len(self.replies) - 1}"
                )
        for rated in self.ratings:
            if len(rated.values) != len(self.replies):
                raise BadInput(
                    f"comparison {self.id} has {len(rated.values)} ratings of {rated.head}"
                    f" for {len(self.replies)} replies; wanted as many"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One encoded (prompt, reply).

    Args:
        ids: [L] token ids, special tokens included.
        types: [L] token types, as the text settings say; all 0 where the model's tokenizer gives none.
        reply_start: index in `ids` of the reply's first token.
        cut_prompt: prompt tokens left out to fit the maximum length.
        cut_reply: reply tokens left out, or not as they were written.
        lost: how many of `cut_reply` the chat template deleted or changed, which no longer limit brings back.
    """

    ids: Int64[np.ndarray, " L"]
    types: Int8[np.ndarray, " L"]
    reply_start: int
    cut_prompt: int
    cut_reply: int
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Causal:
    """What decides which tokens the rows of a network that reads from left to right can have in common.

    Args:
        padding: a row is scored at its rightmost token that is not this one, or at its first where all are; what comes
            after cannot be seen there. None: at its last.
        fixed_until: rows of up to so many tokens read one table of positions, longer ones another; None: all one.
        by_length: whether the longer rows have a table for each length (rope's `dynamic`), not one (`longrope`).
    """

    padding: int | None = None
    fixed_until: int | None = None
    by_length: bool = False

    def table(self, length: int) -> int:
        """Which table of positions a row of this length reads: 0 for the fixed one. Rows of two share nothing."""
        if self.fixed_until is None or length <= self.fixed_until:
            return 0
        return length if self.by_length else 1

    def scored_length(self, ids: Int64[np.ndarray, " L"]) -> int:
        """Tokens of a row up to the one it is scored at."""
        if self.padding is None or ids[-1] != self.padding:
            return len(ids)
        other = np.flatnonzero(ids != self.padding)
        return int(other[-1]) + 1 if len(other) else 1


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """How N rows are made of S segments of a batch, so that what they begin with in common is there once.

    Args:
        parents: [S] the segment that each one goes on from, which stands before it; -1 where rows begin.
        leaves: [N] the segment at whose end each row ends.
        lengths: [N] tokens of each whole row, those after the scored one included, which are not in the batch.
    """

    parents: Int64[np.ndarray, " S"]
    leaves: Int64[np.ndarray, " N"]
    lengths: Int64[np.ndarray, " N"]

    def path(self, row: int) -> list[int]:
        """The segments of a row, from its root."""
        segments = [int(self.leaves[row])]
        while (parent := int(self.parents[segments[-1]])) >= 0:
            segments.append(parent)
        return segments[::-1]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """N rows packed without padding, in S segments.

    Args:
        ids: [T] the segments' token ids, one after the other.
        types: [T] their token types.
        rows: [N] the position of each row in the caller's order.
        starts: [S+1] segment s is `ids[starts[s]:starts[s + 1]]`.
        tree: which segments a row is made of; None: each row is a segment of its own, in order.
    """

    ids: Int64[np.ndarray, " T"]
    types: Int8[np.ndarray, " T"]
    rows: Int64[np.ndarray, " N"]
    starts: Int64[np.ndarray, " edges"]
    tree: Tree | None = None


Counts = int | np.integer | Sequence[int] | np.ndarray


def reply_types(lengths: Counts, reply_starts: Counts) -> Int8[np.ndarray, " T"]:
    """Token types of packed rows of these lengths: 0 in the prompt, 1 from each row's reply on."""
    sizes = np.atleast_1d(np.asarray(lengths, np.int64))
    positions = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return (positions >= np.repeat(np.atleast_1d(reply_starts), sizes)).astype(np.int8)


@dataclass(frozen=True, slots=True)
class Score:
    """What a model says of one (prompt, reply): the raw float32 logit, and the facts behind it.

    Args:
        value: the model's logit; only differences between replies to one prompt carry meaning.
        tokens: tokens scored, special ones included.
        cut_prompt: prompt tokens left out to fit the model (oldest first).
        cut_reply: reply tokens left out (at the end).
        model: fingerprint of weights, tokenizer and text settings.
        past_trained: of the tokens, those past the positions that the model was trained on, where its kind of positions
            takes them (rope's `dynamic`, with a `max_length` of the caller's); elsewhere such a row is an error.
    """

    value: float
    tokens: int
    cut_prompt: int
    cut_reply: int
    model: str
    past_trained: int = 0
