"""Where the sentences of a text begin and end, for leaving one out at a time."""

import re

MOST = 200
"""Of one text; in a longer one neighbors are taken together."""
_END = re.compile(r"(?<![.!?…。！？])[.!?…。！？]++[\"'”’)\]]*+(?=\s)|[。！？]+|\n+")
"""A row of marks is looked at once, from its beginning: a text of nothing else would take hours."""


def sentences(text: str) -> list[tuple[int, int]]:
    """First character and end of each sentence, with the white space after it: together they are the whole text.

    A sentence ends at a full stop, question or exclamation mark before white space, at its wide forms, and at the end
    of a line; code and lists go line by line. Abbreviations are not known.

    >>> [text[first:end] for text in ["Hi! How are you?"] for first, end in sentences(text)]
    ['Hi! ', 'How are you?']
    """
    ends: list[int] = []
    end = 0
    for match in _END.finditer(text):
        if match.start() < end:  # in white space that belongs to the sentence before
            continue
        end = match.end()
        while end < len(text) and text[end].isspace():
            end += 1
        if text[(ends[-1] if ends else 0) : end].strip():
            ends.append(end)
    if not ends or (ends[-1] < len(text) and text[ends[-1] :].strip()):
        ends.append(len(text))
    elif ends[-1] < len(text):
        ends[-1] = len(text)
    size = -(-len(ends) // MOST)
    ends = [*ends[size - 1 : -1 : size], ends[-1]] if size > 1 else ends
    return [(first, end) for first, end in zip([0, *ends], ends, strict=False) if end > first]
