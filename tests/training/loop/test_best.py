from dataclasses import replace
from typing import Any

import pytest
import torch

from prefrank import RewardModel
from prefrank.errors import BadData, BadRecipe
from prefrank.training import train
from prefrank.training.loop.best import check_best, judged
from prefrank.training.loop.measure import measure, pool
from prefrank.training.records.events import EvaluationDone, Event, SetMetrics
from prefrank.training.records.run_checkpoints import Progress
from tests.training.conftest import make_comparisons, write_jsonl


def two_sets(tmp_path: Any) -> list[str]:
    return [
        str(write_jsonl(tmp_path / f"{name}.jsonl", make_comparisons(20, seed=seed)))
        for name, seed in (("one", 1), ("two", 2))
    ]


def test_a_named_set_may_choose_the_best(recipe, tmp_path):
    """The two sets disagree about which evaluation is best; each run follows its own."""
    events: dict[str, list[Event]] = {}
    one, two = [f"{path}:train" for path in two_sets(tmp_path)]

    def evaluate(score: Any, sets: Any) -> dict[str, SetMetrics]:
        calls.append(0)
        signs = {one: len(calls), two: -len(calls)}
        return {
            name: measure(signs[name] * torch.arange(len(each.reply_starts)).neg().float(), each)
            for name, each in sets.items()
        }

    for name in (one, two):
        calls: list[int] = []
        events[name] = []
        trained = train(
            recipe(
                evaluation=[{"source": path.removesuffix(":train"), "split": "train"} for path in (one, two)],
                best_set=name,
                eval_steps=2,
                output_dir=str(tmp_path / str(len(events))),
            ),
            callback=events[name].append,
            evaluate=evaluate,
        )
        evaluations = [each for each in events[name] if isinstance(each, EvaluationDone)]
        least = min(evaluations, key=lambda each: each.sets[name].log_loss)
        assert trained.best is not None
        record = RewardModel.load(trained.best).training
        assert record is not None
        assert record["step"] == least.step
    assert [each.best for each in events[one] if isinstance(each, EvaluationDone)] == [True] * 4
    assert [each.best for each in events[two] if isinstance(each, EvaluationDone)] == [True] + [False] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"best_set": "nothing"}, "best_set is 'nothing', which is not an evaluation set of this run; known: "),
        ({"best_set": "x", "evaluation": []}, "best_set is 'x', .*; there is none"),
    ],
)
def test_a_best_that_nothing_can_choose_is_refused_before_the_first_step(recipe, changes, message, tmp_path):
    with pytest.raises(BadRecipe, match=message):
        train(recipe(**changes))
    assert not list((tmp_path / "run").glob("*/model.safetensors"))


def test_two_averages_at_once_are_refused(recipe):
    with pytest.raises(BadRecipe, match=r"ema_decay is 0.9 and average_last 3; set one of them to 0"):
        recipe(ema_decay=0.9, average_last=3)


def test_early_stopping_counts_improvements_from_where_it_last_had_one():
    progress = Progress()
    values = [1.0, 0.96, 0.93, 0.89, 0.95, 0.88]
    seen = []
    for value in values:
        better = progress.judge(value, 0.1)
        seen.append((better, progress.best, progress.waited))
    assert seen == [
        (True, 1.0, 0),
        (True, 0.96, 1),
        (True, 0.93, 2),
        (True, 0.89, 0),  # 0.11 under the first, though each gain alone is too small
        (False, 0.89, 1),
        (True, 0.88, 2),
    ]


def test_without_a_least_improvement_any_better_value_resets_the_wait():
    progress = Progress()
    assert [(progress.judge(value, 0.0), progress.waited) for value in (1.0, 1.0, 0.999)] == [
        (True, 0),
        (False, 1),
        (True, 0),
    ]


def test_a_resumed_run_notices_other_evaluation_data(recipe, tmp_path):
    held_out = write_jsonl(tmp_path / "held-out.jsonl", make_comparisons(12, seed=5))
    keys = {"evaluation": [{"source": str(held_out), "split": "train"}]}
    train(recipe(**keys))
    write_jsonl(held_out, make_comparisons(12, seed=6))
    with pytest.raises(BadData, match="the evaluation data are not those the run was started with"):
        train(recipe(resume=True, **keys))


def test_snapshots_of_the_weights_keep_their_steps_when_resumed(recipe):
    train(recipe(average_last=2))
    with pytest.raises(BadRecipe, match="eval_steps is 3 but the run"):
        train(recipe(average_last=2, resume=True, eval_steps=3))


def test_a_resumed_run_keeps_its_notion_of_the_best(recipe):
    train(recipe())
    for changes in ({"best_metric": "accuracy"}, {"early_stop": 5}, {"early_stop_improvement": 0.1}):
        with pytest.raises(BadRecipe, match="a resumed run keeps its recipe"):
            train(recipe(resume=True, **changes))


def test_a_set_of_several_heads_is_judged_by_all_of_them_and_a_head_by_itself(recipe):
    def metrics(accuracy: float, comparisons: int) -> SetMetrics:
        return SetMetrics(comparisons, comparisons, comparisons, 0, accuracy, (0.0, 1.0), 1.0 - accuracy)

    found = {"a/x": metrics(0.2, 10), "a/y": metrics(0.8, 30), "ab/x": metrics(1.0, 50)}
    assert judged(recipe(best_set="a"), found).accuracy == pytest.approx(0.65)
    assert judged(recipe(best_set="a/x"), found).accuracy == pytest.approx(0.2)
    assert judged(recipe(), found).comparisons == 90
    check_best(recipe(best_set="a/x", heads=["x", "y"]), ["a", "ab"])
    with pytest.raises(BadRecipe, match="did you mean 'a/"):
        check_best(recipe(best_set="a/z", heads=["x", "y"]), ["a"])


def test_the_log_loss_has_an_interval_that_pooling_combines():
    """Half widths 0.2 and 0.1 of 10 and 30 comparisons: hypot(2, 3) / 40."""
    sets = [
        SetMetrics(10, 10, 10, 0, 0.5, (0.0, 1.0), 0.6, (0.4, 0.8)),
        SetMetrics(30, 30, 30, 0, 0.5, (0.0, 1.0), 0.2, (0.1, 0.3)),
    ]
    half = 13**0.5 / 40
    assert pool(sets).log_loss_interval == pytest.approx((0.3 - half, 0.3 + half))
    assert pool([replace(sets[0], log_loss_interval=None), sets[1]]).log_loss_interval is None
