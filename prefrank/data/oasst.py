"""OpenAssistant/oasst1 and oasst2: message trees, as flat messages, as tree exports, or as threads.

One comparison for each prompter message: the assistant replies to it, ordered by `rank` (0 best). Only siblings are
comparable. Trees are rebuilt from parent ids, never from row order. A reply that is deleted, synthetic, unranked or
failed its review is left out with a count (an unranked reply is not a worst one); a reply's labels are not read, so
it does not matter in which of their two forms they come.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prefrank.data.candidates import FEW_REPLIES, Candidate, Candidates, Drop, from_ranks
from prefrank.data.fields import FileRow, as_list, as_number, as_row, field, maybe_text, short, text
from prefrank.errors import BadData
from prefrank.io.rows import Record
from prefrank.types import Prompt, Role, Turn

NOT_READY = "tree not ready for export"
OTHER_LANGUAGE = "another language"
NO_PARENT = "a message of the prompt is missing"
BAD_PROMPT = "deleted, synthetic or failed message in the prompt"
DELETED = "deleted reply"
SYNTHETIC = "synthetic reply"
FAILED_REVIEW = "reply that failed its review"
UNRANKED = "unranked reply"

_ROLES: dict[str, Role] = {"prompter": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Message:
    """What the rules need of a message; `tree_state` and `lang` count on the root."""

    id: str
    parent: str
    turn: Turn
    rank: float | None
    deleted: bool
    synthetic: bool
    review: bool | None
    lang: str
    tree_state: str
    at: Record
    """Where it stands; the row itself is not kept, as whole rows of a large export fill the memory."""


def oasst(records: Iterable[Record], lang: str | None = None) -> Candidates:
    """One candidate for each prompter message that has replies, in the order of the file.

    Args:
        records: flat messages, trees {message_tree_id, prompt} or threads {thread_id, thread}; may be mixed.
        lang: keep the trees whose root is in this language, such as "en".
    """
    messages: dict[str, Message] = {}
    replies: dict[str, list[Message]] = defaultdict(list)
    for record in records:
        for message in _located(record):
            if message.id not in messages:
                messages[message.id] = message
                if message.parent and message.turn.role == "assistant":
                    replies[message.parent].append(message)
    for parent, siblings in replies.items():
        path = _path(parent, messages)
        yield siblings[0].at, _refusal(path, siblings, lang) or _ranked(path, siblings)


def _located(record: Record) -> list[Message]:
    try:
        return list(_messages(record))
    except ValueError as error:
        raise BadData(f"{record.where}: {error}") from None


def _messages(record: Record) -> Iterator[Message]:
    row, at = record.row, Record({}, record.path, record.line)
    given = [name for name in ("message_id", "thread", "prompt") if row.get(name) is not None]
    if len(given) > 1:
        raise BadData(f"the row holds {' and '.join(map(repr, given))}; wanted one of a message, a thread, or a tree")
    if given == ["message_id"]:
        yield _message(row, maybe_text(row, "parent_id"), maybe_text(row, "tree_state"), at)
    elif given == ["thread"]:
        parent = ""
        for node in as_list(row["thread"], "thread"):
            yield (message := _message(as_row(node, "thread"), parent, maybe_text(row, "tree_state"), at))
            parent = message.id
    else:
        yield from _tree(as_row(field(row, "prompt"), "prompt"), maybe_text(row, "tree_state"), at)


def _tree(root: FileRow, tree_state: str, at: Record) -> Iterator[Message]:
    waiting: list[tuple[FileRow, str]] = [(root, "")]
    while waiting:
        node, parent = waiting.pop()
        yield (message := _message(node, parent, tree_state, at))
        children = as_list(node.get("replies") or [], "replies")
        waiting += [(as_row(child, "replies"), message.id) for child in reversed(children)]


def _message(node: FileRow, parent: str, tree_state: str, at: Record) -> Message:
    role, rank = text(node, "role"), node.get("rank")
    if role not in _ROLES:
        raise BadData(f"'role' holds {short(role)}; wanted prompter or assistant")
    return Message(
        id=text(node, "message_id"),
        parent=parent,
        turn=Turn(_ROLES[role], text(node, "text")),
        rank=None if rank is None else as_number(rank, "rank"),
        deleted=_flag(node, "deleted") is True,
        synthetic=_flag(node, "synthetic") is True,
        review=_flag(node, "review_result"),
        lang=maybe_text(node, "lang"),
        tree_state=tree_state,
        at=at,
    )


def _flag(node: FileRow, name: str) -> bool | None:
    value: Any = node.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadData(f"{name!r} holds {short(value)}; wanted true or false")
    return value


def _path(id: str, messages: dict[str, Message]) -> list[Message]:
    """The messages from the root to `id`; without a root where one is missing or the parents go in a circle."""
    path: list[Message] = []
    while id in messages and len(path) <= len(messages):
        path.append(messages[id])
        id = messages[id].parent
    return path[::-1]


def _refusal(path: list[Message], siblings: list[Message], lang: str | None) -> Drop | None:
    """Why the prompt cannot be used: reasons of its tree first, then of the messages on its path."""
    left_out = tuple(fault for reply in siblings if (fault := _fault(reply)))
    if not path or path[0].parent:
        return Drop(NO_PARENT, left_out)
    root = path[0]
    if root.tree_state not in ("", "ready_for_export"):
        return Drop(NOT_READY, left_out)
    if lang is not None and root.lang != lang:
        return Drop(OTHER_LANGUAGE, left_out)
    if any(message.deleted or message.synthetic or message.review is False for message in path):
        return Drop(BAD_PROMPT, left_out)
    return Drop(FEW_REPLIES, left_out) if len(siblings) - len(left_out) < 2 else None


def _fault(reply: Message) -> str | None:
    if reply.deleted:
        return DELETED
    if reply.synthetic:
        return SYNTHETIC
    if reply.review is False:
        return FAILED_REVIEW
    return UNRANKED if reply.rank is None else None


def _ranked(path: list[Message], siblings: list[Message]) -> Candidate:
    faults = {reply.id: _fault(reply) for reply in siblings}
    usable = sorted((r for r in siblings if faults[r.id] is None), key=lambda r: (r.rank, r.id))
    prompt: Prompt = tuple(message.turn for message in path)
    left_out = tuple(fault for fault in faults.values() if fault)
    ranks = [r.rank for r in usable if r.rank is not None]
    return Candidate(prompt, tuple(r.turn.text for r in usable), from_ranks(ranks), id=path[-1].id, left_out=left_out)
