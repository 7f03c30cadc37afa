"""A temperature kept with the model: fitted, stored beside untouched weights, given, and never used unasked."""

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from prefrank import Comparison, Preference, RewardModel, Turn, win_probability
from prefrank.errors import BadInput, CannotWrite
from prefrank.evaluation.temperature_fit import calibrate, stored_temperature
from prefrank.model.record import read_record
from prefrank.scoring import checkpoint_info, temperature
from prefrank.scoring.quantise import quantise_folder
from prefrank.scoring.temperature import store_calibration

WORDS = ["mix", "flour", "water", "salt", "yeast", "dough", "hour", "rise", "bake", "bread", "home", "hello", "what"]


@pytest.fixture
def folder(model: RewardModel, tmp_path: Path) -> Path:
    return model.save(tmp_path / "saved")


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "prefrank.json"
    }


def comparisons_liked(model: RewardModel, temperature: float) -> list[Comparison]:
    """What people prefer whose opinion is the model's scores over a temperature."""
    random, comparisons = np.random.default_rng(0), []
    for number in range(250):
        prompt = (Turn("user", f"how {number} do I bake"),)
        replies = tuple(" ".join(random.choice(WORDS, 5)) + end for end in ("", " now"))
        first, second = (score.value for score in model.score(prompt, replies))
        winner = int(random.random() > 1 / (1 + math.exp(-(first - second) / temperature)))
        comparisons.append(Comparison(prompt, replies, (Preference(winner, 1 - winner),), "made", str(number)))
    return comparisons


def test_calibrating_stores_a_temperature_and_leaves_weights_and_fingerprint(folder: Path) -> None:
    model = RewardModel.load(folder)
    before, record = hashes(folder), read_record(folder)
    data = comparisons_liked(model, 0.4)
    facts = calibrate(folder, data, fitted_on="made up")
    assert facts["temperature"] == pytest.approx(0.4, rel=0.5)
    assert facts["scaled_log_loss"] < facts["log_loss"]
    assert (facts["fitted_on"], facts["pairs"], facts["prompts"]) == ("made up", 250, 250)
    assert facts["model"] == model.fingerprint
    assert len(facts["data"]) == 64
    assert hashes(folder) == before
    after = read_record(folder)
    assert (after.fingerprint, after.text, after.training) == (record.fingerprint, record.text, record.training)
    again = RewardModel.load(folder)
    assert again.calibration == facts
    assert again.fingerprint == model.fingerprint
    assert stored_temperature(again.calibration).value == facts["temperature"]
    assert checkpoint_info(str(folder))["calibration"] == facts


def test_saving_keeps_the_calibration(folder: Path, tmp_path: Path) -> None:
    model = RewardModel.load(folder)
    facts = {"temperature": 1.5, "model": model.fingerprint}
    store_calibration(folder, facts)
    RewardModel.load(folder).save(tmp_path / "copy")
    assert RewardModel.load(tmp_path / "copy").calibration == facts
    RewardModel.load(folder).save(folder)
    assert RewardModel.load(folder).calibration == facts


def test_a_calibration_is_given_for_the_scores_it_was_fitted_on_alone(folder: Path) -> None:
    store_calibration(folder, {"temperature": 1.5, "model": RewardModel.load(folder).fingerprint})
    assert RewardModel.load(folder).calibration is not None
    assert RewardModel.load(folder, max_length=64).calibration is None


def test_a_calibration_of_rendered_texts_is_for_such_texts_alone(folder: Path) -> None:
    data = comparisons_liked(RewardModel.load(folder), 0.4)
    facts = calibrate(folder, data, fitted_on="made up", pre_rendered=True)
    assert RewardModel.load(folder, pre_rendered=True).calibration == facts
    assert RewardModel.load(folder).calibration is None
    assert "pre_rendered" not in calibrate(folder, data, fitted_on="made up")
    assert RewardModel.load(folder, pre_rendered=True).calibration is None


def test_a_calibration_with_no_more_than_it_needs_is_read() -> None:
    assert stored_temperature({"temperature": 1.5, "model": ""}).value == 1.5


