"""From texts to token ids, one function per template, before any length limit.

Each returns `Parts`: the control tokens of the template and the tokens of the texts kept apart, so that the limit can
be applied to structure (whole turns) and then to tokens, whatever the template.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prefrank.errors import BadInput, BadModel
from prefrank.text.settings import PLAIN_TURNS, TextSettings
from prefrank.text.tokenizer import FolderTokenizer
from prefrank.types import Prompt, Turn

Ids = list[int]


@dataclass(frozen=True, slots=True)
class Parts:
    """The token ids around and inside one row's texts.

    Args:
        before: control tokens that open the row.
        turns: per prompt turn, (opening control or label ids, text ids, closing control ids).
        middle: control tokens between prompt and reply.
        after: control tokens that close the row.
    """

    before: Ids
    turns: list[tuple[Ids, Ids, Ids]]
    middle: Ids
    after: Ids


@dataclass(frozen=True, slots=True)
class PairTokens:
    """The control tokens of a tokenizer's pair encoding, read off its own post-processor."""

    before: Ids
    middle: Ids
    after: Ids


def pair_tokens(source: FolderTokenizer) -> PairTokens | None:
    """What the tokenizer puts around the two texts of a pair; None if it puts nothing between them (decoders)."""
    encoding = source.tokenizer.encode("a", "a")
    owner = encoding.sequence_ids
    first, second = owner.index(0), owner.index(1)
    first_end = second - next(i for i in range(second) if owner[second - 1 - i] == 0)
    second_end = len(owner) - next(i for i in range(len(owner)) if owner[-1 - i] == 1)
    ids = encoding.ids
    middle = ids[first_end:second]
    return PairTokens(ids[:first], middle, ids[second_end:]) if middle else None


def pair_parts(control: PairTokens, prompt: Prompt, encoded: Callable[[str], Ids], settings: TextSettings) -> Parts:
    """`[CLS] turn [SEP] turn [SEP] reply [SEP]`; a label opens each turn if asked for and there are several."""
    label = settings.labels and (len(prompt) > 1 or prompt[0].role != "user")
    turns = []
    for number, turn in enumerate(prompt):
        opening = encoded(f"{turn.role}:") if label else []
        turns.append((opening, encoded(turn.text), control.middle if number + 1 < len(prompt) else []))
    return Parts(control.before, turns, control.middle, control.after)


def turn_parts(source: FolderTokenizer, prompt: Prompt, encoded: Callable[[str], Ids], settings: TextSettings) -> Parts:
    """Fixed strings around each turn; the reply is an assistant turn."""
    strings = settings.turn_strings or PLAIN_TURNS
    eos = source.special_token("eos_token") or ""

    def control(text: str) -> Ids:
        text = text.replace("{eos}", eos)
        return source.with_special_tokens.encode(text, add_special_tokens=False).ids if text else []

    turns = [(control(strings[t.role][0]), encoded(t.text), control(strings[t.role][1])) for t in prompt]
    bos = source.special_token("bos_token") if source.config.get("add_bos_token") else None
    return Parts(control(bos or ""), turns, control(strings["assistant"][0]), control(strings["assistant"][1]))


def chat_ids(source: FolderTokenizer, turns: Sequence[Turn]) -> Ids:
    """The chat template's own ids; special-token strings inside the texts are split, the template's are not.

    Every such string in a text is swapped for a private mark before rendering and encoded on its own afterwards,
    so that all other text keeps the ids the template gives it.
    """
    marks: list[str] = []
    left, right = _unused_characters("".join(turn.text for turn in turns))
    pattern = re.compile("|".join(map(re.escape, source.special_strings)) or r"(?!)")

    def mark(match: re.Match[str]) -> str:
        marks.append(match.group())
        return f"{left}{len(marks) - 1}{right}"

    messages = [{"role": turn.role, "content": pattern.sub(mark, turn.text)} for turn in turns]
    ids: Ids = []
    for piece in re.split(f"({left}\\d+{right})", render_chat(source, messages)):
        if piece.startswith(left):
            ids += source.tokenizer.encode(marks[int(piece[1:-1])], add_special_tokens=False).ids
        else:
            ids += source.with_special_tokens.encode(piece, add_special_tokens=False).ids
    return ids


def _unused_characters(text: str) -> tuple[str, str]:
    free = [chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in text][:2]
    if len(free) < 2:
        raise BadInput("a text uses every private-use character; remove those characters")
    return free[0], free[1]


def render_chat(source: FolderTokenizer, messages: list[dict[str, Any]]) -> str:
    """Render the tokenizer's chat template with transformers' own Jinja environment.

    Raises:
        BadInput: the template refuses these turns (some want strict user/assistant alternation).
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    if source.chat_template is None:
        raise BadModel("the tokenizer has no chat template; use the template 'turns' or add chat_template.jinja")
    specials = {name: source.special_token(name) or "" for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    # transformers annotates the pair it returns as a string, and the template's own variables as its options
    render: Any = render_jinja_template
    try:
        rendered, _ = render(conversations=[messages], chat_template=source.chat_template, **specials)
    except Exception as error:  # Jinja raises its own tree, templates call raise_exception
        roles = ", ".join(message["role"] for message in messages)
        raise BadInput(f"the model's chat template refuses turns of the roles {roles}: {error}") from error
    return rendered[0]
