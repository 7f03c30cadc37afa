"""prefrank.json: read strictly, by one reader, wherever a folder is opened."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefrank.errors import BadModel
from prefrank.model import load_network
from prefrank.model.record import RECORD, ModelRecord, read_record, text_settings, write_record
from prefrank.scoring import RewardModel, checkpoint_info
from prefrank.text import TextSettings
from prefrank.training.records.runs import find_runs
from tests.tiny import bert_folder, decoder_folder

TEXT = {"template": "pair", "max_length": 32}
GOOD: dict[str, Any] = {"format": 1, "text": TEXT, "fingerprint": "", "training": None}
DEEP = "[" * 100_000 + "]" * 100_000
TORN = {
    "empty": "", "half": json.dumps(GOOD)[:40], "null": "null", "list": "[]", "number": "3", "not UTF-8": "\udcff",
    "deep": DEEP, "deep inside": f'{{"format": 1, "fingerprint": "", "training": null, "text": {DEEP}}}',
}  # fmt: skip
WRONG: dict[str, Any] = {
    "format": "1", "text": None, "fingerprint": None, "training": [1], "quantised": "int8", "heads": "REWARD",
    "calibration": {"temperature": True}, "scored_token": "first", "padding_rows": -1,
}  # fmt: skip
WRONG_TEXT: dict[str, Any] = {
    "template": ["pair"], "max_length": "32", "labels": "no", "turn_strings": {"user": ["Q"]}, "token_types": {},
    "row_ends": 1,
}  # fmt: skip


def write(folder: Path, text: str) -> None:
    (folder / RECORD).write_bytes(text.encode(errors="surrogateescape"))


@pytest.mark.parametrize("kind", TORN)
def test_a_torn_record_is_one_error_that_names_the_file(kind: str, tmp_path: Path) -> None:
    write(tmp_path, TORN[kind])
    with pytest.raises(BadModel, match=RECORD) as raised:
        read_record(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", WRONG)
def test_a_record_with_a_wrong_value_is_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    write(tmp_path, json.dumps(GOOD))
    assert read_record(tmp_path) == ModelRecord(TEXT, "")
    write(tmp_path, json.dumps(GOOD | {name: WRONG[name]}))
    with pytest.raises(BadModel, match=name):
        read_record(tmp_path)


@pytest.mark.parametrize("name", WRONG_TEXT)
def test_text_settings_of_wrong_types_are_errors(name: str) -> None:
    assert TextSettings.from_json(TEXT) == TextSettings("pair", 32)
    with pytest.raises(BadModel):
        TextSettings.from_json(TEXT | {name: WRONG_TEXT[name]})


def test_settings_that_are_empty_are_not_taken_for_none(tmp_path: Path) -> None:
    """Such a folder was scored with the defaults of a plain checkpoint."""
    bert_folder(tmp_path)
    write(tmp_path, json.dumps(GOOD | {"text": {}}))
    with pytest.raises(BadModel, match=r"text\.template is missing"):
        RewardModel.load(tmp_path)


READERS: dict[str, Callable[[Path], object]] = {
    "load": RewardModel.load,
    "info": lambda folder: checkpoint_info(str(folder)),
    "settings": text_settings,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", TORN)
def test_every_reader_of_a_folder_says_that_its_record_is_torn(reader: str, kind: str, tmp_path: Path) -> None:
    write(bert_folder(tmp_path), TORN[kind])
    with pytest.raises(BadModel, match=RECORD):
        READERS[reader](tmp_path)


@pytest.mark.parametrize("kind", TORN)
def test_decoders_read_their_record_too(kind: str, tmp_path: Path) -> None:
    write(decoder_folder(tmp_path), TORN[kind])
    with pytest.raises(BadModel, match=RECORD):
        load_network(tmp_path)


def test_a_decoder_with_fewer_embeddings_than_its_record_counts_is_refused(tmp_path: Path) -> None:
    write_record(decoder_folder(tmp_path), ModelRecord(TEXT, "", padding_rows=420))
    with pytest.raises(BadModel, match="counts 420 padding_rows, but the model has 420 embeddings"):
        load_network(tmp_path)


def test_runs_with_a_record_nested_too_deeply_are_left_out_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "a" / "last").mkdir(parents=True)
    write(tmp_path / "a" / "last", DEEP)
    runs = find_runs([tmp_path])
    assert (runs.runs, [run.folder for run in runs.skipped]) == ([], [tmp_path / "a"])
    (tmp_path / "a" / "run.json").write_text(DEEP)
    shutil.rmtree(tmp_path / "a" / "last")
    assert "nested too deeply" in find_runs([tmp_path]).skipped[0].reason
