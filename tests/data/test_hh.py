"""Anthropic HH: turns, blank lines, differing prompts, empty and equal replies."""

import pytest

from prefrank.data.candidates import Candidate, Drop, settle
from prefrank.data.hh import ENDS_IN_HUMAN, NO_ASSISTANT, PROMPTS_DIFFER, hh, transcript
from prefrank.errors import BadData
from prefrank.types import Preference, Turn
from tests.data.files import hh_row, user


def test_blank_lines_inside_a_message_belong_to_it() -> None:
    row = hh_row("List two things.\n\nPlease.", "Here:\n\n1. Tea\n\n2. Salt", "Here:\n\n1. Tea")
    assert hh(row) == Candidate(
        user("List two things.\n\nPlease."), ("Here:\n\n1. Tea\n\n2. Salt", "Here:\n\n1. Tea"), (Preference(0, 1),)
    )


def test_role_words_inside_a_message_start_no_turn() -> None:
    asked = "Write 'Assistant: yes' and\nHuman: no after it"
    assert hh(hh_row(asked, "Human: said so.", "Assistant: no.")).prompt == user(asked)


def test_only_the_last_assistant_turn_is_the_reply() -> None:
    row = hh_row("Hi", "Hello.\n\nHuman: Bake?\n\nAssistant: Yes.", "Hello.\n\nHuman: Bake?\n\nAssistant: No.")
    candidate = hh(row)
    assert candidate.prompt == (Turn("user", "Hi"), Turn("assistant", "Hello."), Turn("user", "Bake?"))
    assert candidate.replies == ("Yes.", "No.")


def test_two_assistant_turns_in_a_row_stay_two() -> None:
    row = hh_row("Hi", "One.\n\nAssistant: Two.\n\nAssistant: Good.", "One.\n\nAssistant: Two.\n\nAssistant: Bad.")
    assert hh(row).prompt == (Turn("user", "Hi"), Turn("assistant", "One."), Turn("assistant", "Two."))


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ("\n\nHuman: A\n\nAssistant: x", "\n\nHuman: B\n\nAssistant: y", PROMPTS_DIFFER),
        ("\n\nHuman: A\n\nAssistant: x", "\n\nHuman: A\n\nAssistant: x\n\nAssistant: y", PROMPTS_DIFFER),
        ("\n\nHuman: A\n\nAssistant: x\n\nHuman: B", "\n\nHuman: A\n\nAssistant: y", ENDS_IN_HUMAN),
        ("\n\nHuman: A", "\n\nHuman: A\n\nAssistant: y", NO_ASSISTANT),
        ("\n\nHuman: A\n\nAssistant: x", "\n\nHuman: A\n\nAssistant: x ", "equal replies"),
        ("\n\nHuman: A\n\nAssistant:", "\n\nHuman: A\n\nAssistant: y", "empty reply"),
        ("\n\nAssistant: x", "\n\nAssistant: y", "empty prompt"),
    ],
)
def test_a_pair_that_compares_nothing_is_dropped_with_its_reason(chosen: str, rejected: str, reason: str) -> None:
    candidate = hh({"chosen": chosen, "rejected": rejected})
    assert (candidate if isinstance(candidate, Drop) else settle(candidate)) == Drop(reason)


def test_white_space_at_the_ends_of_turns_makes_no_difference() -> None:
    row = {"chosen": "\n\nHuman: A \n\nAssistant: x", "rejected": "\n\nHuman:  A\n\nAssistant: y"}
    assert hh(row).prompt == user("A")


@pytest.mark.parametrize("text", ["Human: A\n\nAssistant: x", "Title\n\nHuman: A\n\nAssistant: x", "", "no turns"])
def test_a_text_that_opens_with_no_turn_is_an_error(text: str) -> None:
    with pytest.raises(BadData, match="a transcript opens with"):
        transcript(text)
