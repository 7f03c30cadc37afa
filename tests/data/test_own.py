"""Our own format and TRL's: what each way of stating judgments means, and the one-line error for each mistake."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrank.data import load_comparisons
from prefrank.data.candidates import Candidate, Drop, from_ranks, from_ratings, settle
from prefrank.data.hh import PROMPTS_DIFFER
from prefrank.data.own import NOT_ONE_REPLY, NOT_TEXT, TOOLS, UNJUDGED, own
from prefrank.types import Preference, Ratings, Turn
from tests.data.files import own_row, user, write_lines, write_parquet


def test_ranks_are_best_at_zero_and_equal_ranks_tie() -> None:
    candidate = own(own_row(ranks=[0, 2, 0]))
    assert candidate.prompt == user("Name a colour.")
    assert candidate.preferences == (Preference(0, 1), Preference(0, 2, probability=0.5), Preference(2, 1))


def test_ratings_are_best_at_the_top() -> None:
    assert own(own_row(ratings=[4.5, 1, 4.5])).preferences == own(own_row(ranks=[0, 2, 0])).preferences


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=6))
def test_a_ranking_states_each_pair_once_and_agrees_with_its_ranks(ranks: list[int]) -> None:
    preferences = from_ranks(ranks)
    assert len({frozenset((p.winner, p.loser)) for p in preferences}) == len(ranks) * (len(ranks) - 1) // 2
    assert all((ranks[p.winner] < ranks[p.loser]) != p.tie for p in preferences)
    assert from_ratings([-rank for rank in ranks]) == preferences


def test_preferences_may_be_lists_or_objects_and_repeat_a_pair() -> None:
    votes = [[0, 1], [1, 0, 0.5], {"winner": 2, "loser": 1, "probability": 0.8, "weight": 2, "margin": 0.5}]
    assert own(own_row(preferences=votes)).preferences == (
        Preference(0, 1),
        Preference(1, 0, probability=0.5),
        Preference(2, 1, probability=0.8, weight=2.0, margin=0.5),
    )


def test_a_preference_may_have_a_strength_and_belong_to_a_head() -> None:
    votes = [{"winner": 0, "loser": 1, "strength": 3}, {"winner": 2, "loser": 1, "strength": 0, "head": "honesty"}]
    assert own(own_row(preferences=votes)).preferences == (
        Preference(0, 1, strength=3),
        Preference(2, 1, probability=0.5, strength=0, head="honesty"),
    )
    row = {"prompt": "Name a colour.", "chosen": "Blue.", "rejected": "Tuesday.", "strength": 2, "head": "honesty"}
    assert own(row).preferences == (Preference(0, 1, strength=2, head="honesty"),)


def test_ratings_of_several_heads_are_kept_and_the_main_one_orders_the_replies() -> None:
    candidate = own(own_row(ratings={"honesty": [1, 2, None], "overall": [4.5, 1, None], "wit": None}))
    assert candidate.replies == ("Blue.", "Tuesday.")
    assert candidate.preferences == (Preference(0, 1),)
    assert candidate.ratings == (Ratings((1.0, 2.0), "honesty"), Ratings((4.5, 1.0)))
    assert own(own_row(ratings=[4.5, 1, 4.5])).ratings == (Ratings((4.5, 1.0, 4.5)),)


def test_without_the_main_head_every_head_orders_the_replies_and_ranks_are_no_ratings() -> None:
    candidate = own(own_row(ranks={"honesty": [0, 1, None], "wit": [None, 0, 1]}))
    assert candidate.preferences == (Preference(0, 1, head="honesty"), Preference(1, 2, head="wit"))
    assert candidate.ratings == ()
    assert own(own_row(ratings={"honesty": [2, 1, 0]})).preferences[0] == Preference(0, 1, head="honesty")


def test_a_prompt_may_be_messages() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour."}]
    assert own(own_row(prompt=messages, ranks=[0, 1, 2])).prompt == (
        Turn("system", "Be brief."),
        *user("Name a colour."),
    )


def test_a_reply_that_nobody_judged_is_left_out() -> None:
    candidate = own(own_row(ranks=[1, None, 0]))
    assert (candidate.replies, candidate.preferences, candidate.left_out) == (
        ("Blue.", "Red."),
        (Preference(1, 0),),
        (UNJUDGED,),
    )


def test_null_columns_of_a_parquet_row_count_as_absent() -> None:
    row = own_row(ranks=[0, 1, 2], ratings=None, preferences=None, chosen=None, rejected=None, id=None)
    assert own(row) == own(own_row(ranks=[0, 1, 2]))


def test_chosen_and_rejected_take_margin_probability_and_weight() -> None:
    row = {"prompt": "Hi", "chosen": "Hello.", "rejected": "What?", "margin": 1.5, "probability": 0.9, "weight": 3}
    assert own(row) == Candidate(user("Hi"), ("Hello.", "What?"), (Preference(0, 1, 0.9, 3.0, 1.5),))


def chat(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


CONVERSATION = (Turn("user", "Hi"), Turn("assistant", "Hello."), Turn("user", "A colour?"))


def test_implicit_prompts_of_messages_are_the_shared_messages() -> None:
    context = ("Hi", "Hello.", "A colour?")
    row = {"chosen": chat(*context, "Blue."), "rejected": chat(*context, "Tuesday.")}
    assert own(row) == Candidate(CONVERSATION, ("Blue.", "Tuesday."), (Preference(0, 1),))


@pytest.mark.parametrize("prompt", [chat("Hi", "Hello.", "A colour?"), "A colour?"])
def test_a_prompt_that_the_messages_repeat_counts_once(prompt: Any) -> None:
    context = ("Hi", "Hello.", "A colour?")
    row = {"prompt": prompt, "chosen": chat(*context, "Blue."), "rejected": chat(*context, "Tuesday.")}
    assert own(row).prompt == CONVERSATION


def test_the_conversational_form_has_prompt_messages_and_completion_messages() -> None:
    completions = [[{"role": "assistant", "content": text}] for text in ("Blue.", "Tuesday.")]
    row = {"prompt": chat("Hi", "Hello.", "A colour?"), "chosen": completions[0], "rejected": completions[1]}
    assert own(row) == Candidate(CONVERSATION, ("Blue.", "Tuesday."), (Preference(0, 1),))


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (chat("Hi", "Blue."), chat("Ho", "Red."), PROMPTS_DIFFER),
        (chat("Hi", "Blue.", "More?"), chat("Hi", "Red.", "More?"), NOT_ONE_REPLY),
        ([], chat("Hi", "Red."), NOT_ONE_REPLY),
    ],
)
def test_message_lists_that_compare_no_single_reply_are_dropped(chosen: Any, rejected: Any, reason: str) -> None:
    assert own({"chosen": chosen, "rejected": rejected}) == Drop(reason)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (own_row(), "'replies' came with no judgment; wanted one of ranks, ratings, preferences"),
        (own_row(ranks=[0, 1, 2], ratings=[1, 2, 3]), "'replies' came with ranks and ratings"),
        (own_row(ranks=[0, 1]), "3 replies came with 2 ranks; wanted as many of each"),
        (own_row(ratings=[1.0, float("nan"), 2.0]), "'ratings' holds nan; wanted a finite number"),
        (own_row(ranks=[0, "1", 2]), "'ranks' holds '1'; wanted a finite number"),
        (own_row(ranks=[0, True, 2]), "'ranks' holds True; wanted a finite number"),
        (own_row(replies=[], ranks=[]), "'replies' is empty; wanted at least two replies"),
        (own_row(replies="Blue.", ranks=[0]), "'replies' holds 'Blue.'; wanted a list"),
        (own_row(replies=["a", None], ranks=[0, 1]), r"'replies\[1\]' holds null; wanted a string"),
        (own_row(preferences=[[0, 3]]), r"'preferences\[0\].loser' holds 3; wanted a whole number from 0 to 2"),
        (own_row(preferences=[[0]]), r"'preferences\[0\]' holds \[0\]; wanted \[winner, loser\]"),
        (own_row(preferences=[[0, 0]]), "both winner and loser"),
        (own_row(preferences=[[0, 1, 1.5]]), "probability is 1.5; wanted 0 to 1"),
        (own_row(preferences=[{"winner": 0, "loser": 1, "wieght": 2}]), "'wieght'; did you mean 'weight'"),
        (own_row(preferences=[{"winner": 0}]), "no column 'loser'"),
        (own_row(preferences=[{"winner": 0, "loser": 1, "strength": 1.5}]), "'strength' holds 1.5; wanted a whole"),
        (own_row(preferences=[{"winner": 0, "loser": 1, "strength": -1}]), "'strength' holds -1.0; wanted a whole"),
        (own_row(preferences=[{"winner": 0, "loser": 1, "strength": 1, "probability": 0.5}]), "strength is 1 at prob"),
        (own_row(ratings={"overall": [1, 2]}), "3 replies came with 2 ratings.overall; wanted as many of each"),
        (own_row(prompt=3, ranks=[0, 1, 2]), "'prompt' holds 3; wanted a string or a list"),
        (own_row(prompt=[{"role": "bot", "content": "x"}], ranks=[0, 1, 2]), "role 'bot'; wanted one of system, user"),
        (own_row(prompt=[{"role": "user"}], ranks=[0, 1, 2]), "a message has no content; wanted a string"),
        (own_row(prompt="\ud800 broken", ranks=[0, 1, 2]), r"lone surrogate, '\\ud800' at 0"),
        ({"replies": ["a", "b"], "ranks": [0, 1]}, "no column 'prompt'"),
        ({"prompt": "Hi", "chosen": "a", "rejected": 5}, "'rejected' holds 5; wanted a string or a list of messages"),
        ({"prompt": "Hi", "chosen": "a", "rejected": None}, "'rejected' holds null; wanted a string or a list"),
        ({"prompt": "Hi", "chosen": None, "rejected": chat("Hi", "b")}, "'chosen' holds null; wanted a string or"),
        (
            {"prompt": "Hi", "chosen": "a", "rejected": "b", "score_chosen": "x", "score_rejected": 1},
            "'score_chosen' h",
        ),
        (own_row(ranks=[0, 1, 2], chosen="Blue.", rejected="Red."), "'replies' came with chosen and rejected"),
        (own_row(prompt=[{"from": "narrator", "value": "x"}], ranks=[0, 1, 2]), "ShareGPT message from 'narrator'; kn"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b", "margin": "big"}, "'margin' holds 'big'"),
    ],
)
def test_a_malformed_row_is_an_error_that_says_what_was_wanted(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        own(row)


def test_one_reply_is_no_error_and_no_comparison() -> None:
    assert settle(own(own_row(replies=["Blue."], ranks=[0]))) == Drop("fewer than two replies")


@pytest.mark.parametrize("write", [write_lines, write_parquet])
@pytest.mark.parametrize(
    ("beside", "reason"),
    [({"tools": '[{"name": "sum"}]'}, TOOLS), ({"images": ["a.png"]}, NOT_TEXT), ({"tools": "[]", "images": []}, "")],
)
def test_what_a_prompt_has_no_place_for_is_dropped_and_counted(
    tmp_path: Path, write: Any, beside: dict[str, Any], reason: str
) -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "a", "rejected": "b", **beside}]
    name = "mine.jsonl" if write is write_lines else "mine.parquet"
    report = load_comparisons(write(tmp_path / name, rows[::-1])).report
    assert report.dropped == ({reason: 1} if reason else {})
