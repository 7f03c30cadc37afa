"""Rows by a model's own chat template: rendered, shortened until they fit, and compared with what was to be in them.

Strings of control tokens inside texts are swapped for private marks before rendering and put back afterwards, so that
only the template's own become control tokens. Rendering is what costs: a row takes at most log2(turns) + 2 renderings,
as the number of turns to leave out is searched by halving, and a text is shortened in what was rendered.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from typing import Any

import numpy as np

from prefrank.errors import BadInput, BadModel, BadText
from prefrank.text.settings import TextSettings
from prefrank.text.templates import KEPT_ROLES, Ids
from prefrank.text.tokenizer import FolderTokenizer
from prefrank.types import Prompt, Row, Turn, reply_types

PROBE = "\uf8ff"
"""Stands for a reply where only what the template writes around it is wanted."""


class ChatTexts:
    """Rows of one checkpoint's chat template; what the template does with texts is tried out once, when it is made."""

    def __init__(self, source: FolderTokenizer, settings: TextSettings) -> None:
        self.source = source
        self.settings = settings
        self.tokens = source.special_tokens if settings.row_ends == "files" else source.configured_tokens
        self.closing = self._find_closing()
        self.kept_edges = self._find_edges()

    def row(self, prompt: Prompt, reply: str, number: int) -> Row:
        """The row of pair `number`.

        Raises:
            BadText: the template refuses the turns or leaves out one it cannot hold, or takes too many tokens alone.
        """
        limit = self.settings.max_length
        marks = Marks.for_texts(self.source, (*prompt, Turn("assistant", reply)))
        first = whole = self._rendered(prompt, reply, number, marks)
        _check_held(prompt, whole.text, number)
        if len(whole.ids) > limit:
            prompt, first = self._without_turns(prompt, reply, number, whole)
        prompt, final, kept = self._shortened(prompt, reply, number, first)
        cut = self.count(reply) - self.count(kept)
        lost = self._lost(prompt, kept, final, number)
        start = final.place(len(self._body(final.text)) - len(kept.strip()))
        length = len(final.ids)
        types = np.zeros(length, np.int8) if self.settings.token_types == "none" else reply_types(length, start)
        left_out = len(whole.ids) - length - cut
        return Row(np.array(final.ids, np.int64), types, start, max(left_out, 0), cut + lost, lost)

    def count(self, text: str) -> int:
        return len(self.source.plain.encode(text, add_special_tokens=False).ids)

    def _find_closing(self) -> str:
        """What the template writes after a reply; "" where it does not render a plain exchange."""
        try:
            text = render_chat(self.source, [_message("user", "a"), _message("assistant", PROBE)], self.tokens)
        except BadInput:
            return ""
        return text.rpartition(PROBE)[2] if PROBE in text else ""

    def opening(self, role: str) -> str:
        """What the template writes before the text of a turn of this role, after the turns before it."""
        turns = [_message("user", "a")] if role == "assistant" else []
        try:
            text = render_chat(self.source, [*turns, _message(role, PROBE)], self.tokens)
        except BadInput:
            return ""
        return text.partition(PROBE)[0].rpartition("a")[2] if turns else text.partition(PROBE)[0]

    def _find_edges(self) -> dict[str, tuple[bool, bool]]:
        """Of each role, whether the template keeps white space before and after a text (many trim it); roles that it
        does not render are left out."""
        kept = {}
        for role in ("user", "assistant", *KEPT_ROLES):
            turns = [_message(role, f"\t{PROBE}\t"), *([_message("user", "a")] if role in KEPT_ROLES else [])]
            turns = [_message("user", "a"), *turns] if role == "assistant" else turns
            try:
                text = render_chat(self.source, turns, self.tokens)
            except BadInput:
                continue
            kept[role] = f"\t{PROBE}" in text, f"{PROBE}\t" in text
        return kept

    def _body(self, text: str) -> str:
        """A rendered row up to the end of its reply."""
        return text.removesuffix(self.closing).rstrip()

    def _rendered(self, prompt: Prompt, reply: str, number: int, marks: "Marks") -> "Rendered":
        turns = (*prompt, Turn("assistant", reply))
        try:
            text = render_chat(self.source, [marks.message(turn) for turn in turns], self.tokens)
        except BadText as error:
            raise BadText(f"pair {number}: {error}") from error
        return Rendered(self.source, marks, text)

    def _without_turns(self, prompt: Prompt, reply: str, number: int, whole: "Rendered") -> tuple[Prompt, "Rendered"]:
        """The first of the shorter prompts that fits; the shortest where none does."""
        borders = _borders(prompt)
        low, high, found = 0, len(borders), {-1: (prompt, whole)}
        while low < high:
            middle = (low + high) // 2
            shorter = _from(prompt, borders[middle])
            found[middle] = shorter, self._rendered(shorter, reply, number, whole.marks)
            fits = len(found[middle][1].ids) <= self.settings.max_length
            low, high = (low, middle) if fits else (middle + 1, high)
        return found[min(low, len(borders) - 1)]

    def _shortened(
        self, prompt: Prompt, reply: str, number: int, rendered: "Rendered"
    ) -> tuple[Prompt, "Rendered", str]:
        """Shorten the last turn, then the turns that say how to answer, then the reply, until the row fits."""
        limit = self.settings.max_length
        while (over := len(rendered.ids) - limit) > 0:
            before = (*prompt, Turn("assistant", reply))
            place = self._next_to_cut(prompt)
            if place is not None:
                kept = prompt[place].role in KEPT_ROLES
                text = self._cut_start(prompt[place].text, over, keep_one=kept)
                prompt = (*prompt[:place], replace(prompt[place], text=text), *prompt[place + 1 :])
            elif reply:
                reply = self._cut_end(reply, over)
            else:
                raise BadText(
                    f"the chat template alone takes {len(rendered.ids)} tokens of at most {limit} in pair {number};"
                    " raise max_length"
                )
            after = (*prompt, Turn("assistant", reply))
            filled = rendered.with_text(before, after, self.kept_edges)
            rendered = filled or self._rendered(prompt, reply, number, rendered.marks)
        return prompt, rendered, reply

    def _next_to_cut(self, prompt: Prompt) -> int | None:
        last = len(prompt) - 1
        if prompt[last].text and prompt[last].role not in KEPT_ROLES:
            return last
        says = [place for place, turn in enumerate(prompt) if turn.role in KEPT_ROLES]
        return next((place for place in says if self.count(prompt[place].text) > 1), None)

    def _cut_start(self, text: str, over: int, *, keep_one: bool) -> str:
        """Without at least `over` tokens' worth of characters at its start, or all but the last token's."""
        spans = self.source.plain.encode(text, add_special_tokens=False).offsets
        if keep_one:
            over = min(over, len(spans) - 1)
        return text[spans[over][0] or 1 :] if over < len(spans) else ""

    def _cut_end(self, text: str, over: int) -> str:
        spans = self.source.plain.encode(text, add_special_tokens=False).offsets
        return text[: min(spans[-over - 1][1], len(text) - 1)] if over < len(spans) else ""

    def _lost(self, prompt: Prompt, reply: str, rendered: "Rendered", number: int) -> int:
        """Tokens of the reply that the rendered row does not hold as they were written, white space aside."""
        text, wanted = rendered.text, reply.strip()
        if self._body(text).endswith(wanted):
            return 0
        other = self._rendered(prompt, PROBE, number, rendered.marks).text
        tail = text[_longest(min(len(text), len(other)), lambda size: text[:size] == other[:size]) :]
        if "".join(wanted.split()) in "".join(tail.split()):
            return 0
        end = _longest(len(wanted), lambda size: wanted[len(wanted) - size :] in tail)
        rest = wanted[: len(wanted) - end]
        head = tail[: tail.rfind(wanted[len(rest) :])] if end else tail
        begin = _longest(len(rest), lambda size: rest[:size] in head)
        missing = rest[begin:].strip()
        return max(self.count(missing), 1) if missing else 0


