"""What a run reads of each data set, and what it says about it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from prefrank.cli import progress, tables
from prefrank.data import load_comparisons
from prefrank.errors import BadRecipe
from prefrank.training import dry_run, make_recipe, train
from prefrank.training.feed.corpus import read_corpus
from prefrank.training.feed.splits import WHOLE
from prefrank.training.records.events import DataRead
from prefrank.types import Comparison, Turn
from tests.training.conftest import make_comparisons, write_jsonl

HELD = "it has no published split: one prompt in 5 held out for evaluation"


def of(name: str, count: int) -> tuple[Comparison, ...]:
    """Comparisons whose prompts no other name shares."""
    return tuple(
        replace(comparison, prompt=(Turn("user", f"{name} {comparison.prompt[0].text}"),))
        for comparison in make_comparisons(count, seed=len(name))
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A training and an evaluation file, neither with a published split."""
    names = {"train.jsonl": of("asked", 30), "eval.jsonl": of("held", 12)}
    return tuple(str(write_jsonl(tmp_path / name, rows)) for name, rows in names.items())


def rules(corpus) -> dict[str, tuple[str, int]]:
    return {entry["name"]: (entry["rule"], entry["held_out"]) for entry in corpus.record}


def test_with_evaluation_sets_named_both_files_are_read_whole(recipe, files):
    training, evaluation = files
    corpus = read_corpus(recipe(datasets=training, evaluation=[evaluation]))
    assert len(corpus.training) == 30
    assert {name: len(comparisons) for name, comparisons in corpus.evaluation.items()} == {evaluation: 12}
    assert rules(corpus) == {training: (WHOLE, 0), evaluation: (WHOLE, 0)}


def test_without_evaluation_sets_one_prompt_in_five_is_held_out_and_said(recipe, files):
    training, _ = files
    corpus = read_corpus(recipe(datasets=training))
    kept, held = len(corpus.training), len(corpus.evaluation[f"{training}:validation"])
    assert kept + held == 30
    assert held > 0
    assert rules(corpus) == {f"{training}:train": (HELD, held), f"{training}:validation": (HELD, kept)}


@pytest.mark.parametrize("none", [[], "none"])
def test_evaluation_on_nothing_holds_nothing_out(recipe, files, none):
    assert len(read_corpus(recipe(datasets=files[0], evaluation=none)).training) == 30


def test_a_file_that_serves_both_purposes_is_divided_by_prompt(recipe, files, tmp_path):
    training, _ = files
    (tmp_path / "sub").mkdir()
    for same in (training, f"{tmp_path}/sub/../train.jsonl"):
        corpus = read_corpus(recipe(datasets=training, evaluation=[same]))
        assert corpus.training == load_comparisons(training, split="train").comparisons
        assert corpus.evaluation == {f"{same}:validation": load_comparisons(training, split="validation").comparisons}


def test_a_stated_split_is_kept_whichever_way_it_is_written(recipe, files):
    training, evaluation = files
    expected = load_comparisons(training, split="train").comparisons
    for stated in ({"source": training, "split": "train"}, f"{training}:train", {"source": f"{training}:train"}):
        corpus = read_corpus(recipe(datasets=[stated], evaluation=[f"{evaluation}:validation"]))
        assert corpus.training == expected
        assert corpus.evaluation[f"{evaluation}:validation"]
        assert rules(corpus)[f"{training}:train"] == (f"the split train, as stated; {HELD}", 30 - len(expected))


def test_a_split_that_is_named_twice_differently_is_refused():
    least = {"model_name": "m", "learning_rate": 1e-5}
    with pytest.raises(BadRecipe, match="names the split test, and split is train; keep one"):
        make_recipe(least | {"datasets": [{"source": "hh:test", "split": "train"}]})
    with pytest.raises(BadRecipe, match="no split is called 'tset'; did you mean 'test'"):
        make_recipe(least | {"datasets": ["hh:tset"]})


