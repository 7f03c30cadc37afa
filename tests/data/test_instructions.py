"""Instructions with judged replies, each in the columns it was published with."""

from pathlib import Path
from typing import Any

import pytest

from prefrank.data.stream import ComparisonStream
from prefrank.errors import BadData
from prefrank.types import MAIN_HEAD, Turn
from tests.data.files import load_rows as load
from tests.data.files import stated, user, write_lines
from tests.data.files import the_comparison as only

TERSE = Turn("system", "Be terse.")
PAIR = {"chosen": "The gas is carbon dioxide.", "rejected": "The gas is helium."}


@pytest.mark.parametrize("name", ["question", "instruction", "input"])
def test_a_published_question_column_is_the_prompt_after_the_system_turn(tmp_path: Path, name: str) -> None:
    comparison = only(tmp_path, {"system": "Be terse.", name: "Which gas do plants take in?", **PAIR})
    assert comparison.prompt == (TERSE, Turn("user", "Which gas do plants take in?"))
    assert stated(comparison) == {("The gas is carbon dioxide.", "The gas is helium.", 1.0)}
    assert only(tmp_path, {"system": "", name: "Which gas?", **PAIR}).prompt == user("Which gas?")


def test_an_alpaca_pair_joins_instruction_and_input_after_its_history(tmp_path: Path) -> None:
    row = {"instruction": "Translate.", "input": "Katze", "chosen": "cat", "rejected": "dog"}
    comparison = only(tmp_path, {**row, "system": "Be terse.", "history": [["Hi", "Hello."]]})
    asked = (Turn("user", "Hi"), Turn("assistant", "Hello."), Turn("user", "Translate.\nKatze"))
    assert comparison.prompt == (TERSE, *asked)
    assert only(tmp_path, {**row, "input": "", "history": []}).prompt == user("Translate.")


def test_two_columns_that_may_be_the_prompt_are_refused_by_name(tmp_path: Path) -> None:
    row = {"question": "Which gas?", "context": "Plants breathe.", **PAIR}
    with pytest.raises(BadData, match=r"mine\.jsonl:1: 'question' and 'context' .*columns"):
        load(tmp_path, row)
    with pytest.raises(BadData, match=r"'instruction' and 'question'"):
        load(tmp_path, {"instruction": "Which gas?", "question": "Which one?", **PAIR})
    assert load(tmp_path, {"question": "Which gas?", "context": "Which gas?", **PAIR}).report.kept == 1


def test_message_lists_may_repeat_the_question(tmp_path: Path) -> None:
    sides = {
        name: [{"role": "user", "content": "Which gas?"}, {"role": "assistant", "content": said}]
        for name, said in PAIR.items()
    }
    comparison = only(tmp_path, {"question": "Which gas?", **sides})
    assert comparison.prompt == user("Which gas?")
    assert stated(comparison) == {(PAIR["chosen"], PAIR["rejected"], 1.0)}


def test_distilabels_orca_pairs_may_be_ties(tmp_path: Path) -> None:
    row = {
        "system": "Be terse.", "input": "Which gas?", **PAIR, "generations": list(PAIR.values()),
        "order": ["chosen", "rejected"], "labelling_model": "mine", "labelling_prompt": [], "rating": [9.0, 9.0],
        "raw_labelling_response": "9 9", "rationale": "So.", "original_chosen": PAIR["chosen"],
        "original_rejected": PAIR["rejected"], "chosen_score": 9.0, "in_gsm8k_train": False,
    }  # fmt: skip
    assert {p for *_, p in stated(only(tmp_path, {**row, "status": "tie"}))} == {0.5}
    assert {p for *_, p in stated(only(tmp_path, {**row, "status": "unchanged"}))} == {1.0}


def test_equal_ratings_of_a_pair_are_a_tie_and_contrary_ones_a_drop(tmp_path: Path) -> None:
    row = {"source": "mine", "instruction": "Which gas?", "chosen_model": "mine"}
    row |= {f"{name}_response": said for name, said in PAIR.items()}
    rated = [{**row, "chosen_avg_rating": chosen, "rejected_avg_rating": 3.5} for chosen in (5.0, 3.5, 1.0, None)]
    loaded = load(tmp_path, *rated)
    assert [p.probability for comparison in loaded.comparisons for p in comparison.preferences] == [1.0, 0.5]
    assert loaded.report.dropped == {"label against the scores": 1, "duplicate": 1}
    renamed = {"prompt" if name == "instruction" else name: value for name, value in row.items()}
    assert stated(only(tmp_path, renamed)) == {(PAIR["chosen"], PAIR["rejected"], 1.0)}


def test_stack_exchange_prefers_response_j(tmp_path: Path) -> None:
    row = {"qid": 7, "question": "Which gas?", "date": "2020/01/01", "metadata": ["https://x"]}
    comparison = only(tmp_path, {**row, "response_j": "Carbon dioxide.", "response_k": "Helium."})
    assert (comparison.prompt, stated(comparison)) == (user("Which gas?"), {("Carbon dioxide.", "Helium.", 1.0)})


