"""slime's remote reward (slime/rollout/rm_hub): one sample for a request; the answer is the reward itself, a number.

The trainer posts to any URL it is given; /slime and / take its samples. Any other status than 2xx is tried again.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from prefrank.io.json_schema import Shape, json_schema
from prefrank.io.schema import Stored
from prefrank.types import Prompt
from prefrank.wire import policy
from prefrank.wire.given import GivenPrompt, read_prompt
from prefrank.wire.route import Answered, Asked, Question, Route, detailed


def _read_prompt(value: Any) -> str | Prompt:
    """Messages are turns already: one that quotes chat markup is not searched for it, as a text is."""
    return value if isinstance(value, str) else read_prompt(value)


_Prompt = Annotated[str | Prompt, Stored(_read_prompt, lambda value: value), Shape(json_schema(GivenPrompt))]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRequest:
    """What a policy was given, as a text in its chat markup or as messages, and what it wrote."""

    prompt: _Prompt
    response: str
    label: Any = None
    model: str | None = None


def _ask(body: RewardRequest) -> Question:
    return Question(asked=(_asked(body.prompt, body.response),), answer=_answer, model=body.model)


def _asked(prompt: str | Prompt, response: str) -> Asked:
    if isinstance(prompt, str):
        return policy.reply_to(prompt, response)
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
