import ast
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import prefrank.training
from prefrank.errors import BadRecipe, NotFound
from prefrank.training.recipe import DataSource, Recipe
from prefrank.training.recipe_file import load_recipe, load_sweep, make_recipe

ROOT = Path(prefrank.training.__file__).parent
RECIPES = Path(__file__).parents[2] / "recipes"
LEAST = {"model_name": "some/model", "datasets": ["webgpt"], "learning_rate": 1e-5}
CARD = """\
model_name: microsoft/deberta-v2-xxlarge
learning_rate: 2e-6
scheduler: cosine
gradient_checkpointing: false
gradient_accumulation_steps: 12
per_device_train_batch_size: 1
warmup_steps: 600
eval_steps: 1000000
per_device_eval_batch_size: 4
save_steps: 1000
max_length: 512
num_train_epochs: 2
datasets:
  - webgpt
  - hfsummary
  - anthropic_rlhf
  - oa_private
"""
"""The configuration on the card of the published DeBERTa-v2-xxlarge reward model."""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_the_model_cards_configuration_runs_unchanged(tmp_path):
    recipe = load_recipe(write(tmp_path, CARD))
    assert recipe.learning_rate == 2e-6
    assert [source.source for source in recipe.datasets] == ["webgpt", "hfsummary", "anthropic_rlhf", "oa_private"]
    assert recipe.prompts_per_update(8) == 96


def test_the_shipped_card_recipe_holds_the_cards_settings(tmp_path):
    card, ours = load_recipe(write(tmp_path, CARD)), load_recipe(RECIPES / "oa-deberta-v2-xxlarge.yaml")
    stated = [line.partition(":")[0] for line in CARD.splitlines() if not line.startswith(" ")]
    for key in set(stated) - {"datasets"}:
        assert getattr(ours, key) == getattr(card, key)
    assert [source.source for source in ours.datasets] == [source.source for source in card.datasets]
    assert ours.prompts_per_update(1) == 96


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path):
    assert load_recipe(path).num_train_epochs > 0


@pytest.mark.parametrize("text", ["2e-6", "2E-6", "2.0e-6", "+2e-6", "0.000002", "2.e-6"])
def test_numbers_in_powers_of_ten_are_numbers(tmp_path, text):
    path = write(tmp_path, f"model_name: m\ndatasets: a\nlearning_rate: {text}\n")
    assert load_recipe(path).learning_rate == 2e-6


def test_one_million_may_be_written_as_1e6(tmp_path):
    path = write(tmp_path, "model_name: m\ndatasets: a\nlearning_rate: 1\neval_steps: 1e6\n")
    assert load_recipe(path).eval_steps == 1_000_000


