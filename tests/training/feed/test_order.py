import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from prefrank.errors import BadRecipe
from prefrank.training import dry_run
from prefrank.training.feed.order import Order, count_steps, make_order
from prefrank.training.feed.pools import Pool, side_of
from prefrank.types import Comparison, Preference, Turn
from tests.training.conftest import make_comparisons, write_jsonl


def pool(first: int, size: int, *, prompts: int = 10**6, longer: float = 0.5, **options: Any) -> Pool:
    examples = np.arange(first, first + size)
    sides = np.where(np.arange(size) < longer * size, 1, -1)
    return Pool(f"set {first}", examples, examples % prompts, sides, **options)


def epochs_of(order: Order, count: int = 3) -> list[list[int]]:
    return [order.epoch(number).tolist() for number in range(count)]


def test_shares_divide_an_epoch_and_a_small_set_is_repeated_evenly():
    order = Order(120, per_step=8, seed=0, pools=[pool(0, 20, share=3.0), pool(20, 100, share=1.0)])
    for epoch in epochs_of(order):
        counts = Counter(epoch)
        assert len(epoch) == 120
        assert sum(n for number, n in counts.items() if number < 20) == 90
        assert {n for number, n in counts.items() if number < 20} == {4, 5}
        assert {n for number, n in counts.items() if number >= 20} == {1}
    parts = [{number for number in epoch if number >= 20} for epoch in epochs_of(order)]
    assert parts[0] != parts[1] != parts[2]


def test_shares_are_relative_and_rounding_loses_nothing():
    sizes = (7, 5, 11)
    pools = [
        pool(100 * i, size, share=share) for i, (size, share) in enumerate(zip(sizes, (0.1, 0.1, 0.1), strict=True))
    ]
    epoch = Order(23, per_step=4, seed=0, pools=pools).epoch(0)
    assert sorted(Counter((epoch // 100).tolist()).values()) == [7, 8, 8]


def test_samples_are_drawn_newly_each_epoch_and_may_exceed_the_set():
    order = Order(30, per_step=4, seed=0, pools=[pool(0, 20, samples=5), pool(20, 10, samples=25)])
    epochs = epochs_of(order)
    for epoch in epochs:
        assert sum(number < 20 for number in epoch) == 5
        assert set(Counter(number for number in epoch if number >= 20).values()) == {2, 3}
    assert len({frozenset(number for number in epoch if number < 20) for epoch in epochs}) == 3


def test_the_cap_leaves_so_many_of_each_prompt_and_every_one_its_turn():
    order = Order(40, per_step=4, seed=0, pools=[pool(0, 40, prompts=4, per_prompt=3)])
    seen: set[int] = set()
    for epoch in epochs_of(order, 20):
        assert Counter(number % 4 for number in epoch) == {0: 3, 1: 3, 2: 3, 3: 3}
        assert len(set(epoch)) == 12
        seen.update(epoch)
    assert seen == set(range(40))


def test_length_balance_draws_as_many_of_either_side_and_keeps_those_of_neither():
    one = pool(0, 30, longer=0.8, balanced=True)
    sides = np.concatenate([one.sides, np.zeros(5, np.int64)])
    one = Pool("set", np.arange(35), np.arange(35), sides, balanced=True)
    order = Order(35, per_step=4, seed=0, pools=[one])
    seen: set[int] = set()
    for epoch in epochs_of(order, 20):
        assert Counter(sides[epoch].tolist()) == {1: 6, -1: 6, 0: 5}
        seen.update(epoch)
    assert seen == set(range(35))


def test_a_balanced_set_is_balanced_in_any_number_of_samples():
    for samples in (7, 20, 60):
        epoch = Order(40, per_step=4, seed=0, pools=[pool(0, 40, longer=0.75, balanced=True, samples=samples)]).epoch(0)
        assert abs(int(np.where(epoch < 30, 1, -1).sum())) <= 1
        assert len(epoch) == samples


MIXED = {
    "shares": [{"share": 2.0}, {"share": 1.0}],
    "samples": [{"samples": 9}, {}],
    "a cap and balance": [{"per_prompt": 2, "balanced": True}, {"balanced": True}],
}


@pytest.mark.parametrize("options", MIXED.values(), ids=MIXED)
def test_a_step_is_a_function_of_seed_and_number_alone(options):
    def make(seed: int) -> Order:
        pools = [pool(0, 24, prompts=6, longer=0.7, **options[0]), pool(24, 30, longer=0.4, **options[1])]
        return Order(54, per_step=4, seed=seed, pools=pools)

    straight = make(0)
    steps = [straight.chosen(number) for number in range(40)]
    for number in (39, 0, 17, 18, 5):
        assert make(0).chosen(number) == steps[number]
        assert straight.chosen(number) == steps[number]
    assert make(1).chosen(0) != steps[0]
    # steps are the epochs, cut
    joined = [number for step in steps[: straight.steps(2.0)] for number in step]
    assert joined == [number for epoch in epochs_of(straight, 2) for number in epoch]


def test_sets_without_options_are_drawn_as_one():
    plain, pooled = Order(20, per_step=3, seed=4), Order(20, per_step=3, seed=4, pools=[pool(0, 8), pool(8, 12)])
    assert [plain.chosen(n) for n in range(15)] == [pooled.chosen(n) for n in range(15)]
    assert pooled.account() == []


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 5), (2.0, 10), (0.5, 3), (2.2, 11), (0.01, 1)])
def test_epochs_are_counted_in_whole_steps(epochs, steps):
    assert Order(10, per_step=2, seed=0).steps(epochs) == steps
    assert Order(20, per_step=2, seed=0, pools=[pool(0, 20, samples=10)]).steps(epochs) == steps


