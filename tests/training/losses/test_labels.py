"""From what people said to a loss: rankings, ratings, strengths and heads of encoded comparisons; what is refused."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prefrank.errors import BadRecipe, Interrupted
from prefrank.text import TextEncoder, TextSettings
from prefrank.training import Recipe, dry_run, train
from prefrank.training.feed.corpus import read_corpus
from prefrank.training.feed.encoded_corpus import encode_corpus
from prefrank.training.feed.examples import EncodingCounts, Examples, encode
from prefrank.training.feed.feeds import make_feed
from prefrank.training.loop.measure import evaluate_sets, measure
from prefrank.training.losses.preference_loss import PreferenceLoss, make_loss, ranked_places
from prefrank.training.records.events import Event, StepDone
from prefrank.training.start import load_text
from prefrank.types import Comparison, Preference, Ratings, Turn

PROMPT = (Turn("user", "question"),)


@pytest.fixture(scope="module")
def encoder(bert: Path) -> TextEncoder:
    return TextEncoder.load(bert, TextSettings("pair", 32))


def comparison(*preferences: Preference, ratings: tuple[Ratings, ...] = (), id: str = "0", size: int = 3) -> Comparison:
    replies = ("bread", "water salt", "flour", "yeast home")[:size]
    return Comparison(PROMPT, replies, preferences, "made", id, ratings)


def encoded(encoder: TextEncoder, recipe: Recipe, *comparisons: Comparison) -> tuple[Examples, EncodingCounts]:
    return encode(comparisons, encoder, heads=recipe.heads, rank=ranked_places(recipe))


TIED = (Preference(0, 1), Preference(1, 2, 0.5), Preference(0, 2))
STRONG = (Preference(0, 1, strength=2), Preference(1, 2, 0.5, strength=0), Preference(0, 2, strength=3))
BOTH_HEADS = (Preference(0, 1), Preference(1, 0, head="accuracy"))
RATED = (Ratings((4.0, 1.0, None)), Ratings((None, 2.0, 2.0), "accuracy"))


def test_a_head_that_is_only_rated_gets_its_preferences_from_the_ratings(encoder, recipe):
    made = recipe(heads=["overall", "accuracy"])
    examples, counts = encoded(encoder, made, comparison(Preference(0, 1), ratings=RATED))
    assert examples.preferences == ((Preference(0, 1), Preference(1, 2, probability=0.5, head="accuracy")),)
    assert np.array_equal(examples.ratings, [[4, np.nan], [1, 2], [np.nan, 2]], equal_nan=True)
    assert counts.preferences == 2
    labels = examples.labels([0])
    assert labels.head.tolist() == [0, 1]
    assert labels.rated.rating.tolist() == [4, 1, 2, 2]
    assert labels.rated.head.tolist() == [0, 0, 1, 1]


def test_labels_of_other_heads_are_left_out_and_counted(encoder, recipe):
    other = Preference(0, 2, head="wit")
    examples, counts = encoded(encoder, recipe(), comparison(*BOTH_HEADS, other), comparison(other, id="1"))
    assert examples.preferences == ((Preference(0, 1),),)
    assert (counts.preferences_of_other_heads, counts.dropped_without_label_of_heads, counts.kept) == (3, 1, 1)
    assert examples.left_heads == ("accuracy", "wit")


def test_levels_come_from_the_preferences_of_each_head(encoder, recipe):
    made = recipe(loss="plackett_luce", heads=["overall", "accuracy"])
    examples, _ = encoded(encoder, made, comparison(*BOTH_HEADS, Preference(2, 0)))
    assert examples.levels.tolist() == [[1, 1], [2, 0], [0, -1]]
    assert encoded(encoder, recipe(), comparison(*BOTH_HEADS))[0].levels is None


def test_the_digest_tells_ratings_strengths_and_heads_apart(encoder, recipe):
    rated = comparison(Preference(0, 1), ratings=RATED)
    kinds = [
        encoded(encoder, recipe(), comparison(Preference(0, 1)))[0],
        encoded(encoder, recipe(), comparison(Preference(0, 1, strength=1)))[0],
        encoded(encoder, recipe(), rated)[0],
        encoded(encoder, recipe(heads=["overall", "accuracy"]), rated)[0],
    ]
    assert len({one.digest() for one in kinds}) == 4


@pytest.mark.parametrize(
    ("changes", "comparisons", "values"),
    [
        ({"loss": "bradley_terry"}, [comparison(*TIED)], {}),
        ({"loss": "plackett_luce"}, [comparison(*TIED)], {}),
        # one tie in three: with half a label added to both, 1.5 of 4
        ({"loss": "rao_kupper"}, [comparison(*TIED)], {"cut_points": [[math.log(5.5 / 2.5)]]}),
        ({"loss": "rao_kupper", "tie_parameter": 2.0}, [comparison(Preference(0, 1))], {"cut_points": [[math.log(2)]]}),
        ({"loss": "davidson"}, [comparison(*TIED)], {"nu": [[2 * 1.5 / 2.5]]}),
        ({"loss": "davidson", "tie_parameter": 0.5}, [comparison(*TIED)], {"nu": [[0.5]]}),
        # shares of levels 0 to 3 with half a label added: 1.5, 0.5, 1.5, 1.5 of 5
        (
            {"loss": "ordinal"},
            [comparison(*STRONG)],
            {"cut_points": [[math.log(6.5 / 3.5), math.log(7.0 / 3.0), math.log(8.5 / 1.5)]]},
        ),
        ({"loss": "regression"}, [comparison(*TIED, ratings=RATED)], {"offset": [[2.5]], "scale": [[1.5]]}),
        (
            {"loss": "regression", "rating_offset": 0.0, "rating_scale": 10.0},
            [comparison(*TIED, ratings=RATED)],
            {"offset": [[0.0]], "scale": [[10.0]]},
        ),
    ],
)
def test_each_loss_starts_from_the_training_labels(encoder, recipe, changes, comparisons, values):
    made = recipe(**changes)
    record = make_loss(made, encoded(encoder, made, *comparisons)[0]).record()
    assert record["values"].keys() == values.keys()
    for name, expected in values.items():
        assert record["values"][name][0] == pytest.approx(expected[0], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "comparisons", "message"),
    [
        (
            {"loss": "rao_kupper"},
            [comparison(Preference(0, 1))],
            "loss is rao_kupper, but none of the 1 training preferences is a tie; set loss: bradley_terry, or give",
        ),
        ({"loss": "davidson"}, [comparison(Preference(0, 1))], "loss is davidson, but none of the 1 training pref"),
        (
            {"loss": "ordinal"},
            [comparison(*TIED)],
            "loss is ordinal, but no training preference has a strength; set loss: rao_kupper, or add strengths",
        ),
        (
            {"margin": 0.5},
            [comparison(*TIED)],
            "margin is set, but no training preference has a strength; set margin: 0",
        ),
        (
            {"loss": "regression"},
            [comparison(*TIED)],
            "loss is regression, but no training reply has a rating of overall; set loss: bradley_terry",
        ),
        (
            {"loss": "regression"},
            [comparison(*TIED, ratings=(Ratings((2.0, 2.0, 2.0)),))],
            "loss is regression, but every rating of overall is 2; set rating_scale, or use other data",
        ),
        (
            {"loss": "plackett_luce"},
            [comparison(Preference(0, 1), Preference(0, 2), id=str(n)) for n in range(5)],
            "of made/0, made/1, made/2 and 2 more comparisons do not order the replies (a circle, or replies never",
        ),
        (
            {"loss": "plackett_luce", "top_k": 2},
            [comparison(*TIED), comparison(Preference(0, 1), Preference(0, 2), id="x")],
            "the preferences of made/x do not order the replies down to place 2",
        ),
        (
            {"heads": ["overall", "wit"]},
            [comparison(*BOTH_HEADS)],
            "heads names wit, but no training comparison is labeled so; the data have overall, accuracy",
        ),
        ({"heads": ["overall", "overall"]}, [comparison(*TIED)], "wanted each name once"),
        (
            {"loss": "rao_kupper", "tie_parameter": 0.5},
            [comparison(*TIED)],
            "tie_parameter is 0.5; wanted theta above 1",
        ),
        (
            {"top_k": 2},
            [comparison(*TIED)],
            "top_k has no effect with loss: bradley_terry; remove it, or use plackett_",
        ),
        ({"rating_offset": 0.0}, [comparison(*TIED)], "rating_offset has no effect with loss: bradley_terry"),
        ({"loss": "plackett_luce", "label_smoothing": 0.1}, [comparison(*TIED)], "label_smoothing has no effect with"),
        ({"loss": "regression", "margin": 0.1}, [comparison(*TIED)], "margin has no effect with loss: regression"),
        ({"tie_parameter": 2.0}, [comparison(*TIED)], "tie_parameter has no effect with loss: bradley_terry"),
    ],
)
def test_labels_that_cannot_teach_the_loss_are_refused_with_the_cure(encoder, recipe, changes, comparisons, message):
    made = recipe(**changes)
    with pytest.raises(BadRecipe) as caught:
        make_loss(made, encoded(encoder, made, *comparisons)[0])
    assert message in str(caught.value)


def test_a_stream_is_held_to_its_ranking_comparison_by_comparison(recipe, bert, tmp_path):
    rows = [{"prompt": f"q {n}", "replies": ["a", "b", "c"], "preferences": [[0, 1], [0, 2]]} for n in range(9)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stream = {
        "datasets": [{"source": str(path), "stream": True}],
        "evaluation": [],
        "max_steps": 1,
        "shuffle_buffer": 4,
    }
    made = recipe(**stream, loss="plackett_luce")
    encoder = load_text(made, bert)
    feed = make_feed(made, encode_corpus(made, read_corpus(made), encoder), encoder, num_processes=1)
    with pytest.raises(BadRecipe, match="do not order the replies"):
        feed.take(0)


def test_the_best_of_all_is_enough_for_the_first_place_alone(encoder, recipe):
    made = recipe(loss="plackett_luce", top_k=1)
    examples, _ = encoded(encoder, made, comparison(Preference(2, 0), Preference(2, 1)))
    scores = torch.tensor([0.3, -0.2, 0.9])
    expected = -(scores[2] - torch.logsumexp(scores, 0))
    assert torch.allclose(make_loss(made, examples)(scores, examples.labels([0])), expected)


def test_metrics_are_those_of_each_head_and_of_the_losss_own_likelihood(encoder, recipe):
    made = recipe(loss="rao_kupper", tie_parameter=2.0, heads=["overall", "accuracy"])
    first = comparison(Preference(0, 1), Preference(1, 2, 0.5), Preference(1, 0, head="accuracy"))
    examples, _ = encoded(encoder, made, first, comparison(Preference(0, 1), id="1"))
    scores = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.5, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    found = evaluate_sets(lambda _: scores, {"set": examples}, loss=make_loss(made, examples))
    assert list(found) == ["set/overall", "set/accuracy"]
    overall, accuracy = found.values()
    assert (overall.comparisons, overall.decided, overall.pairs, overall.ties, overall.accuracy) == (2, 2, 2, 1, 0.5)
    assert (accuracy.comparisons, accuracy.pairs, accuracy.ties, accuracy.accuracy) == (1, 1, 0, 1.0)

    def win(difference: float) -> float:
        return math.exp(difference) / (math.exp(difference) + 2)

    tie = 1 - win(0.5) - win(-0.5)
    expected = ((-math.log(win(1.0)) - math.log(tie)) / 2 - math.log(win(-1.0))) / 2
    assert overall.log_loss == pytest.approx(expected, rel=1e-5)


def test_margins_and_smoothing_are_no_part_of_the_log_loss(encoder, recipe):
    examples, _ = encoded(encoder, recipe(), comparison(Preference(0, 1, margin=2.0, strength=2), size=2))
    loss = make_loss(recipe(margin=0.5, label_smoothing=0.1, score_l2=0.1), examples)
    scores = torch.tensor([1.0, 0.0])
    assert measure(scores, examples, loss=loss).log_loss == pytest.approx(math.log(1 + math.exp(-1)))


def write(path: Path, count: int = 24) -> Path:
    """Pairs with strengths, ties and ratings under two heads; a good reply opens with its own word."""
    words = ("bread", "water", "flour", "salt", "yeast", "dough")
    rows = []
    for n in range(count):
        strength = n % 4
        replies = [f"good {words[n % 6]}" if strength else f"reply {words[n % 6]}", f"reply {words[(n + 1) % 6]} home"]
        said: list[dict[str, Any]] = [
            {"winner": 0, "loser": 1, "strength": strength},
            {"winner": n % 2, "loser": 1 - n % 2, "head": "accuracy"},
        ]
        rows.append({"prompt": f"question {n}", "replies": replies, "preferences": said})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def loss_record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "prefrank.json").read_text())["training"]["loss"]


def test_cut_points_are_learned_kept_and_restored_so_that_a_resumed_run_is_the_same(recipe, tmp_path):
    data = str(write(tmp_path / "data.jsonl"))

    def made(folder: str, **changes: Any) -> Recipe:
        more = {"loss": "ordinal", "datasets": [data], "evaluation": [], "output_dir": str(tmp_path / folder)}
        return recipe(**more, num_train_epochs=2, loss_learning_rate=0.1, **changes)

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    whole = train(made("whole"))
    with pytest.raises(Interrupted):
        train(made("cut"), callback=stop)
    halfway = loss_record(tmp_path / "cut" / "last")
    resumed = train(made("cut", resume=True))
    assert loss_record(resumed.last) == loss_record(whole.last)
    assert (resumed.last / "model.safetensors").read_bytes() == (whole.last / "model.safetensors").read_bytes()
    assert loss_record(whole.last)["likelihood"] == "Ordinal"
    cuts = [loss_record(whole.last)["values"]["cut_points"][0], halfway["values"]["cut_points"][0]]
    assert len(cuts[0]) == 3
    assert cuts[0] != cuts[1]


def test_two_heads_train_together_and_are_measured_apart(recipe, tmp_path):
    data = str(write(tmp_path / "data.jsonl"))
    source = {"source": data, "split": "validation"}
    trained = train(
        recipe(loss="davidson", heads=["overall", "accuracy"], datasets=[data], evaluation=[source], num_train_epochs=1)
    )
    assert {name.rpartition("/")[2] for name in trained.metrics} == {"overall", "accuracy"}
    assert len(loss_record(trained.last)["values"]["nu"]) == 2


def test_the_dry_run_refuses_what_training_would(recipe):
    with pytest.raises(BadRecipe, match="loss is davidson"):
        dry_run(recipe(loss="davidson"))
    with pytest.raises(BadRecipe, match="heads is wit, but no training comparison is labeled so; the data have"):
        dry_run(recipe(heads="wit"))


def test_the_default_loss_is_plain_bradley_terry(encoder, recipe):
    examples, _ = encoded(encoder, recipe(), comparison(*TIED))
    assert isinstance(make_loss(recipe(), examples), PreferenceLoss)
    assert make_loss(recipe(), examples).record() == {"likelihood": "BradleyTerry", "values": {}}
