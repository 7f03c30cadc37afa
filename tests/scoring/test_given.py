"""What may be handed over as replies, pairs and prompts: anything that has positions; all else is refused by name."""

import subprocess
import sys
from collections import UserList
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from prefrank import RewardModel, Turn
from prefrank.data.fields import SYSTEM_COLUMNS
from prefrank.errors import BadData, BadInput, BadText
from prefrank.scoring.file_rows import read_row
from prefrank.scoring.given import as_given_prompt, as_pairs, as_replies

TEXTS = ["mix flour", "bake it", "no"]
PROMPT = "how do I bake"
USER = (Turn("user", PROMPT),)


class Column:
    """As a column of `datasets`: it has a length and positions, and is not a list."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: int) -> Any:
        return self.values[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)


class Positions:
    """The old protocol of sequences, without an iterator."""

    def __getitem__(self, place: int) -> str:
        return TEXTS[place]


COLUMNS = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "generator": (text for text in TEXTS),
    "map": map(str, TEXTS),
    "values of a dict": dict(enumerate(TEXTS)).values(),
    "keys of a dict": dict.fromkeys(TEXTS).keys(),
    "series": pd.Series(TEXTS),
    "series of an odd index": pd.Series(TEXTS, index=[2, 0, 1]),
    "filtered series": pd.Series(["out", *TEXTS])[lambda series: series != "out"],
    "series of objects": pd.Series(TEXTS, dtype=object, index=["a", "b", "c"]),
    "categories": pd.Series(TEXTS, dtype="category"),
    "index": pd.Index(TEXTS),
    "numpy strings": np.array(TEXTS),
    "numpy objects": np.array(TEXTS, dtype=object),
    "reversed numpy": np.array(TEXTS[::-1])[::-1],
    "arrow": pa.array(TEXTS),
    "arrow large": pa.array(TEXTS, pa.large_string()),
    "arrow dictionary": pa.array(TEXTS).dictionary_encode(),
    "arrow chunks": pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
    "datasets column": Column(TEXTS),
    "old sequence": Positions(),
    "user list": UserList(TEXTS),
    "messages": [{"role": "assistant", "content": text} for text in TEXTS],
    "turns": [Turn("assistant", text) for text in TEXTS],
    "lists of one message": [[{"role": "assistant", "content": text}] for text in TEXTS],
    "text parts": [{"role": "assistant", "content": [{"type": "text", "text": text}]} for text in TEXTS],
    "arrow messages": pa.array([[{"role": "assistant", "content": text}] for text in TEXTS]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_replies_are_read_by_position(name: str) -> None:
    texts = as_replies(COLUMNS[name])
    assert texts == TEXTS
    assert {type(text) for text in texts} == {str}


def test_ranking_a_filtered_series_shows_each_score_beside_its_own_reply(model: RewardModel) -> None:
    series = pd.Series(["out", *TEXTS], index=[3, 2, 1, 0])[lambda all_of_them: all_of_them != "out"]
    want = dict(zip(TEXTS, model.score(PROMPT, TEXTS), strict=True))
    for entry in model.rank(PROMPT, series):
        assert entry.score == want[entry.reply]
        assert TEXTS[entry.index] == entry.reply


def test_all_ways_of_giving_pairs_score_alike(model: RewardModel) -> None:
    rows = [{"prompt": PROMPT, "reply": text, "id": number} for number, text in enumerate(TEXTS)]
    want = model.score(PROMPT, TEXTS)
    for given in (
        [(PROMPT, text) for text in TEXTS],
        [[PROMPT, text] for text in TEXTS],
        zip([PROMPT] * 3, TEXTS, strict=True),
        rows,
        (row for row in rows),
        Column(rows),
        pd.DataFrame(rows).to_dict("records"),
        pd.DataFrame(rows)[["prompt", "reply"]].itertuples(index=False),
        pa.table({"prompt": [PROMPT] * 3, "reply": TEXTS}).to_pylist(),
        pa.array(rows),
        {(PROMPT, text): None for text in TEXTS}.keys(),
    ):
        assert model.score_pairs(given) == want, type(given)


def test_rows_hold_conversations_as_messages_or_arrays_of_them() -> None:
    messages = [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
    ]
    want = (Turn("system", "Be terse."), Turn("user", "a"))
    frame = pd.DataFrame([{"prompt": np.array(messages, dtype=object), "reply": "x"}])  # as pandas reads Parquet
    assert as_pairs(frame.to_dict("records")) == [(want, "x")]
    assert as_pairs([(messages, [{"role": "assistant", "content": "x"}])]) == [(want, "x")]
    assert as_given_prompt(messages[1]) == (Turn("user", "a"),)
    assert as_given_prompt(np.str_("a")) == (Turn("user", "a"),)


def test_roles_and_tool_calls_pass_through_in_prompts() -> None:
    calls = [{"type": "function", "function": {"name": "oven", "arguments": "{}"}}]
    messages = [
        {"role": "developer", "content": "Use tools."},
        {"role": "user", "content": "Heat it"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "hot", "tool_call_id": "1"},
    ]
    prompt = as_given_prompt(messages)
    assert [turn.role for turn in prompt] == ["developer", "user", "assistant", "tool"]
    assert prompt[2].message()["tool_calls"] == calls


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("reply", "replies is one string; wanted a list of strings, such as "),
        (b"reply", "replies is one string"),
        ({"role": "assistant", "content": "x"}, "replies is of type dict; wanted a list"),
        ({"a", "b"}, "replies is of type set; wanted a list"),
        (frozenset("ab"), "replies is of type frozenset"),
        (pd.DataFrame({"reply": TEXTS}), "replies is of type DataFrame of 2 dimensions"),
        (np.array([["a", "b"]]), "replies is of type ndarray of 2 dimensions"),
        (np.array("a"), "replies is of type ndarray of 0 dimensions"),
        (3, "replies is of type int; wanted a list"),
        (None, "replies is of type NoneType"),
        (Turn("assistant", "x"), "replies is of type Turn"),
        ([], "there are no replies to score; give at least one"),
        ((text for text in ()), "there are no replies"),
        (pd.Series([], dtype=str), "there are no replies"),
        (["a", None], r"reply 1 is of type NoneType \(null\); wanted a string"),
        (pd.Series(["a", None]), "reply 1 is of type"),
        ([["a"]], r"reply 0 is of type list \(\['a'\]\)"),
        ([{"role": "user", "content": "x"}], "reply 0 is a message of the role user; wanted one of the assistant"),
        ([{"content": "x"}], "reply 0: a message has the keys content; wanted role and content"),
        ([[{"role": "assistant", "content": "x"}] * 2], "reply 0 is a list of 2 messages; wanted one"),
        (
            [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}],
            "reply 0 is a message with tool_calls; only its content can be scored",
        ),
        (
            [{"role": "assistant", "content": [{"type": "image_url"}]}],
            r"reply 0: content\[0\] of a message is of type image_url; wanted parts of type text only",
        ),
        (pa.table({"reply": TEXTS}), "reply 0 is of type ChunkedArray"),
    ],
)
def test_what_is_no_list_of_replies_is_refused_by_name(given: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        as_replies(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([("p", "a", "b")], r"pair 0 has 3 items .*; wanted \(prompt, reply\), or a row with prompt and reply"),
        (("p", "a"), r"pair 0 is of type str \('p'\)"),
        (["ab"], "pair 0 is of type str"),
        ({"prompt": "p", "reply": "a"}, "pairs is of type dict; wanted a list"),
        ({("p", "a")}, "pairs is of type set"),
        (pd.DataFrame({"prompt": ["p"], "reply": ["a"]}), "pairs is of type DataFrame of 2 dimensions; wanted a list"),
        (np.array([["p", "a"]]), "pairs is of type ndarray of 2 dimensions"),
        (pa.table({"prompt": ["p", "q"], "reply": ["a", "b"]}), "pair 0 is of type ChunkedArray"),
        ([("p", "a"), {"prompt": "p"}], "pair 1 has the keys prompt; wanted prompt and reply"),
        ([{"prompt": "p", "chosen": "a", "rejected": "b"}], "pair 0 has the keys prompt, chosen, rejected"),
        ([{"instruction": "Be terse.", "prompt": "p", "reply": "a"}], "pair 0 has 'instruction' beside prompt"),
        ([{"messages": [{"role": "user"}], "prompt": "p", "reply": "a"}], "pair 0 has 'messages' beside prompt"),
        ([{"system": 3, "prompt": "p", "reply": "a"}], "the system of pair 0 is of type int"),
        (
            [{"system": "A.", "prompt": [{"role": "system", "content": "B."}], "reply": "a"}],
            "pair 0 has a system that differs from the system turn of its prompt",
        ),
        ([{"prompt": "p", "reply": None}], "the reply of pair 0 is of type NoneType"),
        ([([], "a")], "pair 0: a prompt has no turns"),
        ([("p", "a"), ([{"role": "user"}], "a")], "pair 1: a message has no content"),
        (7, "pairs is of type int"),
    ],
)
def test_what_is_no_list_of_pairs_is_refused_by_name(given: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        as_pairs(given)


def test_a_rows_system_is_its_system_turn() -> None:
    system, asked = Turn("system", "Be terse."), Turn("user", PROMPT)
    messages = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": PROMPT}]
    for prompt in (PROMPT, messages):
        assert as_pairs([{"system": "Be terse.", "prompt": prompt, "reply": "a"}]) == [((system, asked), "a")]
    for nothing in ("", None, float("nan")):
        assert as_pairs([{"system": nothing, "prompt": PROMPT, "reply": "a"}]) == [((asked,), "a")]


def test_no_pairs_give_no_scores(model: RewardModel) -> None:
    assert model.score_pairs([]) == []


def test_a_reply_of_another_type_is_a_bad_text() -> None:
    with pytest.raises(BadText):
        as_replies([3])


def test_columns_reach_the_model_without_a_type_checker_in_between(plain_folder: Path) -> None:
    """In a process of its own: here the type checker of the test run stands at the door."""
    code = f"""
