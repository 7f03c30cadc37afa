from pathlib import Path

import numpy as np
import pytest

from prefrank.data import load_comparisons, split_of
from prefrank.errors import BadData, BadText, NotFound
from prefrank.text import TextEncoder, TextSettings
from prefrank.training.feed.corpus import read_corpus
from prefrank.training.feed.examples import encode
from prefrank.training.records.events import DataRead
from prefrank.types import Comparison, Preference, Turn
from tests.training.conftest import make_comparisons, write_jsonl

FIRST_WINS = (Preference(0, 1),)


def comparison(*replies: str, prompt: str = "question", preferences=FIRST_WINS) -> Comparison:
    return Comparison((Turn("user", prompt),), replies, preferences, "made", "7")


@pytest.fixture
def encoder(bert) -> TextEncoder:
    return TextEncoder.load(bert, TextSettings("pair", 16))


def test_without_a_split_training_takes_train_and_evaluation_validation(recipe, pairs):
    corpus = read_corpus(recipe())
    assert corpus.training == load_comparisons(pairs, split="train").comparisons
    assert corpus.evaluation == {f"{pairs}:validation": load_comparisons(pairs, split="validation").comparisons}
    assert corpus.weights == (1.0,) * len(corpus.training)


def test_no_prompt_is_both_trained_and_evaluated_on(recipe, pairs):
    corpus = read_corpus(
        recipe(datasets=[{"source": str(pairs), "split": "train"}, str(pairs)], evaluation=[str(pairs)])
    )
    asked = {comparison.prompt for comparisons in corpus.evaluation.values() for comparison in comparisons}
    assert asked
    assert not asked & {comparison.prompt for comparison in corpus.training}


def test_prompts_of_an_evaluation_set_are_taken_out_of_the_training_data(recipe, pairs, tmp_path):
    training = load_comparisons(pairs).comparisons
    leak = write_jsonl(tmp_path / "leak_test.jsonl", training[:5])
    corpus = read_corpus(recipe(evaluation=[{"source": str(leak), "split": "test"}]))
    assert len(corpus.training) == len(training) - 5
    assert corpus.record[0]["left_out"] == {"prompt is in an evaluation set": 5}
    assert corpus.record[0]["dropped"] == {"prompt is in an evaluation set": 5}


def test_evaluation_on_nothing_is_possible(recipe):
    assert read_corpus(recipe(evaluation=[])).evaluation == {}
    assert read_corpus(recipe(evaluation="none")).evaluation == {}


def test_a_set_without_validation_is_evaluated_on_its_test_split(recipe, tmp_path):
    for split, seed in (("train", 1), ("test", 2)):
        comparisons = tuple(
            Comparison(
                (Turn("user", f"{split} {comparison.prompt[0].text}"),),
                comparison.replies,
                comparison.preferences,
                "made",
                comparison.id,
            )
            for comparison in make_comparisons(5, seed=seed)
        )
        write_jsonl(tmp_path / f"{split}.jsonl", comparisons)
    corpus = read_corpus(recipe(datasets=[str(tmp_path)]))
    assert [(name, len(comparisons)) for name, comparisons in corpus.evaluation.items()] == [(f"{tmp_path}:test", 5)]
    assert len(corpus.training) == 5


def test_a_fraction_keeps_whole_prompts_and_smaller_fractions_lie_inside_larger_ones(recipe, pairs):
    kept = [
        set(read_corpus(recipe(datasets=[{"source": str(pairs), "fraction": share}])).training)
        for share in (0.3, 0.6, 1.0)
    ]
    assert 0 < len(kept[0]) < len(kept[1]) < len(kept[2])
    assert kept[0] < kept[1] < kept[2]


def test_the_evaluation_limit_keeps_a_stable_subset(recipe, pairs):
    whole = read_corpus(recipe()).evaluation[f"{pairs}:validation"]
    corpus = read_corpus(recipe(eval_limit=2))
    some = corpus.evaluation[f"{pairs}:validation"]
    assert len(some) == 2 < len(whole)
    assert set(some) < set(whole)
    assert corpus.record[-1]["left_out"] == {"beyond eval_limit": len(whole) - 2}
    assert set(read_corpus(recipe(eval_limit=1)).evaluation[f"{pairs}:validation"]) < set(some)


def test_a_limit_reads_no_more_comparisons_than_that(recipe, pairs):
    assert len(read_corpus(recipe(datasets=[{"source": str(pairs), "limit": 3}])).training) == 3


def test_weights_stand_beside_their_comparisons(recipe, pairs, tmp_path):
    other = write_jsonl(tmp_path / "other.jsonl", make_comparisons(10, seed=9, words=9))
    corpus = read_corpus(recipe(datasets=[str(pairs), {"source": str(other), "weight": 0.5}]))
    expected = [0.5 if comparison.source == "other" else 1.0 for comparison in corpus.training]
    assert list(corpus.weights) == expected
    assert set(expected) == {0.5, 1.0}


