"""The chat markup of policies: a text that one was given, and what it wrote, as the turns of a conversation.

Trainers send what their policy saw: one text with its control strings. A reward model reads turns by a template of its
own, so the text is taken apart here. What a policy itself wrote is never searched for turns: it could write the rest of
a conversation that suits it.

The forms are those of the chat templates published with Qwen 2 and 3 and others (ChatML), Llama 3, Gemma, Phi-3, Phi-4,
Mistral and Llama 2, Zephyr, Tulu and DeepSeek, and of transcripts in plain labels.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from prefrank.types import Prompt, Role, Turn
from prefrank.wire.route import Asked

BEGINNINGS = ("<|begin_of_text|>", "<｜begin▁of▁sentence｜>", "<|startoftext|>", "<bos>", "<s>")
"""Control strings that open a text before its first turn."""


@dataclass(frozen=True)
class Markup:
    """How turns stand in a text: each between an opening and a closing of its role.

    Args:
        openings: string -> role; of those that begin alike the longer one first.
        closings: role -> the strings that may stand between its text and the next opening, the longest first; () for a
            role whose text the opening of another role ends.
        ends: control strings that may follow the last reply.
        lead: what may stand between an opening and its text.
        filling: characters that may stand before the first opening.
        bare_system: whether a text before the first opening is the system's.
        inner_system: around the system's text, which opens the first user turn.
    """

    name: str
    openings: Mapping[str, Role]
    closings: Mapping[Role, tuple[str, ...]]
    ends: tuple[str, ...]
    lead: str = ""
    filling: str = ""
    bare_system: bool = False
    inner_system: tuple[str, str] | None = None

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Any opening."""
        return re.compile("|".join(map(re.escape, self.openings)))

    @cached_property
    def before_reply(self) -> str:
        """The opening of the assistant."""
        return next(opening for opening, role in self.openings.items() if role == "assistant")


@dataclass(frozen=True, slots=True)
class Read:
    """A text taken apart.

    Args:
        turns: that are whole.
        opened: what stands in an assistant's turn that is not closed, at the end; None where there is none.
    """

    turns: Prompt
    opened: str | None
    markup: Markup


def _same(roles: Mapping[str, Role], before: str, after: str) -> dict[str, Role]:
    return {f"{before}{name}{after}": role for name, role in roles.items()}


def _closed(*closings: str) -> dict[Role, tuple[str, ...]]:
    return dict.fromkeys(("system", "user", "assistant", "developer", "tool", "function"), closings)


_CHAT: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_LABELS: Mapping[str, Role] = {
    "System": "system", "User": "user", "Human": "user", "Assistant": "assistant",
    "Developer": "developer", "Tool": "tool", "Function": "function",
}  # fmt: skip
_ROUND = _same({"system": "system", "user": "user", "assistant": "assistant"}, "<|", "|>\n")
_INST_CLOSINGS: Mapping[Role, tuple[str, ...]] = {
    "system": ("[/SYSTEM_PROMPT]",),
    "user": (),
    "assistant": ("</s><s>", "</s> <s>", "</s> ", "</s>"),
}
_TEXT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>")

MARKUPS: tuple[Markup, ...] = (
    Markup(
        "phi-4",
        _same(_CHAT, "<|im_start|>", "<|im_sep|>"),
        _closed("<|im_end|>\n", "<|im_end|>"),
        ("<|im_end|>", "<|endoftext|>"),
    ),
    Markup(
        "chatml",
        _same({**_CHAT, "developer": "developer"}, "<|im_start|>", "\n"),
        _closed("<|im_end|>\n", "<|im_end|>"),
        ("<|im_end|>", "<|endoftext|>", "</s>"),
    ),
    Markup(
        "llama-3",
        _same({**_CHAT, "ipython": "tool"}, "<|start_header_id|>", "<|end_header_id|>\n\n"),
        _closed("<|eot_id|>", "<|eom_id|>"),
        ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"),
    ),
    Markup(
        "gemma",
        _same({"system": "system", "user": "user", "model": "assistant"}, "<start_of_turn>", "\n"),
        _closed("<end_of_turn>\n", "<end_of_turn>"),
        ("<end_of_turn>", "<eos>", "<pad>"),
    ),
    Markup(
        "gemma-4",
        _same({"system": "system", "user": "user", "model": "assistant", "tool": "tool"}, "<|turn>", "\n"),
        _closed("<turn|>\n", "<turn|>"),
        ("<turn|>", "<eos>", "<pad>"),
    ),
    Markup("phi-3", _ROUND, _closed("<|end|>\n", "<|end|>"), ("<|end|>", "<|endoftext|>")),
    Markup(
        "phi-4-mini",
        _same(_CHAT, "<|", "|>"),
        _closed("<|end|>"),
        ("<|end|>", "<|endoftext|>"),
    ),
    Markup("zephyr", _ROUND, _closed("</s>\n", "</s>"), ("</s>",)),
    Markup(
        "tulu",
        _ROUND,
        _closed("\n") | {"assistant": tuple(f"{end}{line}" for line in ("\n", "") for end in _TEXT_ENDS)},
        _TEXT_ENDS,
    ),
    Markup(
        "llama-2",  # and the first Mistral: spaces on both sides
        {"[INST] ": "user", " [/INST]": "assistant"},
        {"user": (), "assistant": (" </s><s>", "</s><s>", " </s>", "</s> ", "</s>")},
        ("</s>",),
        lead=" ",
        inner_system=("<<SYS>>\n", "\n<</SYS>>\n\n"),
    ),
    Markup(
        "mistral",
        {"[SYSTEM_PROMPT] ": "system", "[INST] ": "user", "[/INST]": "assistant"},
        _INST_CLOSINGS,
        ("</s>",),
        lead=" ",
    ),
    Markup(
        "mistral-tekken",
        {"[SYSTEM_PROMPT]": "system", "[INST]": "user", "[/INST]": "assistant"},
        _INST_CLOSINGS,
        ("</s>",),
    ),
    Markup(
        "deepseek",
        {"<｜User｜>": "user", "<｜Assistant｜>": "assistant"},
        {"user": (), "assistant": ("<｜end▁of▁sentence｜>",)},
        ("<｜end▁of▁sentence｜>",),
        bare_system=True,
    ),
    Markup(
        "labels",  # such as "User: Why?\n\nAssistant: "
        _same(_LABELS, "", ":"),
        _closed("\n\n", "\n") | {"assistant": ("<｜end▁of▁sentence｜>", "\n\n", "\n")},
        (*_TEXT_ENDS, "<｜end▁of▁sentence｜>"),
        lead=" ",
        filling="\n",
    ),
)
"""Those that are told apart by what follows a turn stand in the order in which they are tried."""