import numpy as np, pandas as pd
from prefrank import RewardModel
model = RewardModel.load({str(plain_folder)!r}, max_length=128)
replies = pd.Series(["mix flour", "no"], index=[1, 0])
prompt = np.array([{{"role": "user", "content": {PROMPT!r}}}], dtype=object)
assert model.score(prompt, replies) == model.score({PROMPT!r}, list(replies)), "prompts"
frame = pd.DataFrame({{"prompt": ["p", "q"], "reply": replies}})
for rows in (frame, ["ab"], frame.iterrows(), [{{"prompt": None, "reply": "a"}}]):
    try:
        model.score_pairs(rows)
    except ValueError as error:
        print(f"{{type(error).__name__}}: {{error}}")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [
        "BadInput: pairs is of type DataFrame of 2 dimensions; wanted a list of (prompt, reply) pairs or of rows with"
        " prompt and reply",
        "BadInput: pair 0 is of type str ('ab'); wanted (prompt, reply), or a row with prompt and reply",
        "BadInput: pair 0: a prompt is of type int; wanted a string or a list of turns",
        "BadInput: pair 0: a prompt is of type NoneType; wanted a string or a list of turns",
    ]


@pytest.mark.parametrize("column", ["instruction", "input", "question", "query", "context", "history", "tools"])
def test_a_column_beside_the_prompt_that_may_belong_to_it_is_never_passed_over(column: str) -> None:
    row = {"prompt": PROMPT, "reply": "a", column: [["q", "a"]] if column in ("history", "tools") else "more"}
    with pytest.raises(BadInput, match=f"pair 0 has '{column}' beside prompt"):
        as_pairs([row])
    with pytest.raises(BadData, match=f"'prompt' and '{column}' are both there.*--columns prompt=prompt"):
        read_row(row, {})
    assert read_row(row, {"prompt": "prompt"}).prompt == (Turn("user", PROMPT),)
    assert as_pairs([row | {column: None}]) == [((Turn("user", PROMPT),), "a")]


