"""Rows and folders that are broken on purpose: one line that names the place."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from prefrank.data import load_comparisons
from prefrank.errors import BadData, BadInput
from tests.data.files import own_row, write_csv, write_lines, write_parquet

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
KTO = {"prompt": "p", "completion": "c", "label": True}
BATTLE = {"prompt": '["p"]', "response_a": '["a"]', "response_b": '["b"]'}
BATTLE |= {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0}  # type: ignore[dict-item]
HELPFUL = {"prompt": "p", "response": "r", "helpfulness": 1, "correctness": 1, "coherence": 1, "complexity": 1}
HELPFUL |= {"verbosity": 1}
DEEP = "[" * 20_000 + "]" * 20_000


def said(tmp_path: Path, *rows: dict[str, Any]) -> str:
    with pytest.raises(BadData) as caught:
        load_comparisons(write_lines(tmp_path / "mine.jsonl", rows))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "column"),
    [
        *((KTO, name) for name in ("prompt", "completion", "label")),
        *((BATTLE, name) for name in BATTLE),
        *((HELPFUL, name) for name in HELPFUL),
        ({"messages": [{"role": "user", "content": "x"}], "rejected_messages": []}, "rejected_messages"),
        ({"conversation": [{"human": "h", "assistant": "a"}], "rejected_response": "x"}, "conversation"),
        ({"instruction": "i", "generations": ["a", "b"], "ratings": [1, 2]}, "generations"),
        ({"instruction": "i", "output_1": "a", "output_2": "b", "label": 1}, "label"),
        ({"chosen": "\n\nHuman: x\n\nAssistant: y", "rejected": "\n\nHuman: x\n\nAssistant: z"}, "rejected"),
    ],
)
def test_a_later_row_without_a_column_is_named(tmp_path: Path, row: dict[str, Any], column: str) -> None:
    message = said(tmp_path, row, {name: value for name, value in row.items() if name != column})
    assert "mine.jsonl:2: " in message or "mine.jsonl:1: " in message
    assert "column" in message


def test_a_whole_number_past_every_fraction_is_refused_by_name(tmp_path: Path) -> None:
    assert "mine.jsonl:2: 'helpfulness' holds 1000" in said(tmp_path, HELPFUL, {**HELPFUL, "helpfulness": 10**400})
    assert "'ranks' holds" in said(tmp_path, own_row(ranks=[0, 1, 10**400]))
    assert "'labels' holds" in said(
        tmp_path, {"history": "h", "human_ref_A": "a", "human_ref_B": "b", "labels": "1" * 5_000}
    )


def test_ratings_whose_sum_is_past_every_fraction_have_a_mean(tmp_path: Path) -> None:
    row = own_row(replies=["a", "b", "b"], ratings=[0, 1e308, 1.5e308])
    (one,) = load_comparisons(write_lines(tmp_path / "mine.jsonl", [row])).comparisons
    assert one.ratings[0].values == (0.0, 1.25e308)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"role": "user", "role": "assistant", "content": "x"}]', "the key 'role' stands twice in one object"),
        ('{"role": "user", "content": "x", "content": "y"}', "the key 'content' stands twice in one object"),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_messages_as_json_lose_no_key(tmp_path: Path, content: str, message: str, kind: str) -> None:
    write = {"jsonl": write_lines, "csv": write_csv, "parquet": write_parquet}[kind]
    with pytest.raises(BadData, match=message):
        load_comparisons(write(tmp_path / f"mine.{kind}", [{**PAIR, "prompt": content}]))


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_text_of_very_many_brackets_is_a_text(tmp_path: Path, kind: str) -> None:
    write = {"jsonl": write_lines, "csv": write_csv}[kind]
    (one,) = load_comparisons(write(tmp_path / f"mine.{kind}", [{**PAIR, "chosen": DEEP}])).comparisons
    assert one.replies[0] == DEEP


def test_lists_of_cells_that_nest_too_deeply_are_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "mine.csv", [{"prompt": "p", "replies": DEEP, "ranks": "[0, 1]"}])
    with pytest.raises(BadData, match=r"mine\.csv:2: 'replies': the JSON is nested too deeply"):
        load_comparisons(path)
    assert "'response_a': the JSON is nested too deeply" in said(tmp_path, {**BATTLE, "response_a": DEEP})
    assert "'prompt': a number has too many digits" in said(tmp_path, {**BATTLE, "prompt": f"[{'1' * 5_000}]"})


def test_a_folder_with_circular_links_is_read_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "set" / "deep" / "mine.jsonl", [PAIR])
    (tmp_path / "set" / "deep" / "again").symlink_to(tmp_path / "set")
    assert load_comparisons(tmp_path / "set").report.files == ("deep/mine.jsonl",)


def test_a_folder_whose_name_ends_as_a_file_of_data_is_a_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path / "set" / "all.parquet" / "part-0.parquet", [PAIR])
    assert len(load_comparisons(tmp_path / "set").comparisons) == 1


def test_a_folder_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRANK_MAX_DATA_FILES", "3")
    for number in range(4):
        write_lines(tmp_path / f"{number}.jsonl", [PAIR])
    with pytest.raises(BadData, match=r"holds more than 3 files and folders, which PREFRANK_MAX_DATA_FILES may raise"):
        load_comparisons(tmp_path)


@pytest.mark.parametrize("name", ["fifo", "fifo.jsonl", "set/fifo.jsonl", "set/fifo.parquet"])
def test_a_fifo_is_no_data(tmp_path: Path, name: str) -> None:
    (tmp_path / "set").mkdir()
    os.mkfifo(tmp_path / name)
    for source in (tmp_path / name, tmp_path / "set") if name.startswith("set/") else (tmp_path / name,):
        with pytest.raises(BadInput, match="is a FIFO; wanted a plain file"):
            load_comparisons(source)


def test_devices_and_names_of_any_bytes_are_said_in_one_line(tmp_path: Path) -> None:
    for source in ("/dev/zero", "/dev/null", "a\0b.jsonl", "x" * 300 + ".jsonl", "a\n[/red]\x1b[2J.jsonl"):
        with pytest.raises((BadInput, LookupError)) as caught:
            load_comparisons(source)
        assert str(caught.value).isprintable()
    odd = tmp_path / os.fsdecode(b"a\n[/red]\xff.jsonl")
    write_lines(odd, [PAIR])
    assert load_comparisons(odd).report.kept == 1
    odd.write_text(json.dumps({"a": 1}))
    with pytest.raises(BadData) as caught:
        load_comparisons(odd)
    assert str(caught.value).isprintable()