ENDS = tuple(dict.fromkeys(end for markup in MARKUPS for end in markup.ends))
"""What any policy writes when it has said all."""

_WRITTEN_THOUGHT = re.compile(r"\s*(?:(?:<think>\s*)?</think>|<\|channel>thought\s*<channel\|>)\s*")
"""Of no thoughts, as templates write it where thinking is switched off."""


def read_turns(text: str) -> Read | None:
    """The turns of a text in a markup that is known; None for any other text."""
    text = without_beginning(text)
    return next(
        (
            read
            for markup in MARKUPS
            if (read := _read(markup, text.lstrip(markup.filling) if markup.filling else text)) is not None
        ),
        None,
    )


def reply_to(prompt: str, response: str) -> Asked:
    """What is to be scored of a policy's prompt and of all that it wrote after it.

    Args:
        prompt: as the policy was given it; without a known markup it is one user turn.
        response: taken as it stands, but for the control strings that end it.
    """
    read = read_turns(prompt)
    if read is None or not read.turns:
        return Asked((Turn("user", without_beginning(prompt)),), without_ends(response, ENDS))
    markup, opened = read.markup, read.opened
    if opened is None:
        reply = response.removeprefix(markup.before_reply)
    else:
        reply = response if _WRITTEN_THOUGHT.fullmatch(opened) else opened + response
    return Asked(read.turns, without_ends(reply.removeprefix(markup.lead), markup.ends))


def last_reply(text: str) -> Asked:
    """What is to be scored of a conversation in one text: its last turn, if the markup is known and that turn is the
    assistant's; otherwise the text as a whole."""
    read = read_turns(text)
    if read is None:
        return Asked((), text)
    turns, reply = read.turns, read.opened
    if reply is None and turns[-1].role == "assistant":
        turns, reply = turns[:-1], turns[-1].text
    if reply is None or not turns:
        return Asked((), text)
    return Asked(turns, without_ends(reply.removeprefix(read.markup.lead), read.markup.ends))


def without_beginning(text: str) -> str:
    """A text without the control strings that open it, and without the spaces that some decoders put after those."""
    kept = text
    while beginning := next((one for one in BEGINNINGS if kept.startswith(one)), None):
        kept = kept.removeprefix(beginning).removeprefix(" ")
    return kept


def without_ends(text: str, ends: Sequence[str]) -> str:
    """A text without the control strings at its end, and the white space after and between them."""
    kept = len(text)
    while True:
        place = kept
        while place and text[place - 1].isspace():
            place -= 1
        end = next((end for end in ends if text.endswith(end, 0, place)), None)
        if end is None:
            return text[:kept]
        kept = place - len(end)


def _read(markup: Markup, text: str) -> Read | None:
    """The turns of a text, if it begins as in this markup, and at least one turn ends as in it."""
    first = markup.pattern.search(text) if markup.bare_system else markup.pattern.match(text)
    if first is None:
        return None
    turns = [Turn("system", text[: first.start()])] if first.start() else []
    role, start = markup.openings[first.group()], first.end()
    for match in markup.pattern.finditer(text, start):
        closing, following = _closing(markup, role, text, start, match.start()), markup.openings[match.group()]
        if closing or (closing == "" and following != role):
            turns.append(Turn(role, text[start : match.start() - len(closing)].removeprefix(markup.lead)))
            role, start = following, match.end()
    is_known, opened = bool(turns), None
    closing = _closing(markup, role, text, start, len(text)) or ""
    if role == "assistant" and not closing.strip():
        opened = text[start:]
    else:
        turns.append(Turn(role, text[start : len(text) - len(closing)].removeprefix(markup.lead)))
        is_known = is_known or bool(closing.strip())
    return Read(_with_system(tuple(turns), markup), opened, markup) if is_known else None


def _closing(markup: Markup, role: Role, text: str, start: int, end: int) -> str | None:
    """What ends the turn from `start`, if it ends there."""
    closings = markup.closings[role]
    return next((one for one in closings if text.endswith(one, start, end)), None) if closings else ""


def _with_system(turns: Prompt, markup: Markup) -> Prompt:
    """The turns, with the system's taken out of the first user turn where it stands there."""
    if markup.inner_system is None or not turns or turns[0].role != "user":
        return turns
    before, after = markup.inner_system
    system, found, user = turns[0].text.removeprefix(before).partition(after)
    if not (found and turns[0].text.startswith(before)):
        return turns
    return (Turn("system", system), Turn("user", user), *turns[1:])
