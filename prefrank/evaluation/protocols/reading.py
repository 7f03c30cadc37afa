"""What the readers of suites share: published files in a folder, and their rows as items.

Texts are kept as published, white space and empty replies included, since the published figures are of them. What is
left out is a row that asks nothing: an empty prompt, or a better reply that is also the worse one, which no scorer can
get right. Such rows are counted by reason; the authors' scripts count the latter as wrong.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from prefrank.data.candidates import EMPTY_PROMPT, EQUAL_REPLIES, Drop
from prefrank.data.fields import short
from prefrank.errors import BadData, NotFound
from prefrank.evaluation.items import Item
from prefrank.evaluation.protocols.suite import SuiteData
from prefrank.io.rows import Record, read_records
from prefrank.types import Preference, Prompt


def published_files(place: Path, layout: Sequence[str]) -> tuple[Path, ...]:
    """The files of a folder that match a pattern of the layout, sorted; or the one file that was given.

    Raises:
        NotFound: none does; the file that was given has another name.
    """
    if place.is_file():
        if not any(fnmatch(place.name, pattern.rpartition("/")[2]) for pattern in layout):
            raise NotFound(f"{place} has another name than the published files: {' or '.join(layout)}; name it so")
        return (place,)
    files = sorted({path for pattern in layout for path in place.glob(pattern) if path.is_file()})
    if not files:
        raise NotFound(f"{place} holds no file called {' or '.join(layout)}; put the published files there")
    return tuple(files)


def read_items(records: Iterable[Record], to_item: Callable[[Record], Item | Drop]) -> SuiteData:
    """Rows as items; an id that repeats inside its subset gets a number.

    Raises:
        BadData: a row that cannot be read, or no item at all; with file and line.
    """
    items: list[Item] = []
    dropped: Counter[str] = Counter()
    seen: Counter[tuple[str, str]] = Counter()
    read = 0
    for record in records:
        read += 1
        try:
            item = to_item(record)
        except ValueError as error:  # BadData is one, and so is what an item says of its own fields
            raise BadData(f"{record.where}: {error}") from None
        if isinstance(item, Drop):
            dropped[item.reason] += 1
            continue
        seen[item.subset, item.id] += 1
        times = seen[item.subset, item.id]
        items.append(item if times == 1 else replace(item, id=f"{item.id}#{times}"))
    if not items:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.items()) or "none"
        raise BadData(f"no row can be used out of {read} (left out: {reasons}); wanted at least one item")
    return SuiteData(tuple(items), read, dict(dropped))


def records_of(paths: Iterable[Path]) -> Iterable[Record]:
    return (record for path in paths for record in read_records(path))


def contest(
    prompt: Prompt, better: Sequence[str], worse: Sequence[str], *, subset: str, id: object, language: str = ""
) -> Item | Drop:
    """An item in which each better reply is preferred to each worse one, in that order: the first better one first.

    >>> from prefrank.types import as_prompt
    >>> item = contest(as_prompt("2 + 2?"), ["4"], ["5", "6"], subset="maths", id=7)
    >>> [(p.winner, p.loser) for p in item.preferences], item.id
    ([(0, 1), (0, 2)], '7')
    """
    if isinstance(id, bool) or not isinstance(id, str | int):
        raise BadData(f"the id is {short(id)}; wanted a string or a whole number")
    if not any(turn.text.strip() for turn in prompt):
        return Drop(EMPTY_PROMPT)
    if set(better) & set(worse):
        return Drop(EQUAL_REPLIES)
    first = len(better)
    preferences = tuple(Preference(i, first + j) for i in range(first) for j in range(len(worse)))
    return Item(prompt, (*better, *worse), preferences, subset, str(id), language=language)
