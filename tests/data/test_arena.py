"""Votes between two models: Chatbot Arena's and MT-Bench's files, and the battles of the 55k."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefrank.data import load_comparisons
from prefrank.data.arena import BROKEN_TEXT
from prefrank.data.own import NOT_TEXT
from prefrank.errors import BadData
from prefrank.types import Turn
from tests.data.files import stated, user, write_lines, write_parquet

WRITERS = [("jsonl", write_lines), ("parquet", write_parquet)]


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def parts(text: str, kind: str = "text") -> list[dict[str, Any]]:
    return [{"type": kind, "text": text, "image": None, "mimeType": None}]


def vote(winner: Any = "model_a", **fields: Any) -> dict[str, Any]:
    row = {
        "question_id": "58210e39b3fd4441a2bd4a518bb44c2d", "model_a": "one", "model_b": "two", "winner": winner,
        "judge": "arena_user_973", "conversation_a": said("A colour?", "Blue."),
        "conversation_b": said("A colour?", "Tuesday."), "turn": 1, "anony": True, "language": "English",
        "tstamp": 1682351591.1, "openai_moderation": "{}", "toxic_chat_tag": "{}",
    }  # fmt: skip
    return {**row, **fields}


@pytest.mark.parametrize(("suffix", "write"), WRITERS)
def test_an_arena_vote_compares_the_replies_to_one_question(
    tmp_path: Path, suffix: str, write: Callable[..., Path]
) -> None:
    rows = [vote("model_a"), vote("model_b", judge="arena_user_1"), vote("tie", judge="arena_user_2")]
    loaded = load_comparisons(write(tmp_path / f"arena.{suffix}", rows))
    assert [comparison.prompt for comparison in loaded.comparisons] == [user("A colour?")] * 3
    first, second, third = map(stated, loaded.comparisons)
    assert first == {("Blue.", "Tuesday.", 1.0)}
    assert second == {("Tuesday.", "Blue.", 1.0)}
    assert third == {("Blue.", "Tuesday.", 0.5)}


@pytest.mark.parametrize("winner", ["tie", "tie (bothbad)", "both_bad", "tie (inconsistent)"])
def test_a_vote_that_both_are_bad_is_a_tie(tmp_path: Path, winner: str) -> None:
    (comparison,) = load_comparisons(write_lines(tmp_path / "a.jsonl", [vote(winner)])).comparisons
    assert stated(comparison) == {("Blue.", "Tuesday.", 0.5)}


def test_a_vote_without_a_winner_is_dropped_and_another_word_is_an_error(tmp_path: Path) -> None:
    loaded = load_comparisons(write_lines(tmp_path / "a.jsonl", [vote(None), vote(""), vote()]))
    assert (loaded.report.kept, loaded.report.dropped) == (1, {"no label": 2})
    with pytest.raises(BadData, match=r"b\.jsonl:1: 'winner' holds 'model_c'; wanted one of model_a, model_b, tie"):
        load_comparisons(write_lines(tmp_path / "b.jsonl", [vote("model_c")]))


def test_replies_to_different_histories_are_not_compared(tmp_path: Path) -> None:
    sides = {"conversation_a": said("Hi", "Hello.", "A colour?", "Blue.")}
    sides["conversation_b"] = said("Hi", "Ho.", "A colour?", "Red.")
    same = {**sides, "conversation_b": said("Hi", "Hello.", "A colour?", "Red.")}
    loaded = load_comparisons(write_lines(tmp_path / "a.jsonl", [vote(turn=2, **sides), vote(turn=2, **same)]))
    assert loaded.report.dropped == {"prompts differ": 1}
    (comparison,) = loaded.comparisons
    assert comparison.prompt == (Turn("user", "Hi"), Turn("assistant", "Hello."), Turn("user", "A colour?"))


def test_what_follows_the_turn_that_was_voted_on_is_left_out(tmp_path: Path) -> None:
    row = vote(
        question_id=81, judge="expert_3",
        conversation_a=said("A colour?", "Blue.", "Another?", "Red."),
        conversation_b=said("A colour?", "Tuesday.", "Another?", "Green."),
    )  # fmt: skip
    loaded = load_comparisons(write_lines(tmp_path / "mt.jsonl", [row, {**row, "turn": 2}]))
    (comparison,) = loaded.comparisons
    assert comparison.prompt == user("A colour?")
    assert stated(comparison) == {("Blue.", "Tuesday.", 1.0)}
    assert loaded.report.dropped == {"prompts differ": 1}


def session(order: int, *turns: tuple[str, str, str]) -> dict[str, Any]:
    """A row of the 140k: content in parts, the session's earlier turns in full_conversation alone."""
    full = [
        {
            "user": {"role": "user", "content": parts(question)},
            "model_side_a": {"role": "assistant", "content": parts(a)},
            "model_side_b": {"role": "assistant", "content": parts(b)},
        }
        for question, a, b in turns
    ]
    question, a, b = turns[-1]
    return {
        "id": f"c4b9-{order}-{question}", "model_a": "one", "model_b": "two", "winner": "model_b",
        "evaluation_session_id": "s", "evaluation_order": order, "full_conversation": full,
        "conversation_a": [{"role": "user", "content": parts(question)}, {"role": "assistant", "content": parts(a)}],
        "conversation_b": [{"role": "user", "content": parts(question)}, {"role": "assistant", "content": parts(b)}],
        "conv_metadata": {"turns": 1}, "language": "en", "is_code": False, "timestamp": "2025-06-12",
    }  # fmt: skip