@dataclass(frozen=True)
class Marks:
    """Private marks for the control strings inside one row's texts.

    Args:
        left, right: characters that no text holds; between them, a mark has the number of its control string.
        messages: turns as the template gets them, made once for all renderings.
    """

    source: FolderTokenizer
    left: str
    right: str
    messages: dict[Turn, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def for_texts(cls, source: FolderTokenizer, turns: Sequence[Turn]) -> "Marks":
        text = "".join([part for turn in turns for part in (turn.text, turn.extra)])
        free = [chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in text][:2]
        if len(free) < 2:
            raise BadText("a text uses every private-use character; remove those characters")
        return cls(source, free[0], free[1])

    def put(self, text: str, role: str) -> str:
        """The text with marks; an assistant's may hold what models write themselves."""
        if not self.source.control_pattern.search(text):
            return text
        allowed = self.source.written_by_models if role == "assistant" else frozenset()
        strings = self.source.control_strings

        def mark(match: re.Match[str]) -> str:
            found = match.group()
            return found if found in allowed else f"{self.left}{strings.index(found)}{self.right}"

        return self.source.control_pattern.sub(mark, text)

    def message(self, turn: Turn) -> dict[str, Any]:
        """The turn as the template gets it; strings of tool calls are marked as well."""
        if turn not in self.messages:
            said = turn.message()
            self.messages[turn] = {
                name: value if name == "role" else self.put_all(value, turn.role) for name, value in said.items()
            }
        return self.messages[turn]

    def put_all(self, value: Any, role: str) -> Any:
        """The same for every string of a JSON value."""
        if isinstance(value, str):
            return self.put(value, role)
        if isinstance(value, dict):
            return {self.put(key, role): self.put_all(each, role) for key, each in value.items()}
        return [self.put_all(each, role) for each in value] if isinstance(value, list) else value

    def split(self, text: str) -> list[tuple[str, bool]]:
        """The rendered text as (text, whether it is a control string that the template wrote)."""
        pieces: list[tuple[str, bool]] = []
        for place, piece in enumerate(re.split(f"({self.source.control_pattern.pattern})", text)):
            pieces.append((self.without(piece), place % 2 == 1))
        return [piece for piece in pieces if piece[0]]

    def without(self, text: str) -> str:
        strings = self.source.control_strings
        return re.sub(f"{self.left}(\\d+){self.right}", lambda match: strings[int(match.group(1))], text)


@dataclass(frozen=True)
class Rendered:
    """A rendered row.

    Args:
        marked: what the template wrote, with marks.
    """

    source: FolderTokenizer
    marks: Marks
    marked: str

    @cached_property
    def text(self) -> str:
        """What the template wrote, without marks."""
        return self.marks.without(self.marked)

    @cached_property
    def _encoded(self) -> tuple[Ids, list[int]]:
        """Token ids, and where in `text` each ends.

        In one call, as transformers does it, unless a text holds a control string or normalisation spelt one.
        """
        if self.text == self.marked:
            encoding = self.source.with_special_tokens.encode(self.text, add_special_tokens=False)
            control = self.source.control_ids
            written = sum(1 for match in self.source.control_pattern.finditer(self.text))
            if sum(number in control for number in encoding.ids) == written:
                return encoding.ids, [end for _, end in encoding.offsets]
        return encode_pieces(self.source, self.marks.split(self.marked))

    @property
    def ids(self) -> Ids:
        return self._encoded[0]

    def place(self, position: int) -> int:
        """The first token that ends after this character."""
        return next((n for n, end in enumerate(self._encoded[1]) if end > position), len(self.ids))

    def with_text(
        self, before: Sequence[Turn], after: Sequence[Turn], kept_edges: dict[str, tuple[bool, bool]]
    ) -> "Rendered | None":
        """The same with one turn's text replaced, where the old one stands once as it is; else None."""
        changed = next((pair for pair in zip(before, after, strict=True) if pair[0].text != pair[1].text), None)
        if changed is None or changed[0].role not in kept_edges:
            return None
        left, right = kept_edges[changed[0].role]
        shown = [self.marks.put(turn.text, turn.role) for turn in changed]
        shown = [text if left else text.lstrip() for text in shown]
        old, new = (text if right else text.rstrip() for text in shown)
        if not old.strip() or self.marked.count(old) != 1:
            return None
        return Rendered(self.source, self.marks, self.marked.replace(old, new))


def encode_pieces(source: FolderTokenizer, pieces: Sequence[tuple[str, bool]]) -> tuple[Ids, list[int]]:
    """Ids of control strings and of texts, each text on its own with no control token from it, and their ends."""
    ids: Ids = []
    ends: list[int] = []
    position = 0
    added = {token.content: token for token in source.tokenizer.get_added_tokens_decoder().values()}
    for place, (text, control) in enumerate(pieces):
        position += len(text)
        number = source.tokenizer.token_to_id(text) if control else None
        if number is not None:
            ids.append(number)
            ends.append(position)
            continue
        before = added.get(pieces[place - 1][0]) if place else None
        after = added.get(pieces[place + 1][0]) if place + 1 < len(pieces) else None
        text = text.lstrip() if before is not None and before.rstrip else text
        text = text.rstrip() if after is not None and after.lstrip else text
        encoding = (source.plain_inside if place else source.plain).encode(text, add_special_tokens=False)
        ids += encoding.ids
        ends += [position - len(text) + end for _, end in encoding.offsets]
    return ids, ends


def render_chat(source: FolderTokenizer, messages: list[dict[str, Any]], tokens: dict[str, str]) -> str:
    """Render the tokenizer's chat template with transformers' own Jinja environment.

    Args:
        tokens: special tokens that the template may write, such as `bos_token`.

    Raises:
        BadText: the template refuses these turns (some want strict user/assistant alternation).
        BadModel: there is no template, or one that is not Jinja's language.
    """
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import render_jinja_template

    if source.chat_template is None:
        raise BadModel("the tokenizer has no chat template; use the template 'turns' or add chat_template.jinja")
    specials = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "") | tokens
    # transformers annotates the pair it returns as a string, and the template's own variables as its options
    render: Any = render_jinja_template
    try:
        rendered, _ = render(conversations=[messages], chat_template=source.chat_template, **specials)
    except TemplateSyntaxError as error:
        raise BadModel(
            f"line {error.lineno} of the chat template is not Jinja's language: {error.message}; mend the template, or"
            " give another chat_template"
        ) from error
    except Exception as error:  # Jinja raises its own tree, templates call raise_exception
        roles = ", ".join(message["role"] for message in messages)
        reason = " ".join(str(error).split())
        raise BadText(
            f"the model's chat template refuses turns of the roles {roles}: {reason}; leave out or rename the turns it"
            " does not take (a system text can open the first user turn), or give another chat_template"
        ) from error
    return rendered[0]


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def _borders(prompt: Prompt) -> list[int]:
    """Before which turns a prompt may be cut, so that something goes: a user turn, as templates want one first, or the
    last turn."""
    last = len(prompt) - 1
    oldest = next((place for place, turn in enumerate(prompt) if turn.role not in KEPT_ROLES), last)
    return [place for place in range(oldest + 1, last + 1) if place == last or prompt[place].role == "user"]


