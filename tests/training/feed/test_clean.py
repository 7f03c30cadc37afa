import json

import pytest

from prefrank.errors import BadRecipe
from prefrank.training.feed.clean import MERGED, NEAR, find_leaks, find_repeats
from prefrank.training.feed.corpus import read_corpus
from prefrank.types import Comparison, Preference, Ratings, Turn
from tests.training.conftest import make_comparisons, write_jsonl

LONG = "knead the dough on a floured board until it is smooth and springs back when you press it with a thumb"
OTHER = "the ferry leaves the harbour at noon and calls at three small islands before it turns back to the city"


def comparison(prompt: str, *replies: str, preferences=((0, 1),), id: str = "1", source: str = "made") -> Comparison:
    stated = tuple(Preference(*preference) for preference in preferences)
    return Comparison((Turn("user", prompt),), replies, stated, source, id)


def repeats(*comparisons: Comparison, sets=None, merge=True, near=False):
    return find_repeats(comparisons, sets or [0] * len(comparisons), merge=merge, near=near)


def test_votes_on_one_pair_are_merged_and_all_count():
    one, swapped = comparison("p", "a", "b"), comparison("p", "b", "a", preferences=((1, 0), (0, 1)))
    found = repeats(one, comparison("q", "a", "b"), swapped)
    assert found.reasons == ("", "", MERGED)
    assert found.kept[0].preferences == (Preference(0, 1), Preference(0, 1), Preference(1, 0))
    assert found.kept[0].replies == ("a", "b")
    assert found.kept[1:] == (comparison("q", "a", "b"), None)


def test_what_another_set_states_again_is_left_out_and_what_it_states_anew_is_not():
    one = comparison("p", "a", "b")
    again = comparison("p", "b", "a", preferences=((1, 0), (0, 1)))
    assert repeats(one, again, sets=[0, 1]).kept[0].preferences == (Preference(0, 1), Preference(1, 0))


def test_votes_of_another_set_are_merged_as_often_as_it_has_them():
    against = [comparison("p", "b", "a", id=str(n)) for n in range(4)]
    tie = comparison("p", "a", "b", preferences=((0, 1, 0.5),))
    for others, kept in (([tie], 4), ([*against[:1], tie], 4), ([*against, against[0], tie], 5)):
        found = repeats(*others, *against, comparison("p", "a", "b"), sets=[0] * len(others) + [1] * 5)
        said = [(others[0].replies[p.winner], p.probability) for p in found.kept[0].preferences]
        assert (said.count(("b", 1.0)), said.count(("a", 1.0)), sum(p == 0.5 for _, p in said)) == (kept, 1, 1)


def test_ratings_of_merged_replies_take_their_mean():
    one, two = (
        Comparison((Turn("user", "p"),), replies, (Preference(0, 1),), "made", "1", (Ratings(values),))
        for replies, values in ((("a", "b"), (4.0, 2.0)), (("b", "a"), (3.0, 1.0)))
    )
    assert repeats(one, two).kept[0].ratings == (Ratings((2.5, 2.5)),)


def test_contradictions_are_counted_whether_or_not_anything_is_merged():
    said = (
        comparison("p", "a", "b"),
        comparison("p", "b", "a"),
        comparison("p", "a", "b"),
        comparison("p", "a", "b", preferences=((1, 0, 0.5),)),
        comparison("p", "a", "c", preferences=((1, 0),)),
    )
    for merge in (True, False):
        # the third opposes what the second said
        assert repeats(*said, merge=merge).contradicting == (False, True, True, False, False)
    assert repeats(*said, merge=False).kept == said


def test_votes_of_a_file_are_four_to_one_however_they_are_cleaned(recipe, tmp_path):
    sides = [("b", "a")] + [("a", "b")] * 4
    rows = [{"id": n, "prompt": "p", "chosen": good, "rejected": bad} for n, (good, bad) in enumerate(sides)]
    path = tmp_path / "votes.train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for duplicates, kept in (("keep", 5), ("exact", 1), ("near", 1)):
        corpus = read_corpus(recipe(datasets=[str(path)], evaluation=[], duplicates=duplicates))
        assert len(corpus.training) == kept
        won = [comparison.replies[p.winner] for comparison in corpus.training for p in comparison.preferences]
        assert (won.count("a"), won.count("b")) == (4, 1)


def test_near_duplicates_of_prompt_and_replies_are_dropped():
    one = comparison(LONG, OTHER, LONG)
    near = comparison(f"{LONG} now", f"{LONG} please", OTHER.upper())
    found = repeats(one, near, comparison(LONG, OTHER, "another reply"), near=True)
    assert found.reasons == ("", NEAR, "")
    assert found.contradicting == (False, True, False)  # it prefers what the first prefers least
    assert repeats(one, near).reasons == ("", "")


def test_prompts_of_the_same_words_leak_and_others_do_not():
    there = {"test": [comparison("What is yeast?", "x", "y", id="t")]}
    leaks = find_leaks([comparison("what IS yeast", "a", "b"), comparison("What is bread?", "a", "b")], there)
    assert [(leak.training, leak.set) for leak in leaks] == [(0, "test")]
    assert leaks[0].example == "'what IS yeast' (made/1) has the words of 'What is yeast?' (t)"


