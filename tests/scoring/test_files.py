import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefrank import RewardModel, Turn
from prefrank.errors import BadData, BadInput, CannotWrite
from prefrank.scoring.files import score_file
from tests.io.files import save_to_disk

ROWS = [
    {"prompt": "how do I bake", "reply": "mix flour", "keep": 1},
    {"prompt": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"},
                {"role": "user", "content": "bread"}], "reply": "flour " * 300, "keep": 2},
]  # fmt: skip


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
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


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.jsonl.xz", "out.csv", "out.parquet", "out.arrow"])
def test_a_full_disk_is_one_error_and_leaves_the_older_output(plain_folder: Path, tmp_path: Path, name: str) -> None:
    noise = random.Random(0).randbytes(30_000).hex()
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "hi", "reply": "mix", "keep": noise}])
    (tmp_path / name).write_bytes(b"older")
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
    code = limited + CODE.format(folder=str(plain_folder), source=str(source), output=str(tmp_path / name))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "prefrank.errors.CannotWrite: cannot write" in done.stderr.splitlines()[-1], done.stderr
    assert (tmp_path / name).read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.jsonl", name])


CODE = """
from prefrank import RewardModel
from prefrank.scoring.files import score_file
score_file(RewardModel.load({folder!r}), {source!r}, {output!r}, chunk_rows=1)
"""


def start(folder: Path, source: str, output: str, **more: str) -> subprocess.Popen[bytes]:
    code = CODE.format(folder=str(folder), source=source, output=output)
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **more}
    )


def test_standard_input_and_output_carry_json_lines(plain_folder: Path) -> None:
    """In UTF-8, whatever a console's encoding is; Windows has no file of that name, so none is opened."""
    rows = [*ROWS, {"prompt": "größer\u2028?", "reply": "😀", "keep": 3}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    output, error = start(plain_folder, "-", "-", PYTHONIOENCODING="cp1252").communicate(lines)
    assert [json.loads(line)["keep"] for line in output.splitlines()] == [1, 2, 3], error
    assert json.loads(output.splitlines()[2])["reply"] == "😀"


def test_standard_input_is_read_by_its_handle_and_not_by_a_name(
    model: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = json.dumps(ROWS, indent=1).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(array)))
    assert score_file(model, "-", tmp_path / "out.jsonl").rows == 2
    bad = ((b'\n{"prompt": "p"}', "standard input:2: no column"), (b"", "standard input: the file is empty"))
    for text, message in bad:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        with pytest.raises(BadData, match=f"^{message}"):
            score_file(model, "-", tmp_path / "out.jsonl")


HI = {"role": "user", "content": "hi"}
MIX = {"role": "assistant", "content": "mix flour"}


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"prompt": "hi", "reply": "mix flour"}, None),
        ({"prompt": "hi", "reply": MIX}, None),
        ({"prompt": HI, "reply": [MIX]}, None),
        ({"prompt": [HI], "reply": [{"role": "assistant", "content": [{"type": "text", "text": "mix flour"}]}]}, None),
        ({"messages": [HI, MIX]}, None),
        ({"prompt": "hi", "reply": "mix flour", "system": None, "replies": None, "messages": None}, None),
        ({"prompt": "no", "messages": [HI], "reply": "mix flour"}, {"prompt": "messages"}),
        ({"prompt": "no", "messages": [HI, MIX]}, {"messages": "messages"}),
        ({"prompt": "hi", "reply": "mix flour", "replies": ["no"]}, {"reply": "reply"}),
        ({"in": {"q": "hi"}, "out": {"text": "mix flour", "when": 1}}, {"prompt": "in.q", "reply": "out.text"}),
        ({"prompt": "hi", "out": {"text": "no"}, "out.text": "mix flour"}, {"reply": "out.text"}),
        ({"prompt": json.dumps([HI]), "reply": json.dumps(MIX)}, None),
        ({"messages": json.dumps([HI, MIX])}, None),
    ],
)
def test_every_way_to_write_a_prompt_and_a_reply_gives_one_score(
    model: RewardModel, tmp_path: Path, row: dict, columns: dict[str, str] | None
) -> None:
    (want,) = model.score("hi", ["mix flour"])
    for source in (
        write_lines(tmp_path / "in.jsonl", [row]),
        write_parquet(tmp_path / "in.parquet", [row]),
    ):
        score_file(model, source, tmp_path / "out.jsonl", columns=columns)
        assert read_lines(tmp_path / "out.jsonl")[0]["score"] == pytest.approx(want.value, abs=1e-6)


@pytest.mark.parametrize("column", ["replies", "reply"])
def test_messages_may_stand_in_a_list_of_replies(model: RewardModel, tmp_path: Path, column: str) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "p", column: [[MIX], "bread"]}])
    score_file(model, source, tmp_path / "out.jsonl")
    want = [score.value for score in model.score("p", ["mix flour", "bread"])]
    assert read_lines(tmp_path / "out.jsonl")[0]["score"] == pytest.approx(want, abs=1e-6)


