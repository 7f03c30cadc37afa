"""Rewards for verl: a `compute_score` for `custom_reward_function`, and a reward manager.

verl calls `compute_score(data_source=, solution_str=, ground_truth=, extra_info=)` for one sample, awaits it where
`inspect.iscoroutinefunction` says so, and takes a number or a dict with `score`. It hands over no prompt: `extra_info`
must hold it. A reward manager (verl/experimental/reward_loop) is made with the configuration and the tokenizer, and is
given one sample as a DataProto with the prompt's messages in `raw_prompt`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefrank.errors import BadInput, short
from prefrank.serving.client.answers import Scores
from prefrank.serving.client.client_options import ClientOptions
from prefrank.serving.rewards.reward_source import Pair, Source, values_of_all
from prefrank.serving.rewards.trainer_rows import pair_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class VerlReward:
    """A `compute_score` on a reward model, for a file that verl loads:

        compute_score = VerlReward("http://127.0.0.1:8000").compute_score_later

    Args:
        place: the server's address, those of replicas, or a reward model's folder.
        options: how to ask a server.
        prompt_key: of `extra_info`, where the data keep the prompt, as text or as messages.
        if_failed: the reward of a response that cannot be scored; None: an error, which ends verl's step.
    """

    place: str | tuple[str, ...]
    options: ClientOptions = field(default_factory=ClientOptions)
    prompt_key: str = "prompt"
    if_failed: float | None = None
    source: Source = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", Source(self.place, self.options))

    def compute_score(
        self, data_source: Any, solution_str: str, ground_truth: Any, extra_info: Any = None, **others: Any
    ) -> dict[str, float]:
        """The reward of one response, as `score`, and the facts behind it.

        Raises:
            BadInput: no prompt in `extra_info`, or one in a chat markup that is not known; what a server refuses.
            NotFound, BadModel: no answer, another model, or a response that cannot be scored.
        """
        return _facts(self.source.score([self._pair(solution_str, extra_info)]), self.if_failed)

    async def compute_score_later(
        self, data_source: Any, solution_str: str, ground_truth: Any, extra_info: Any = None, **others: Any
    ) -> dict[str, float]:
        """As `compute_score`, without holding up verl's event loop."""
        return _facts(await self.source.score_later([self._pair(solution_str, extra_info)]), self.if_failed)

    def _pair(self, reply: str, extra_info: Any) -> Pair:
        given = extra_info if isinstance(extra_info, Mapping) else {}
        if self.prompt_key not in given:
            raise BadInput(
                f"extra_info has the keys {', '.join(map(str, given)) or '(none)'}; wanted {short(self.prompt_key)},"
                " the response's prompt: put it there when the data are prepared, name another prompt_key, or use"
                " VerlManager"
            )
        return pair_of(given[self.prompt_key], reply, name="extra_info: ")


@dataclass(frozen=True)
class VerlManager:
    """A reward manager on a reward model, for a file that verl loads:

        manager = VerlManager("http://127.0.0.1:8000")

    with reward.reward_manager.source=importlib, .name=manager, .module.path=FILE. It stands for the class that verl
    makes an object of: calling it gives the object.

    Args:
        as of `VerlReward`; the prompt is the sample's own.
    """

    place: str | tuple[str, ...]
    options: ClientOptions = field(default_factory=ClientOptions)
    if_failed: float | None = None
    source: Source = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", Source(self.place, self.options))

    def __call__(self, *, tokenizer: Any, **settings: Any) -> "VerlScoring":
        """The manager of one worker.

        Args:
            tokenizer: the policy's.
            settings: what else verl hands over: its configuration, a compute_score, a router; not looked at.
        """
        return VerlScoring(self, tokenizer)

    def assemble_rm_scores(self, data: Any, scores: list[float]) -> "torch.Tensor":
        """[N, L] zeros with each reward at its response's last token, as verl's own managers give them.

        Args:
            data: DataProto with `prompts`, `responses` and `attention_mask`.
            scores: [N] rewards.
        """
        import torch

        batch = data.batch
        lengths = batch["attention_mask"][:, batch["prompts"].size(1) :].sum(dim=1)
        rewards = torch.zeros_like(batch["responses"], dtype=torch.float32)
        rewards[torch.arange(rewards.size(0)), lengths - 1] = rewards.new_tensor(scores)
        return rewards


@dataclass(frozen=True, slots=True)
class VerlScoring:
    """The rewards of one worker."""

    manager: VerlManager
    tokenizer: Any

    async def run_single(self, data: Any) -> dict[str, Any]:
        """The reward of a sample, the last one of `data`, and the facts behind it.

        Raises:
            BadInput: no `raw_prompt`; what a server refuses.
            NotFound, BadModel: no answer, another model, or a response that cannot be scored.
        """
        sample = data[-1:][0]
        columns = sample.non_tensor_batch
        if "raw_prompt" not in columns:
            raise BadInput(
                f"a sample has {', '.join(map(str, columns)) or 'no columns'}; wanted raw_prompt, its messages: set"
                " data.return_raw_chat=True"
            )
        ids = sample.batch["responses"]
        length = int(sample.batch["attention_mask"][-ids.shape[-1] :].sum())
        reply = self.tokenizer.decode(ids[:length], skip_special_tokens=True)
        pair = pair_of(columns["raw_prompt"], reply, name="raw_prompt: ")
        facts = _facts(await self.manager.source.score_later([pair]), self.manager.if_failed)
        return {"reward_score": facts["score"], "reward_extra_info": facts}


def _facts(scores: Scores, if_failed: float | None) -> dict[str, float]:
    """One row's reward and facts; the same keys each time, of which verl makes columns."""
    row = scores.scores[0]
    return {
        "score": values_of_all(scores, if_failed)[0],
        "prefrank_failed": float(row.score is None),
        "prefrank_tokens": float(row.tokens),
        "prefrank_cut_prompt": float(row.cut_prompt),
        "prefrank_cut_reply": float(row.cut_reply),
    }
