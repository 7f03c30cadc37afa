"""Data sets of a recipe whose columns have names of their own."""

import json
from pathlib import Path

import pytest

from prefrank.data import load_comparisons
from prefrank.errors import BadData, BadInput
from prefrank.training import dry_run, load_recipe, train
from prefrank.training.feed.corpus import read_corpus

NAMES = {"prompt": "question", "chosen": "out.good", "rejected": "out.bad", "system": "rules"}


def rows(name: str, count: int) -> list[dict]:
    return [
        {
            "rules": "Be terse.",
            "question": f"{name} {number}: what is yeast?",
            "out": {"good": f"good {number}", "bad": f"bad {number} bread"},
            "note": "unread",
        }
        for number in range(count)
    ]


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A training and an evaluation file in a layout that no reader knows."""
    paths = []
    for name, count in (("asked", 30), ("held", 8)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows(name, count)))
        paths.append(str(path))
    return paths[0], paths[1]


def test_columns_are_mapped_in_training_and_evaluation_sets(recipe, files):
    training, evaluation = ({"source": path, "columns": NAMES} for path in files)
    corpus = read_corpus(recipe(datasets=[training], evaluation=[evaluation]))
    assert corpus.training == load_comparisons(files[0], columns=NAMES).comparisons
    assert corpus.evaluation == {files[1]: load_comparisons(files[1], columns=NAMES).comparisons}
    first = corpus.training[0]
    assert [(turn.role, turn.text) for turn in first.prompt] == [
        ("system", "Be terse."),
        ("user", "asked 0: what is yeast?"),
    ]
    assert first.replies == ("good 0", "bad 0 bread")


def test_columns_are_mapped_where_the_set_is_divided_and_where_it_streams(recipe, files):
    mapped = {"source": files[0], "columns": NAMES}
    divided = read_corpus(recipe(datasets=[mapped]))
    assert len(divided.training) + sum(map(len, divided.evaluation.values())) == 30
    streamed = read_corpus(recipe(datasets=[mapped | {"stream": True}], evaluation=[], max_steps=3))
    drawn = {(comparison.prompt, comparison.replies) for comparison in streamed.streams[0].read(lambda why: None)}
    loaded = load_comparisons(files[0], columns=NAMES).comparisons
    assert drawn == {(comparison.prompt, comparison.replies) for comparison in loaded}


def test_a_run_trains_on_mapped_columns_and_resumes(recipe, files):
    keys = {"datasets": [{"source": files[0], "columns": NAMES}], "max_steps": 2}
    assert dry_run(recipe(**keys)).comparisons > 0
    assert train(recipe(**keys)).steps == 2
    assert train(recipe(**keys, resume=True)).steps == 2


def test_a_recipe_file_states_columns(files, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"model_name: m\nlearning_rate: 1\ndatasets:\n- source: {files[0]}\n  columns: {{prompt: question}}\n"
    )
    assert load_recipe(path).datasets[0].columns == {"prompt": "question"}


def test_a_column_that_is_not_there_is_named(recipe, files):
    with pytest.raises((BadData, BadInput), match="answer"):
        read_corpus(recipe(datasets=[{"source": files[0], "columns": NAMES | {"chosen": "answer"}}]))
