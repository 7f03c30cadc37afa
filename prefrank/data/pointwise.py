"""Single replies, each called good or bad: KTO files of TRL, LLaMA-Factory and ms-swift.

One such row compares nothing. Of one prompt's replies, each good one is preferred to each bad one; two good or two bad
ones are not compared, since nobody said which is better. A prompt whose replies all have one label gives nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

from prefrank.data.candidates import DUPLICATE, Candidate, Candidates, Drop, bare, under_system
from prefrank.data.conversations import instructed
from prefrank.data.fields import FileRow, as_text, as_turns, field, label, system_of, text, user
from prefrank.data.hh import PROMPTS_DIFFER
from prefrank.data.own import continued, drop_without_reply, unread
from prefrank.data.pairs import NO_LABEL
from prefrank.errors import BadData, short
from prefrank.io.rows import Record
from prefrank.types import Preference, Prompt, Turn

ONE_LABEL = "all replies of the prompt have one label"
Reply = tuple[Prompt, str, bool]


def by_prompt(read: Callable[[FileRow], Reply | Drop]) -> Callable[[Iterable[Record]], Candidates]:
    """A reader of comparisons from a reader of single replies."""

    def reader(records: Iterable[Record]) -> Candidates:
        groups: dict[tuple[str, Prompt], list[tuple[Record, str, bool]]] = defaultdict(list)
        seen: set[object] = set()
        for record in records:
            try:
                system, reply_or_drop = system_of(record.row), read(record.row)
            except ValueError as error:
                raise BadData(f"{record.where}: {error}") from None
            if isinstance(reply_or_drop, Drop):
                yield record, reply_or_drop
            else:
                prompt, reply, good = reply_or_drop
                statement = (system, prompt, reply, good, label(record.row, "voter"), label(record.row, "id"))
                if statement in seen:
                    yield record, Drop(DUPLICATE)
                    continue
                seen.add(statement)
                groups[system, prompt].append((record, reply, good))
        for (system, prompt), group in groups.items():
            made = _compared(prompt, [(reply, good) for _, reply, good in group])
            yield group[0][0], under_system(made, system)

    return reader


def _compared(prompt: Prompt, group: list[tuple[str, bool]]) -> Candidate | Drop:
    replies = tuple(reply for reply, _ in group)
    good = [i for i, (_, is_good) in enumerate(group) if is_good]
    bad = [i for i, (_, is_good) in enumerate(group) if not is_good]
    if not (good and bad):
        return Drop(ONE_LABEL)
    return Candidate(prompt, replies, tuple(Preference(a, b) for a in good for b in bad))


def _label(row: FileRow, name: str) -> bool | None:
    """True or false, also as words or as 1 and 0; None where the row has no label."""
    value = field(row, name)
    if isinstance(value, str):
        value = {"true": True, "false": False, "1": True, "0": False, "": None}.get(value.strip().lower(), value)
    if value is not None and value not in (0, 1):
        raise BadData(f"{name!r} holds {short(value)}; wanted true or false")
    return None if value is None else bool(value)


def kto(row: FileRow) -> Reply | Drop:
    """TRL's unpaired preference: `prompt`, `completion`, `label`; the first two as texts or as messages."""
    prompt, completion = field(row, "prompt"), field(row, "completion")
    turns = user(prompt) if isinstance(prompt, str) else as_turns(prompt, "prompt")
    if isinstance(completion, str):
        return _reply(row, turns, as_text(completion, "completion"), "label")
    *earlier, last = as_turns(completion, "completion") or (Turn("user", ""),)
    context = continued(tuple(map(bare, turns)), tuple(map(bare, earlier)))
    return Drop(PROMPTS_DIFFER) if context is None else _last(row, (*context, last), "label")


def kto_instruction(row: FileRow) -> Reply | Drop:
    """LLaMA-Factory: `instruction`, `input`, `output`, `kto_tag`."""
    return _reply(row, instructed(row), text(row, "output"), "kto_tag")


def kto_conversation(row: FileRow) -> Reply | Drop:
    """LLaMA-Factory's `conversations` or `messages` with `kto_tag`; ms-swift's `messages` with `label`."""
    name = "conversations" if "conversations" in row else "messages"
    return _last(row, as_turns(field(row, name), name), "kto_tag" if "kto_tag" in row else "label")


def _last(row: FileRow, turns: Prompt, name: str) -> Reply | Drop:
    return drop_without_reply(turns) or _reply(row, turns[:-1], turns[-1].text, name)


def _reply(row: FileRow, prompt: Prompt, reply: str, name: str) -> Reply | Drop:
    good = _label(row, name)
    if good is None:
        return Drop(NO_LABEL)
    return unread(row) or (prompt, reply, good)
