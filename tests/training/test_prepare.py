"""What is ready before the first step: the same for a run and a dry run, from files or from memory."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from prefrank.errors import BadRecipe
from prefrank.training import dry_run, train
from prefrank.training.feed.corpus import Corpus, read_corpus
from prefrank.training.prepare import prepare
from prefrank.training.start import load_model
from tests.training.conftest import make_comparisons


def ready(recipe, **options):
    folder = Path(recipe.model_name)
    return prepare(recipe, folder, load=partial(load_model, recipe, folder, device=torch.device("cpu")), **options)


def test_a_run_and_its_dry_run_read_and_encode_alike(recipe):
    made = recipe()
    prepared, estimate = ready(made), dry_run(made)
    trained = train(made)
    data = json.loads((trained.last / "prefrank.json").read_text())["training"]["data"]
    assert prepared.account["read"] == list(estimate.data)
    assert prepared.account["encoded"] == dict(estimate.encoding)
    account = json.loads(json.dumps(prepared.account))
    assert {name: data[name] for name in account} == account
    assert trained.steps == prepared.feed.steps == estimate.steps


def test_comparisons_in_memory_are_prepared_like_those_of_a_file(recipe):
    made = recipe(evaluation=[])
    read = read_corpus(made)
    assert ready(made, corpus=read).account == ready(made).account
    corpus = Corpus(make_comparisons(12), (1.0,) * 12, {}, (), (0,) * 12)
    assert len(ready(made, corpus=corpus).encoded.training) == 12


def test_the_network_of_a_recipe_and_seed_is_the_same_each_time(recipe):
    first, second = (dict(ready(recipe(seed=3)).network.named_parameters()) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_wrong_with_a_recipe_is_said_before_the_first_step(recipe):
    with pytest.raises(BadRecipe, match="best_set is 'nowhere'"):
        ready(recipe(best_set="nowhere"))
    with pytest.raises(BadRecipe, match="warmup_steps is 1000"):
        ready(recipe(warmup_steps=1000))
