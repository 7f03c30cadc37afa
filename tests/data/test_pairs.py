"""WebGPT, SHP, HellaSwag, the Open Assistant private format and ranked lists: the published meaning of each row."""

import pytest

from prefrank.data.candidates import Candidate, Drop, settle
from prefrank.data.pairs import (
    EARLIER_WON,
    EQUAL_SCORES,
    LABEL_AGAINST_SCORES,
    NO_LABEL,
    hellaswag,
    oa_private,
    ranked_list,
    shp,
    webgpt,
    without_markers,
)
from prefrank.errors import BadData
from prefrank.types import Preference, Turn
from tests.data.files import shp_row, user, webgpt_row


def test_a_webgpt_score_counts_by_its_sign_alone() -> None:
    for score in (0.1, 1.0):
        assert webgpt(webgpt_row("A.", "B.", score)).preferences == (Preference(0, 1),)
        assert webgpt(webgpt_row("A.", "B.", -score)).preferences == (Preference(1, 0),)


def test_a_webgpt_score_of_zero_is_a_tie_and_no_win_for_either_answer() -> None:
    assert webgpt(webgpt_row("A.", "B.", 0.0)).preferences == (Preference(0, 1, probability=0.5),)


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("Rain falls [1]. It stops[2].", "Rain falls. It stops."),
        ("Rain falls [1, 2][3] often.", "Rain falls often."),
        ("[ 1 ] Rain falls.", "Rain falls."),
        ("Rain.\n[1] Wind.\n\n[2, 10]\nSnow.", "Rain.\nWind.\n\n\nSnow."),
        ("It began in [2019], see a[i] and [x].", "It began in [2019], see a[i] and [x]."),
        ("No marker", "No marker"),
        ("It is blue.[1] So [2]it is.", "It is blue. So it is."),
        ("The sky (see [3]) is blue [1][2].", "The sky (see) is blue."),
    ],
)
def test_reference_markers_leave_no_trace(marked: str, plain: str) -> None:
    assert without_markers(marked) == plain


@pytest.mark.parametrize(
    "code",
    [
        "x[0]",
        "Use x[1] to begin.",
        "The first is args[1], the next names[2].split()",
        "print(rows[1][2])",
        "m[1, 2] = n[12]",
        "a = [1, 2]",
        "f(x)[1]",
        "It is `[1, 2]` or\n```\nreturn [1]\n```",
        "Then:\n\n    return [1]",
        "sys.argv[1].",
        "row[1];",
        "Counting starts at [0].",
    ],
)
def test_an_index_or_a_list_in_code_is_no_marker(code: str) -> None:
    assert without_markers(code) == code
    assert without_markers(f"{code}\nSo they say [3].") == f"{code}\nSo they say."


def test_webgpt_answers_that_differ_in_markers_alone_are_equal() -> None:
    assert settle(webgpt(webgpt_row("It scatters. [1]", "It scatters. [2, 3]", 1.0))) == Drop("equal replies")


def test_a_webgpt_answer_of_markers_alone_is_empty() -> None:
    assert settle(webgpt(webgpt_row("[1] [2]", "It scatters.", 1.0))) == Drop("empty reply")


def test_shp_labels_decide_which_comment_won() -> None:
    assert shp(shp_row()).replies[0] == "Check the date of the yeast."
    a_won = shp_row(labels=1, score_A=9, score_B=3, created_at_utc_A=300)
    assert shp(a_won) == Candidate(
        user("Why did my bread not rise?"),
        ("Old yeast, perhaps.", "Check the date of the yeast."),
        (Preference(0, 1),),
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"created_at_utc_B": 99}, EARLIER_WON),
        ({"score_A": 9}, EQUAL_SCORES),
        ({"score_A": 12}, LABEL_AGAINST_SCORES),
    ],
)
def test_an_shp_preference_without_ground_is_dropped(fields: dict, reason: str) -> None:
    assert shp(shp_row(**fields)) == Drop(reason)


def test_an_shp_comment_of_the_same_second_may_win() -> None:
    assert isinstance(shp(shp_row(created_at_utc_B=100)), Candidate)


HELLASWAG = {"ind": 4, "ctx": "She fills the kettle and", "endings": ["swims.", "boils water.", "flies.", "is a tree."]}


@pytest.mark.parametrize("label", [1, "1"])
def test_hellaswag_holds_the_gold_ending_against_all_three_distractors(label: int | str) -> None:
    found = hellaswag({**HELLASWAG, "label": label})
    assert found.prompt == user("She fills the kettle and")
    assert found.replies == ("swims.", "boils water.", "flies.", "is a tree.")
    assert {(p.winner, p.loser) for p in found.preferences} == {(1, 0), (1, 2), (1, 3)}


def test_a_hellaswag_row_without_label_is_dropped() -> None:
    assert hellaswag({**HELLASWAG, "label": ""}) == Drop(NO_LABEL)


@pytest.mark.parametrize("label", [4, -1, "x", 1.0, None, True])
def test_a_wrong_hellaswag_label_is_an_error(label: object) -> None:
    with pytest.raises(BadData, match="wanted a whole number from 0 to 3"):
        hellaswag({**HELLASWAG, "label": label})


PRIVATE = {
    "prompt": "And in winter?",
    "history": [["What do bees eat?", "Nectar."], ["All year?", "No."]],
    "pos": "Their honey.",
    "neg_replies": ["Snow.", "Nothing at all."],
}


def test_the_private_format_sets_the_best_reply_against_each_other_one() -> None:
    found = oa_private(PRIVATE)
    assert found.prompt == (
        Turn("user", "What do bees eat?"), Turn("assistant", "Nectar."),
        Turn("user", "All year?"), Turn("assistant", "No."), Turn("user", "And in winter?"),
    )  # fmt: skip
    assert found.replies == ("Their honey.", "Snow.", "Nothing at all.")
    assert found.preferences == (Preference(0, 1), Preference(0, 2))


@pytest.mark.parametrize("history", [[], None])
def test_an_empty_history_adds_nothing_to_the_prompt(history: object) -> None:
    assert oa_private({**PRIVATE, "history": history}).prompt == user("And in winter?")


def test_the_private_format_without_another_reply_is_dropped() -> None:
    assert settle(oa_private({**PRIVATE, "neg_replies": []})) == Drop("fewer than two replies")


def test_a_history_entry_of_three_texts_is_an_error() -> None:
    with pytest.raises(BadData, match=r"'history\[0\]' holds 3 texts"):
        oa_private({**PRIVATE, "history": [["a", "b", "c"]]})


def test_a_ranked_list_is_best_first_and_its_input_joins_the_question() -> None:
    row = {"instruction": "Translate.", "input": "Katze", "output": ["cat", "dog", "house"], "history": []}
    found = ranked_list(row)
    assert found.prompt == user("Translate.\n\nKatze")
    assert found.preferences == (Preference(0, 1), Preference(0, 2), Preference(1, 2))
    assert ranked_list({**row, "input": ""}).prompt == user("Translate.")
    assert ranked_list({**row, "history": [["Hello", "Hi"]]}).prompt[:2] == (
        Turn("user", "Hello"),
        Turn("assistant", "Hi"),
    )
