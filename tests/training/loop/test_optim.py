import sys
from types import SimpleNamespace

import pytest
import torch
import transformers

from prefrank.errors import BadRecipe
from prefrank.model import load_network
from prefrank.training.loop.optim import (
    WeightAverage,
    freeze,
    make_optimizer,
    parameter_groups,
    rate_factor,
    set_rates,
)


@pytest.fixture
def network(bert):
    return load_network(bert)


def rates(network, recipe):
    """Parameter name -> (peak rate, weight decay)."""
    names = {id(p): name for name, p in network.named_parameters()}
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(network, recipe)
        for p in group["params"]
    }


def test_biases_and_norms_have_no_weight_decay(network, recipe):
    found = rates(network, recipe(weight_decay=0.1))
    assert set(found) == {name for name, _ in network.named_parameters()}
    for name, (_, decay) in found.items():
        assert decay == (0.0 if name.endswith("bias") or "LayerNorm" in name else 0.1), name


def test_the_head_may_have_a_rate_of_its_own(network, recipe):
    found = rates(network, recipe(learning_rate=1e-3, head_learning_rate=1e-2))
    assert found["classifier.weight"][0] == found["bert.pooler.dense.weight"][0] == 1e-2
    assert found["bert.encoder.layer.1.output.dense.weight"][0] == 1e-3


def test_layer_decay_lowers_the_rate_layer_by_layer(network, recipe):
    found = rates(network, recipe(learning_rate=1.0, layer_decay=0.5))
    assert found["classifier.weight"][0] == 1.0
    assert found["bert.encoder.layer.1.attention.self.query.weight"][0] == 1.0
    assert found["bert.encoder.layer.0.attention.self.query.weight"][0] == 0.5
    assert found["bert.embeddings.word_embeddings.weight"][0] == 0.25


def frozen(network):
    return {name for name, p in network.named_parameters() if not p.requires_grad}


def test_freezing_layers_takes_them_from_the_bottom_with_the_embeddings(network, recipe):
    freeze(network, recipe(freeze_layers=1))
    names = {name for name, _ in network.named_parameters()}
    assert frozen(network) == {n for n in names if ".embeddings." in n or ".layer.0." in n}
    assert not set(rates(network, recipe())) & frozen(network)


def test_freezing_embeddings_alone_leaves_the_layers(network, recipe):
    freeze(network, recipe(freeze_embeddings=True))
    assert frozen(network) == {n for n, _ in network.named_parameters() if ".embeddings." in n}
    freeze(network, recipe())
    assert not frozen(network)


def test_more_frozen_layers_than_there_are_is_an_error(network, recipe):
    with pytest.raises(BadRecipe, match="freeze_layers is 3; wanted at most the model's 2 layers"):
        freeze(network, recipe(freeze_layers=3))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("cosine", transformers.get_cosine_schedule_with_warmup),
        ("linear", transformers.get_linear_schedule_with_warmup),
    ],
)
@pytest.mark.parametrize("warmup", [0, 7])
def test_schedules_are_those_of_transformers(recipe, name, theirs, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = theirs(optimizer, warmup, 40)
    ours = recipe(scheduler=name, warmup_steps=warmup)
    for step in range(40):
        assert rate_factor(step, steps=40, recipe=ours) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_a_constant_rate_warms_up_and_stays(recipe):
    ours = recipe(scheduler="constant", warmup_steps=2)
    assert [rate_factor(step, steps=5, recipe=ours) for step in range(5)] == [0.0, 0.5, 1.0, 1.0, 1.0]


def test_the_recipes_numbers_reach_adamw(network, recipe):
    optimizer = make_optimizer(
        network, recipe(adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=1e-3, head_learning_rate=2.0)
    )
    set_rates(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.0005, 1.0}
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.9)}
    assert {group["eps"] for group in optimizer.param_groups} == {1e-3}


def test_the_8_bit_optimiser_takes_the_same_groups(network, recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", SimpleNamespace(AdamW8bit=torch.optim.Adamax))
    ours, theirs = (make_optimizer(network, recipe(optimizer=name)) for name in ("adamw_8bit", "adamw"))
    assert isinstance(ours, torch.optim.Adamax)
    for key in ("lr", "peak", "weight_decay", "betas", "eps"):
        assert [group[key] for group in ours.param_groups] == [group[key] for group in theirs.param_groups]


def test_a_missing_8_bit_optimiser_is_an_error_with_its_cure(network, recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(BadRecipe, match=r"optimizer is adamw_8bit, .*; pip install bitsandbytes, or set optimizer: ad"):
        make_optimizer(network, recipe(optimizer="adamw_8bit"))


def test_the_average_of_the_weights_is_exponential_after_a_plain_mean():
    layer = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer.named_parameters(), 0.75)
    seen = []
    for value in (4.0, 8.0, 0.0, 4.0, 100.0):
        layer.weight.data.fill_(value)
        average.update()
        with average.swapped_in():
            seen.append(layer.weight.item())
        assert layer.weight.item() == value
    assert seen == pytest.approx([4.0, 6.0, 4.0, 4.0, 28.0])


def test_the_last_snapshots_are_averaged_and_the_final_step_takes_one():
    layer = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer.named_parameters(), last=2, every=2, final=7)
    seen = []
    for value in (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0):
        layer.weight.data.fill_(value)
        average.update()
        with average.swapped_in():
            seen.append(layer.weight.item())
        assert layer.weight.item() == value
    # snapshots after steps 2, 4, 6 and 7: before the first the weights themselves count
    assert seen == [1.0, 2.0, 2.0, 3.0, 3.0, 7.0, 15.0]


def test_a_restored_average_goes_on_as_if_never_saved():
    def values(average: WeightAverage, layer: torch.nn.Module, numbers: list[float]) -> list[float]:
        seen = []
        for value in numbers:
            layer.weight.data.fill_(value)
            average.update()
            with average.swapped_in():
                seen.append(layer.weight.item())
        return seen

    layers = [torch.nn.Linear(1, 1, bias=False) for _ in range(2)]
    straight, resumed = (WeightAverage(layer.named_parameters(), last=3, every=1) for layer in layers)
    values(straight, layers[0], [0.1, 0.7])
    with straight.swapped_in():
        resumed.load_state_dict(straight.state_dict())
    assert layers[1].weight.item() == layers[0].weight.item()
    assert values(resumed, layers[1], [0.3, 0.9]) == values(straight, layers[0], [0.3, 0.9])


def test_no_average_leaves_the_weights_alone():
    layer = torch.nn.Linear(1, 1)
    average = WeightAverage(layer.named_parameters(), 0.0)
    average.update()
    before = layer.weight.item()
    with average.swapped_in():
        assert layer.weight.item() == before


def test_the_averages_state_is_the_same_saved_inside_the_swap_or_outside():
    layer = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer.named_parameters(), 0.5)
    for value in (1.0, 3.0, 3.0):
        layer.weight.data.fill_(value)
        average.update()
    kept = ("live", "average")
    outside = {key: average.state_dict()[key]["weight"].item() for key in kept}
    with average.swapped_in():
        inside = {key: average.state_dict()[key]["weight"].item() for key in kept}
    assert inside == outside == {"live": 3.0, "average": 2.5}
