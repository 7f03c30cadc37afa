"""Score a file: the same rows come back with their scores, chunk by chunk; what is not read goes through untouched.

A row has a prompt (a string or messages) and either `reply` or a list `replies`, or `messages` that end in the reply;
a string `system` comes before all. The output row is the input row plus `score`, `tokens`, `cut_prompt`, `cut_reply`
(lists where the row has a list) and `model`. The output appears under its name only when it is whole.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from prefrank.errors import BadData, BadInput, BadModel, printable, short
from prefrank.io.added import added_columns, check_output, read_chunks
from prefrank.io.outputs import check_outputs
from prefrank.io.packed import STREAM
from prefrank.io.rows import Record
from prefrank.scoring.file_rows import Asked, check_columns, read_row
from prefrank.scoring.reward_model import RewardModel
from prefrank.types import Prompt, Score

ADDED = {
    "score": pa.float64(),
    "tokens": pa.int64(),
    "cut_prompt": pa.int64(),
    "cut_reply": pa.int64(),
    "model": pa.string(),
}


@dataclass(frozen=True, slots=True)
class FileReport:
    """What a file job did: rows, replies scored, tokens, replies with a cut prompt, replies cut themselves, and
    different texts that hold the model's control strings."""

    rows: int
    replies: int
    tokens: int
    cut_prompts: int
    cut_replies: int
    control_strings: int = 0


def score_file(
    model: RewardModel,
    source: str | Path,
    output: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    prompt_column: str | None = None,
    reply_column: str | None = None,
    prefix: str = "",
    chunk_rows: int = 256,
    progress: Callable[[FileReport], None] = lambda report: None,
) -> FileReport:
    """Score every row of `source` into `output`; "-" is standard input or output, as JSON lines.

    Args:
        columns: from `prompt`, `system`, `reply`, `replies` or `messages` to the file's own columns, nested ones with
            dots; what is not named is a column of that very name.
        prompt_column: short for `columns={"prompt": ...}`.
        reply_column: short for `columns={"reply": ...}`; the column may hold lists too.
        prefix: stands before the names of the columns that are added.
        chunk_rows: rows scored together; changes speed, never a score.

    Raises:
        BadData: a row that cannot be scored or written, with file and line. Nothing is written then.
        BadInput: columns of unknown names, a prefix with control characters, an output of no known kind, or one that is
            the source.
        NotFound: no such source.
        CannotWrite: the output cannot be written or the disk is full.
    """
    if printable(prefix) != prefix:
        raise BadInput(f"prefix is {short(prefix)}; wanted letters and the like, no control characters")
    taken = check_columns(columns, prompt_column, reply_column)
    check_output(Path(output))
    check_outputs({"the output": Path(output)}, [] if Path(source) == STREAM else [Path(source)])
    schema, chunks = read_chunks(Path(source), chunk_rows)
    types = {prefix + name: kind for name, kind in ADDED.items()}
    if schema is not None:
        with _at(source):
            _check_free(schema.names, types)
    report, with_control = FileReport(0, 0, 0, 0, 0), set[int]()
    with added_columns(Path(output), schema, types) as write:
        for chunk in chunks:
            asked = [_asked(record, taken, types) for record in chunk.records]
            scores = _score_rows(model, asked, chunk.records)
            write(chunk, {prefix + name: values for name, values in _facts(asked, scores).items()})
            flat = [score for row in scores for score in row]
            with_control.update(map(hash, model.texts_with_control_strings(_pairs(asked))))
            report = FileReport(
                report.rows + len(asked),
                report.replies + len(flat),
                report.tokens + sum(score.tokens for score in flat),
                report.cut_prompts + sum(score.cut_prompt > 0 for score in flat),
                report.cut_replies + sum(score.cut_reply > 0 for score in flat),
                len(with_control),
            )
            progress(report)
    return report


def _check_free(names: Container[str], added: Mapping[str, object]) -> None:
    if clash := next((name for name in added if name in names), None):
        raise BadData(
            f"there is a column {clash!r} already, which ours would replace; give ours a prefix, such as --prefix rm_"
        )


@contextmanager
def _at(place: object) -> Iterator[None]:
    """Names the file, or the row in it, in what is wrong there."""
    try:
        yield
    except BadData as error:
        raise BadData(f"{place}: {error}") from None


def _pairs(asked: Sequence[Asked]) -> list[tuple[Prompt, str]]:
    return [(row.prompt, reply) for row in asked for reply in row.replies]


def _asked(record: Record, columns: Mapping[str, str], added: Mapping[str, object]) -> Asked:
    with _at(record.where):
        _check_free(record.row, added)
        return read_row(record.row, columns)


def _score_rows(model: RewardModel, asked: Sequence[Asked], records: Sequence[Record]) -> list[list[Score]]:
    """The scores of each row's replies.

    Raises:
        BadData: texts that the model's template or tokenizer refuses, with the row.
    """
    try:
        scores = iter(model.score_pairs(_pairs(asked)))
    except BadModel:
        raise
    except BadInput as error:
        if len(asked) > 1:  # once more, one by one, to find the row
            for row, record in zip(asked, records, strict=True):
                _score_rows(model, [row], [record])
        raise BadData(f"{records[0].where}: {error}") from error
    return [list(islice(scores, len(row.replies))) for row in asked]


def _facts(asked: Sequence[Asked], scores: Sequence[Sequence[Score]]) -> dict[str, list[Any]]:
    """The columns to add: a value for each row, or a list for a row of a list."""

    def each(fact: Callable[[Score], Any]) -> list[Any]:
        rows = zip(asked, scores, strict=True)
        return [[fact(score) for score in row] if asked_row.listed else fact(row[0]) for asked_row, row in rows]

    return {
        "score": each(lambda score: score.value),
        "tokens": each(lambda score: score.tokens),
        "cut_prompt": each(lambda score: score.cut_prompt),
        "cut_reply": each(lambda score: score.cut_reply),
        "model": [row[0].model for row in scores],
    }
