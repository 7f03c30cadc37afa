import math
from pathlib import Path

import pytest

from prefrank.errors import BadInput, Diverged
from prefrank.training.records.events import Event, Started, StepDone
from prefrank.training.tools.find_rate import _search, find_rate


def a_step(number: int, rate: float, loss: float) -> StepDone:
    return StepDone(number, 99, loss, 0.5, 10, 1.0, 1.0, rate, 1.0)


def test_the_rate_rises_exponentially_and_a_loss_that_falls_gives_a_suggestion(recipe, tmp_path):
    events: list[Event] = []
    found = find_rate(recipe(dropout=0.0), steps=40, lowest=1e-5, highest=1.0, callback=events.append)
    assert {event.steps for event in events if isinstance(event, Started | StepDone)} == {40}
    assert found.rates[0] == pytest.approx(1e-5)
    ratios = {round(math.log(after / before), 6) for before, after in zip(found.rates, found.rates[1:], strict=False)}
    assert ratios == {round(math.log(1e5) / 39, 6)}
    assert len(found.rates) == len(found.losses) == len(found.smoothed) <= 40
    assert found.suggestion is not None
    assert 1e-6 < found.suggestion <= 0.1
    assert "Smith 2017" in found.rule
    assert not (tmp_path / "run").exists()


def test_the_suggestion_is_a_tenth_of_the_rate_of_least_smoothed_loss():
    rates = [10 ** (-6 + n / 10) for n in range(60)]
    losses = [1.0 if n < 20 else 1.0 - 0.02 * (n - 20) if n < 40 else 0.62 + 0.1 * (n - 40) for n in range(60)]
    found = _search([a_step(n, *pair) for n, pair in enumerate(zip(rates, losses, strict=True))])
    assert found.suggestion == rates[min(range(60), key=lambda n: found.smoothed[n])] / 10
    assert 1e-3 / 10 < found.suggestion < 1e-2 / 10


def test_a_loss_that_only_wavers_gives_none():
    found = _search([a_step(n, 1e-6 * 1.2**n, 1.0 + 0.1 * (-1) ** n) for n in range(60)])
    assert found.suggestion is None
    assert "never fell clearly" in found.rule


def test_the_test_ends_where_the_loss_blows_up_and_leaves_the_run_folder_alone(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    found = find_rate(recipe(max_grad_norm=0.0), steps=60, highest=1e6)
    assert 20 <= len(found.rates) < 60
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_that_diverges_at_once_and_rates_that_fall_are_errors(recipe):
    with pytest.raises(Diverged, match="not finite"):
        find_rate(recipe(max_grad_norm=0.0), steps=20, lowest=1e29, highest=1e35)
    with pytest.raises(BadInput, match="wanted at least 20, from low to high"):
        find_rate(recipe(), steps=10)
    with pytest.raises(BadInput, match="from low to high"):
        find_rate(recipe(), lowest=1.0, highest=0.1)


@pytest.mark.parametrize(("max_steps", "steps"), [(25, 25), (1000, 40), (None, 40)])
def test_a_recipe_of_fewer_steps_has_the_rate_rise_over_those(recipe, max_steps, steps):
    found = find_rate(recipe(max_steps=max_steps, max_grad_norm=0.0001), steps=40, lowest=1e-7, highest=1e-3)
    assert (len(found.rates), found.rates[0]) == (steps, pytest.approx(1e-7))
    assert found.rates[-1] == pytest.approx(1e-3)


def test_a_recipe_of_too_few_steps_for_the_test_is_refused(recipe):
    with pytest.raises(BadInput, match="max_steps is 6; the learning-rate finder wants at least 20"):
        find_rate(recipe(max_steps=6))


def test_several_processes_are_refused(recipe, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="without a launcher"):
        find_rate(recipe())


def test_the_model_is_not_touched(recipe, bert: Path):
    before = (bert / "model.safetensors").read_bytes()
    find_rate(recipe(), steps=20)
    assert (bert / "model.safetensors").read_bytes() == before