def test_prompts_and_replies_that_are_taken_over_leak():
    there = {"first": [comparison("q", "x", "y")], "second": [comparison(LONG, OTHER, "z", id="t")]}
    training = [
        comparison(f"Please help. {LONG} Thanks.", "a", "b"),
        comparison("another", "a", f"{OTHER} indeed"),
        comparison(LONG[:50], "a", OTHER[:50]),
    ]
    leaks = find_leaks(training, there)
    assert [(leak.training, leak.set) for leak in leaks] == [(0, "second"), (1, "second")]
    assert "shares 100% of its 13-grams with 'the ferry leaves" in leaks[1].example


def turns(*texts: str) -> tuple[Turn, ...]:
    return tuple(Turn("assistant" if n % 2 else "user", text) for n, text in enumerate(texts))


def test_conversations_that_open_with_a_shared_template_do_not_leak():
    def talk(dish: str, *more: str) -> Comparison:
        return Comparison(turns(f"{LONG} Now, how is {dish} made?", *more), ("a", "b"), (Preference(0, 1),), "hh", dish)

    training = [talk(dish, "Do you have flour?", "Yes") for dish in ("bread", "cake", "pie", "soup")]
    assert find_leaks(training, {"test": [talk("noodles", "Do you have flour?", "Yes")]}) == []


def test_a_longer_conversation_over_a_leaked_opening_leaks_too():
    def talk(*texts: str) -> Comparison:
        return Comparison(turns(*texts), ("a", "b"), (Preference(0, 1),), "hh", "1")

    there = {"test": [talk(f"{LONG}?", OTHER, "Go on.")]}
    assert [
        leak.training for leak in find_leaks([talk(f"{LONG}!", OTHER, "And then?"), talk("Hi!", "Hi", "So?")], there)
    ] == [0]


@pytest.fixture
def leaking(tmp_path):
    """A training file of twelve pairs, and an evaluation file with one of their prompts in capitals."""
    comparisons = make_comparisons(12)
    training = write_jsonl(tmp_path / "train.jsonl", comparisons)
    leak = comparison(comparisons[3].prompt[0].text.upper(), "x", "y", id="leak")
    return str(training), str(write_jsonl(tmp_path / "test.jsonl", (leak, comparison(OTHER, "x", "y"))))


def test_leaks_are_refused_with_set_count_example_and_cure(recipe, leaking):
    training, test = leaking
    with pytest.raises(BadRecipe) as caught:
        read_corpus(recipe(datasets=[training], evaluation=[test]))
    message = str(caught.value)
    assert message.startswith("leaks is refuse, and 1 training comparisons nearly stand in evaluation sets (1 of ")
    assert "'question 3 " in message
    assert "QUESTION 3" in message
    assert message.endswith("set leaks: drop to train without them, or leaks: allow")


def test_leaks_may_be_dropped_or_allowed_and_are_counted(recipe, leaking):
    training, test = leaking
    dropped, allowed = (
        read_corpus(recipe(datasets=[training], evaluation=[test], leaks=leaks)) for leaks in ("drop", "allow")
    )
    assert len(dropped.training) == len(allowed.training) - 1
    assert dropped.record[0]["left_out"] == {"nearly in an evaluation set": 1}
    assert allowed.record[0]["leaks"] == 1


def test_a_sets_own_split_takes_near_prompts_out_of_training_as_it_does_equal_ones(recipe, leaking, tmp_path):
    assert read_corpus(recipe(datasets=[str(tmp_path)])).record[0]["left_out"] == {"nearly in an evaluation set": 1}


def test_duplicates_across_sets_stay_unless_asked_and_contradictions_are_said(recipe, tmp_path):
    comparisons = make_comparisons(8)
    other = tuple(
        Comparison(
            comparison.prompt,
            comparison.replies,
            (Preference(1, 0),) if n < 2 else comparison.preferences,
            "made",
            comparison.id,
        )
        for n, comparison in enumerate(comparisons)
    )
    files = [str(write_jsonl(tmp_path / f"{n}-train.jsonl", part)) for n, part in enumerate((comparisons, other))]
    both = [{"source": file, "split": "train"} for file in files]
    kept = read_corpus(recipe(datasets=both, evaluation=[]))
    assert kept.record[1]["contradicting"] == 2
    assert len(kept.training) == 2 * len(kept.training[: kept.sets.index(1)])
    merged = read_corpus(recipe(datasets=both, evaluation=[], duplicates="exact"))
    assert len(merged.training) == len(kept.training) // 2
    assert merged.record[1]["left_out"] == {MERGED: len(merged.training)}
    assert sum(len(comparison.preferences) for comparison in merged.training) == len(merged.training) + 2


def test_evaluation_that_is_named_must_be_there(recipe, pairs, tmp_path):
    everything = write_jsonl(tmp_path / "test.jsonl", make_comparisons(3))
    with pytest.raises(BadRecipe, match=r"evaluation names .*test.jsonl:test, which has no comparison .*; take it out"):
        read_corpus(recipe(evaluation=[{"source": str(everything), "split": "test", "fraction": 1e-9}]))
    with pytest.raises(BadRecipe, match="early_stop is 2, but there is nothing to evaluate on; name evaluation sets"):
        read_corpus(recipe(evaluation=[], early_stop=2))
