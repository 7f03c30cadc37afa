"""Anthropic/hh-rlhf: two transcripts that share everything up to the last assistant turn.

A turn starts only at a blank line followed by `Human:` or `Assistant:`; blank lines inside a message, and those words
elsewhere in it, are text. The reply is what follows the last `Assistant:`. Some published pairs differ earlier than
that, have equal or empty replies, or end in a human turn; they are dropped with a count.
"""

import re

from prefrank.data.candidates import Candidate, Drop, best_against_rest
from prefrank.data.fields import Row, text
from prefrank.errors import BadData
from prefrank.types import Prompt, Role, Turn

SUBSETS = ("helpful-base", "helpful-online", "helpful-rejection-sampled", "harmless-base")
ENDS_IN_HUMAN = "ends in a human turn"
NO_ASSISTANT = "no assistant turn"
PROMPTS_DIFFER = "prompts differ"

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}


def transcript(value: str) -> Prompt:
    """The turns of a transcript.

    >>> transcript("\\n\\nHuman: Hi\\n\\nAssistant: One.\\n\\nTwo.")
    (Turn(role='user', text='Hi'), Turn(role='assistant', text='One.\\n\\nTwo.'))

    Raises:
        BadData: text before the first turn, or no turn at all.
    """
    before, *parts = _TURN.split(value)
    if before.strip() or not parts:
        raise BadData(f"a transcript opens with {before[:30]!r}; wanted '\\n\\nHuman:'")
    return tuple(Turn(_ROLES[who], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True))


def hh(row: Row) -> Candidate | Drop:
    """`chosen` and `rejected` transcripts as a prompt and two replies."""
    chosen, rejected = transcript(text(row, "chosen")), transcript(text(row, "rejected"))
    if not all(any(turn.role == "assistant" for turn in turns) for turns in (chosen, rejected)):
        return Drop(NO_ASSISTANT)
    if "user" in (chosen[-1].role, rejected[-1].role):
        return Drop(ENDS_IN_HUMAN)
    if chosen[:-1] != rejected[:-1]:
        return Drop(PROMPTS_DIFFER)
    return Candidate(chosen[:-1], (chosen[-1].text, rejected[-1].text), best_against_rest(2))
