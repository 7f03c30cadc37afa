"""Which text of a row is its prompt, where more than one could be, or none is named so.

Without a `prompt` column, `chosen` and `rejected` are read as prompt and reply only where a turn ends: at the messages
of two lists, at the `Human:` and `Assistant:` of a transcript, or at the header that a chat template writes before a
reply. Words that two answers happen to share are no prompt. Nor is a prompt found in them where another column holds a
text that they do not: such a row is refused, and the error names the column. So is one with a second text beside its
prompt, which would be lost.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from prefrank.data.candidates import Candidate, Drop, best_against_rest
from prefrank.data.fields import FileRow, short, text, user
from prefrank.data.hh import ENDS_IN_HUMAN, PROMPTS_DIFFER, hh
from prefrank.errors import BadData

_HEADERS = {
    "assistant": (
        r"<\|im_start\|>assistant\n",
        r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n",
        r"<\|header_start\|>assistant<\|header_end\|>\n\n",
        r"<start_of_turn>model\n",
        r"<\|(?:assistant|Assistant)\|>\n?",
        r"<｜Assistant｜>",
        r"<\|START_OF_TURN_TOKEN\|><\|CHATBOT_TOKEN\|>",
        r"\[/INST\]",
    ),
    "user": (
        r"<\|im_start\|>user\n",
        r"<\|start_header_id\|>user<\|end_header_id\|>\n\n",
        r"<\|header_start\|>user<\|header_end\|>\n\n",
        r"<start_of_turn>user\n",
        r"<\|(?:user|User|prompter)\|>\n?",
        r"<｜User｜>",
        r"<\|START_OF_TURN_TOKEN\|><\|USER_TOKEN\|>",
        r"\[INST\]",
    ),
}
"""What common chat templates write before a turn."""
_ASSISTANT, _USER = (re.compile("|".join(_HEADERS[role])) for role in ("assistant", "user"))
QUESTIONS = ("prompt", "instruction", "question", "query", "input", "context", "history")
"""Columns that hold the prompt, or a part of it, in one format or another."""
PROMPTS = ("prompt", "instruction", "question", "query")
"""Those of them that are a prompt by themselves: whoever names one has said that the others are none."""
_TRANSCRIPT = re.compile(r"\s*Human:")
_LETTER = re.compile(r"[^\W\d_TZ]")
_WORDS = re.compile(r"[a-z]+|[A-Z][a-z]*|[0-9]+")
_ABOUT_WORDS = """
id ids uid uuid hash source sources origin dataset set split subset category categories domain topic topics task
tasks type kind lang language languages label labels winner score scores rating ratings reward rewards margin
model models generator generators license url urls link date time timestamp created updated version annotator
annotators worker workers author rationale rationales reason reasons explanation feedback critique comment
comments note notes tag tags meta metadata status quality difficulty policy provider seed index idx row key
count order strategy tool tools
"""
_ABOUT = frozenset(_ABOUT_WORDS.split())
"""Words for what is said about a row: a column whose name ends with one holds no prompt."""


def is_transcript(row: FileRow) -> bool:
    """Whether both sides are transcripts as Anthropic HH writes them, and no column states the prompt."""
    sides = (row.get("chosen"), row.get("rejected"))
    return row.get("prompt") is None and all(isinstance(side, str) and _TRANSCRIPT.match(side) for side in sides)


def split_texts(row: FileRow, known: Iterable[str]) -> Candidate | Drop:
    """Prompt and replies of two strings that each hold a whole conversation.

    Args:
        row: holds the strings `chosen` and `rejected`, and no prompt.
        known: columns that its reader reads.

    Raises:
        BadData: there is no turn at which to split, or another column may be the prompt.
    """
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    refuse_other_texts(row, known, (chosen, rejected))
    if is_transcript(row):
        return hh({"chosen": "\n\n" + chosen.lstrip(), "rejected": "\n\n" + rejected.lstrip()})
    heads, replies = [], []
    for side in (chosen, rejected):
        headers = list(_ASSISTANT.finditer(side))
        if not headers:
            raise BadData(
                "no column 'prompt', and 'chosen' and 'rejected' share no beginning that ends at a turn (an"
                f" 'Assistant:' of a transcript, a chat template's header){_others(row, known)}; give the prompt as a"
                " column, or name it: columns: {prompt: NAME}"
            )
        end = headers[-1].end()
        if _USER.search(side, end):
            return Drop(ENDS_IN_HUMAN)
        heads.append(side[:end])
        replies.append(side[end:])
    if heads[0] != heads[1]:
        return Drop(PROMPTS_DIFFER)
    return Candidate(user(heads[0]), tuple(replies), best_against_rest(2))


def refuse_second_prompt(row: FileRow, read: Collection[str], texts: Iterable[str]) -> None:
    """Refuse a row in which a column beside the prompt may be it too, or a part of it.

    Args:
        row: the row.
        read: columns that every row of the format has, which are read.
        texts: those that are read; a column that repeats one of them is no other text.
    """
    others = [name for name in QUESTIONS if name not in read and name in row and row[name]]
    whole = "\n".join(texts) if others else ""
    for name in others:
        if not all(text in whole for text in texts_of(row[name])):
            first = next((name for name in QUESTIONS if name in read), "")
            if not first:
                raise BadData(f"{name!r} may be a part of the prompt, and is not read; put it there, or take it out")
            raise BadData(f"{first!r} and {name!r} each hold a text that may be the prompt; {_cure(row, first, name)}")


def _cure(row: FileRow, first: str, name: str) -> str:
    """What to do about a second text, as far as naming columns helps."""
    if name == "input" and "chosen" in row:
        return f"keep one, or join them: columns: {{instruction: {first}, input: input}}"
    if first in PROMPTS and name not in ("input", "history"):
        return f"keep one, or say which it is: columns: {{{first}: {first}}} (--columns {first}={first})"
    return "keep one, or join them in one column"


def refuse_other_texts(row: FileRow, known: Iterable[str], texts: Iterable[str]) -> None:
    """Refuse a row without `prompt` where another column holds a text that may be the prompt.

    Args:
        row: the row.
        known: columns that its reader reads.
        texts: those of the conversation that it does hold; a column that repeats one of them is no other text.
    """
    whole = "\n".join(texts)
    names = [name for name in _texts(row, known) if not all(text in whole for text in texts_of(row[name]))]
    if names:
        which = "could be it" if len(names) == 1 else "could each be it"
        raise BadData(
            f"no column 'prompt', and {' and '.join(map(repr, names[:4]))} {which}; say which column is the prompt:"
            f" columns: {{prompt: {names[0]}}} (--columns prompt={names[0]}), or take the others out"
        )


def _texts(row: FileRow, known: Iterable[str]) -> list[str]:
    """Names of the columns that hold texts and are neither read nor about the row."""
    read = set(known)
    return [name for name in map(str, row) if name not in read and not _is_about(name) and _holds_text(row, name)]


def _holds_text(row: FileRow, name: str) -> bool:
    """Whether there is a text with a letter, as a date or a number written as a string has none."""
    try:
        return any(map(_LETTER.search, texts_of(row[name])))
    except BadData:  # a value that cannot be read, such as a date past the year 9999
        return False


def _is_about(name: str) -> bool:
    """Whether the name's last word (before a single letter or number, as in `model_a`) is one of `_ABOUT`."""
    words = [word.lower() for word in _WORDS.findall(name)]
    telling = [word for word in words if len(word) > 1 and not word.isdigit()]
    return (bool(telling) and telling[-1] in _ABOUT) or bool({"chosen", "rejected"} & set(words))


def texts_of(value: Any) -> list[str]:
    """The texts of a string, of messages, or of a list of either; nothing for all else."""
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, Mapping):
        return texts_of(value.get("content") or value.get("value") or value.get("text"))
    return [text for part in value for text in texts_of(part)] if isinstance(value, list) else []


def _others(row: FileRow, known: Iterable[str]) -> str:
    others = [name for name in map(str, row) if name not in set(known)]
    return f"; other columns: {short(', '.join(others))}" if others else ""
