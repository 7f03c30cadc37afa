"""The text settings of a run: inherited from a model of ours, changed by what the recipe states, and saved."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prefrank.errors import BadRecipe
from prefrank.model.record import ModelRecord, read_record, write_record
from prefrank.text import TextEncoder, TextSettings
from prefrank.training import dry_run, train
from prefrank.training.start import load_text
from tests.tiny import decoder_folder

STRINGS = {"system": ("S> ", "\n"), "user": ("Q> ", "\n"), "assistant": ("A> ", "{eos}")}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder that prefrank trained with turn strings of its own, on rows of 48 tokens."""
    folder = decoder_folder(tmp_path_factory.mktemp("decoder"))
    write_record(folder, ModelRecord(TextSettings("turns", 48, turn_strings=STRINGS).to_json(), ""))
    return folder


def saved(folder: Path) -> dict:
    record = read_record(folder)
    assert record is not None
    return record.text


def test_a_run_on_a_plain_checkpoint_has_the_defaults_that_it_is_scored_with(recipe, bert, tmp_path):
    assert load_text(recipe(max_length=None), bert).settings == TextSettings("pair", 512)
    assert load_text(recipe(max_length=None), bert, positions=128).settings == TextSettings("pair", 128)
    plain = decoder_folder(tmp_path)
    for positions, length in ((256, 256), (2048, 2048), (131_072, 4096), (None, 512)):
        settings = load_text(recipe(max_length=None), plain, positions=positions).settings
        assert settings == TextEncoder.load(plain, positions=positions).settings
        assert settings.max_length == length
    assert saved(train(recipe(max_length=None, max_steps=1)).last)["max_length"] == 128


def test_a_run_that_goes_on_from_a_model_of_ours_keeps_its_text_settings(recipe, tmp_path):
    first = train(recipe(turns="labels", max_length=40, max_steps=1, output_dir=str(tmp_path / "first"))).last
    kept = train(recipe(model_name=str(first), max_length=None, max_steps=1)).last
    assert saved(kept) == saved(first)
    assert (saved(kept)["labels"], saved(kept)["max_length"]) == (True, 40)


def test_an_adapter_without_a_record_has_the_settings_of_its_base(recipe, tmp_path):
    keys = {"turns": "labels", "max_length": 40, "max_steps": 1}
    first = train(recipe(output_dir=str(tmp_path / "first"), **keys)).last
    adapter = train(recipe(model_name=str(first), max_length=None, max_steps=1, lora_rank=2)).last / "adapter"
    (adapter / "prefrank.json").unlink()
    assert load_text(recipe(max_length=None), adapter).settings == TextSettings.from_json(saved(first))


def test_turn_strings_are_inherited_too(recipe, decoder):
    trained = train(recipe(model_name=str(decoder), max_length=None, max_steps=1)).last
    assert TextSettings.from_json(saved(trained)) == TextSettings("turns", 48, turn_strings=STRINGS)
    ours, theirs = (TextEncoder.load(folder, TextSettings.from_json(saved(folder))) for folder in (trained, decoder))
    assert ours.fingerprint_bytes() == theirs.fingerprint_bytes()


@pytest.mark.parametrize(
    ("stated", "change"),
    [
        ({"turns": "separator"}, {"labels": False}),
        ({"max_length": 24}, {"max_length": 24}),
        ({"turns": "labels", "max_length": 512}, {"max_length": 512}),
    ],
)
def test_what_the_recipe_states_wins_and_the_rest_stays(recipe, bert, tmp_path, stated, change):
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((bert / name).read_bytes())
    before = TextSettings("pair", 40, labels=True)
    write_record(tmp_path, ModelRecord(before.to_json(), ""))
    keys = {"max_length": None} | stated
    assert load_text(recipe(model_name=str(tmp_path), **keys), tmp_path).settings == replace(before, **change)


def test_labels_are_refused_where_the_model_marks_turns_its_own_way(recipe, decoder):
    with pytest.raises(BadRecipe, match=r"turns is labels, but .* marks turns its own way; leave turns out"):
        load_text(recipe(model_name=str(decoder), turns="labels"), decoder)


def test_a_resumed_run_keeps_the_settings_that_it_was_started_with(recipe, tmp_path):
    first = train(recipe(turns="labels", max_length=40, max_steps=1, output_dir=str(tmp_path / "first"))).last
    keys = {"model_name": str(first), "max_length": None, "max_steps": 4, "save_steps": 2}
    straight = train(recipe(**keys)).last
    shutil_last = straight.rename(tmp_path / "gone")
    again = train(recipe(resume=True, **keys)).last
    assert saved(again) == saved(shutil_last) == saved(first)
    with pytest.raises(BadRecipe, match=r"max_length is 24 but the run in .* was started with None"):
        train(recipe(resume=True, **keys | {"max_length": 24}))


def test_a_run_of_an_earlier_version_whose_record_states_the_defaults_resumes(recipe, tmp_path):
    keys = {"max_length": None, "max_steps": 4, "save_steps": 2}
    path = train(recipe(**keys)).last / "prefrank.json"
    record = json.loads(path.read_text())
    record["training"]["recipe"] |= {"max_length": 128, "turns": "separator"}
    path.write_text(json.dumps(record))
    files = path.parent / "state" / "files.json"
    files.write_text(json.dumps({k: v for k, v in json.loads(files.read_text()).items() if k != "prefrank.json"}))
    assert train(recipe(resume=True, **keys)).steps == 4


def test_the_dry_run_goes_by_the_inherited_length(recipe, decoder):
    estimate = dry_run(recipe(model_name=str(decoder), max_length=None, max_steps=1))
    assert max(edge for edge, _ in estimate.histogram) <= 48