def _from(prompt: Prompt, border: int) -> Prompt:
    """The prompt from this turn on, and what says how to answer."""
    return tuple(turn for place, turn in enumerate(prompt) if place >= border or turn.role in KEPT_ROLES)


def _check_held(prompt: Prompt, text: str, number: int) -> None:
    """Raise BadText for a turn of another role than user and assistant, or a tool call, that the template left out."""
    other = [(n, turn) for n, turn in enumerate(prompt) if turn.extra or turn.role not in ("user", "assistant")]
    letters = _letters(text) if other else ""
    for place, turn in other:
        said = turn.message()
        calls = [call.get("function", call).get("name", "") for call in said.get("tool_calls", ())]
        calls += [said["function_call"].get("name", "")] if isinstance(said.get("function_call"), dict) else []
        texts = [turn.text] if turn.role not in ("user", "assistant") else []
        for what, wanted in (*(("text", each) for each in texts), *(("tool call", each) for each in calls)):
            forms = (wanted, json.dumps(wanted), json.dumps(wanted, ensure_ascii=False), escape(wanted))
            if not any(_letters(form) in letters for form in forms):
                raise BadText(
                    f"the model's chat template leaves out the {what} of prompt turn {place} of pair {number} (role"
                    f" {turn.role}); move it into a user or assistant turn, or give another chat_template"
                )


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _longest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest size up to `most` that fits, where every smaller one does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