def test_splits_that_files_name_are_kept(recipe, files, tmp_path):
    folder = tmp_path / "named"
    folder.mkdir()
    for split, count in (("train", 10), ("validation", 5), ("test", 4)):
        write_jsonl(folder / f"{split}.jsonl", of(split, count))
    corpus = read_corpus(recipe(datasets=[str(folder)], evaluation=[files[1], str(folder)]))
    sizes = {name: len(comparisons) for name, comparisons in corpus.evaluation.items()}
    assert (len(corpus.training), sizes) == (10, {files[1]: 12, f"{folder}:validation": 5})
    assert rules(corpus)[f"{folder}:train"] == ("its own split for training", 0)
    assert rules(corpus)[f"{folder}:validation"] == ("its own split for evaluation", 0)


def test_a_published_set_without_an_evaluation_split_is_trained_on_whole_but_evaluated_on_its_fifth(recipe, files):
    starter = load_comparisons("starter").comparisons
    corpus = read_corpus(recipe(datasets="starter", evaluation=[files[1]]))
    assert len(corpus.training) == len(starter)
    corpus = read_corpus(recipe(datasets=files[0], evaluation=["starter"]))
    assert len(corpus.training) == 30
    assert corpus.evaluation == {"starter:validation": load_comparisons("starter", split="eval").comparisons}
    both = read_corpus(recipe(datasets="starter", evaluation=["starter"]))
    assert both.training == load_comparisons("starter", split="train").comparisons


def test_a_protocol_that_says_how_a_set_is_divided_divides_it(recipe, files):
    training, evaluation = files
    stated = {"source": training, "protocol": "as_published"}
    corpus = read_corpus(recipe(datasets=[stated], evaluation=[evaluation]))
    assert len(corpus.training) == 24
    assert rules(corpus)[f"{training}:train"][1] == 6


def test_a_stream_of_files_without_a_split_is_read_whole(recipe, files):
    training, evaluation = files
    events: list[DataRead] = []
    keys = {"evaluation": [evaluation], "max_steps": 5}
    corpus = read_corpus(recipe(datasets=[{"source": training, "stream": True}], **keys), events.append)
    assert [(stream.name, stream.rule) for stream in corpus.streams] == [(training, WHOLE)]
    assert {comparison.prompt for comparison in corpus.streams[0].read(lambda why: None)} == {
        comparison.prompt for comparison in of("asked", 30)
    }
    assert (events[-1].name, events[-1].comparisons, events[-1].record) == (training, None, {"rule": WHOLE})
    assert corpus.notes() == [f"{training} streams: {WHOLE}"]
    stated = read_corpus(recipe(datasets=[{"source": f"{training}:train", "stream": True}], **keys))
    assert stated.streams[0].rule == f"the split train, as stated; {HELD}"


def test_what_is_held_out_is_said_on_the_screen_in_the_dry_run_and_in_the_record(recipe, files, capsys):
    training, evaluation = files
    made = recipe(datasets=training, max_steps=1)
    with progress.training() as report:
        trained = train(made, callback=report)
    said = " ".join(capsys.readouterr().err.split())
    record = json.loads((trained.last / "prefrank.json").read_text())["training"]["data"]["read"]
    held = record[0]["held_out"]
    assert held > 0
    assert record[0]["rule"] == HELD
    assert f"{HELD} ({held} in the other part)" in said
    shutil.rmtree(trained.last.parent)
    tables.dry_run(dry_run(made))
    assert f"{HELD} ({held} in the other part)" in " ".join(capsys.readouterr().err.split())
    tables.dry_run(dry_run(recipe(datasets=training, evaluation=[evaluation])))
    assert WHOLE in " ".join(capsys.readouterr().err.split())


def test_the_rule_names_the_files_that_are_not_read(recipe, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {n}?", "chosen": "Yes.", "rejected": "No."} for n in range(20)]
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("train", "more"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for stream in (False, True):
        source = {"source": str(folder), "stream": stream}
        corpus = read_corpus(recipe(datasets=[source], evaluation=[], max_steps=1))
        rule = corpus.streams[0].rule if stream else corpus.record[0]["rule"]
        assert rule.endswith("not read, since they are of no split, or no part of the published set: more.jsonl")
