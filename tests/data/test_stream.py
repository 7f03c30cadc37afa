import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from prefrank.data import load_comparisons
from prefrank.data.stream import ComparisonStream
from prefrank.errors import BadData, BadInput, NotFound
from prefrank.types import Comparison
from tests.data.files import write_lines, write_parquet

ROWS = [{"id": str(i), "prompt": f"question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(40)]


def read(source: Path, split: str | None = None) -> tuple[list[Comparison], Counter[str]]:
    dropped: Counter[str] = Counter()
    made = list(ComparisonStream(str(source), split=split).read(lambda reason: dropped.update([reason])))
    return made, dropped


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz", "data.parquet"])
@pytest.mark.parametrize("split", [None, "train", "validation"])
def test_a_stream_gives_what_loading_gives(tmp_path: Path, name: str, split: str | None) -> None:
    path = write_parquet(tmp_path / name, ROWS) if name.endswith("parquet") else write_lines(tmp_path / name, ROWS)
    made, dropped = read(path, split)
    loaded = load_comparisons(path, split=split)
    assert made == list(loaded.comparisons)
    assert dropped == loaded.report.dropped
    assert made


def test_a_stream_reads_folders_with_named_splits(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", ROWS[:30])
    write_lines(tmp_path / "test.jsonl", ROWS[30:])
    assert [one.id for one in read(tmp_path, "test")[0]] == [row["id"] for row in ROWS[30:]]
    with pytest.raises(NotFound, match="has no split 'validation'; it has train, test"):
        ComparisonStream(str(tmp_path), split="validation")


def test_summaries_are_told_apart_by_their_own_column(tmp_path: Path) -> None:
    rows = [
        {
            "info": {"post": f"post {i}", "title": "t", "subreddit": "r", "article": None},
            "summaries": [{"text": f"a {i}"}, {"text": f"b {i}"}],
            "choice": 0,
            "worker": "w",
            "split": "train" if i % 2 else "valid1",
        }
        for i in range(6)
    ]
    path = write_lines(tmp_path / "comparisons.jsonl", rows)
    assert len(read(path, "train")[0]) == 3
    assert read(path, "valid1") == (
        list(load_comparisons(path, split="valid1").comparisons),
        Counter({"another split": 3}),
    )


def test_malformed_rows_are_counted_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    bad = ['{"prompt": "cut o', "[1, 2]", '{"prompt": "p", "chosen": 5, "rejected": "b"}', '{"chosen": "a"}', "\xff"]
    lines = [json.dumps(ROWS[0]), *bad, "", json.dumps(ROWS[1]), json.dumps({**ROWS[2], "rejected": "good 2"})]
    path.write_bytes("\n".join(lines).encode("latin-1"))
    made, dropped = read(path)
    assert [one.id for one in made] == ["0", "1"]
    assert dropped == {"malformed row": 5, "equal replies": 1}
    with pytest.raises(BadData):
        load_comparisons(path)


def test_a_damaged_file_ends_the_stream_with_an_error(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    whole = gzip.compress(
        "".join(json.dumps({**row, "pad": str(hash(i))}) + "\n" for i, row in enumerate(ROWS * 50)).encode()
    )
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadData, match="cannot be read to its end"):
        read(path)


def test_what_can_only_be_read_whole_is_refused(tmp_path: Path) -> None:
    (tmp_path / "array.json").write_text(json.dumps(ROWS))
    with pytest.raises(BadInput, match="is one JSON array, which is read whole; write one object per line"):
        ComparisonStream(str(tmp_path / "array.json"))
    message = {"message_id": "a", "parent_id": None, "text": "Hi", "role": "prompter"}
    with pytest.raises(BadInput, match="gathered from many rows; leave out stream: true"):
        ComparisonStream(str(write_lines(tmp_path / "messages.jsonl", [message])))


def test_the_fingerprint_tells_files_and_splits_apart(tmp_path: Path) -> None:
    def mark(rows: list[dict[str, str]], split: str | None = None) -> str:
        return ComparisonStream(str(write_lines(tmp_path / "data.jsonl", rows)), split=split).fingerprint()

    marks = [mark(ROWS), mark(ROWS[:-1]), mark([*ROWS[:-1], {**ROWS[-1], "chosen": "good X"}]), mark(ROWS, "train")]
    assert len(set(marks)) == 4
    assert mark(ROWS) == marks[0]
