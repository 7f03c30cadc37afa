"""Rewards for trlX: `trlx.train(reward_fn=TrlxReward("http://127.0.0.1:8000"), ...)`.

trlX calls `reward_fn(samples=, prompts=, outputs=, tokenizer=, **metadata)` with decoded texts, an end token after each
output, and takes a number for each (trlx/trainer/accelerate_ppo_trainer.py, make_experience).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prefrank.serving.client.client_options import ClientOptions
from prefrank.serving.rewards.reward_source import Source, values_of_all
from prefrank.serving.rewards.trainer_rows import pair_of, same_number
from prefrank.wire.policy import without_ends


@dataclass(frozen=True)
class TrlxReward:
    """Scores of outputs as rewards for trlX.

    Args:
        place: the server's address, those of replicas, or a reward model's folder.
        options: how to ask a server.
        if_failed: the reward of an output that cannot be scored; None: an error, which ends the run.
    """

    place: str | tuple[str, ...]
    options: ClientOptions = field(default_factory=ClientOptions)
    if_failed: float | None = None
    source: Source = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", Source(self.place, self.options))

    def __call__(
        self,
        samples: Sequence[str],
        prompts: Sequence[str],
        outputs: Sequence[str],
        tokenizer: Any = None,
        **metadata: Any,
    ) -> list[float]:
        """A reward for each output.

        Args:
            samples: [N] prompt and output, as one text each; not looked at.
            prompts, outputs: [N].
            tokenizer: the policy's; its end token is taken from the outputs.
            metadata: columns of the prompts; not looked at.

        Raises:
            BadInput: lists of different lengths; a prompt in a chat markup that is not known; what a server refuses.
            NotFound, BadModel: no answer, another model, or an output that cannot be scored.
        """
        same_number(samples=samples, prompts=prompts, outputs=outputs)
        ends = () if tokenizer is None or not tokenizer.eos_token else (str(tokenizer.eos_token),)
        pairs = [pair_of(prompt, without_ends(output, ends)) for prompt, output in zip(prompts, outputs, strict=True)]
        return values_of_all(self.source.score(pairs), self.if_failed) if pairs else []
