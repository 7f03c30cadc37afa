"""OpenRLHF's remote reward model (openrlhf/utils/agent.py, cli/serve_rm.py).

`query` is all that the policy was given and wrote, `prompts` the part it was given. A trainer tries any other status
than 2xx again five times, and then goes without the reward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefrank.wire import policy
from prefrank.wire.dialect import AS_GIVEN, Dialect, Placed, only
from prefrank.wire.given import GivenTexts
from prefrank.wire.inputs import OpenedText
from prefrank.wire.route import Answered, Asked, Question, Refused, Route, detailed, sigmoid


def _request(inputs: Sequence[OpenedText], model: str | None) -> dict[str, Any]:
    texts, openings = [each.text for each in inputs], [each.opening for each in inputs]
    return {"query": texts, "prompts": openings, "labels": [None] * len(inputs)}


def _read(answer: Any) -> Placed:
    """A number for each text, perhaps in a list of its own; or a bare number for one text."""
    rewards = answer["rewards"]
    each = rewards if isinstance(rewards, list) else [rewards]
    return [
        (place, only(reward, "numbers") if isinstance(reward, list) else reward) for place, reward in enumerate(each)
    ]


OPENRLHF = Dialect(
    name="openrlhf",
    paths=("/get_reward",),
    takes=OpenedText,
    holds="pairs",
    write_request=_request,
    read_answer=_read,
    scale=AS_GIVEN,
)

# The server's half


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRequest:
    """What a policy was given and wrote: the whole in `query`, what it was given in `prompts`; texts or lists of them.

    The prompt's chat markup is read as turns, so that the model's own template can be used. Without `prompts` the reply
    is the last turn of the markup; a query without a known one is a whole text, as the model's own template wrote it.
    """

    query: GivenTexts
    prompts: GivenTexts | None = None
    labels: Any = None
    model: str | None = None


def _ask(body: RewardRequest) -> Question:
    queries, prompts = body.query, body.prompts or ()
    if prompts and len(prompts) != len(queries):
        raise Refused(
            "invalid", f"there are {len(queries)} queries and {len(prompts)} prompts; wanted as many", place="prompts"
        )
    asked = tuple(
        split_query(query, prompts[n], n) if prompts else policy.last_reply(query) for n, query in enumerate(queries)
    )
    return Question(asked=asked, answer=_answer, model=body.model)


def split_query(query: str, prompt: str, place: int) -> Asked:
    """The prompt and the reply of a query that begins with the prompt.

    Raises:
        Refused: it does not; a prompt in a markup that is not known.
    """
    whole, opening = policy.without_beginning(query), policy.without_beginning(prompt)
    if not whole.startswith(opening):
        at = next((n for n, pair in enumerate(zip(whole, opening, strict=False)) if pair[0] != pair[1]), len(whole))
        raise Refused(
            "invalid",
            f"query[{place}] does not begin with prompts[{place}]: at character {at} it has {whole[at : at + 20]!r},"
            f" and the prompt has {opening[at : at + 20]!r}; send the prompt as the policy was given it",
            place=f"query[{place}]",
        )
    return policy.reply_to(opening, whole[len(opening) :])


def _answer(answered: Answered) -> Any:
    """Raw rewards; scores from 0 to 1, as filters of samples want them."""
    temperature = answered.about.temperature or 1.0
    values = [score.value for score in answered.scores]
    logs = {
        "tokens": [score.tokens for score in answered.scores],
        "cut": [int(score.cut_prompt + score.cut_reply > 0) for score in answered.scores],
    }
    return {"rewards": values, "scores": [sigmoid(value / temperature) for value in values], "extra_logs": logs}


ROUTES = (
    Route(
        dialect="openrlhf",
        paths=OPENRLHF.paths,
        request=RewardRequest,
        ask=_ask,
        errors=detailed(),
        summary="Raw rewards of what policies wrote (OpenRLHF)",
    ),
)
