import json
from typing import Any

import pytest

from prefrank.errors import BadInput, BadRecipe, Interrupted, NotFound
from prefrank.training.recipe_file import RecipeValues, load_sweep
from prefrank.training.records.events import Event, Started, StepDone
from prefrank.training.tools.sweep import run_name, run_sweep


@pytest.fixture
def base(recipe, tmp_path) -> Any:
    def make(**changes: Any) -> RecipeValues:
        values = recipe(output_dir=str(tmp_path / "sweep")).model_dump(mode="json", exclude_unset=True)
        return RecipeValues(values | {"trackers": "none"} | changes, {}, "")

    return make


class Heard:
    """Counts the runs that started and their steps."""

    def __init__(self) -> None:
        self.runs, self.steps, self.titles = 0, 0, []

    def __call__(self, event: Event) -> None:
        self.runs += isinstance(event, Started)
        self.steps += isinstance(event, StepDone)

    def title(self, name: str, number: int, total: int) -> None:
        self.titles.append((name, number, total))


RATES = [{"learning_rate": 1e-3}, {"learning_rate": 1e30, "max_grad_norm": 0.0}, {"learning_rate": 1e-9}]


def test_a_sweep_goes_on_after_a_failure_ranks_its_runs_and_repeats_none(base, tmp_path):
    events = Heard()
    rows = run_sweep(base(num_train_epochs=3), RATES, callback=events, next_run=events.title)
    assert events.titles[0] == ("learning_rate=0.001", 1, 3)
    assert [row.changes["learning_rate"] for row in rows] == [1e-3, 1e-9, 1e30]  # the failure last
    good, bad, failed = rows
    assert good.run is not None
    assert bad.run is not None
    assert good.run.best.log_loss < bad.run.best.log_loss
    assert (good.error, bad.error, good.undecided) == (None, None, good.run.best.log_loss_interval is not None)
    assert "not finite" in failed.error
    assert failed.run.state == "failed"
    written = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert [row["name"] for row in written] == [row.name for row in rows]
    again = Heard()
    assert run_sweep(base(num_train_epochs=3), RATES, callback=again)[0].run.best == good.run.best
    assert again.titles == []
    assert again.runs == 1  # only the failed one is tried again


def test_a_stopped_sweep_resumes_its_run_and_then_the_rest(base):
    def stop(event: Event) -> None:
        events(event)
        if isinstance(event, StepDone) and events.steps == 9:
            raise KeyboardInterrupt

    events = Heard()
    seeds = [{"seed": seed} for seed in range(3)]
    with pytest.raises(Interrupted, match="stopped in its run seed=1; the same command goes on"):
        run_sweep(base(save_steps=2), seeds, callback=stop)
    rest = Heard()
    rows = run_sweep(base(save_steps=2), seeds, callback=rest)
    assert sorted(row.name for row in rows) == ["seed=0", "seed=1", "seed=2"]
    assert (rest.runs, rest.steps) == (2, 4 + 6)  # seed 1 from its checkpoint at step 2 of 6, seed 2 whole


def test_a_run_that_cannot_even_start_is_a_row_with_its_reason(base):
    rows = run_sweep(base(), [{"max_length": 999}, {"max_length": 64}])
    assert [row.name for row in rows] == ["max_length=64", "max_length=999"]
    assert rows[1].run is None
    assert "has positions for 128" in rows[1].error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            [{"learning_rte": 1.0}],
            "the sweep's run learning_rte=1.0: there is no recipe key 'learning_rte'; did you mean",
        ),
        ([{"seed": 1}, {"seed": 1}], "the sweep has the run seed=1 twice"),
        ([{"output_dir": "x"}], "the sweep changes output_dir"),
        ([{"loss": "bradley_terry"}, {"loss": "davidson"}], "the sweep changes loss, .*; set best_metric: accuracy"),
    ],
)
def test_changes_that_make_no_sweep_are_refused_before_the_first_run(base, changes, message, tmp_path):
    with pytest.raises(BadRecipe, match=message):
        run_sweep(base(), changes)
    assert not (tmp_path / "sweep").exists()


def test_several_processes_are_refused(base, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="a sweep runs in one process"):
        run_sweep(base(), [{"seed": 1}])


def test_a_mapping_is_a_grid_and_a_list_is_its_runs(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("learning_rate: [1e-5, 2e-5]\nseed: [0, 1]\n")
    assert load_sweep(path) == tuple({"learning_rate": rate, "seed": seed} for rate in (1e-5, 2e-5) for seed in (0, 1))
    path.write_text("- {learning_rate: 1e-5, seed: 1}\n- {datasets: [a, b]}\n")
    assert load_sweep(path) == ({"learning_rate": 1e-5, "seed": 1}, {"datasets": ["a", "b"]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\n", r"sweep.yaml: seed is 1 \(an integer\); wanted a list of its values"),
        ("seed: []\n", r"seed is \[\] \(a list\)"),
        ("- 1\n", "wanted `key: \\[values\\]` lines, or a list of mappings"),
        ("{}\n", "wanted `key: \\[values\\]` lines"),
        ("seed: [1]\nseed: [2]\n", "line 2: seed already stands in line 1"),
    ],
)
def test_a_sweep_that_cannot_be_read_says_what_was_wanted(tmp_path, text, message):
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(BadRecipe, match=message):
        load_sweep(tmp_path / "sweep.yaml")
    with pytest.raises(NotFound, match="there is no sweep"):
        load_sweep(tmp_path / "nothing.yaml")


def test_runs_are_named_by_their_values_in_names_any_disk_takes():
    assert run_name({"learning_rate": 1e-5, "seed": 1, "bf16": True, "top_k": None}) == (
        "learning_rate=1e-05,seed=1,bf16=true,top_k=null"
    )
    odd = run_name({"datasets": ["a/b", "c"]})
    assert "/" not in odd
    assert odd != run_name({"datasets": ["a_b", "c"]})
    assert all(len(run_name({"model_name": letter * 500}).encode()) < 120 for letter in "x字")
