import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefrank import RewardModel, Turn
from prefrank.errors import BadData, BadInput, CannotWrite
from prefrank.scoring.files import score_file

ROWS = [
    {"prompt": "how do I bake", "reply": "mix flour", "keep": 1},
    {"prompt": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"},
                {"role": "user", "content": "bread"}], "reply": "flour " * 300, "keep": 2},
]  # fmt: skip


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_come_back_with_the_scores_of_the_library(model: RewardModel, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", ROWS)
    report = score_file(model, source, tmp_path / "out.jsonl", chunk_rows=1)
    turns = [Turn(message["role"], message["content"]) for message in ROWS[1]["prompt"]]
    want = model.score_pairs([("how do I bake", "mix flour"), (turns, "flour " * 300)])
    rows = read_lines(tmp_path / "out.jsonl")
    assert [row["score"] for row in rows] == pytest.approx([score.value for score in want], abs=1e-5)
    assert [row["keep"] for row in rows] == [1, 2]
    assert rows[1]["cut_reply"] == want[1].cut_reply > 0
    assert rows[0]["model"] == model.fingerprint
    assert (report.rows, report.replies, report.cut_replies) == (2, 2, 1)


def test_a_list_of_replies_gives_lists(model: RewardModel, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "p", "replies": ["a", "b", "a"]}])
    score_file(model, source, tmp_path / "out.jsonl")
    (row,) = read_lines(tmp_path / "out.jsonl")
    assert row["score"] == pytest.approx([score.value for score in model.score("p", ["a", "b", "a"])], abs=1e-5)
    assert len(row["tokens"]) == 3


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl.gz"])
def test_other_formats_hold_the_same(model: RewardModel, tmp_path: Path, name: str) -> None:
    table = pa.Table.from_pylist([{"question": f"q{n}", "answer": "flour " * n} for n in range(5)])
    pq.write_table(table, tmp_path / "in.parquet")
    score_file(
        model, tmp_path / "in.parquet", tmp_path / name, prompt_column="question", reply_column="answer", chunk_rows=2
    )
    if name.endswith("gz"):
        rows = [json.loads(line) for line in gzip.decompress((tmp_path / name).read_bytes()).splitlines()]
    else:
        rows = pq.read_table(tmp_path / name).to_pylist()
    want = model.score_pairs([(f"q{n}", "flour " * n) for n in range(5)])
    assert [row["score"] for row in rows] == pytest.approx([score.value for score in want], abs=1e-5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p"}, r"in\.jsonl:2: no column 'reply'"),
        ({"reply": "r"}, r"in\.jsonl:2: no column 'prompt'"),
        ({"prompt": "p", "replies": []}, r"in\.jsonl:2: 'replies' is an empty list"),
        ({"prompt": "p", "reply": 3}, r"in\.jsonl:2: 'reply' holds 3; wanted a list"),
        ({"prompt": "p", "reply": "\ud800"}, r"in\.jsonl:2: 'reply' holds a lone surrogate"),
        ({"prompt": [], "reply": "r"}, r"in\.jsonl:2: 'prompt' has no messages"),
        ({"prompt": "p", "reply": "r", "score": 1}, r"in\.jsonl:2: there is a column 'score' already"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(model: RewardModel, tmp_path: Path, row: dict, message: str) -> None:
    source = write_lines(tmp_path / "in.jsonl", [ROWS[0], row])
    with pytest.raises(BadData, match=message):
        score_file(model, source, tmp_path / "out.jsonl", chunk_rows=1)
    assert list(tmp_path.iterdir()) == [source]


def test_an_unwritable_output_is_refused(model: RewardModel, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", ROWS)
    with pytest.raises(CannotWrite, match=r"out\.jsonl: there is no folder .*missing; make it first"):
        score_file(model, source, tmp_path / "missing" / "out.jsonl")
    with pytest.raises(BadInput, match=r"ends in '\.txt'; wanted \.jsonl"):
        score_file(model, source, tmp_path / "out.txt")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_error(model: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_lines(tmp_path / "in.jsonl", ROWS)
    monkeypatch.setattr("prefrank.io.atomic.secrets.token_hex", lambda number: "0")
    (tmp_path / ".out.jsonl.0.tmp").symlink_to("/dev/full")
    with pytest.raises(CannotWrite, match="the disk is full"):
        score_file(model, source, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_standard_input_and_output_carry_json_lines(plain_folder: Path) -> None:
    code = f"""
from prefrank import RewardModel
from prefrank.scoring.files import score_file
score_file(RewardModel.load({str(plain_folder)!r}), "-", "-")
"""
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    result = subprocess.run([sys.executable, "-c", code], input=lines, capture_output=True, text=True, check=True)
    assert [json.loads(line)["keep"] for line in result.stdout.splitlines()] == [1, 2]