def test_a_temperature_is_for_texts_read_and_blank_replies_scored_as_when_it_was_fitted(folder: Path) -> None:
    facts = {"temperature": 1.5, "model": RewardModel.load(folder).fingerprint}
    store_calibration(folder, facts)
    assert RewardModel.load(folder, pre_rendered=True).calibration is None
    assert RewardModel.load(folder, empty_score=-4.0).calibration is None
    store_calibration(folder, facts | {"pre_rendered": True, "empty_score": -4.0})
    assert RewardModel.load(folder).calibration is None
    assert RewardModel.load(folder, pre_rendered=True, empty_score=-3.0).calibration is None
    assert RewardModel.load(folder, pre_rendered=True, empty_score=-4.0).calibration is not None


def test_a_quantised_folder_has_a_calibration_of_its_own(folder: Path, tmp_path: Path) -> None:
    store_calibration(folder, {"temperature": 1.5, "model": RewardModel.load(folder).fingerprint})
    quantise_folder(folder, tmp_path / "int16", "int16", num_rows=20, force=True)
    small = RewardModel.load(tmp_path / "int16")
    assert small.calibration is None
    store_calibration(tmp_path / "int16", {"temperature": 1.6, "model": small.fingerprint})
    assert RewardModel.load(tmp_path / "int16").calibration["temperature"] == 1.6
    assert read_record(tmp_path / "int16").quantised["precision"] == "int16"
    assert RewardModel.load(folder).calibration["temperature"] == 1.5


def test_a_record_without_a_calibration_still_reads(folder: Path) -> None:
    assert "calibration" not in json.loads((folder / "prefrank.json").read_text())
    assert read_record(folder).calibration is None
    assert RewardModel.load(folder).calibration is None


def test_a_plain_checkpoint_is_to_be_saved_first(plain_folder: Path) -> None:
    with pytest.raises(BadInput, match=r"is not a folder with prefrank.json.*save a copy first"):
        calibrate(
            plain_folder,
            [Comparison((Turn("user", "a"),), ("b", "c"), (Preference(0, 1),), "made", "1")],
            fitted_on="one pair",
        )
    with pytest.raises(BadInput, match=r"minilm is not a folder with prefrank\.json"):
        store_calibration("minilm", {"temperature": 1.0, "model": ""})


def test_the_hubs_cache_is_not_written_into(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temperature, "resolve_model", lambda name: folder)  # a model of the hub with its prefrank.json
    with pytest.raises(BadInput, match="owner/name is not a folder"):
        store_calibration("owner/name", {"temperature": 1.0, "model": ""})


def test_a_checkpoint_to_resume_from_stays_as_it_is(folder: Path) -> None:
    (folder / "state").mkdir()
    with pytest.raises(BadInput, match="a checkpoint to resume training from"):
        store_calibration(folder, {"temperature": 1.0, "model": ""})


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_is_a_number_above_0(folder: Path, model: RewardModel, temperature: float) -> None:
    with pytest.raises(BadInput, match="wanted a finite number above 0"):
        store_calibration(folder, {"temperature": temperature, "model": ""})
    first, second = model.score("how do I bake bread", ["mix flour", "what?"])
    with pytest.raises(BadInput, match="wanted a finite number above 0"):
        win_probability(first, second, temperature=temperature)


def test_a_full_disk_leaves_the_record_that_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, names = (folder / "prefrank.json").read_bytes(), sorted(path.name for path in folder.iterdir())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match=r"prefrank.json: the disk is full"):
        store_calibration(folder, {"temperature": 1.5, "model": ""})
    assert (folder / "prefrank.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == names


def test_win_probability_takes_a_temperature_and_uses_none_unasked(folder: Path) -> None:
    store_calibration(folder, {"temperature": 0.1, "model": RewardModel.load(folder).fingerprint})
    first, second = RewardModel.load(folder).score("how do I bake bread", ["mix flour water", "what?"])
    margin = first.value - second.value
    assert win_probability(first, second) == pytest.approx(1 / (1 + math.exp(-margin)))
    assert win_probability(first, second, temperature=0.1) == pytest.approx(1 / (1 + math.exp(-margin / 0.1)))
