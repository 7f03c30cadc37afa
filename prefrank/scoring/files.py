"""Score a file: JSON lines or Parquet in, the same rows with their scores out, chunk by chunk.

A row has a prompt (a string or messages) and either `reply` or a list `replies`. The output row is the input row plus
`score`, `tokens`, `cut_prompt`, `cut_reply` (lists where the row has `replies`) and `model`. The output appears under
its name only when it is whole.
"""

import gzip
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from prefrank.data.fields import as_text, as_texts, as_turns, field
from prefrank.errors import BadData, BadInput, BadText, CannotWrite
from prefrank.io.rows import Record, read_records
from prefrank.scoring.reward_model import RewardModel
from prefrank.types import Prompt, Score, Turn

STREAM = "-"
ADDED = ("score", "tokens", "cut_prompt", "cut_reply", "model")


@dataclass(frozen=True, slots=True)
class FileReport:
    """What a file job did: rows, replies scored, tokens, replies with a cut prompt, replies cut themselves."""

    rows: int
    replies: int
    tokens: int
    cut_prompts: int
    cut_replies: int


@runtime_checkable
class Writer(Protocol):
    def __call__(self, rows: list[dict[str, Any]]) -> object: ...


def score_file(
    model: RewardModel,
    source: str | Path,
    output: str | Path,
    *,
    prompt_column: str = "prompt",
    reply_column: str | None = None,
    chunk_rows: int = 256,
    progress: Callable[[FileReport], None] = lambda report: None,
) -> FileReport:
    """Score every row of `source` into `output`; "-" is standard input or output, as JSON lines.

    Args:
        reply_column: by default `reply` or `replies`, whichever the rows have.
        chunk_rows: rows scored together; changes speed, never a score.

    Raises:
        BadData: a row that cannot be scored, with file and line. Nothing is written then.
        CannotWrite: the output cannot be written or the disk is full.
    """
    # Standard input is a file of the system's own, so that all rows take one path
    records = read_records(Path("/dev/stdin" if str(source) == STREAM else source))
    report = FileReport(0, 0, 0, 0, 0)
    with _writer(str(output)) as write:
        while chunk := list(islice(records, chunk_rows)):
            scores = _score_rows(model, [_pairs(record, prompt_column, reply_column) for record in chunk], chunk)
            write([_with_scores(record, row) for record, row in zip(chunk, scores, strict=True)])
            flat = [score for _, row in scores for score in row]
            report = FileReport(
                report.rows + len(chunk),
                report.replies + len(flat),
                report.tokens + sum(score.tokens for score in flat),
                report.cut_prompts + sum(score.cut_prompt > 0 for score in flat),
                report.cut_replies + sum(score.cut_reply > 0 for score in flat),
            )
            progress(report)
    return report


@dataclass(frozen=True, slots=True)
class _Pairs:
    prompt: Prompt
    replies: tuple[str, ...]
    listed: bool


def _pairs(record: Record, prompt_column: str, reply_column: str | None) -> _Pairs:
    try:
        for name in ADDED:
            if name in record.row:
                raise BadData(f"there is a column {name!r} already; rename it, the score would replace it")
        prompt = field(record.row, prompt_column)
        if isinstance(prompt, str):
            turns: Prompt = (Turn("user", as_text(prompt, prompt_column)),)
        else:
            turns = as_turns(prompt, prompt_column)
        column = reply_column or ("replies" if "replies" in record.row else "reply")
        value = field(record.row, column)
        listed = not isinstance(value, str)
        replies = as_texts(value, column) if listed else (as_text(value, column),)
        if not replies:
            raise BadData(f"{column!r} is an empty list; wanted at least one reply")
        if not turns:
            raise BadData(f"{prompt_column!r} has no messages; wanted at least one")
        return _Pairs(turns, replies, listed)
    except BadData as error:
        raise BadData(f"{record.where}: {error}") from error


def _score_rows(model: RewardModel, rows: list[_Pairs], chunk: list[Record]) -> list[tuple[bool, list[Score]]]:
    try:
        scores = iter(model.score_pairs([(row.prompt, reply) for row in rows for reply in row.replies]))
    except BadText as error:
        raise BadData(f"{chunk[0].where} to line {chunk[-1].line}: {error}") from error
    return [(row.listed, list(islice(scores, len(row.replies)))) for row in rows]


def _with_scores(record: Record, scored: tuple[bool, list[Score]]) -> dict[str, Any]:
    listed, scores = scored
    facts: dict[str, list[Any]] = {
        "score": [score.value for score in scores],
        "tokens": [score.tokens for score in scores],
        "cut_prompt": [score.cut_prompt for score in scores],
        "cut_reply": [score.cut_reply for score in scores],
    }
    added = facts if listed else {name: values[0] for name, values in facts.items()}
    return {**record.row, **added, "model": scores[0].model}


@contextmanager
def _writer(output: str) -> Iterator[Writer]:
    """A function that takes rows; the file gets its name when everything is written, and is removed on any error."""
    if output == STREAM:
        yield _to_stdout
        return
    path = Path(output)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    opener = _parquet_writer if path.suffix == ".parquet" else _lines_writer
    if path.suffix not in (".parquet", ".jsonl", ".ndjson", ".json", ".gz"):
        raise BadInput(
            f"the output {path} ends in {path.suffix!r}; wanted .jsonl, .jsonl.gz or .parquet, or - for stdout"
        )
    try:
        with opener(partial) as write:
            yield write
        os.replace(partial, path)
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written ({error.strerror or error}); nothing was left behind") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _lines_writer(path: Path) -> Iterator[Writer]:
    zipped = ".gz." in path.name
    with gzip.open(path, "wt", encoding="utf-8") if zipped else path.open("w", encoding="utf-8") as file:
        yield lambda rows: file.write(_lines(rows))


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _to_stdout(rows: list[dict[str, Any]]) -> None:
    sys.stdout.write(_lines(rows))
    sys.stdout.flush()


@contextmanager
def _parquet_writer(path: Path) -> Iterator[Writer]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writers: list[pq.ParquetWriter] = []

    def write(rows: list[dict[str, Any]]) -> None:
        try:
            table = pa.Table.from_pylist(rows, schema=writers[0].schema if writers else None)
        except pa.ArrowException as error:
            raise BadData(f"the rows do not have one schema ({error}); write .jsonl instead of .parquet") from error
        if not writers:
            writers.append(pq.ParquetWriter(path, table.schema))
        writers[0].write_table(table)

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()
