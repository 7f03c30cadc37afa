"""OpenRLHF's remote reward model (openrlhf/utils/agent.py, cli/serve_rm.py)."""

from collections.abc import Sequence
from typing import Any

from prefrank.wire.dialect import AS_GIVEN, Dialect, Placed, only
from prefrank.wire.inputs import OpenedText


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