def test_sets_of_one_name_are_both_evaluated(recipe, pairs):
    corpus = read_corpus(recipe(evaluation=[str(pairs), {"source": str(pairs), "fraction": 0.5}]))
    assert list(corpus.evaluation) == [f"{pairs}:validation", f"{pairs}:validation #2"]


def test_what_was_read_and_dropped_is_reported(recipe, pairs):
    events: list[DataRead] = []
    corpus = read_corpus(recipe(), events.append)
    assert [(event.role, event.comparisons) for event in events] == [
        ("training", len(corpus.training)),
        ("evaluation", len(corpus.evaluation[f"{pairs}:validation"])),
    ]
    assert events[0].record == corpus.record[0]
    assert events[0].record["read"]["rows"] == 30
    assert events[0].record["dropped"] == {}  # rows of the other split are not lost


def test_nothing_left_to_train_on_is_an_error(recipe, pairs, tmp_path):
    every = tuple(load_comparisons(pairs).comparisons)
    leak = write_jsonl(tmp_path / "every_test.jsonl", every)
    with pytest.raises(BadData, match="no comparison is left to train on"):
        read_corpus(recipe(evaluation=[{"source": str(leak), "split": "test"}]))


def test_an_unknown_set_or_split_is_an_error(recipe, pairs):
    with pytest.raises(NotFound, match="did you mean 'webgpt'"):
        read_corpus(recipe(datasets=["webgtp"]))
    with pytest.raises(NotFound, match="has no split 'test'"):
        read_corpus(recipe(evaluation=[{"source": str(pairs), "split": "test"}]))


def test_every_reply_is_encoded_once_and_comes_back_as_it_was(encoder):
    comparisons = make_comparisons(5, replies=3)
    examples, counts = encode(comparisons, encoder)
    assert len(examples.reply_starts) == 15
    for number, comparison in enumerate(comparisons):
        for ours, theirs in zip(
            examples.rows(number), encoder.encode(comparison.prompt, comparison.replies), strict=True
        ):
            assert np.array_equal(ours.ids, theirs.ids)
            assert ours.reply_start == theirs.reply_start
    assert counts.rows == 15
    assert counts.tokens == sum(examples.tokens(c) for c in range(5)) == len(examples.ids)
    assert examples.names[1] == "made/1"


def test_a_comparison_whose_replies_are_equal_after_cutting_is_dropped_and_counted(encoder):
    same = "bread " * 30
    examples, counts = encode([comparison(same + "one", same + "two"), comparison("one", "two")], encoder)
    assert len(examples) == counts.kept == 1
    assert counts.dropped_replies_equal_after_cutting == 1
    assert counts.preferences_dropped_replies_equal_after_cutting == 1


def test_of_a_ranked_group_only_the_preference_between_equal_rows_is_dropped(encoder):
    same = "bread " * 30
    ranked = comparison(
        same + "one", same + "two", "x", preferences=tuple(Preference(*p) for p in ((0, 1), (0, 2), (1, 2)))
    )
    examples, counts = encode([ranked], encoder)
    assert examples.preferences == ((Preference(0, 2), Preference(1, 2)),)
    assert counts.dropped_replies_equal_after_cutting == 0
    assert counts.preferences_dropped_replies_equal_after_cutting == 1
    assert counts.rows_with_cut_reply == 2


def test_cut_prompts_are_counted_by_row(encoder):
    _, counts = encode([comparison("a", "b", prompt="bread " * 30)], encoder)
    assert (counts.rows_with_cut_prompt, counts.rows_with_cut_reply) == (2, 0)


def test_progress_ends_with_all_done(encoder):
    reported: list[tuple[int, int]] = []
    encode(make_comparisons(300), encoder, progress=lambda done, total: reported.append((done, total)))
    assert reported == [(256, 300), (300, 300)]


def test_a_text_that_cannot_be_encoded_is_an_error(encoder):
    with pytest.raises(BadText, match="lone surrogate"):
        encode([comparison("fine", "\ud800")], encoder)


def test_the_digest_tells_data_preferences_and_weights_apart(encoder):
    one = comparison("a", "b")
    digests = {
        encode([one], encoder)[0].digest(),
        encode([comparison("a", "c")], encoder)[0].digest(),
        encode([comparison("a", "b", preferences=(Preference(1, 0),))], encoder)[0].digest(),
        encode([one], encoder, weights=[0.5])[0].digest(),
    }
    assert len(digests) == 4
    assert encode([one], encoder)[0].digest() in digests


def test_places_of_prompts_do_not_depend_on_where_the_file_is(recipe, pairs, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(Path(pairs).read_bytes())
    ours, theirs = (read_corpus(recipe(datasets=[str(path)])).training for path in (pairs, copy))
    assert [split_of(comparison.prompt) for comparison in ours] == [
        split_of(comparison.prompt) for comparison in theirs
    ]
