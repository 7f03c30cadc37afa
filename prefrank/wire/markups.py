"""The chat markup of policies: how the turns of a conversation stand in one text with control strings.

The forms are those of the chat templates published with Qwen 2 and 3 and others (ChatML), Llama 3, Gemma, Phi-3, Phi-4,
Kimi, Command R, Mistral and Llama 2, Zephyr, Tulu and OLMo, GLM and DeepSeek, and of transcripts in plain labels.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from prefrank.types import Role

BEGINNINGS = (
    "<|begin_of_text|>",
    "<｜begin▁of▁sentence｜>",
    "<|startoftext|>",
    "<|endoftext|>",
    "[gMASK]<sop>",
    "<BOS_TOKEN>",
    "<bos>",
    "<s>",
)
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
    Markup(
        "kimi",
        {f"<|im_{role}|>{role}<|im_middle|>": known for role, known in _CHAT.items()},
        _closed("<|im_end|>"),
        ("<|im_end|>", "[EOS]"),
    ),
    Markup(
        "command-r",
        _same({"SYSTEM": "system", "USER": "user", "CHATBOT": "assistant"}, "<|START_OF_TURN_TOKEN|><|", "_TOKEN|>"),
        _closed("<|END_OF_TURN_TOKEN|>"),
        ("<|END_OF_TURN_TOKEN|>",),
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
    Markup("glm", _ROUND, _closed(), ("<|user|>", "<|observation|>", "<|endoftext|>")),
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