def test_names_that_look_like_numbers_in_part_stay_names(tmp_path):
    path = write(tmp_path, "model_name: 1e5b\ndatasets: [a]\nlearning_rate: 1\n")
    assert load_recipe(path).model_name == "1e5b"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learnig_rate": 1}, "there is no recipe key 'learnig_rate'; did you mean 'learning_rate'?"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast' (a string); wanted a number"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0 (a number); wanted greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan (a number); wanted a finite number"),
        ({"max_length": 1.5}, "max_length is 1.5 (a number); wanted an integer"),
        ({"max_length": True}, "max_length is true; wanted an integer"),
        ({"seed": None}, "seed is null; wanted an integer"),
        ({"datasets": None}, "datasets is null; wanted a list"),
        ({"datasets": []}, "datasets is empty; wanted at least one data set"),
        ({"datasets": [5]}, "datasets[0] is 5 (an integer); wanted a name or a mapping with the key source"),
        ({"datasets": [{"sorce": "a"}]}, "a data set has no option 'sorce'; did you mean 'source'?"),
        ({"datasets": ["a", {"source": "b", "weight": 0}]}, "[1].weight is 0 (an integer); wanted greater than 0"),
        ({"max_memory": 0}, "max_memory is 0 (an integer); wanted greater than 0"),
        ({"resume": "yes"}, "resume is 'yes' (a string); wanted true or false"),
        ({"trackers": ["wandbb"]}, "'tensorboard', 'wandb', 'trackio' or 'mlflow'; did you mean 'wandb'?"),
        (
            {"scheduler": "cosin"},
            "scheduler is 'cosin' (a string); wanted 'cosine', 'linear' or 'constant'; did you mean 'cosine'?",
        ),
        ({"bf16": "off"}, "bf16 is 'off' (a string); wanted true, false or 'auto'"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_with_what_came_and_what_was_wanted(changes, message):
    with pytest.raises(BadRecipe) as caught:
        make_recipe(LEAST | changes)
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("question", "[0].columns is 'question' (a string); wanted a mapping"),
        ({"prompt": 3}, ".columns.prompt is 3 (an integer); wanted a string"),
        ({"prompt": ""}, "columns gives prompt no name; wanted NAME: COLUMN, such as prompt: question"),
        ({}, "columns is empty; wanted NAME: COLUMN, or leave it out"),
    ],
)
def test_columns_that_name_nothing_are_refused(columns, message):
    with pytest.raises(BadRecipe) as caught:
        make_recipe(LEAST | {"datasets": [{"source": "a", "columns": columns}]})
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize("key", ["model_name", "datasets", "learning_rate"])
def test_what_has_no_honest_default_must_be_given(key):
    with pytest.raises(BadRecipe, match=f"{key} is missing; wanted: "):
        make_recipe({name: value for name, value in LEAST.items() if name != key})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nlearnig_rate: 2\n", "recipe.yaml, line 1: there is no recipe key 'a'"),
        ("model_name: m\nseed: x\n", "recipe.yaml, line 2: seed is 'x' (a string)"),
        ("model_name: m\nmodel_name: n\n", "recipe.yaml, line 2: model_name already stands in line 1; keep one"),
        ("datasets:\n- source: a\n  limit: 1\n  limit: 2\n", "line 4: limit already stands in line 3"),
        ("model_name: [m\n", "recipe.yaml, line 2: not YAML: "),
        ("model_name: m\n\tseed: 1\n", "recipe.yaml, line 2: not YAML: "),
        ("- a\n- b\n", "recipe.yaml holds ['a', 'b'] (a list); wanted `key: value` lines"),
        ("", "recipe.yaml holds null; wanted `key: value` lines"),
        ("just text\n", "recipe.yaml holds 'just text' (a string)"),
        ("5: 1\n", "recipe.yaml, line 1: not YAML: a key is '5'; wanted a name"),
        ("model_name: !!python/object:os.system x\n", "not YAML: the tag 'tag:yaml.org,2002:python/object"),
        ("? [a]\n: 1\n", "not YAML: "),
    ],
)
def test_errors_in_a_file_name_the_file_and_the_line(tmp_path, text, message):
    with pytest.raises(BadRecipe) as caught:
        load_recipe(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_and_one_that_is_no_text_say_so(tmp_path):
    with pytest.raises(NotFound, match="there is no recipe"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "zip.yaml").write_bytes(b"PK\x03\x04\xff\xfe\x00")
    with pytest.raises(BadRecipe, match="is not UTF-8 text"):
        load_recipe(tmp_path / "zip.yaml")
    with pytest.raises(BadRecipe, match="is a folder; wanted a plain file"):
        load_recipe(tmp_path)


def test_overrides_win_and_are_read_as_yaml(tmp_path):
    overrides = ["learning_rate=3e-5", "datasets=[a, {source: b, limit: 7}]", "dropout=null", "model_name=a=b"]
    recipe = load_recipe(write(tmp_path, CARD), overrides)
    assert recipe.learning_rate == 3e-5
    assert recipe.datasets == (DataSource(source="a"), DataSource(source="b", limit=7))
    assert recipe.dropout is None
    assert recipe.model_name == "a=b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning_rate", "--set 'learning_rate' has no '='; wanted key=value"),
        ("lerning_rate=1", "--set: there is no recipe key 'lerning_rate'; did you mean 'learning_rate'?"),
        ("learning_rate=x", "--set: learning_rate is 'x' (a string); wanted a number"),
        ("datasets=[a", "--set datasets=[a, line 1: not YAML"),
    ],
)
def test_a_bad_override_is_named_as_one(tmp_path, override, message):
    with pytest.raises(BadRecipe) as caught:
        load_recipe(write(tmp_path, CARD), [override])
    assert str(caught.value).startswith(message)


def test_a_recipe_does_not_change():
    with pytest.raises(ValidationError):
        make_recipe(LEAST).learning_rate = 1.0


def test_a_recipe_survives_its_own_json():
    recipe = make_recipe(LEAST | {"trackers": "none", "datasets": ["a", {"source": "b", "group": True}]})
    assert make_recipe(recipe.model_dump(mode="json")) == recipe


def test_devices_of_the_recipe_take_the_place_of_those_of_the_run():
    batch = LEAST | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
    assert make_recipe(batch).prompts_per_update(4) == 24
    assert make_recipe(batch | {"num_devices": 8}).prompts_per_update(1) == 48


@pytest.mark.parametrize("model", [Recipe, DataSource])
def test_every_field_is_documented(model):
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    for name, field in model.model_fields.items():
        assert field.description, f"{name} has no description"
        assert f"`{name}`" in page, f"docs/recipes.md says nothing of {name}"
        assert field.description in page, f"docs/recipes.md says something else of {name} than {field.description!r}"


def test_every_field_is_read_by_the_training_code():
    """The first implementation let `scheduler: cosine` stand in its files and read it nowhere."""
    read: dict[str, set[str]] = {"recipe": set(), "source": set()}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                owner = node.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if name == "self" and path.name == "recipe.py":
                    name = "recipe"  # its own derived values
                if name in read:
                    read[name].add(node.attr)
    assert set(Recipe.model_fields) - read["recipe"] == set()
    assert set(DataSource.model_fields) - read["source"] == set()


