"""Rewards for OpenRLHF, whose remote reward may be a Python file: `--reward.remote_url rewards.py`.

It calls the file's `reward_func(queries, prompts, labels)` in a thread, with one sample a call; a query is the prompt
and the response decoded with their special tokens (openrlhf/utils/agent.py, SingleTurnAgentExecutor). It takes a dict
with `rewards` (for the advantage), `scores` (from 0 to 1, for its dynamic filtering) and `extra_logs`. Where it raises,
the sample has no reward.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prefrank.serving.client.client_options import ClientOptions
from prefrank.serving.rewards.reward_source import Pair, Source, values_of_all
from prefrank.serving.rewards.trainer_rows import OR_TEXT, Take, check_take, refusals_as_bad_input, same_number
from prefrank.wire.openrlhf import split_query
from prefrank.wire.route import sigmoid


@dataclass(frozen=True)
class OpenrlhfReward:
    """Scores of responses as rewards for OpenRLHF.

    Args:
        place: the server's address, those of replicas, or a reward model's folder.
        options: how to ask a server.
        take: "pair": the prompt's turns and the reply, for a reward model with a template of its own; "text": the query
            as it is, for one with the policy's template.
        if_failed: the reward of a response that cannot be scored; None: an error, and OpenRLHF has no reward for it.
    """

    place: str | tuple[str, ...]
    options: ClientOptions = field(default_factory=ClientOptions)
    take: Take = "pair"
    if_failed: float | None = None
    source: Source = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", Source(self.place, self.options))
        check_take(self.take)

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any] | None = None, **others: Any
    ) -> dict[str, Any]:
        """Rewards, scores and logs, [N] each; rewards are raw scores, scores their sigmoids.

        Args:
            queries: [N] prompt and response, as one text each.
            prompts: [N] the prompts that the queries begin with.
            labels, others: not looked at.

        Raises:
            BadInput: a query that does not begin with its prompt; a chat markup that is not known; what a server
                refuses.
            NotFound, BadModel: no answer, another model, or a row that cannot be scored.
        """
        same_number(queries=queries, prompts=prompts)
        if self.take == "text":
            scores = self.source.score_texts(list(queries))
        else:
            scores = self.source.score(_pairs_of(queries, prompts))
        rewards = values_of_all(scores, self.if_failed)
        return {
            "rewards": rewards,
            "scores": [sigmoid(reward) for reward in rewards],
            "extra_logs": {
                "prefrank_failed": [float(row.score is None) for row in scores.scores],
                "prefrank_cut_prompt": [float(row.cut_prompt) for row in scores.scores],
                "prefrank_cut_reply": [float(row.cut_reply) for row in scores.scores],
            },
        }


def _pairs_of(queries: Sequence[str], prompts: Sequence[str]) -> list[Pair]:
    with refusals_as_bad_input(advice=OR_TEXT):
        asked = [split_query(query, prompt, n) for n, (query, prompt) in enumerate(zip(queries, prompts, strict=True))]
    return [(one.prompt, one.reply) for one in asked]
