"""Columns by name: a mapping reads any file, nested columns too, and says what is missing or read by nobody."""

from pathlib import Path
from typing import Any

import pytest

from prefrank.data import load_comparisons, load_splits
from prefrank.data.stream import ComparisonStream
from prefrank.errors import BadData
from prefrank.types import Preference, Turn
from tests.data.files import user, webgpt_row, write_lines, write_parquet

COLUMNS = {"prompt": "in.question", "chosen": "out.good", "rejected": "out.bad", "system": "persona", "id": "nr"}
ROWS = [
    {"in": {"question": f"A colour {n}?"}, "out": {"good": "Blue.", "bad": "Red."}, "persona": "Be brief.", "nr": n}
    for n in range(12)
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    return write_parquet(path, rows) if path.suffix == ".parquet" else write_lines(path, rows)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_mapping_reads_nested_columns_in_every_way_of_loading(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)
    loaded = load_comparisons(path, columns=COLUMNS)
    first = loaded.comparisons[0]
    assert (first.prompt, first.replies) == ((Turn("system", "Be brief."), *user("A colour 0?")), ("Blue.", "Red."))
    assert [comparison.id for comparison in loaded.comparisons] == [str(n) for n in range(12)]
    assert load_splits(path, columns=COLUMNS)["all"].comparisons == loaded.comparisons
    assert tuple(ComparisonStream(str(path), columns=COLUMNS).read(print)) == loaded.comparisons
    parts = [load_comparisons(path, split=split, columns=COLUMNS) for split in ("train", "eval")]
    assert sum(part.report.kept for part in parts) == 12


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize(
    ("row", "columns", "preferences"),
    [
        ({"q": "Hi", "all": ["a", "b"], "r": [1, 0]}, {"prompt": "q", "replies": "all", "ranks": "r"}, (1, 0)),
        ({"q": "Hi", "all": ["a", "b"], "r": [1, 0]}, {"prompt": "q", "replies": "all", "ratings": "r"}, (0, 1)),
        ({"q": "Hi", "all": ["a", "b"], "v": [[1, 0]]}, {"prompt": "q", "replies": "all", "preferences": "v"}, (1, 0)),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, {"chosen": "rejected", "rejected": "chosen"}, (0, 1)),
        ({"prompt": "no", "q": "Hi", "chosen": "a", "rejected": "b"}, {"prompt": "q"}, (0, 1)),
        ({"q": "Hi", "all": ["a", "b"]}, {"instruction": "q", "output": "all"}, (0, 1)),
        ({"q.x": "Hi", "chosen": "a", "rejected": "b"}, {"prompt": "q.x"}, (0, 1)),
    ],
)
def test_a_mapping_reaches_the_columns_of_every_format(
    tmp_path: Path, name: str, row: dict[str, Any], columns: dict[str, str], preferences: tuple[int, int]
) -> None:
    (comparison,) = load_comparisons(write(tmp_path / name, [row]), columns=columns).comparisons
    assert comparison.prompt == user("Hi")
    assert comparison.preferences == (Preference(*preferences),)
    assert set(comparison.replies) == {"a", "b"}
    if "chosen" in columns:
        assert comparison.replies == ("b", "a")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_mapping_reaches_what_is_nested_in_a_published_format(tmp_path: Path, name: str) -> None:
    row = {("asked" if key == "question" else key): value for key, value in webgpt_row("A.", "B.", 1.0, "Hi").items()}
    path = write(tmp_path / name, [row])
    for columns in ({"question": "asked"}, {"question.full_text": "asked.full_text"}):
        assert load_comparisons(path, columns=columns).comparisons[0].prompt == user("Hi")


def test_a_named_column_that_a_row_lacks_is_an_error_with_file_and_line(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [*ROWS[:2], {**ROWS[2], "out": {"good": "Blue."}}])
    with pytest.raises(BadData, match=r"a.jsonl:3: no column 'out.bad'; known: good"):
        load_comparisons(path, columns=COLUMNS)
    dropped: list[str] = []
    assert len(list(ComparisonStream(str(path), columns=COLUMNS).read(dropped.append))) == 2
    assert dropped == ["malformed row"]
    with pytest.raises(BadData, match=r"a.jsonl:1: no column 'persona1'; did you mean 'persona'"):
        ComparisonStream(str(path), columns={**COLUMNS, "system": "persona1"})


def test_a_name_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "Hi", "chosen": "a", "rejected": "b", "lead": 2}])
    with pytest.raises(BadData, match=r"columns name 'margn', which is not read in prefrank_pairs.*'margin'"):
        load_comparisons(path, columns={"margn": "lead"})
    assert load_comparisons(path, columns={"margin": "lead"}).comparisons[0].preferences[0].margin == 2.0


def test_a_row_of_two_formats_is_refused_and_the_mapping_decides(tmp_path: Path) -> None:
    both = {"response_1": "c", "response_2": "d", "preference_strength": 1}
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "Hi", "chosen": "a", "rejected": "b", **both}])
    with pytest.raises(BadData, match=r"a.jsonl:1: the columns are those of helpsteer_pairs and of prefrank_pairs; na"):
        load_comparisons(path)
    assert load_comparisons(path, columns={"chosen": "chosen"}).comparisons[0].replies == ("a", "b")
    assert load_comparisons(path, columns={"response_1": "response_1"}).comparisons[0].replies == ("c", "d")


def test_the_fingerprint_of_a_stream_tells_mappings_apart(tmp_path: Path) -> None:
    path = str(write_lines(tmp_path / "a.jsonl", [{"prompt": "Hi", "other": "Ho", "chosen": "a", "rejected": "b"}]))
    marks = [ComparisonStream(path, columns=one).fingerprint() for one in (None, {}, {"prompt": "other"})]
    assert marks[0] == marks[1] != marks[2]


def test_files_of_columns_that_nobody_knows_are_refused_with_the_mapping_as_the_cure(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"those of no known format.*columns: \{prompt: question, \.\.\.\}"):
        load_comparisons(write_lines(tmp_path / "a.jsonl", [{"a": 1, "b": 2}]))