@pytest.mark.parametrize("column", SYSTEM_COLUMNS)
def test_every_system_column_that_training_reads_is_read_in_scoring(column: str) -> None:
    row = {"prompt": PROMPT, "reply": "a", column: "Be terse."}
    turns = (Turn("system", "Be terse."), Turn("user", PROMPT))
    assert as_pairs([row])[0][0] == read_row(row, {}).prompt == turns
    for read in (lambda row: as_pairs([row]), lambda row: read_row(row, {})):
        with pytest.raises(BadInput, match="hold different texts"):
            read(dict.fromkeys(SYSTEM_COLUMNS, "x") | row)


class _Unshown:
    def __repr__(self) -> str:
        raise RuntimeError("no")


_ODD = (_Unshown(), 10**5000, [10**5000], [[[_Unshown()]]], {"role": _Unshown(), "content": "x"})


@pytest.mark.parametrize("number", range(len(_ODD)))
def test_a_value_that_cannot_be_shown_is_refused_by_its_type(number: int) -> None:
    for take in (as_pairs, as_replies):
        with pytest.raises(BadInput, match=r"of type|wanted prompt and reply"):
            take([_ODD[number]])


@pytest.mark.parametrize("system", [np.array([1, 2]), _Unshown(), 1.5])
def test_a_system_turn_of_another_kind_is_refused(system: object) -> None:
    with pytest.raises(BadInput, match="the system of pair 0 is of type"):
        as_pairs([{"prompt": "p", "reply": "r", "system": system}])


def test_messages_that_hold_themselves_are_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(BadInput, match="hold themselves"):
        as_given_prompt(circle)


def test_a_message_with_calls_that_are_no_json_is_refused() -> None:
    message = {"role": "assistant", "content": "x", "tool_calls": [object()]}
    with pytest.raises(BadInput, match="cannot be JSON"):
        as_replies([message])
