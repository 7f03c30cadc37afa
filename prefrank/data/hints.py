"""What a row of no known format seems to be, and why it holds no comparison: the hint in the error's line."""

from difflib import get_close_matches

from prefrank.data.fields import FileRow

_SECOND = "a reward model learns from two replies to one prompt, such as chosen and rejected"
_GATHERED = "gather those of one prompt in a row: prompt, replies, ratings"
_ONE_REPLY = ("instruction output", "instruction response", "prompt completion", "prompt response", "question answer")
_SCORES = ("score", "rating", "reward", "label")
_MEANT = ("prompt", "replies", "ranks", "ratings", "preferences", "chosen", "rejected")
NO_COMPARISON: tuple[tuple[frozenset[str], str], ...] = tuple(
    (frozenset(columns.split()), meaning)
    for columns, meaning in (
        ("prompt completions labels", "step supervision, whose labels are for the steps of one reply, not for replies"),
        ("chosen", f"a better reply without a worse one; {_SECOND}"),
        ("rejected", f"a worse reply without a better one; {_SECOND}"),
        ("rejected_response", f"a worse reply without a better one; {_SECOND}"),
        ("model_a model_b winner", "votes without the texts they are about; join them to the conversations first"),
        ("prompt response_a response_b", "two replies, and no column says which is better (winner)"),
        ("prompt response_0 response_1", "two replies, and no column says which is better (better_response_id)"),
        ("prompt response_1 response_2", "two replies, and no column says which is better (preference_strength)"),
        ("response1 response2", "two replies, and no column says which is better (overall_preference)"),
        ("conversation_a conversation_b", "two conversations, and no column says which is better (winner)"),
        ("question answers", f"answers with votes; {_GATHERED}"),
        ("prompt answers", "several replies, and nothing says which is better (a rank of each, or ranks)"),
        ("output_1 output_2", "two replies, and no column says which is better (label)"),
        ("messages", f"a conversation without a second reply; {_SECOND}"),
        ("conversations", f"a conversation without a second reply; {_SECOND}"),
        ("conversation", f"a conversation without a second reply; {_SECOND}"),
        *(
            (f"{columns} {score}", f"one reply with a {score}; {_GATHERED}")
            for columns in _ONE_REPLY
            for score in _SCORES
        ),
        ("instruction output", f"one reply to an instruction; {_SECOND}"),
        ("prompt completion", f"one reply to a prompt; {_SECOND}, or a label of each of several replies"),
        ("prompt response", f"one reply to a prompt; {_SECOND}"),
        ("query response", f"one reply to a query; {_SECOND}"),
        ("question answer", f"one answer to a question; {_SECOND}"),
        ("question response", f"one response to a question; {_SECOND}"),
    )
)
"""Columns of common files that compare nothing, and what such a file is; the first that fits is said."""


def hint(row: FileRow) -> str:
    """What the row seems to be, in brackets, or the column that has nearly a known name, such as `replis`."""
    if row.keys() <= {"prompt", "text", "id"}:
        return f" (it looks like texts without replies; {_SECOND})"
    if len(row) == 1 and (separator := next((mark for mark in (";", "\t") if mark in next(iter(row))), "")):
        return f" (cells seem to be separated by {separator!r}; wanted commas, or tabs in a .tsv file)"
    for columns, meaning in NO_COMPARISON:
        if columns <= row.keys():
            return f" (it looks like {meaning})"
    for column in row:
        if column not in _MEANT and (near := get_close_matches(str(column), _MEANT, n=1, cutoff=0.6)):
            return f" (is {column!r} meant to be {near[0]!r}?)"
    return ""
