"""One line on standard error for each request, as text or JSON: who asked what, what came of it, and how long it took.

Texts of requests stand in it only where that is asked for: an error's sentence loses what it quotes. Lines are written
on a thread of their own, as a terminal or pipe that does not take them must not hold up answers.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from queue import Full, Queue
from threading import Thread
from typing import Any

from prefrank.errors import BadInput, message_of, printable, printable_json, short
from prefrank.serving.recording import GONE, Handled, Notes
from prefrank.types import Score
from prefrank.wire.route import Kind, Outcome

Facts = dict[str, Any]
"""What a line says, by name."""
FORMATS = ("text", "json", "none")
QUIET = ("/live", "/ready", "/health", "/ping", "/metrics")
"""Asked for every few seconds: in the log only when they fail."""
LIKE, WITHIN_S = 10, 10.0
"""Of errors of one path, status and reason, how many lines there are in how many seconds; then how many more came."""
LONGEST_TEXT, MOST_TEXTS = 2_000, 20
"""Characters of a text, and rows of a request, that stand in a line."""
_MOST_WAITING = 10_000
_QUOTED = re.compile(r"""(?<![\w'"])(['"])(?:\\.|(?!\1).)*?\1(?!\w)""")
_OPEN = re.compile(r"""(?<![\w'"])['"].*$""")
_SAID = re.compile(r" (is|has|holds)(?= )")
"""After which a sentence says what came, up to what was wanted."""
_NAMES: tuple[Kind, ...] = ("unknown_model",)
"""Errors that quote a name and no text."""


class Lines:
    """Writes lines in order on a thread of its own; those that come when too many wait are lost, and counted.

    Args:
        show: the line of what it says, without an end.
        write: of one line; it may take its time.
    """

    def __init__(self, show: Callable[[Facts], str], write: Callable[[str], object]) -> None:
        self._show = show
        self._write = write
        self._waiting: Queue[Facts | None] = Queue(_MOST_WAITING)
        self._lost = 0
        self._thread = Thread(target=self._run, name="prefrank-log", daemon=True)
        self._thread.start()

    def put(self, facts: Facts) -> None:
        try:
            self._waiting.put_nowait(facts)
        except Full:
            self._lost += 1

    def close(self, timeout_s: float) -> None:
        """Write what waits, within this time."""
        until = time.monotonic() + timeout_s
        with suppress(Full):
            self._waiting.put(None, timeout=timeout_s)
        self._thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while (facts := self._waiting.get()) is not None:
            lost, self._lost = self._lost, 0
            if lost:
                facts = {**facts, "lines_lost_before": lost}
            with suppress(OSError, ValueError):  # nobody reads it any longer; requests go on
                self._write(f"{self._show(facts)}\n")


class AccessLog:
    """A recorder of requests (`recording.Recorder`).

    Args:
        form: "text", "json", or "none" for no lines.
        texts: whether prompts, replies and scores stand in it.
        write: of one line; by default to standard error.

    Raises:
        BadInput: another form.
    """

    def __init__(self, form: str, *, texts: bool = False, write: Callable[[str], object] | None = None) -> None:
        if form not in FORMATS:
            raise BadInput(f"log_format is {short(form)}; wanted one of {', '.join(FORMATS)}")
        self._texts = texts
        show = as_json if form == "json" else as_text
        self._lines = None if form == "none" else Lines(show, write or _to_stderr)
        self._repeated: dict[tuple[str, int, str], tuple[float, int]] = {}  # error -> when it began, how many since

    def handled(self, handled: Handled) -> None:
        if self._lines is None or (handled.path in QUIET and handled.status < 400):
            return
        more = self._more(handled)
        if more is None:
            return
        facts = facts_of(handled, texts=self._texts)
        if more:
            facts["more_like_it"] = more
        self._lines.put(facts)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, and what was left out of it."""
        if self._lines is None:
            return
        for (path, status, why), (_, count) in self._repeated.items():
            if count > LIKE:
                facts: Facts = {"time": _stamp(time.time()), "level": _level(status)}
                facts |= {"status": status, "path": path, "error": why}
                facts["more_like_it"] = count - LIKE
                self._lines.put(facts)
        self._repeated.clear()
        self._lines.close(timeout_s)

    def _more(self, handled: Handled) -> int | None:
        """How many errors like this one were left out before it; None where it is itself."""
        if handled.status < 400:
            return 0
        refused = handled.notes.refused
        key = (handled.path if handled.known else "", handled.status, refused.kind if refused else handled.fault)
        now = handled.began + handled.seconds
        since, count = self._repeated.get(key, (now, 0))
        if not 0 <= now - since < WITHIN_S:
            self._repeated[key] = now, 1
            return max(0, count - LIKE)
        self._repeated[key] = since, count + 1
        return 0 if count < LIKE else None


def facts_of(handled: Handled, *, texts: bool) -> Facts:
    """What a line says; what is not known is left out."""
    notes = handled.notes
    facts: Facts = {
        "time": _stamp(handled.began),
        "level": _level(handled.status),
        "status": handled.status,
        "method": handled.method,
        "path": handled.path[:200],
        "dialect": notes.dialect or None,
        "model": notes.model or _asked_for(notes),
        "rows": len(notes.question.asked) if notes.question else None,
    }
    if notes.answered is not None:
        scores = notes.answered.scores
        facts["tokens"] = notes.answered.tokens
        facts["cut"] = sum(1 for score in scores if score.cut_prompt or score.cut_reply) or None
        facts["failed"] = len(notes.answered.outcomes) - len(scores) or None
    facts["ms"] = _ms(handled.seconds)
    if notes.answered is not None:
        times = notes.answered.times
        facts |= {"wait_ms": _ms(times.wait_s), "tokenize_ms": _ms(times.tokenize_s), "model_ms": _ms(times.model_s)}
    facts |= {"key": handled.key, "client": handled.client or None, "id": handled.id}
    if handled.fault:
        facts |= {"error": "fault", "message": handled.fault}
    elif notes.refused is not None:
        message = notes.refused.message
        bare = texts or notes.refused.kind in _NAMES
        facts |= {"error": notes.refused.kind, "message": message_of(message if bare else without_quotes(message))}
    elif handled.status == GONE:
        facts |= {"error": "gone", "message": "the client went before its answer"}
    if texts and notes.question is not None:
        facts["texts"] = _texts_of(handled)
    return {name: value for name, value in facts.items() if value is not None}


def _asked_for(notes: Notes) -> str | None:
    return notes.question.model[:100] if notes.question and notes.question.model else None


def without_quotes(message: str) -> str:
    """An error's sentence without the values that it quotes, which may be texts.

    >>> without_quotes("replies is 'Stay away'; wanted a list of strings")
    'replies is ...; wanted a list of strings'
    """
    wanted = message.rfind("; wanted ")
    said = _SAID.search(message, 0, max(wanted, 0))
    if said:
        return f"{_unquoted(message[: said.end()])} ...{_unquoted(message[wanted:])}"
    return _unquoted(message)


def _unquoted(text: str) -> str:
    """A quotation that was cut has no end, and goes to that of the sentence."""
    return _OPEN.sub("...", _QUOTED.sub("...", text))


def as_json(facts: Facts) -> str:
    """A line that is a JSON object, and which a terminal does not obey."""
    return printable_json(json.dumps(facts, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def as_text(facts: Facts) -> str:
    """A line of words: the time, the status, the method, the path, then name=value. The status says the level."""
    plain = ("time", "status", "method", "path")
    words = [_word(facts[name]) for name in plain if name in facts]
    words += [f"{name}={_word(value)}" for name, value in facts.items() if name not in (*plain, "level")]
    return " ".join(words)


def _word(value: Any) -> str:
    """As it is, where a reader sees where it ends; else in quotation marks."""
    if not isinstance(value, str):
        return printable_json(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    shown = printable(value)
    return shown if shown and not re.search(r"""[\s"=]""", shown) else json.dumps(shown, ensure_ascii=False)


def _texts_of(handled: Handled) -> list[dict[str, Any]]:
    question, answered = handled.notes.question, handled.notes.answered
    asked = question.asked[:MOST_TEXTS] if question else ()
    outcomes: tuple[Outcome | None, ...] = answered.outcomes if answered else (None,) * len(asked)
    return [
        {
            "prompt": [[turn.role, turn.text[:LONGEST_TEXT]] for turn in each.prompt],
            "reply": each.reply[:LONGEST_TEXT],
            "score": outcome.value if isinstance(outcome, Score) else None,
        }
        for each, outcome in zip(asked, outcomes, strict=False)
    ]


def _level(status: int) -> str:
    return "error" if status >= 500 else "warning" if status >= 400 else "info"


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _to_stderr(line: str) -> None:
    sys.stderr.write(line)
    sys.stderr.flush()
