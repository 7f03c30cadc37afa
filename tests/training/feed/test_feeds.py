import json
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from prefrank.data import load_comparisons
from prefrank.errors import BadData, BadInput, BadRecipe
from prefrank.training import train
from prefrank.training.feed.corpus import read_corpus
from prefrank.training.feed.encoded_corpus import encode_corpus
from prefrank.training.feed.feeds import MemoryFeed, StreamFeed, make_feed
from prefrank.training.feed.streams import Mixture, shuffle
from prefrank.training.start import load_text
from prefrank.types import Comparison, Preference, Turn
from tests.training.conftest import make_comparisons, write_jsonl


@pytest.fixture
def streamed(recipe, pairs, tmp_path) -> Any:
    """A function from changed keys to a recipe that streams the pairs."""

    def make(source: dict[str, Any] | None = None, **changes: Any) -> Any:
        stream = {"source": str(pairs), "stream": True, **(source or {})}
        keys = {"datasets": [stream], "evaluation": [], "max_steps": 6, "shuffle_buffer": 8}
        return recipe(**(keys | changes))

    return make


@pytest.fixture
def feed(bert) -> Any:
    def make(recipe: Any, *, num_processes: int = 1) -> Any:
        encoder = load_text(recipe, bert)
        encoded = encode_corpus(recipe, read_corpus(recipe), encoder)
        return make_feed(recipe, encoded, encoder, num_processes=num_processes)

    return make


def names(feed: Any, step: int) -> list[str]:
    examples, chosen = feed.take(step)
    return [examples.names[c] for c in chosen]


def test_in_memory_a_step_is_what_the_order_says(feed, recipe):
    made = feed(recipe())
    assert isinstance(made, MemoryFeed)
    assert made.take(3) == (made.examples, made.order.chosen(3))
    assert (made.per_step, made.comparisons, made.account()) == (4, len(made.examples), [])


def test_a_buffer_shuffles_each_comparison_once_and_no_further_than_it_reaches():
    comparisons = make_comparisons(50)
    for size in (1, 7, 50, 99):
        order = [int(comparison.id) for comparison in shuffle(comparisons, size, np.random.default_rng(0))]
        assert sorted(order) == list(range(50))
        assert all(number < place + size for place, number in enumerate(order))
        assert (order == list(range(50))) == (size == 1)


def test_a_stream_gives_every_comparison_once_a_pass_in_a_new_order(feed, streamed, pairs):
    made = feed(streamed(max_steps=100))
    assert isinstance(made, StreamFeed)
    expected = sorted(f"pairs/{comparison.id}" for comparison in load_comparisons(pairs).comparisons)
    drawn = [name for step in range(len(expected)) for name in names(made, step)]
    passes = [drawn[first : first + len(expected)] for first in range(0, 4 * len(expected), len(expected))]
    assert all(sorted(ids) == expected for ids in passes)
    assert len({tuple(ids) for ids in passes}) == 4
    assert made.account()[0]["drawn"] >= len(drawn)


def test_a_steps_comparisons_do_not_depend_on_what_was_asked_before(feed, streamed):
    straight = feed(streamed())
    steps = [names(straight, step) for step in range(12)]
    fresh = feed(streamed())
    for step in (9, 2, 2, 11, 0):
        assert names(fresh, step) == steps[step]
    assert names(feed(streamed(seed=1)), 0) != steps[0]
    assert all(len(step) == 4 for step in steps)


def test_what_is_streamed_is_encoded_like_what_is_loaded(feed, streamed, recipe):
    loaded, made = feed(recipe(evaluation=[])), feed(streamed({"weight": 0.5}))
    by_name = {name: number for number, name in enumerate(loaded.examples.names)}
    examples, chosen = made.take(4)
    for c in chosen:
        number = by_name[examples.names[c]]
        for ours, theirs in zip(examples.rows(c), loaded.examples.rows(number), strict=True):
            assert np.array_equal(ours.ids, theirs.ids)
        assert examples.preferences[c] == loaded.examples.preferences[number]
    assert examples.weights == (0.5,) * 4


def test_the_memory_of_a_stream_is_that_of_its_buffer(streamed, tmp_path):
    data = write_jsonl(tmp_path / "long.jsonl", make_comparisons(400))
    corpus = read_corpus(streamed({"source": str(data)}, shuffle_buffer=16))
    assert corpus.training == ()
    given = []
    stream = corpus.streams[0]
    read = stream.read

    def counted(dropped: Any) -> Any:
        for comparison in read(dropped):
            given.append(comparison)
            yield comparison

    object.__setattr__(stream, "read", counted)
    for number, _ in enumerate(islice(Mixture(corpus.streams, 0).draw(), 100)):
        assert len(given) <= number + 1 + 16


def test_streams_and_sets_in_memory_are_mixed_by_share(feed, streamed, tmp_path):
    other = write_jsonl(tmp_path / "other.jsonl", make_comparisons(5, seed=3))
    stream = streamed().datasets[0].model_dump() | {"share": 3.0}
    inner = {"source": str(other), "split": None, "share": 1}
    made = feed(streamed(datasets=[stream, inner], max_steps=300))
    drawn = Counter(name.partition("/")[0] for step in range(60) for name in names(made, step))
    assert 150 < drawn["pairs"] < 210
    assert drawn["other"] == 240 - drawn["pairs"]
    account = made.account()
    assert account[0]["drawn"] == drawn["pairs"]


