"""The pairs that are scored, out of what trainers hand over.

A reward model has a template of its own and wants the prompt's turns and the reply alone: texts in a policy's chat
markup are taken apart as the server does it (`wire/policy.py`). One in a markup that is not known is an error: a reward
of a text with another model's control strings in it is a wrong reward that nobody sees.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

from prefrank.errors import BadInput, short
from prefrank.scoring.given import as_given_prompt
from prefrank.serving.rewards.reward_source import Pair
from prefrank.wire.policy import ENDS, reply_to, without_ends
from prefrank.wire.route import Refused

OR_TEXT = '; or take="text", for a reward model with the policy\'s own template'


Take = Literal["pair", "text"]
"""What a reward model is given: the prompt's turns and the reply apart, or both as one text."""


def check_take(take: str) -> None:
    """Raises BadInput for what is no `Take`, as settings of trainers are strings from anywhere."""
    if take not in get_args(Take):
        raise BadInput(f"take is {short(take)}; wanted pair or text")


def pair_of(prompt: Any, response: str, *, name: str = "", advice: str = "") -> Pair:
    """The turns of a prompt, and a response without the control strings that end it.

    Args:
        prompt: a text, in a known chat markup or without control strings (one user turn); or messages.
        name: opens the message of an error.
        advice: what else may be done, which closes that of a refusal.

    Raises:
        BadInput: a text in a chat markup that is not known; what is no prompt.
    """
    if not isinstance(prompt, str):
        return as_given_prompt(prompt, name), without_ends(response, ENDS)
    with refusals_as_bad_input(name, advice):
        asked = reply_to(prompt, response)
    return asked.prompt, asked.reply


@contextmanager
def refusals_as_bad_input(name: str = "", advice: str = "") -> Iterator[None]:
    """What the server would refuse is the caller's error here. Arguments as of `pair_of`."""
    try:
        yield
    except Refused as refused:
        raise BadInput(f"{name}{refused.message}{advice}") from None


def same_number(**columns: Sequence[object] | None) -> None:
    """See that columns are of one length.

    Raises:
        BadInput: they are not.
    """
    sizes = {name: len(values) for name, values in columns.items() if values is not None}
    if len(set(sizes.values())) > 1:
        listed = " and ".join(f"{size} {name}" for name, size in sizes.items())
        raise BadInput(f"there are {listed}; wanted as many of each")
