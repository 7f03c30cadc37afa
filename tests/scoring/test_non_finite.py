"""Scores that are not numbers: an error to everybody, a failure to count for an evaluation."""

import math
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch

from prefrank import RewardModel
from prefrank.errors import BadModel
from prefrank.evaluation import evaluate
from prefrank.types import as_prompt
from tests.evaluation.making import comparison, preference
from tests.tiny import bert_folder

GOOD, BAD = "mix water salt", "mix flour salt"


@pytest.fixture(scope="module", params=["torch", None])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    """A model of which one token's embedding is not a number."""
    loaded = RewardModel.load(bert_folder(tmp_path_factory.mktemp("bert")), max_length=128)
    ids = [set(row.ids.tolist()) for row in loaded.encoder.encode_pairs([(as_prompt("p"), r) for r in (GOOD, BAD)])]
    (token,) = ids[1] - ids[0]
    with torch.no_grad():
        dict(loaded.network.named_parameters())["bert.embeddings.word_embeddings.weight"][token] = math.nan
    return RewardModel(loaded.network, loaded.encoder, kernels=request.param)


def test_exactly_the_rows_with_a_broken_token_fail(model: RewardModel) -> None:
    pairs = [("how do I bake", GOOD), ("how do I bake", BAD), ("flour", GOOD), ("hello", GOOD)]
    values = [score.value for score in model.score_pairs(pairs, allow_failures=True)]
    assert [math.isnan(value) for value in values] == [False, True, True, False]
    alone = model.score_pairs(pairs[:1] + pairs[3:])
    assert [values[0], values[3]] == pytest.approx([score.value for score in alone], abs=1e-5)


def test_a_failure_is_an_error_unless_it_is_allowed(model: RewardModel) -> None:
    with pytest.raises(BadModel, match=f"score of the reply '{BAD}' is nan"):
        model.score_pairs([("hello", GOOD), ("hello", BAD)])
    with pytest.raises(BadModel, match="is nan"):
        model.rank("hello", [GOOD, BAD])


def test_an_evaluation_counts_failures_as_lost_and_goes_on(model: RewardModel) -> None:
    fails = [comparison([BAD, GOOD], [preference(0, 1)], prompt=f"hello {n}", id=str(n)) for n in range(2)]
    works = [comparison([GOOD, "salt"], [preference(0, 1)], prompt=f"salt {n}", id=f"w{n}") for n in range(2)]
    result = evaluate(partial(model.score_pairs, allow_failures=True), fails + works, name="broken")
    counts = result.overall.counts
    assert (counts.failures, counts.failed_pairs) == (2, 2)
    assert result.overall.margin.value is None
    won = evaluate(model.score_pairs, works, name="broken").overall.accuracy.value
    assert won is not None
    assert result.overall.accuracy.value == pytest.approx(won / 2)
    assert result.to_json(items=True)["items"][0]["scores"][0] is None


def test_an_empty_score_takes_the_place_of_a_failure(model: RewardModel) -> None:
    floored = RewardModel(model.network, model.encoder, empty_score=-4.0)
    assert floored.score_pairs([("flour", "")])[0].value == -4.0


@pytest.mark.parametrize(("precision", "cure"), [("float16", "bfloat16 or float32"), (None, None)])
def test_an_overflow_of_half_precision_is_not_blamed_on_the_weights(
    precision: str | None, cure: str | None, tmp_path: Path
) -> None:
    folder = bert_folder(tmp_path)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["bert.encoder.layer.0.output.LayerNorm.weight"] *= 1e6 if precision else math.nan
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    message = f"it was computed in {precision}; load the model in {cure}" if precision else "its weights are not usable"
    with pytest.raises(BadModel, match=message):
        RewardModel.load(folder, precision=precision, device="cpu").score("hello", [GOOD])
