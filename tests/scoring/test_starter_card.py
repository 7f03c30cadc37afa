import numpy as np
import pytest

from prefrank import RewardModel, Turn, card_rank_model_fn
from prefrank.errors import BadInput
from prefrank.scoring.starter_card import split_sample


def test_samples_score_as_their_pairs_do(model: RewardModel) -> None:
    values = card_rank_model_fn(model)(["how do I bake[SEP] mix flour ", "hello[SEP]there you are"])
    want = [model.score("how do I bake", ["mix flour"])[0].value, model.score("hello", ["there you are"])[0].value]
    assert values.dtype == np.float32
    assert values.tolist() == pytest.approx(want, abs=1e-5)


def test_replies_of_three_characters_or_fewer_get_the_cards_floor(model: RewardModel) -> None:
    values = card_rank_model_fn(model)(
        ["p[SEP]", "p[SEP]  ", "p[SEP]Yes", "p[SEP]2022", "p[SEP]aaaabbbbcccc", "p[SEP]Nope"]
    )
    assert values[:5].tolist() == [-4.0] * 5
    assert values[5] != -4.0


def test_a_sample_with_several_separators_is_a_conversation() -> None:
    prompt, reply = split_sample("q1[SEP]a1[SEP]q2[SEP] a2 ", 0)
    assert prompt == (Turn("user", "q1"), Turn("assistant", "a1"), Turn("user", "q2"))
    assert reply == "a2"


def test_a_sample_without_a_separator_is_named(model: RewardModel) -> None:
    with pytest.raises(BadInput, match=r"sample 1 has no \[SEP\]"):
        card_rank_model_fn(model)(["p[SEP]hello", "no separator"])


def test_no_samples_give_no_scores(model: RewardModel) -> None:
    assert card_rank_model_fn(model)([]).shape == (0,)
