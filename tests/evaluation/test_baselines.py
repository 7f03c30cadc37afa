import random
import sys
from pathlib import Path

import pytest

from prefrank.data import load_comparisons
from prefrank.errors import BadData, NotFound
from prefrank.evaluation import Bootstrap, baselines, evaluate, longer_wins, random_scorer, shorter_wins, tfidf_scorer
from prefrank.types import Comparison, as_prompt
from tests.evaluation.making import comparison, preference

FAST = Bootstrap(resamples=50)
KIND = ["sure, here is how", "gladly: take these steps", "of course, let me show you", "happy to help with this"]
RUDE = ["go away", "what a stupid question", "who cares about this", "look it up yourself, lazy"]


def pairs(count: int, *, start: int = 0, kind_wins: bool = True) -> list[Comparison]:
    """A kind and a rude reply for each prompt; the winner is at either place."""
    made = []
    for i in range(start, start + count):
        replies = [KIND[i % 4] + f" {i}", RUDE[(i // 4) % 4] + f" {i}"]
        winner = 0 if kind_wins else 1
        if i % 2:
            replies, winner = replies[::-1], 1 - winner
        made.append(comparison(replies, [preference(winner, 1 - winner)], prompt=f"question {i}", id=str(i)))
    return made


def test_longer_and_shorter_are_opposite_and_equal_lengths_tie() -> None:
    texts = [(as_prompt("why?"), reply) for reply in ["four", "five!", "size", ""]]
    longer, shorter = [s.value for s in longer_wins(texts)], [s.value for s in shorter_wins(texts)]
    assert longer[1] > longer[0] == longer[2] > longer[3] == 0
    assert shorter == [-value for value in longer]


def test_the_longer_scorer_gets_the_length_accuracy_of_the_same_pairs() -> None:
    result = evaluate(longer_wins, pairs(12), name="longer", bootstrap=FAST).overall
    assert result.accuracy == result.length_accuracy
    assert 0.5 < result.accuracy.value < 1


def test_random_scores_depend_on_the_texts_and_the_seed_alone() -> None:
    texts = [(as_prompt("why?"), f"reply {i}") for i in range(200)]
    scores = random_scorer(seed=1)(texts)
    assert random_scorer(seed=1)(texts[::-1]) == scores[::-1]
    values = [score.value for score in scores]
    assert [score.value for score in random_scorer(seed=2)(texts)] != values
    assert all(0 <= value < 1 for value in values)
    assert 0.4 < sum(values) / 200 < 0.6


def test_tfidf_learns_words_that_decide_on_prompts_it_never_saw() -> None:
    scorer = tfidf_scorer(pairs(60))
    result = evaluate(scorer, pairs(40, start=60), name="tfidf", bootstrap=FAST).overall
    assert result.accuracy.value == 1.0
    assert result.log_loss.value < 0.5


def test_tfidf_of_opposite_labels_gives_opposite_scores() -> None:
    texts = [(as_prompt("why?"), reply) for reply in [*KIND, *RUDE]]
    forward = [s.value for s in tfidf_scorer(pairs(40), strengths=(1.0,))(texts)]
    backward = [s.value for s in tfidf_scorer(pairs(40, kind_wins=False), strengths=(1.0,))(texts)]
    assert forward == pytest.approx([-value for value in backward], abs=1e-3)


def test_tfidf_does_not_care_which_reply_stands_first() -> None:
    train = pairs(40)
    turned = [
        Comparison(
            c.prompt, c.replies[::-1], (preference(c.preferences[0].loser, c.preferences[0].winner),), "set", c.id
        )
        for c in train
    ]
    texts = [(as_prompt("why?"), reply) for reply in [*KIND, *RUDE]]
    assert [s.value for s in tfidf_scorer(train)(texts)] == pytest.approx(
        [s.value for s in tfidf_scorer(turned)(texts)], abs=1e-3
    )


def test_tfidf_learns_nothing_from_ties_and_less_from_soft_labels() -> None:
    def strength(probability: float) -> float:
        train = [
            comparison(c.replies, [preference(c.preferences[0].winner, c.preferences[0].loser, probability)],
                       prompt=c.prompt[0].text)
            for c in pairs(40)
        ]  # fmt: skip
        kind, rude = tfidf_scorer(train, strengths=(1.0,))([(as_prompt("why?"), KIND[0]), (as_prompt("why?"), RUDE[0])])
        return kind.value - rude.value

    assert strength(0.5) == pytest.approx(0, abs=1e-6)
    assert 0 < strength(0.7) < strength(1.0)
    assert strength(0.3) == pytest.approx(-strength(0.7), abs=1e-3)


def test_weak_regularisation_is_chosen_only_where_words_decide() -> None:
    draw = random.Random(0)
    noise = [
        comparison(c.replies, [preference(*draw.choice([(0, 1), (1, 0)]))], prompt=c.prompt[0].text) for c in pairs(150)
    ]
    clear, noisy = tfidf_scorer(pairs(150)), tfidf_scorer(noise)
    texts = [(as_prompt("why?"), "go away 3")]
    chosen = [float(scorer(texts)[0].model.split("C=")[1].split(":")[0]) for scorer in (clear, noisy)]
    assert chosen[0] > chosen[1]


def test_too_few_prompts_are_refused() -> None:
    with pytest.raises(BadData, match="got 1 training comparisons"):
        tfidf_scorer(pairs(1))


def test_replies_without_words_are_refused() -> None:
    train = [comparison(["!", "?"], [preference(0, 1)], prompt=f"question {i}") for i in range(40)]
    with pytest.raises(BadData, match="finds no words"):
        tfidf_scorer(train)


def test_a_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(NotFound, match=r"pip install 'prefrank\[evaluate\]'"):
        tfidf_scorer(pairs(40))


def test_all_baselines_go_through_the_same_evaluation() -> None:
    results = {
        name: evaluate(scorer, pairs(40, start=60), name=name, bootstrap=FAST)
        for name, scorer in baselines(pairs(60)).items()
    }
    assert list(results) == ["longer reply", "shorter reply", "random", "tf-idf + logistic"]
    assert len({result.data for result in results.values()}) == 1
    assert len({result.model for result in results.values()}) == 4
    accuracy = {name: result.overall.accuracy.value for name, result in results.items()}
    assert accuracy["longer reply"] + accuracy["shorter reply"] == pytest.approx(1.0)


@pytest.mark.shared_data
def test_length_says_next_to_nothing_about_hh_as_a_whole(shared_data: Path) -> None:
    comparisons = load_comparisons(shared_data / "hh-rlhf", split="test").comparisons
    result = evaluate(longer_wins, comparisons, name="longer", bootstrap=FAST)
    assert len(result.subsets) == 4
    assert 0.48 < result.overall.accuracy.value < 0.55
    assert result.overall.accuracy.prompts < result.overall.accuracy.n == len(comparisons)
    assert result.subsets["hh/harmless-base"].accuracy.value < 0.5 < result.subsets["hh/helpful-base"].accuracy.value