def test_a_system_column_is_the_first_turn(model: RewardModel, tmp_path: Path) -> None:
    turns = [Turn("system", "bake"), Turn("user", "hi")]
    want = model.score(turns, ["mix flour"])[0].value
    messages = [{"role": "system", "content": "bake"}, HI]
    rows = [
        {"system": "bake", "prompt": "hi", "reply": "mix flour"},
        {"system": "bake", "prompt": messages, "reply": "mix flour"},
        {"system": "bake", "messages": [HI, MIX]},
    ]
    score_file(model, write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert [row["score"] for row in read_lines(tmp_path / "out.jsonl")] == pytest.approx([want] * 3, abs=1e-6)
    source = write_lines(tmp_path / "in.jsonl", [{"about": "bake", "prompt": "hi", "reply": "mix flour"}])
    score_file(model, source, tmp_path / "out.jsonl", columns={"system": "about"})
    assert read_lines(tmp_path / "out.jsonl")[0]["score"] == pytest.approx(want, abs=1e-6)


CALL = {"role": "assistant", "content": "x", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "reply": "r", "replies": ["s"]}, r"'reply' and 'replies' are both there; .*reply=reply"),
        ({"prompt": "p", "messages": [HI], "reply": "r"}, r"'prompt' and 'messages' are both there; .*prompt=prompt"),
        ({"messages": [HI], "reply": "r"}, r"'messages' end in a reply, and there is 'reply' too; .*prompt=messages"),
        ({"messages": [HI]}, "ends in a turn of 'user'; wanted the assistant's"),
        ({"messages": [MIX]}, "hold a reply and nothing before it"),
        ({"messages": [HI, CALL]}, "ends in a turn with more than text"),
        ({"prompt": "p", "response": "r"}, r"the row has prompt, response; .*--columns reply=response"),
        ({"question": "p", "reply": "r"}, r"the row has question, reply; .*--columns prompt=question"),
        ({"prompt": "p", "reply": [HI, MIX]}, r"'reply\[0\]' ends in a turn of 'user'"),
        ({"prompt": "p", "reply": None}, "'reply' holds null; wanted a list of replies, a string or a message"),
        ({"prompt": None, "reply": "r"}, "'prompt' holds null"),
        ({"prompt": "p", "reply": "r", "system": 3}, "'system' holds 3; wanted a string"),
        (
            {"prompt": [{"role": "system", "content": "a"}, HI], "reply": "r", "system": "b"},
            "'system' and the prompt's messages hold different system turns",
        ),
        ({"prompt": [{"role": "user", "content": [{"type": "image_url"}]}], "reply": "r"}, "of type image_url"),
    ],
)
def test_a_row_that_could_mean_two_things_or_none_is_refused_by_name(
    model: RewardModel, tmp_path: Path, row: dict, message: str
) -> None:
    source = write_lines(tmp_path / "in.jsonl", [row])
    with pytest.raises(BadData, match=rf"in\.jsonl:1: .*{message}"):
        score_file(model, source, tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": "p", "answer": "r"}, "columns name 'answer'; wanted some of prompt, system, reply"),
        ({"reply": "r", "replies": "s"}, "columns name both reply and replies"),
        ({"messages": "m", "prompt": "p"}, "columns name both messages and prompt"),
    ],
)
def test_columns_of_unknown_names_are_refused(
    model: RewardModel, tmp_path: Path, columns: dict[str, str], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        score_file(model, write_lines(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl", columns=columns)
    with pytest.raises(BadInput, match="the column of prompt is 'b' and 'a'; give one of them"):
        score_file(model, "-", "-", columns={"prompt": "a"}, prompt_column="b")


def test_columns_of_the_added_names_can_stay_under_a_prefix(model: RewardModel, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{**ROWS[0], "score": "mine", "model": "mine"}])
    with pytest.raises(BadData, match=r"there is a column 'score' already, .*--prefix rm_"):
        score_file(model, source, tmp_path / "out.jsonl")
    score_file(model, source, tmp_path / "out.jsonl", prefix="rm_")
    (row,) = read_lines(tmp_path / "out.jsonl")
    assert (row["score"], row["model"], row["rm_model"]) == ("mine", "mine", model.fingerprint)
    assert list(row)[-5:] == ["rm_score", "rm_tokens", "rm_cut_prompt", "rm_cut_reply", "rm_model"]


@pytest.mark.parametrize("name", ["in.csv", "in.parquet"])
def test_a_column_of_an_added_name_is_refused_without_a_row_too(model: RewardModel, tmp_path: Path, name: str) -> None:
    (tmp_path / "in.csv").write_text("prompt,reply,score\n")
    pq.write_table(pa.table({"prompt": [""], "reply": [""], "score": [1.0]}).slice(0, 0), tmp_path / "in.parquet")
    with pytest.raises(BadData, match=rf"{name}: there is a column 'score' already, .*--prefix rm_"):
        score_file(model, tmp_path / name, tmp_path / "out.parquet")


def test_bytes_are_not_taken_for_text_and_go_through_untouched(model: RewardModel, tmp_path: Path) -> None:
    table = pa.table({"prompt": ["p"], "reply": [b"r"], "picture": [{"bytes": b"\xff", "path": None}]})
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(BadData, match=r"in\.parquet:1: 'reply' holds b'r'; wanted"):
        score_file(model, tmp_path / "in.parquet", tmp_path / "out.jsonl")
    pq.write_table(table.set_column(1, "reply", [["r"]]), tmp_path / "in.parquet")
    score_file(model, tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert read_lines(tmp_path / "out.jsonl")[0]["picture"] == {"bytes": "/w==", "path": None}


def test_the_output_never_takes_the_place_of_what_is_read(model: RewardModel, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "in.jsonl", ROWS)
    table = write_parquet(tmp_path / "in.parquet", [{"prompt": "p", "reply": "r"}])
    saved = save_to_disk(tmp_path / "set", pa.RecordBatch.from_pylist([{"prompt": "p", "reply": "r"}]))
    (tmp_path / "link.jsonl").symlink_to(lines)
    part = saved / "data-00000-of-00001.arrow"
    before = {path: path.read_bytes() for path in (lines, table, part)}
    for source, output in ((lines, lines), (table, table), (saved, part), (lines, tmp_path / "link.jsonl")):
        with pytest.raises(BadInput, match=r"the output: .* (is what is read|lies in the folder|is a link)"):
            score_file(model, source, output)
    assert {path: path.read_bytes() for path in before} == before


def test_texts_with_control_strings_count_once_in_whatever_chunks_they_stand(
    model: RewardModel, tmp_path: Path
) -> None:
    rows = [{"prompt": "a [SEP] b", "reply": "r"}, {"prompt": "a [SEP] b", "reply": "[CLS]"}]
    source = write_lines(tmp_path / "in.jsonl", rows)
    for chunk_rows in (1, 9):
        assert score_file(model, source, tmp_path / "out.jsonl", chunk_rows=chunk_rows).control_strings == 2


def test_scores_past_row_256_lose_no_column_and_no_fraction(model: RewardModel, tmp_path: Path) -> None:
    rows = [{"prompt": "p", "reply": "r", "n": 1}] * 300 + [{"prompt": "p", "reply": "r", "n": 1.5, "late": "x"}]
    score_file(model, write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet")
    last = pq.read_table(tmp_path / "out.parquet").to_pylist()[-1]
    assert (last["n"], last["late"]) == (1.5, "x")


def test_parquet_scored_to_parquet_keeps_its_types_and_lists_of_scores(model: RewardModel, tmp_path: Path) -> None:
    table = pa.table({"prompt": ["p"], "replies": [["a", "b"]], "when": pa.array([2**61], pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "in.parquet")
    score_file(model, tmp_path / "in.parquet", tmp_path / "out.parquet")
    after = pq.read_table(tmp_path / "out.parquet")
    assert after.schema.field("when") == table.schema.field("when")
    assert after.schema.field("score").type == pa.list_(pa.float64())
    assert after.column("when").equals(table.column("when"))


@pytest.mark.parametrize("name", ["in.jsonl", "in.parquet"])
@pytest.mark.parametrize("chunk_rows", [1, 9])
def test_lists_and_single_scores_do_not_go_into_one_parquet_column(
    model: RewardModel, tmp_path: Path, name: str, chunk_rows: int
) -> None:
    rows = [{"prompt": "p", "reply": "a", "replies": None}, {"prompt": "p", "reply": None, "replies": ["a", "b"]}]
    source = (write_parquet if name.endswith("parquet") else write_lines)(tmp_path / name, rows)
    with pytest.raises(BadData, match=rf"{name}:2: 'score' .*; write \.jsonl"):
        score_file(model, source, tmp_path / "out.parquet", chunk_rows=chunk_rows)
    score_file(model, source, tmp_path / "out.jsonl", chunk_rows=chunk_rows)
    assert [isinstance(row["score"], list) for row in read_lines(tmp_path / "out.jsonl")] == [False, True]


def test_what_the_template_refuses_names_the_row(
    model: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_pairs = RewardModel.score_pairs

    def refusing(self: RewardModel, pairs: list) -> list:
        if any(reply == "bad" for _, reply in pairs):
            raise BadInput("the template takes no such turn")
        return score_pairs(self, pairs)

    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "p", "reply": reply} for reply in ("a", "b", "bad", "c")])
    monkeypatch.setattr(RewardModel, "score_pairs", refusing)
    with pytest.raises(BadData, match=r"in\.jsonl:3: the template takes no such turn"):
        score_file(model, source, tmp_path / "out.jsonl")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_leaves_no_partial_file(plain_folder: Path, tmp_path: Path, name: str, code: int) -> None:
    output = tmp_path / "out.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "prefrank", "score", "-", "--model", str(plain_folder), "-o", str(output)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    while not list(tmp_path.iterdir()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.Signals[name])
    error = process.communicate()[1].decode()
    assert process.returncode == code, error
    assert error.strip().splitlines()[-1] == f"error: stopped by {'Ctrl-C' if name == 'SIGINT' else name}"
    assert list(tmp_path.iterdir()) == []