def test_bad_rows_cut_replies_and_evaluation_prompts_are_dropped_as_they_come(feed, streamed, tmp_path, bert):
    comparisons = make_comparisons(12)
    same = "bread " * 80
    equal = Comparison((Turn("user", "long"),), (same + "one", same + "two"), (Preference(0, 1),), "made", "equal")
    path = write_jsonl(tmp_path / "train.jsonl", (*comparisons, equal))
    path.write_text(path.read_text() + '{"prompt": 5}\n')
    loud = Comparison((Turn("user", comparisons[1].prompt[0].text.upper()),), ("a", "b"), (Preference(0, 1),), "m", "l")
    test = write_jsonl(tmp_path / "test.jsonl", (comparisons[0], loud))
    both = [{"source": str(test), "split": "test"}]
    folder = tmp_path / "stream-train.jsonl"
    folder.write_bytes(path.read_bytes())
    made = feed(streamed({"source": str(folder), "split": "train"}, evaluation=both, max_length=32))
    drawn = Counter(name for step in range(30) for name in names(made, step))
    assert not {"stream-train/0", "stream-train/1", "stream-train/equal"} & set(drawn)
    account = made.account()
    assert account[0]["dropped"].keys() >= {"malformed row"}
    assert account[-1]["dropped"].keys() <= {"dropped_replies_equal_after_cutting"}


def test_processes_share_a_step_and_a_step_too_small_for_them_is_refused(feed, streamed):
    assert feed(streamed(), num_processes=3).per_step == 12
    with pytest.raises(BadRecipe, match="num_devices is 1 and makes 4 prompts a step, for 5 processes"):
        feed(streamed(num_devices=1), num_processes=5)


def test_a_stream_of_which_nothing_can_be_used_is_an_error(feed, streamed, tmp_path):
    test = write_jsonl(tmp_path / "all-test.jsonl", make_comparisons(30))
    with pytest.raises(BadData, match=r"gave no comparison in a whole pass .*prompt is in an evaluation set"):
        feed(streamed(evaluation=[{"source": str(test), "split": "test"}]))


def test_files_that_must_be_read_whole_cannot_be_streamed(streamed, tmp_path):
    (tmp_path / "array.json").write_text(json.dumps([{"prompt": "p", "chosen": "a", "rejected": "b"}]))
    with pytest.raises(BadInput, match="one JSON array"):
        read_corpus(streamed({"source": str(tmp_path / "array.json"), "split": None}))


def test_a_streamed_run_resumes_to_the_same_weights(streamed, tmp_path):
    def run(folder: str, steps: int, **keys: Any) -> Path:
        recipe = streamed(output_dir=str(tmp_path / folder), max_steps=6, scheduler="constant", save_steps=3, **keys)
        return train(recipe, callback=lambda event: None).last

    straight = load_file(run("straight", 6) / "model.safetensors")
    run("resumed", 6)
    folder = tmp_path / "resumed"
    for name in ("last", "checkpoint-000006"):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    resumed = load_file(run("resumed", 6, resume=True) / "model.safetensors")
    assert straight.keys() == resumed.keys()
    assert all((straight[name] == resumed[name]).all() for name in straight)
    record = json.loads((folder / "last" / "prefrank.json").read_text())
    assert record["training"]["data"]["drawn"][0]["drawn"] == 24


def test_a_resumed_stream_notices_other_files(streamed, tmp_path):
    data = write_jsonl(tmp_path / "data.jsonl", make_comparisons(20))
    keys = {"source": {"source": str(data)}, "max_steps": 2}
    train(streamed(**keys))
    write_jsonl(data, make_comparisons(21))
    with pytest.raises(BadData, match="the training data are not those the run was started with"):
        train(streamed(**keys, resume=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": None}, "max_steps is null; a stream has no end"),
        ({"evaluation": None}, "evaluation is null, but what a stream keeps for it is unknown"),
        ({"duplicates": "near"}, "duplicates needs all comparisons at hand, but a data set is a stream"),
        ({"length_balance": True}, "length_balance needs all comparisons at hand"),
        ({"source": {"samples": 5}}, "datasets\\[0\\].samples needs all comparisons at hand"),
        ({"source": {"per_prompt": 5}}, "datasets\\[0\\].per_prompt needs all comparisons at hand"),
        ({"source": {"group": True}}, "datasets\\[0\\] is a stream: group, lang and protocol want it whole"),
        ({"source": {"lang": "en"}}, "datasets\\[0\\] is a stream: group, lang and protocol want it whole"),
        (
            {"datasets": [{"source": "a", "stream": True}, "b"]},
            "datasets\\[0\\] has no share, but a stream has no size",
        ),
    ],
)
def test_options_that_a_stream_cannot_honour_are_refused(streamed, changes, message):
    with pytest.raises(BadRecipe, match=message):
        streamed(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": [{"source": "a", "share": 1}, "b"]}, "datasets\\[1\\] has no share, but others have one; give"),
        ({"datasets": [{"source": "a", "share": 1, "samples": 3}]}, "datasets\\[0\\] has both share and samples"),
        (
            {"evaluation": [{"source": "a", "share": 1}]},
            "evaluation\\[0\\] has one of stream, share, samples, per_prom",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(recipe, changes, message):
    with pytest.raises(BadRecipe, match=message):
        recipe(**changes)
