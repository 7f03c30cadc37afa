"""Scores made earlier as a scorer: `scores:FILE`, as `prefrank score -o FILE` writes them."""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prefrank.data.fields import as_list, as_number, as_text, as_turns, field, index_of, system_of
from prefrank.errors import BadData, BadInput, NotFound, short
from prefrank.evaluation.items import Item
from prefrank.evaluation.opened_scorer import OpenedScorer
from prefrank.io.columns import Columns, mapped
from prefrank.io.plain_files import check_plain
from prefrank.io.rows import SUFFIXES, is_csv, is_data_file, read_records
from prefrank.types import Prompt, Score, Turn
from prefrank.wire.inputs import Pair

SCORES = "scores:"

Table = dict[Pair, Score]

FACTS = ("tokens", "cut_prompt", "cut_reply")
"""What `prefrank score` writes beside a score, in the order of a `Score`."""
SCORED = ("system", "prompt", "reply", "replies", "score", "scores", "id", "subset", "index", "model", *FACTS)
"""Columns of a file of scores that are read."""
ONLY_SCORED = ("score", "scores", "subset", "index", "model", *FACTS)
"""Those of them that comparisons do not have."""
_NUMBERS = ("score", *FACTS)
"""Of a CSV file, the columns in which nothing between two commas is null."""


def open_scores_file(name: str, items: Sequence[Item], columns: Columns) -> OpenedScorer:
    """The scores of a file, to be looked up.

    Args:
        items: that rows without texts name by id or place.
        columns: names of its own for those in `SCORED`.

    Raises:
        NotFound: there is no such file.
        BadData: it holds rows that cannot be used.
        BadInput: the name is no data file's.
    """
    place = name.removeprefix(SCORES)
    if not place:
        raise BadInput("scores: names no file; wanted scores:FILE, as prefrank score -o FILE writes it")
    path = Path(os.path.expanduser(place))
    if os.path.isdir(path):
        raise BadInput(f"{path} is a folder; wanted scores:FILE, one file of scores in it")
    try:
        check_plain(path, BadData)
    except NotFound:
        raise NotFound(f"there is no file of scores {path}; prefrank score -o {path} writes one") from None
    if not is_data_file(path):
        raise BadInput(f"the file of scores {path} ends in {path.suffix!r}; wanted one of {', '.join(SUFFIXES)}")
    try:
        with path.open("rb") as file:
            model = f"{SCORES}{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror or error}") from None
    known = {column: own for column, own in columns.items() if column in SCORED}
    table, models, rows = _read_scores(path, model, items, known)
    values = [score.value for score in table.values() if math.isfinite(score.value)]
    probable = bool(values) and min(values) >= 0 and max(values) <= 1
    doubt = "all within 0 to 1: perhaps probabilities" if probable else ""
    settings = {
        "file": path.name,
        "rows": rows,
        "replies": len(table),
        "model": models[0] if models else None,
        "scores": doubt or "as in the file",
    }
    return OpenedScorer(name, "file", model, settings, partial(_look_up, table, str(path)), doubt=doubt)


def _look_up(table: Table, path: str, pairs: Sequence[Pair]) -> list[Score]:
    if missing := [pair for pair in pairs if pair not in table]:
        prompt, reply = missing[0]
        spaces = len({_bare(pair) for pair in missing} & {_bare(pair) for pair in table})
        raise BadData(
            f"{path} has no score for {len(missing):,} of {len(pairs):,} replies; the first is {reply[:60]!r} to"
            f" {prompt[-1].text[:60]!r}. Score the same data, with prompts as they are there"
            + (f" ({spaces:,} differ in white space at the ends of texts, which is not read)" if spaces else "")
        )
    return [table[pair] for pair in pairs]


def _bare(pair: Pair) -> tuple[tuple[tuple[str, str], ...], str]:
    """Roles and texts without white space at their ends."""
    prompt, reply = pair
    return tuple((turn.role, turn.text.strip()) for turn in prompt), reply.strip()


def _read_scores(path: Path, model: str, items: Sequence[Item], columns: Columns) -> tuple[Table, list[str], int]:
    """Scores by prompt and reply, the names of the models that made them (none or one), and how many rows there are."""
    table: Table = {}
    models: dict[str, None] = {}
    places = _places(items)
    rows = 0
    for record in read_records(path):
        rows += 1
        try:
            row = _renamed(record.row, columns)
            if is_csv(path):
                row = {name: None if value == "" and name in _NUMBERS else value for name, value in row.items()}
            for pair, score in _row(row, model, items, places):
                _check_equal(table.setdefault(pair, score), score, pair[1])
            if row.get("model") is not None:
                models[as_text(row["model"], "model")] = None
            if len(models) > 1:
                raise BadData(f"the scores are of two models, {' and '.join(models)}; wanted a file for each")
        except BadInput as error:
            raise BadData(f"{record.where}: {error}") from error
    return table, list(models), rows


