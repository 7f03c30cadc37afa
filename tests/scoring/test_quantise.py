"""Quantising a reward model: the figures it prints, the ones it refuses, the folder it writes."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prefrank import RewardModel
from prefrank.errors import BadInput, BadModel, PrefrankError
from prefrank.model.record import read_record
from prefrank.scoring import quantise as module
from prefrank.scoring.quantise import parity, quantise_folder
from tests.tiny import bert_folder

PROMPT, REPLIES = "how do I bake bread at home", ["mix flour water salt", "the dough needs an hour", "what?"]


def test_parity_figures_are_those_computed_by_hand() -> None:
    reference = np.array([0.0, 1.0, 2.0, 3.0])  # spread sqrt(5 / 4)
    scores = np.array([0.5, 0.25, 2.0, 3.0])  # the first two change places
    figures = parity(reference, scores, np.array([10, 20, 30, 40]))
    assert figures.rows == 4
    assert figures.spread == pytest.approx(1.25**0.5)
    assert figures.rms == pytest.approx(((0.5**2 + 0.75**2) / 4) ** 0.5)
    assert figures.rms_percent == pytest.approx(100 * figures.rms / 1.25**0.5)
    assert (figures.largest, figures.largest_tokens) == (0.75, 20)
    assert figures.largest_percent == pytest.approx(75 / 1.25**0.5)
    assert (figures.pairs, figures.flips_percent) == (6, pytest.approx(100 / 6))
    assert figures.spearman == pytest.approx(1 - 6 * 2 / (4 * 15))  # Spearman 1904: 1 - 6 sum(d^2) / (n (n^2 - 1))


def test_pairs_that_were_equal_do_not_count_and_pairs_that_become_equal_are_flips() -> None:
    figures = parity(np.array([1.0, 1.0, 2.0]), np.array([1.0, 1.5, 1.5]), np.array([1, 1, 1]))
    assert (figures.pairs, figures.flips_percent) == (2, 50)
    same = parity(np.array([1.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0]), np.array([1, 1, 1]))
    assert (same.flips_percent, same.rms, same.spearman) == (0, 0, pytest.approx(1))
    with pytest.raises(BadInput, match="gives all 2 rows the same score"):
        parity(np.ones(2), np.ones(2), np.array([1, 1]))


def test_a_quantised_folder_scores_like_its_original_and_carries_the_figures(
    plain_folder: Path, tmp_path: Path
) -> None:
    figures = quantise_folder(plain_folder, tmp_path / "int16", "int16", num_rows=40)
    assert figures.rows == 40
    assert 0 < figures.rms_percent < 0.5
    assert figures.spearman > 0.999
    original, model = RewardModel.load(plain_folder, device="cpu"), RewardModel.load(tmp_path / "int16", device="cpu")
    near = [score.value for score in original.score(PROMPT, REPLIES)]
    values = [score.value for score in model.score(PROMPT, REPLIES)]
    assert values != near
    assert values == pytest.approx(near, abs=1e-2)
    on_the_way = RewardModel.load(plain_folder, precision="int16", device="cpu")
    assert [score.value for score in on_the_way.score(PROMPT, REPLIES)] == values
    assert on_the_way.fingerprint == model.fingerprint != original.fingerprint
    record = read_record(tmp_path / "int16")
    assert record.fingerprint == model.fingerprint
    assert record.quantised == {
        "precision": "int16", "original": original.fingerprint, "data": "starter", "parity": figures.to_json(),
    }  # fmt: skip
    assert (tmp_path / "int16" / "quantised.safetensors").is_file()
    assert not (tmp_path / "int16" / "model.safetensors").exists()


def test_a_model_that_would_be_reordered_is_refused_unless_that_is_asked_for(
    plain_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadModel) as error:
        quantise_folder(plain_folder, tmp_path / "int8", "int8", num_rows=200)
    message = str(error.value)
    for part in ("int8 changes the order of", "of pairs and scores by", "(wanted at most 0.5 % and 1 %)",
                 "on 200 rows of starter; quantize to int16, or allow it with --max-flips or --force"):  # fmt: skip
        assert part in message
    assert os.listdir(tmp_path) == []
    with pytest.raises(BadModel, match=r"\(wanted at most 0.001 %\)"):
        quantise_folder(plain_folder, tmp_path / "int8", "int8", num_rows=200, max_flips=0.001)
    figures = quantise_folder(plain_folder, tmp_path / "int8", "int8", num_rows=200, max_flips=30.0)
    assert figures.rms_percent > 1
    assert figures.flips_percent > 0.5
    assert quantise_folder(plain_folder, tmp_path / "again", "int8", num_rows=200, force=True) == figures


def test_scores_may_not_move_far_even_where_no_order_changes(
    plain_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = quantise_folder(plain_folder, tmp_path / "near", "int16", num_rows=20)
    moved = replace(near, flips_percent=0.0, rms_percent=1.1)
    monkeypatch.setattr(module, "parity", lambda *_: moved)
    with pytest.raises(BadModel, match=r"order of 0 % of pairs and scores by 1.1 % of their spread .*; allow it with"):
        quantise_folder(plain_folder, tmp_path / "far", "int16", num_rows=20)
    assert quantise_folder(plain_folder, tmp_path / "far", "int16", num_rows=20, max_flips=0.5) == moved


def test_a_source_of_ones_own_decides(plain_folder: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": "what is yeast", "replies": [f"a fungus {n}", f"no idea {n}"], "ranks": [0, 1]} for n in range(5)
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = quantise_folder(plain_folder, tmp_path / "out", "int16", data=str(tmp_path / "own.jsonl"), force=True)
    assert figures.rows == 10
    assert read_record(tmp_path / "out").quantised["data"] == str(tmp_path / "own.jsonl")


def test_what_cannot_be_quantised_is_said_before_any_work(plain_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'int4' is not a precision to quantize to; did you mean 'int8'"):
        quantise_folder(plain_folder, tmp_path / "out", "int4")
    with pytest.raises(
        BadInput, match="holds the model itself, which would be replaced; give the name of a new folder"
    ):
        quantise_folder(plain_folder, plain_folder, "int16")
    with pytest.raises(BadInput, match="num_rows is 1; wanted a whole number of at least 2"):
        quantise_folder(plain_folder, tmp_path / "out", "int16", num_rows=1)
    quantise_folder(plain_folder, tmp_path / "int16", "int16", num_rows=10)
    with pytest.raises(BadModel, match="is quantized to int16, which only scores; load the float model it came from"):
        quantise_folder(tmp_path / "int16", tmp_path / "out", "int8", num_rows=10)
    assert os.listdir(tmp_path) == ["int16"]


@pytest.mark.parametrize("target", ["a\0b", "\ud800", "loop/x"], ids=ascii)
def test_a_target_that_can_be_no_folder_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(PrefrankError) as error:
        quantise_folder(bert_folder(tmp_path / "model"), target, "int16", num_rows=20, force=True)
    assert "\n" not in str(error.value)
