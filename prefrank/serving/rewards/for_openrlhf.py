"""Rewards for OpenRLHF, whose remote reward may be a Python file: `--reward.remote_url rewards.py`.

It calls the file's `reward_func(queries, prompts, labels)` in a thread, with one sample a call; a query is the prompt
and the response decoded with their special tokens (openrlhf/utils/agent.py, SingleTurnAgentExecutor). It takes a dict
with `rewards` (for the advantage), `scores` (from 0 to 1, for its dynamic filtering) and `extra_logs`. Where it raises,
the sample has no reward.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from prefrank.errors import BadInput, short
from prefrank.serving.client.client_options import ClientOptions
from prefrank.serving.rewards.policy_text import PolicyText, same_number
from prefrank.serving.rewards.reward_source import Source, values_of_all


@dataclass(frozen=True)
class OpenrlhfReward:
    """Scores of responses as rewards for OpenRLHF.

    Args:
        place: the server's address, those of replicas, or a reward model's folder.
        options: how to ask a server.
        take: "pair": prompt and reply, for a reward model with a template of its own; "text": the query as it is, for
            one with the policy's template.
        text: what the policy's template puts around a prompt and after a reply.
        if_failed: the reward of a response that cannot be scored; None: an error, and OpenRLHF has no reward for it.
    """

    place: str | tuple[str, ...]
    options: ClientOptions = field(default_factory=ClientOptions)
    take: Literal["pair", "text"] = "pair"
    text: PolicyText = field(default_factory=PolicyText)
    if_failed: float | None = None
    source: Source = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", Source(self.place, self.options))
        if self.take not in ("pair", "text"):
            raise BadInput(f"take is {short(self.take)}; wanted pair or text")

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any] | None = None, **others: Any
    ) -> dict[str, Any]:
        """Rewards, scores and logs, [N] each; rewards are raw scores, scores their sigmoids.

        Args:
            queries: [N] prompt and response, as one text each.
            prompts: [N] the prompts that the queries begin with.
            labels, others: not looked at.

        Raises:
            BadInput: a query that does not begin with its prompt; what a server refuses.
            NotFound, BadModel: no answer, another model, or a row that cannot be scored.
        """
        same_number(queries=queries, prompts=prompts)
        if self.take == "text":
            scores = self.source.score_texts(list(queries))
        else:
            replies = [self.text.reply_in(query, prompt) for query, prompt in zip(queries, prompts, strict=True)]
            pairs = [(self.text.prompt(prompt), reply) for prompt, reply in zip(prompts, replies, strict=True)]
            scores = self.source.score(pairs)
        rewards = values_of_all(scores, self.if_failed)
        return {
            "rewards": rewards,
            "scores": [_sigmoid(reward) for reward in rewards],
            "extra_logs": {
                "prefrank_failed": [float(row.score is None) for row in scores.scores],
                "prefrank_cut_prompt": [float(row.cut_prompt) for row in scores.scores],
                "prefrank_cut_reply": [float(row.cut_reply) for row in scores.scores],
            },
        }


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))