@pytest.mark.parametrize("options", [{"samples": 50}, {"share": 1.0}, {"per_prompt": 1}, {"balanced": True}])
def test_epochs_of_one_size_are_counted_without_drawing_them(options, monkeypatch):
    order = Order(20, per_step=4, seed=0, pools=[pool(0, 20, **options)])
    first = order.steps_per_epoch
    monkeypatch.setattr(Pool, "draw_pass", None)
    assert order.steps(10_000.0) == 10_000 * first
    assert order.steps(7.5) == 7 * first + math.ceil(first / 2)


def test_max_steps_overrides_epochs(recipe):
    order = Order(10, per_step=2, seed=0)
    assert count_steps(recipe(num_train_epochs=3), order) == 15
    assert count_steps(recipe(num_train_epochs=3, max_steps=4), order) == 4
    assert count_steps(recipe(max_steps=400), order) == 400


def test_the_account_says_what_an_epoch_takes():
    order = Order(50, per_step=4, seed=0, pools=[pool(0, 40, prompts=4, longer=0.75, per_prompt=3), pool(40, 10)])
    assert order.account() == [
        {
            "name": "set 0",
            "comparisons": 40,
            "drawn": 12,
            "beyond_per_prompt": 28,
            "longer_preferred": 30,
            "shorter_preferred": 10,
        },
        {
            "name": "set 40",
            "comparisons": 10,
            "drawn": 10,
            "beyond_per_prompt": 0,
            "longer_preferred": 5,
            "shorter_preferred": 5,
        },
    ]


def test_impossible_steps_and_draws_are_refused_with_key_and_cure(recipe):
    with pytest.raises(BadRecipe, match="makes 12 prompts a step, but an epoch has 10 comparisons; lower it or grad"):
        make_order(recipe(gradient_accumulation_steps=3), comparisons=10, num_processes=1)
    with pytest.raises(BadRecipe, match="an epoch has 3 comparisons"):
        make_order(recipe(), comparisons=50, num_processes=1, pools=[pool(0, 50, samples=3)])
    with pytest.raises(BadRecipe, match="num_devices is 1 and makes 4 prompts a step, for 5 processes; start fewer"):
        make_order(recipe(num_devices=1), comparisons=50, num_processes=5)
    with pytest.raises(
        BadRecipe, match="length_balance is true, but of set 0 the longer reply is preferred in 50 comp"
    ):
        make_order(recipe(), comparisons=50, num_processes=1, pools=[pool(0, 50, longer=1, balanced=True)])


def test_the_side_of_a_comparison_is_that_of_most_of_its_preferences():
    def side(*preferences: Preference, replies: tuple[str, ...] = ("a", "bb", "ccc")) -> int:
        return side_of(Comparison((Turn("user", "?"),), replies, preferences, "made", "1"))

    assert side(Preference(2, 0)) == 1
    assert side(Preference(0, 1)) == -1
    assert side(Preference(0, 1, probability=0.2)) == 1
    assert side(Preference(0, 1, probability=0.5)) == 0
    assert side(Preference(1, 0), replies=("ab", "ba")) == 0
    assert side(Preference(2, 0), Preference(0, 1)) == 0
    assert side(Preference(2, 0, weight=2.0), Preference(0, 1)) == 1


def test_a_recipe_draws_by_its_options_and_the_dry_run_says_what(recipe, tmp_path):
    files = [str(write_jsonl(tmp_path / f"{n}.jsonl", make_comparisons(30, seed=n, replies=n))) for n in (2, 3)]
    sources = [{"source": file, "split": "train", "share": share} for file, share in zip(files, (1, 3), strict=True)]
    estimate = dry_run(recipe(datasets=sources, evaluation=[]))
    drawn = [entry["drawn"] for entry in estimate.drawn]
    assert sum(drawn) == estimate.comparisons == sum(entry["comparisons"] for entry in estimate.drawn)
    assert drawn[0] == round(estimate.comparisons / 4)
    assert estimate.steps == math.ceil(estimate.comparisons / 4)


def test_a_set_of_which_nothing_is_left_cannot_have_a_share(recipe, pairs, tmp_path):
    test = write_jsonl(tmp_path / "test.jsonl", make_comparisons(9, seed=5, words=9))
    train = tmp_path / "train.jsonl"
    train.write_bytes(test.read_bytes())
    with pytest.raises(BadRecipe, match=r"datasets\[1\] .* has no comparison left to draw its share or samples from"):
        dry_run(
            recipe(
                datasets=[{"source": str(pairs), "share": 1}, {"source": str(train), "share": 1}],
                evaluation=[{"source": str(test), "split": "test"}],
            )
        )