ODD = [
    ({"seed": 2**32}, "seed is 4294967296 (an integer); wanted less than or equal to 4294967295"),
    ({"seed": 2**63}, "wanted less than or equal to"),
    ({"seed": -1}, "seed is -1 (an integer); wanted greater than or equal to 0"),
    ({"seed": True}, "seed is true; wanted an integer"),
    ({"output_dir": ""}, "output_dir: '' is not a name"),
    ({"output_dir": " "}, "output_dir: ' ' is not a name"),
    ({"output_dir": "a\0b"}, "output_dir: 'a\\x00b' holds the control character"),
    ({"output_dir": "a\nb"}, "holds the control character"),
    ({"model_name": "\x1b[2J"}, "model_name: '\\x1b[2J' holds the control character"),
    ({"model_name": ""}, "model_name: '' is not a name"),
    ({"datasets": [""]}, "datasets[0].source: '' is not a name"),
    ({"datasets": ["a\x07"]}, "holds the control character"),
    ({"heads": ["a\nb"]}, "heads[0]: 'a\\nb' holds the control character"),
    ({"best_set": ""}, "best_set: '' is not a name"),
    ({"learning_rate": float("inf")}, "wanted a finite number"),
    ({"learning_rate": 10**400}, "learning_rate is 1"),
    ({"learning_rate": 1e300}, "wanted at most 1e+30 in size"),
    ({"learning_rate": True}, "learning_rate is true; wanted a number"),
    ({"learning_rate": b"x" * 5000}, "(bytes); wanted a number"),
    ({"learning_rate": {"a": {"b": [1] * 5000}}}, "(a mapping); wanted a number"),
    ({"rating_offset": -1e300}, "wanted at most 1e+30 in size"),
    ({"num_train_epochs": 1e18}, "wanted less than or equal to 10000"),
    ({"per_device_train_batch_size": 2**63}, "wanted less than or equal to 1000000000000"),
    ({"eval_steps": 1e300}, "eval_steps is 1"),
    ({"eval_steps": float("inf")}, "eval_steps is inf (a number); wanted"),
    ({"eval_steps": float("nan")}, "eval_steps is nan (a number); wanted"),
    ({"margin": -1.0}, "margin is -1.0 (a number); wanted greater than or equal to 0"),
    ({"label_smoothing": 0.6}, "wanted less than or equal to 0.5"),
    ({"datasets": [{"source": "a", "fraction": 1.5}]}, "wanted less than or equal to 1"),
    ({"max_memory": 1e31}, "max_memory"),
    ({"lora_rank": 10**9}, "wanted less than or equal to 16384"),
    ({"max_memory": float("nan")}, "max_memory"),
    ({"trackers": "x" * 10_000}, "trackers[0] is 'xxx"),
    ({"datasets": "x" * 10_000 + "\n"}, "holds the control character"),
    ({"x" * 10_000: 1}, "there is no recipe key 'xxx"),
    ({"datasets": [{"source": "a", "y" * 10_000: 1}]}, "a data set has no option 'yyy"),
    ({"scheduler": [[[[1]]]] * 9}, "(a list); wanted"),
    ({"datasets": [{"source": "a", "share": 10**5000}]}, "share is ... (an integer)"),
]


@pytest.mark.parametrize(("changes", "message"), ODD, ids=[str(number) for number in range(len(ODD))])
def test_odd_values_are_one_short_line(changes, message):
    with pytest.raises(BadRecipe) as caught:
        make_recipe(LEAST | changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).partition("; known: ")[0]) < 300


def test_values_that_hold_themselves_are_one_short_line():
    deep: list[Any] = []
    deep.append(deep)
    for key in ("datasets", "learning_rate", "heads", "columns"):
        with pytest.raises(BadRecipe):
            make_recipe(LEAST | {key: deep})
    nested: Any = 1
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(BadRecipe) as caught:
        make_recipe(LEAST | {"learning_rate": nested})
    assert len(str(caught.value)) < 200


def test_never_may_still_be_written_as_a_large_count():
    recipe = make_recipe(LEAST | {"eval_steps": 1e9, "save_steps": 1e12, "seed": 2**32 - 1, "learning_rate": 1e30})
    assert (recipe.eval_steps, recipe.save_steps) == (10**9, 10**12)


def test_a_sweep_of_too_many_runs_is_refused_before_it_is_made(tmp_path):
    path = write(tmp_path, "".join(f"k{n}: [{', '.join(map(str, range(100)))}]\n" for n in range(50)))
    with pytest.raises(BadRecipe, match="runs, more than 10,000 runs, which PREFRANK_MAX_SWEEP_RUNS may raise"):
        load_sweep(path)
    (tmp_path / "list.yaml").write_text("- seed: 1\n" * 10_001)
    with pytest.raises(BadRecipe, match="holds 10,001 runs"):
        load_sweep(tmp_path / "list.yaml")


@pytest.mark.parametrize(
    "override", ["seed=4294967296", "output_dir=''", 'output_dir="a\\0b"', "seed=&a [*a]", "\x1b=1"]
)
def test_odd_overrides_are_one_line_too(tmp_path, override):
    with pytest.raises(BadRecipe, match=r"^--set") as caught:
        load_recipe(write(tmp_path, CARD), [override])
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