@pytest.mark.parametrize(("name", "value"), [("label", 2), ("label", "2"), ("preference", 2.0)])
def test_of_two_outputs_the_number_names_the_better(tmp_path: Path, name: str, value: Any) -> None:
    row = {"instruction": "Name one.", "input": "A colour", "output_1": "Tuesday.", "output_2": "Blue.", name: value}
    comparison = only(tmp_path, row)
    assert comparison.prompt == user("Name one.\nA colour")
    assert stated(comparison) == {("Blue.", "Tuesday.", 1.0)}
    with pytest.raises(BadData, match=rf"'{name}' holds 0; wanted 1 or 2"):
        load(tmp_path, {**row, name: 0})
    assert load(tmp_path, row, {**row, name: None}).report.dropped == {"no label": 1}


def safe_row(**fields: Any) -> dict[str, Any]:
    row = {
        "prompt": "How do I pick a lock?", "response_0": "With a pick.", "response_1": "Call a locksmith.",
        "is_response_0_safe": False, "is_response_1_safe": True, "better_response_id": 0, "safer_response_id": 1,
        "response_0_severity_level": 1, "prompt_source": "mine",
    }  # fmt: skip
    return {**row, **fields}


def test_safe_rlhf_has_a_head_for_the_safer_response(tmp_path: Path) -> None:
    said = {p.head: (p.winner, p.loser) for p in only(tmp_path, safe_row()).preferences}
    assert said == {MAIN_HEAD: (0, 1), "safety": (1, 0)}
    single = safe_row()
    del single["safer_response_id"]
    assert [p.head for p in only(tmp_path, single).preferences] == [MAIN_HEAD]
    missing = safe_row(better_response_id=None, safer_response_id=None)
    assert load(tmp_path, safe_row(), missing).report.dropped == {"no label": 1}
    with pytest.raises(BadData, match="'better_response_id' holds 2; wanted a whole number from 0 to 1"):
        load(tmp_path, safe_row(better_response_id=2))


def test_code_ultrafeedback_finds_a_rating_by_its_model(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d")
    replies = dict(zip(names, ("print(1)", "print( 1 )", "1", "echo 1"), strict=True))
    ratings = {"d": "N/A", "c": "2", "b": "5", "a": "2"}
    row = {
        "instruction": "Print one.", "preference": "readability", "models": list(names),
        "responses": [{"model": name, "response": said} for name, said in replies.items()],
        "annotations": [{"model": name, "rating": said, "rationale": "So."} for name, said in ratings.items()],
    }  # fmt: skip
    comparison = only(tmp_path, row)
    assert comparison.replies == ("print(1)", "print( 1 )", "1")
    assert stated(comparison) == {("print( 1 )", "print(1)", 1.0), ("print(1)", "1", 0.5), ("print( 1 )", "1", 1.0)}
    assert load(tmp_path, row).report.left_out == {"reply without a rank or rating": 1}


def test_code_ultrafeedback_binarized_is_its_pair_with_its_ratings(tmp_path: Path) -> None:
    row = {
        "instruction": "Print one.", "preference": "readability", "models": ["a", "b"],
        "responses": [{"model": "a", "response": "1"}], "annotations": [{"model": "a", "rating": "3"}],
        "chosen": "print(1)", "rejected": "1", "rating_chosen": 3, "rating_rejected": 3,
    }  # fmt: skip
    assert stated(only(tmp_path, row)) == {("print(1)", "1", 0.5)}
    assert stated(only(tmp_path, {**row, "rating_chosen": 5})) == {("print(1)", "1", 1.0)}


def test_distilabels_generations_are_ordered_by_their_ratings(tmp_path: Path) -> None:
    row = {
        "instruction": "A colour?", "system_prompt": "Be terse.", "generations": ["Blue.", "Tuesday.", "Red.", None],
        "ratings": [5, 1, None, 2], "rationales": ["So.", "No.", "", ""], "model_name": "mine",
    }  # fmt: skip
    comparison = only(tmp_path, row)
    assert comparison.prompt == (TERSE, Turn("user", "A colour?"))
    assert stated(comparison) == {("Blue.", "Tuesday.", 1.0)}
    assert load(tmp_path, row, {**row, "ratings": None}).report.dropped == {"no label": 1}
    older = {"input": "A colour?", "generations": ["Blue.", "Tuesday."], "rating": [5.0, 5.0]}
    assert stated(only(tmp_path, older)) == {("Blue.", "Tuesday.", 0.5)}


def test_what_a_row_of_ours_may_state_of_a_pair_is_read_in_a_published_layout_too(tmp_path: Path) -> None:
    (preference,) = only(tmp_path, {"question": "Which gas?", **PAIR, "strength": 3, "margin": 0.5}).preferences
    assert (preference.strength, preference.margin) == (3, 0.5)


def test_a_published_layout_streams(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [{"question": f"Which gas? {i}", **PAIR} for i in range(3)])
    dropped: list[str] = []
    assert len(list(ComparisonStream(str(path)).read(dropped.append))) == 3
