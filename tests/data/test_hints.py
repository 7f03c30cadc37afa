"""Files that compare nothing are refused with what they are."""

from pathlib import Path
from typing import Any

import pytest

from prefrank.data import load_comparisons
from prefrank.errors import BadData
from tests.data.files import write_lines

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "1 + 1?", "completions": ["First.", "So 2."], "labels": [True, False]}, "step supervision"),
        ({"messages": TALK}, "a conversation without a second reply; .* such as chosen and rejected"),
        ({"conversations": [{"from": "human", "value": "Hi"}]}, "a conversation without a second reply"),
        ({"messages": TALK, "label": 3}, "a conversation without a second reply"),
        ({"instruction": "Hi", "input": "", "output": "Hello."}, "one reply to an instruction"),
        ({"prompt": "Hi", "completion": "Hello."}, "one reply to a prompt"),
        ({"prompt": "Hi", "response": "Hello.", "is_safe": True}, "one reply to a prompt"),
        ({"question": "Hi", "answer": "Hello."}, "one answer to a question"),
        ({"prompt": "Hi", "chosen": "Hello."}, "a better reply without a worse one"),
        ({"prompt": "Hi", "response_a": "Hello.", "response_b": "Ho."}, "no column says which is better"),
        ({"question_id": 1, "model_a": "a", "model_b": "b", "winner": "model_a"}, "votes without the texts"),
        ({"prompt": "Hi", "response": "Hello.", "score": 4}, "one reply with a score; gather those of one prompt"),
        ({"instruction": "Hi", "output": "Hello.", "rating": 4}, "one reply with a rating; gather those of one prompt"),
        ({"qid": 1, "question": "Hi", "answers": [{"text": "Hello.", "pm_score": 4}]}, "answers with votes; gather"),
        ({"prompt": "Hi", "answers": ["Hello.", "Ho."]}, "several replies, and nothing says which is better"),
        ({"conversation_a": TALK, "conversation_b": TALK}, "two conversations, and no column says which is better"),
        ({"prompt": "Hi"}, "texts without replies"),
        ({"text": "Hi"}, "texts without replies"),
        ({"prompt": "Hi", "response": "a", "replis": ["a"]}, "one reply to a prompt"),
        ({"prompt": "Hi", "replis": ["a", "b"], "ranks": [0, 1]}, "is 'replis' meant to be 'replies'"),
    ],
)
def test_a_file_that_compares_nothing_is_refused_with_what_it_is(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadData, match=rf"mine\.jsonl:1: columns .* are those of no known format.*{message}"):
        load_comparisons(write_lines(tmp_path / "mine.jsonl", [row]))