def _renamed(row: Mapping[str, Any], columns: Columns) -> Mapping[str, Any]:
    """The row under the usual names. A file of scores may lack what the data have, and have the usual name instead."""
    kept = {}
    for name, own in columns.items():
        try:
            field(row, own)
        except BadData:
            if name not in row:
                raise
        else:
            kept[name] = own
    return mapped(row, kept)


def _check_equal(kept: Score, score: Score, reply: str) -> None:
    """One pair scored twice may differ by rounding, as batches do in half precision; the first is kept."""
    same = math.isclose(kept.value, score.value, rel_tol=1e-3, abs_tol=1e-3)
    if not same and not (math.isnan(kept.value) and math.isnan(score.value)):
        raise BadData(f"the reply {reply[:60]!r} has the score {score.value} here and {kept.value} before")


def _places(items: Sequence[Item]) -> dict[tuple[str | None, str], list[int]]:
    """Places of the items of a (subset, id), and of an id whatever its subset."""
    places: dict[tuple[str | None, str], list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault((item.subset, item.id), []).append(place)
        places.setdefault((None, item.id), []).append(place)
    return places


def _row(
    row: Mapping[str, Any], model: str, items: Sequence[Item], places: Mapping[tuple[str | None, str], list[int]]
) -> list[tuple[Pair, Score]]:
    """The pairs of one row and their scores."""
    prompt, replies = _texts(row) if "prompt" in row else _named(row, items, places)
    scores = _column(row, _column_of(row, "score", "scores"), len(replies))
    facts = [_column(row, name, len(replies)) if name in row else [0] * len(replies) for name in FACTS]
    return [
        ((prompt, reply), Score(_number(value, "a score is"), _count(tokens), _count(cut), _count(cut_reply), model))
        for reply, value, tokens, cut, cut_reply in zip(replies, scores, *facts, strict=True)
    ]


def _column(row: Mapping[str, Any], name: str, count: int) -> list[Any]:
    """A value for each reply."""
    value = field(row, name)
    each = value if isinstance(value, list) else [value]
    if len(each) != count:
        raise BadData(f"{name!r} holds {len(each)} values for {count} replies; wanted as many")
    return each


def _column_of(row: Mapping[str, Any], singular: str, plural: str) -> str:
    """Which of the two columns the row has.

    Raises:
        BadData: both.
    """
    if row.get(singular) is not None and row.get(plural) is not None:
        raise BadData(f"the row has both {singular!r} and {plural!r}; keep one of them")
    return plural if plural in row and row.get(singular) is None else singular


def _count(value: Any) -> int:
    if isinstance(value, str) and value.isdecimal():  # as CSV has numbers
        return int(value)
    return int(as_number(value, "a count of tokens"))


def _texts(row: Mapping[str, Any]) -> tuple[Prompt, tuple[str, ...]]:
    value = row["prompt"]
    prompt = (Turn("user", as_text(value, "prompt")),) if isinstance(value, str) else as_turns(value, "prompt")
    if (system := system_of(row)) and prompt and prompt[0].role in ("system", "developer"):
        if prompt[0].text.strip() != system:
            raise BadData("the system column and the prompt's first message hold different texts; keep one of them")
    elif system:
        prompt = (Turn("system", system), *prompt)
    if _column_of(row, "reply", "replies") == "replies":
        replies = as_list(row["replies"], "replies")
        return prompt, tuple(_reply(reply, f"replies[{place}]") for place, reply in enumerate(replies))
    return prompt, (_reply(field(row, "reply"), "reply"),)


def _reply(value: Any, name: str) -> str:
    """A string, or what `prefrank score` takes too: an assistant message, alone or in a list of one."""
    if not isinstance(value, Mapping | list):
        return as_text(value, name)
    turns = as_turns(value, name)
    if [turn.role for turn in turns] != ["assistant"]:
        raise BadData(f"{name!r} holds {short(value)}; wanted a string or one message of the assistant")
    return turns[0].text


def _named(
    row: Mapping[str, Any], items: Sequence[Item], places: Mapping[tuple[str | None, str], list[int]]
) -> tuple[Prompt, tuple[str, ...]]:
    """The texts of the item that a row names by `id` (and `subset`) or by `index`, its place in the data."""
    if not items:
        raise BadData("there is no 'prompt', and no data to find the row's item in; give prompt and reply")
    if "index" in row:
        item = items[index_of(row["index"], "index", len(items))]
    else:
        name, subset = str(field(row, "id")), row.get("subset")
        matches = places.get((subset, name), [])
        if len(matches) != 1:
            raise BadData(
                f"{len(matches)} items have the id {name!r}; wanted one. A column 'subset' or 'index' can help"
            )
        item = items[matches[0]]
    return item.prompt, item.replies


def _number(value: Any, what: str) -> float:
    """A float; NaN for None."""
    if isinstance(value, bool):
        raise BadInput(f"{what} {value}; wanted a number")
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{what} {short(value)}; wanted a number") from error
