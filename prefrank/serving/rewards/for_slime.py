"""Rewards for slime: `--custom-rm-path MODULE.reward`, with a module of your own that says `reward = SlimeReward(...)`.

slime awaits `reward(args, sample)` and takes a number; with `--group-rm` it hands over a list of samples and takes a
list: say `reward = SlimeReward(...).group` (slime/rollout/rm_hub). Its built-in remote reward needs nothing of this:
`--rm-type remote_rm --rm-url` with the path that the server has for slime.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prefrank.errors import BadInput
from prefrank.serving.client.answers import Scores
from prefrank.serving.client.client_options import ClientOptions
from prefrank.serving.rewards.reward_source import Source, values_of_all
from prefrank.serving.rewards.trainer_rows import OR_TEXT, Take, check_take, pair_of


@dataclass(frozen=True)
class SlimeReward:
    """Scores of samples as rewards for slime.

    Args:
        place: the server's address, those of replicas, or a reward model's folder.
        options: how to ask a server.
        take: "pair": the prompt's turns and the reply, for a reward model with a template of its own; "text": prompt
            and response as one text, for one with the policy's template (slime's `--apply-chat-template`).
        if_failed: the reward of a sample that cannot be scored; None: an error, which ends the rollout.
    """

    place: str | tuple[str, ...]
    options: ClientOptions = field(default_factory=ClientOptions)
    take: Take = "pair"
    if_failed: float | None = None
    source: Source = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", Source(self.place, self.options))
        check_take(self.take)

    async def __call__(self, args: Any, sample: Any, **others: Any) -> float:
        """The reward of one sample.

        Args:
            args: slime's own; not looked at.
            sample: has `prompt`, text or messages, and `response`.

        Raises:
            BadInput: a prompt that is none, or in a chat markup that is not known; what a server refuses.
            NotFound, BadModel: no answer, another model, or a sample that cannot be scored.
        """
        return (await self.group(args, [sample]))[0]

    async def group(self, args: Any, samples: Sequence[Any], **others: Any) -> list[float]:
        """The rewards of samples, in order. As for one."""
        if not samples:
            return []
        return values_of_all(await self._scores(samples), self.if_failed)

    async def _scores(self, samples: Sequence[Any]) -> Scores:
        if self.take == "pair":
            pairs = [pair_of(sample.prompt, sample.response, advice=OR_TEXT) for sample in samples]
            return await self.source.score_later(pairs)
        for sample in samples:
            if not isinstance(sample.prompt, str):
                raise BadInput("a sample's prompt is a list of messages; wanted a text, with --apply-chat-template")
        return await self.source.score_texts_later([sample.prompt + sample.response for sample in samples])