@pytest.mark.parametrize(("suffix", "write"), WRITERS)
def test_content_in_parts_is_read_and_a_later_vote_has_its_session_before_it(
    tmp_path: Path, suffix: str, write: Callable[..., Path]
) -> None:
    rows = [
        session(1, ("A colour?", "Blue.", "Red.")),
        session(2, ("A colour?", "Blue.", "Red."), ("In French?", "Bleu.", "Rouge.")),
        session(2, ("Hi", "Hello.", "Hello."), ("Bye", "See you.", "Go.")),
    ]
    loaded = load_comparisons(write(tmp_path / f"arena.{suffix}", rows))
    first, second = loaded.comparisons
    assert (first.prompt, stated(first), first.id) == (user("A colour?"), {("Red.", "Blue.", 1.0)}, "c4b9-1-A colour?")
    assert second.prompt == (Turn("user", "Hi"), Turn("assistant", "Hello."), Turn("user", "Bye"))
    assert loaded.report.dropped == {"prompts differ": 1}


def test_a_session_alone_is_read_and_an_image_is_a_drop(tmp_path: Path) -> None:
    row = session(1, ("A colour?", "Blue.", "Red."))
    pictured = {**row, "conversation_a": [{"role": "user", "content": parts("", "image")}, *row["conversation_a"][1:]]}
    loaded = load_comparisons(write_lines(tmp_path / "a.jsonl", [row, pictured]))
    assert loaded.report.dropped == {NOT_TEXT: 1}
    del row["conversation_a"], row["conversation_b"]
    (comparison,) = load_comparisons(write_lines(tmp_path / "b.jsonl", [row])).comparisons
    assert stated(comparison) == {("Red.", "Blue.", 1.0)}


def battle(prompts: Any, first: Any, second: Any, winner: str = "model_a", id: int = 30192) -> dict[str, Any]:
    flags = {f"winner_{name}": int(name == winner) for name in ("model_a", "model_b", "tie")}
    texts = {"prompt": prompts, "response_a": first, "response_b": second}
    packed = {name: value if isinstance(value, str) else json.dumps(value) for name, value in texts.items()}
    return {"id": id, "model_a": "one", "model_b": "two", **packed, **flags}


def test_the_55k_holds_texts_as_json_lists_and_the_winner_as_flags(tmp_path: Path) -> None:
    rows = [
        battle(["A colour?"], ["Blue."], ["Tuesday."]),
        battle(["A colour?"], ["Blue."], ["Tuesday."], "model_b", 2),
        battle(["A colour?"], ["Blue."], ["Tuesday."], "tie", 3),
        battle(["Hi", "A colour?"], ["Hello.", "Blue."], ["Ho.", "Red."], id=4),
        battle(["A colour?"], [None], ["Tuesday."], id=5),
        battle(["A colour?"], '["Blue \\ud83d"]', ["Tuesday."], id=6),
        {**battle(["A colour?"], ["Blue."], ["Tuesday."], "nobody", 7), "winner_tie": None},
    ]
    loaded = load_comparisons(write_lines(tmp_path / "train.jsonl", rows))
    first, second, third = loaded.comparisons
    assert (first.id, first.prompt, stated(first)) == ("30192", user("A colour?"), {("Blue.", "Tuesday.", 1.0)})
    assert (stated(second), stated(third)) == ({("Tuesday.", "Blue.", 1.0)}, {("Blue.", "Tuesday.", 0.5)})
    assert loaded.report.dropped == {"prompts differ": 1, "empty reply": 1, BROKEN_TEXT: 1, "no label": 1}


@pytest.mark.parametrize(
    ("prompts", "message"),
    [(["a", "b"], "2 prompts came with 1 responses of a side"), ("A colour?", "wanted a list or one as JSON")],
)
def test_a_broken_battle_is_an_error_with_file_and_line(tmp_path: Path, prompts: Any, message: str) -> None:
    with pytest.raises(BadData, match=rf"a\.jsonl:1: .*{message}"):
        load_comparisons(write_lines(tmp_path / "a.jsonl", [battle(prompts, ["Blue."], ["Red."])]))


def test_a_battle_of_plain_texts_keeps_brackets_as_text(tmp_path: Path) -> None:
    row = {"id": "x1", "prompt": "[1, 2]", "response_a": "3", "response_b": "12", "winner": "model_b", "language": "en"}
    (comparison,) = load_comparisons(write_lines(tmp_path / "a.jsonl", [row])).comparisons
    assert (comparison.prompt, stated(comparison)) == (user("[1, 2]"), {("12", "3", 1.0)})
