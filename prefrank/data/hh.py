"""Anthropic/hh-rlhf: two transcripts that share everything up to the last assistant turn.

A turn starts only at a blank line followed by `Human:` or `Assistant:`; blank lines inside a message, and those words
elsewhere in it, are text. The reply is what follows the last `Assistant:`. Some published pairs differ earlier than
that, have equal or empty replies, or end in a human turn; they are dropped with a count.
"""

import re

from prefrank.data.candidates import Candidate, Drop, best_against_rest
from prefrank.data.fields import FileRow, short, text
from prefrank.errors import BadData
from prefrank.types import Prompt, Role, Turn

SUBSETS = ("helpful-base", "helpful-online", "helpful-rejection-sampled", "harmless-base")
ENDS_IN_HUMAN = "ends in a human turn"
NO_ASSISTANT = "no assistant turn"
PROMPTS_DIFFER = "prompts differ"

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}


def transcript(value: str) -> tuple[tuple[str, str], ...]:
    """The turns of a transcript as (who, text).

    >>> transcript("\\n\\nHuman: Hi\\n\\nAssistant: One.\\n\\nTwo.")
    (('Human', 'Hi'), ('Assistant', 'One.\\n\\nTwo.'))

    Raises:
        BadData: text before the first turn, or no turn at all.
    """
    before, *parts = _TURN.split(value)
    if before.strip() or not parts:
        raise BadData(f"a transcript opens with {short(before)}; wanted '\\n\\nHuman:'")
    return tuple(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))


def turns_of(value: str) -> Prompt:
    """The turns of a text that opens with a blank line and `Human:`; none of any other text."""
    if not value.startswith("\n\nHuman:"):
        return ()
    return tuple(Turn(_ROLES[who], content) for who, content in transcript(value))


def hh(row: FileRow) -> Candidate | Drop:
    """`chosen` and `rejected` transcripts as a prompt and two replies."""
    *prompt, chosen = transcript(text(row, "chosen"))
    *other_prompt, rejected = transcript(text(row, "rejected"))
    for last, before in ((chosen, prompt), (rejected, other_prompt)):
        if last[0] == "Human":
            return Drop(ENDS_IN_HUMAN if "Assistant" in dict(before) else NO_ASSISTANT)
    if prompt != other_prompt:
        return Drop(PROMPTS_DIFFER)
    turns = tuple(Turn(_ROLES[who], content) for who, content in prompt)
    return Candidate(turns, (chosen[1], rejected[1]), best_against_rest(2))
