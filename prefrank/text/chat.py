"""Rows by a model's own chat template: rendered, shortened until they fit, and compared with what was to be in them.

Rendering is what costs: a row takes at most log2(turns) + 3 renderings, as the number of turns to leave out is searched
by halving, and a text is shortened in what was rendered.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

import numpy as np

from prefrank.errors import BadText
from prefrank.text.frames import REPEATED, try_template
from prefrank.text.held import check_calls, check_held
from prefrank.text.limit import in_steps
from prefrank.text.marks import Marks
from prefrank.text.reader import TextLayout
from prefrank.text.rendering import Rendered, render_chat
from prefrank.text.settings import TextSettings
from prefrank.text.templates import KEPT_ROLES
from prefrank.text.tokenizer import FolderTokenizer
from prefrank.types import Prompt, Row, Turn, reply_types

FEW = 64
"""Turns that are shortened one after the other."""
TRIES = 16
"""After so many cuts of one text that were not enough, each takes twice as much as the last: there are templates whose
length does not depend on it."""


class ChatTexts:
    """Rows of one checkpoint's chat template; what the template does with texts is tried out once, when it is made."""

    def __init__(self, source: FolderTokenizer, settings: TextSettings) -> None:
        self.source = source
        self.settings = settings
        self.tokens = source.special_tokens if settings.row_ends == "files" else source.configured_tokens
        self._layout: Callable[[str], TextLayout] = lru_cache(maxsize=8)(source.texts.layout)  # asked again and again
        habits = try_template(source, self.tokens)
        self.frame, self.spaces, self.openings = habits.frame, habits.spaces, habits.openings

    @property
    def closing(self) -> str:
        """What the template writes after a reply; "" where it does not render a plain exchange."""
        return self.frame.closing if self.frame else ""

    @property
    def before_reply(self) -> str:
        """What it writes between the text of a user turn and the reply; "" likewise."""
        return self.frame.opening if self.frame else ""

    def row(self, prompt: Prompt, reply: str, number: int) -> Row:
        """The row of pair `number`.

        Raises:
            BadText: the template refuses the turns or leaves out one it cannot hold, or takes too many tokens alone.
        """
        check_calls(prompt, number)
        marks = Marks(self.source, (*prompt, Turn("assistant", reply)))
        fitting = whole = self._rendered(prompt, reply, number, marks)
        if whole.fits and not len(whole):
            raise BadText(
                f"pair {number}: the model's chat template writes nothing for turns of the roles"
                f" {', '.join(turn.role for turn in prompt[:6])}; fix it, or give another chat_template"
            )
        check_held(prompt, whole.text, number)
        if not whole.fits:
            prompt, fitting = self._without_turns(prompt, reply, number, whole)
        prompt, final, kept = self._shortened(prompt, reply, number, fitting)
        cut = 0 if kept == reply else self._count(reply) - self._count(kept)
        place, lost = self._find_reply(prompt, kept, final, number)
        start, length = final.token_at(place), len(final.ids)
        types = np.zeros(length, np.int8) if self.settings.token_types == "none" else reply_types(length, start)
        left_out = len(whole) - length - cut
        return Row(final.ids.astype(np.int64), types, start, max(left_out, 0), cut + lost, lost)

    def _rendered(self, prompt: Prompt, reply: str, number: int, marks: Marks) -> Rendered:
        turns = (*prompt, Turn("assistant", reply))
        try:
            text = render_chat(self.source, [marks.message(turn) for turn in turns], self.tokens)
        except BadText as error:
            raise BadText(f"pair {number}: {error}") from error
        return Rendered(self.source, marks, text, self.settings.max_length)

    # The limit

    def _without_turns(self, prompt: Prompt, reply: str, number: int, whole: Rendered) -> tuple[Prompt, Rendered]:
        """The first of the shorter prompts that fits; the shortest where none does."""
        borders = _borders(prompt)
        low, high, tried = 0, len(borders), {-1: (prompt, whole)}
        while low < high:
            middle = (low + high) // 2
            shorter = _from(prompt, borders[middle])
            tried[middle] = shorter, self._rendered(shorter, reply, number, whole.marks)
            low, high = (low, middle) if tried[middle][1].fits else (middle + 1, high)
        return tried[min(low, len(borders) - 1)]

    def _shortened(self, prompt: Prompt, reply: str, number: int, rendered: Rendered) -> tuple[Prompt, Rendered, str]:
        """Shorten the texts of the turns that are left, oldest first, leave out all of these but the last where the
        template lets us, shorten what says how to answer, then the reply, until the row fits."""
        emptied, halved, tries = False, set[bool](), Counter[int | None]()
        begun: dict[int, tuple[str, int]] = {}
        while not rendered.fits:
            over = len(rendered) - self.settings.max_length
            place = self._next_to_cut(prompt)
            cuttable = [n for n, turn in enumerate(prompt) if turn.role not in KEPT_ROLES]
            if not emptied and len(cuttable) > 1 and place not in cuttable:
                emptied, shorter, begun = True, _from(prompt, cuttable[-1]), {}
                with suppress(BadText):
                    prompt, rendered = shorter, self._rendered(shorter, reply, number, rendered.marks)
                continue
            if place is not None and (place in cuttable) not in halved:
                halved.add(place in cuttable)
                prompt, rendered = self._cut_many(prompt, reply, number, rendered, kept=place not in cuttable)
                continue
            tries[place] += 1
            over <<= max(tries[place] - TRIES, 0)
            if place is not None:
                old = prompt[place]
                begun[place], text = self._cut_on(old, begun.get(place, (old.text, 0)), over)
                new = replace(old, text=text)
                prompt = (*prompt[:place], new, *prompt[place + 1 :])
            elif reply:
                old = Turn("assistant", reply)
                reply = self._cut_end(reply, over)
                new = Turn("assistant", reply)
            else:
                raise BadText(
                    f"the chat template alone takes {len(rendered)} tokens of at most {self.settings.max_length} in"
                    f" pair {number}; raise max_length"
                )
            rendered = self._with_text(rendered, old, new) or self._rendered(prompt, reply, number, rendered.marks)
        return prompt, rendered, reply

    def _cut_many(
        self, prompt: Prompt, reply: str, number: int, rendered: Rendered, *, kept: bool
    ) -> tuple[Prompt, Rendered]:
        """Cuts short as many of the turns as it takes to fit; with many turns, found by halving."""
        filled = [n for n, turn in enumerate(prompt) if turn.text and (turn.role in KEPT_ROLES) == kept]
        if len(filled) <= FEW:
            return prompt, rendered
        least = {n: replace(prompt[n], text=self._cut_start(prompt[n].text, 1 << 40, keep_one=kept)) for n in filled}
        states = {0: (prompt, rendered)}

        def state(size: int) -> tuple[Prompt, Rendered]:
            if size not in states:
                chosen = set(filled[:size])
                shorter = tuple(least[n] if n in chosen else turn for n, turn in enumerate(prompt))
                states[size] = shorter, self._rendered(shorter, reply, number, rendered.marks)
            return states[size]

        def wanted(size: int) -> bool:
            over = len(state(size - 1)[1]) - self.settings.max_length
            last = prompt[filled[size - 1]]
            return over > 0 and self._cut_start(last.text, over, keep_one=kept) == least[filled[size - 1]].text

        return state(_longest(len(filled), wanted))

    def _next_to_cut(self, prompt: Prompt) -> int | None:
        for place, turn in enumerate(prompt):
            if turn.text and turn.role not in KEPT_ROLES:
                return place
        for place, turn in enumerate(prompt):
            if turn.role in KEPT_ROLES and len(turn.text.strip()) > 1 and self._count(turn.text) > 1:
                return place
        return None

    def _cut_on(self, turn: Turn, begun: tuple[str, int], over: int) -> tuple[tuple[str, int], str]:
        """A turn's text without `over` more of its tokens, or as many as the step makes of them.

        Args:
            begun: the text before any cut, and how many of its tokens went; given back with those that went now. In
                steps all are counted from there, so that it does not matter in how many cuts a text was shortened.
        """
        step, keep_one = self.settings.cut_step, turn.role in KEPT_ROLES
        if step > 1:
            whole, cut = begun
            cut = in_steps(cut + over, self._count(whole), step)
            text = self._cut_start(whole, cut, keep_one=keep_one)
            if len(text) < len(turn.text):
                return (whole, cut), text
        return begun, self._cut_start(turn.text, over, keep_one=keep_one)

    def _cut_start(self, text: str, over: int, *, keep_one: bool) -> str:
        """Without at least `over` tokens' worth of characters at its start; of a text of which one is to be kept, at
        most so many that its last that is not white space stays."""
        layout = self._layout(text)
        first = max(layout.span(over)[0], 1) if over < len(layout) else len(text)
        if keep_one:
            last = len(text.rstrip())
            begins = layout.last_start(last)
            first = min(first, last - 1 if begins is None else begins)
        return text[first:]

    def _cut_end(self, text: str, over: int) -> str:
        layout = self._layout(text)
        return text[: min(layout.span(len(layout) - over - 1)[1], len(text) - 1)] if over < len(layout) else ""

    def _count(self, text: str) -> int:
        return len(self._layout(text))

    def _with_text(self, rendered: Rendered, old: Turn, new: Turn) -> Rendered | None:
        """The same with one turn's text replaced, where the old one stands once as it is, or once beside what the
        template writes there; else None."""
        if old.role not in self.spaces:
            return None
        left, right = self.spaces[old.role]
        shown = [rendered.marks.message(turn)["content"] for turn in (old, new)]
        if any((left is None and text[:1].isspace()) or (right is None and text[-1:].isspace()) for text in shown):
            return None
        shown = [text.lstrip() if left is False else text for text in shown]
        before, after = (text.rstrip() if right is False else text for text in shown)
        for left_of, right_of in (("", ""), self._beside(old.role)):
            where = left_of + before + right_of
            if before.strip() and rendered.marked.count(where) == 1:
                marked = rendered.marked.replace(where, left_of + after + right_of)
                return replace(rendered, marked=marked)
        return None

    def _beside(self, role: str) -> tuple[str, str]:
        """What the template writes before or after a text, as far as that tells it from the same text elsewhere."""
        if role in KEPT_ROLES:
            return self.openings.get(role, ""), ""
        if self.frame is None:
            return "", ""
        if role == "assistant":
            return self.frame.opening, self.frame.closing
        return "", self.frame.stem or self.frame.opening

    # The reply in the row

    def _find_reply(self, prompt: Prompt, reply: str, rendered: Rendered, number: int) -> tuple[int, int]:
        """Where in the text the reply begins, and how many of its tokens the text does not hold as they were written,
        white space at its ends aside."""
        wanted = reply.strip()
        first, last = self._reply_span(prompt, wanted, rendered, number)
        text = rendered.text[first:last]
        if wanted in text:
            return first + text.index(wanted), 0
        end = _longest(len(wanted), lambda size: wanted[len(wanted) - size :] in text)
        rest = wanted[: len(wanted) - end]
        head = text[: text.rfind(wanted[len(rest) :])] if end else text
        begin = _longest(len(rest), lambda size: rest[:size] in head)
        missing = rest[begin:].strip()
        return first + len(text) - len(text.lstrip()), max(self._count(missing), 1)

    def _reply_span(self, prompt: Prompt, wanted: str, rendered: Rendered, number: int) -> tuple[int, int]:
        """From where to where the rendered text holds what became of the reply."""
        text, marks = rendered.text, rendered.marks
        if self.frame and rendered.marked.endswith(self.frame.closing):
            body = rendered.marked.removesuffix(self.frame.closing)
            for opening in (self.frame.opening, self.frame.stem):
                place = body.rfind(opening) + len(opening)
                if opening.strip() and opening in body:
                    inside = body[place:]
                    sure = self._controls(opening) and not self._controls(inside)
                    if sure or marks.without(inside).strip() == wanted:
                        return len(marks.without(body[:place])), len(marks.without(body))
            body = text.removesuffix(self.frame.closing).rstrip()
            if wanted and body.endswith(wanted) and not any(wanted in turn.text for turn in prompt):
                return len(body) - len(wanted), len(body)
        other = self._rendered(prompt, marks.probe * REPEATED, number, marks).text
        if marks.probe not in other:
            return len(text), len(text)
        before, after = other.partition(marks.probe)[0], other.rpartition(marks.probe)[2]
        first = _longest(min(len(text), len(before)), lambda size: text[:size] == before[:size])
        most = min(len(text) - first, len(after))
        size = _longest(most, lambda size: text[len(text) - size :] == after[len(after) - size :])
        return first, len(text) - size

    def _controls(self, text: str) -> bool:
        """Whether it holds a control string, other than those that models write themselves."""
        return bool(set(self.source.control_pattern.findall(text)) - self.source.written_by_models)


def _borders(prompt: Prompt) -> list[int]:
    """Before which turns a prompt may be cut, so that something goes: user turns, as templates want one first; where
    there is none, the last turn."""
    cuttable = [place for place, turn in enumerate(prompt) if turn.role not in KEPT_ROLES]
    users = [place for place in cuttable[1:] if prompt[place].role == "user"]
    return users or ([] if any(prompt[place].role == "user" for place in cuttable) else cuttable[1:][-1:])


def _from(prompt: Prompt, border: int) -> Prompt:
    """The prompt from this turn on, and what says how to answer."""
    return tuple(turn for place, turn in enumerate(prompt) if place >= border or turn.role in KEPT_ROLES)


def _longest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest size up to `most` that fits, where every smaller one does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
