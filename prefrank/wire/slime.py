"""slime's remote reward (slime/rollout/rm_hub): one sample for a request; the answer is the reward itself, a number.

The trainer posts to any URL it is given; /slime and / take its samples. Any other status than 2xx is tried again.
"""

from dataclasses import dataclass
from typing import Any

from prefrank.types import Prompt, Turn
from prefrank.wire import policy
from prefrank.wire.given import GivenPrompt
from prefrank.wire.route import Answered, Asked, Question, Route, detailed


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRequest:
    """What a policy was given, as a text in its chat markup or as messages, and what it wrote."""

    prompt: GivenPrompt
    response: str
    label: Any = None
    model: str | None = None


def _ask(body: RewardRequest) -> Question:
    return Question(asked=(_asked(body.prompt, body.response),), answer=_answer, model=body.model)


def _asked(prompt: Prompt, response: str) -> Asked:
    if len(prompt) == 1 and prompt[0] == Turn("user", prompt[0].text):
        return policy.reply_to(prompt[0].text, response)
    return Asked(prompt, policy.without_ends(response, policy.ENDS))


def _answer(answered: Answered) -> Any:
    return answered.scores[0].value


ROUTES = (
    Route(
        dialect="slime",
        paths=("/slime", "/"),
        request=RewardRequest,
        ask=_ask,
        errors=detailed(),
        meant=lambda body: isinstance(body, dict) and "response" in body,
        summary="The raw reward of what a policy wrote (slime)",
    ),
)
