"""Rewards for TRL: `GRPOTrainer(reward_funcs=[TrlReward("http://127.0.0.1:8000")], ...)`, RLOO and online DPO alike.

TRL calls `f(prompts=..., completions=..., completion_ids=..., **columns, trainer_state, log_extra, log_metric)`, with
texts, or with lists of messages for conversational data, and takes a list of numbers, or None where a completion has no
reward (GRPOTrainer._calculate_rewards). Asynchronous GRPO pickles the callable and sends it to another process.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from prefrank.errors import PrefrankError
from prefrank.scoring.given import as_given_prompt, as_reply
from prefrank.serving.client.answers import Scored, Scores
from prefrank.serving.client.client_options import ClientOptions
from prefrank.serving.rewards.reward_source import Pair, Source
from prefrank.serving.rewards.trainer_rows import pair_of, same_number
from prefrank.types import Turn

LogMetric = Callable[[str, float], None]
LogExtra = Callable[[str, list[Any]], None]


@dataclass(frozen=True)
class TrlReward:
    """Scores of completions as rewards for TRL.

    Args:
        place: the server's address, those of replicas, or a reward model's folder.
        options: how to ask a server.
        name: of the reward in TRL's logs.
    """

    place: str | tuple[str, ...]
    options: ClientOptions = field(default_factory=ClientOptions)
    name: str = "prefrank"
    source: Source = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", Source(self.place, self.options))
        object.__setattr__(self, "__name__", self.name)  # by which TRL calls it

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        log_metric: LogMetric | None = None,
        log_extra: LogExtra | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """A reward for each completion; None for one that cannot be scored, as after a prompt in a markup that is not
        known.

        Args:
            prompts, completions: [N] texts, or lists of messages.
            log_metric, log_extra: TRL's own; shares of failed and cut rows, and each row's error, go there.
            columns: of the data set; not looked at.

        Raises:
            NotFound, BadModel, BadInput: no completion can be scored: no answer, another model, a wrong key.
        """
        rows = _rows_of(prompts, completions)
        pairs = _pairs(rows)
        scored = _placed(rows, self.source.score(pairs) if pairs else None)
        return _logged(scored, self.name, log_metric, log_extra)


@dataclass(frozen=True)
class AsyncTrlReward:
    """As `TrlReward`, awaited: TRL runs it beside other asynchronous rewards."""

    place: str | tuple[str, ...]
    options: ClientOptions = field(default_factory=ClientOptions)
    name: str = "prefrank"
    source: Source = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", Source(self.place, self.options))
        object.__setattr__(self, "__name__", self.name)

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        log_metric: LogMetric | None = None,
        log_extra: LogExtra | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """As `TrlReward`."""
        rows = _rows_of(prompts, completions)
        pairs = _pairs(rows)
        scored = _placed(rows, await self.source.score_later(pairs) if pairs else None)
        return _logged(scored, self.name, log_metric, log_extra)


def _rows_of(prompts: Sequence[Any], completions: Sequence[Any]) -> list[Pair | str]:
    """A pair for each row; a sentence for one that holds none, so that one odd completion does not end a run."""
    same_number(prompts=prompts, completions=completions)
    rows: list[Pair | str] = []
    for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        try:
            rows.append(_pair(prompt, completion, place))
        except PrefrankError as error:
            rows.append(str(error))
    return rows


def _pair(prompt: Any, completion: Any, place: int) -> Pair:
    if isinstance(completion, str):
        return pair_of(prompt, completion)
    turns = as_given_prompt(prompt)
    *earlier, last = completion if isinstance(completion, list | tuple) and completion else [completion]
    if earlier:  # a conversation with tools: what comes before the last answer belongs to the prompt
        turns += as_given_prompt(list(earlier))
    return turns, as_reply(_without_reasoning(last), f"completion {place}")


def _without_reasoning(message: Any) -> Any:
    """The message without what the policy thought before it answered, which templates keep apart."""
    if isinstance(message, Turn) or not isinstance(message, Mapping):
        return message
    return {name: value for name, value in message.items() if name != "reasoning_content"}


def _pairs(rows: list[Pair | str]) -> list[Pair]:
    return [row for row in rows if not isinstance(row, str)]


def _placed(rows: list[Pair | str], scores: Scores | None) -> list[Scored]:
    """The scores at the places of their rows."""
    scored = iter(scores.scores if scores is not None else ())
    return [Scored(index=0, score=None, error=row) if isinstance(row, str) else next(scored) for row in rows]


def _logged(
    rows: list[Scored], name: str, log_metric: LogMetric | None, log_extra: LogExtra | None
) -> list[float | None]:
    """The rewards; what is known beside them goes to TRL's logs, the same columns each time."""
    if log_metric is not None and rows:
        log_metric(f"{name}/failed", fmean(row.score is None for row in rows))
        log_metric(f"{name}/cut_prompt", fmean(row.cut_prompt > 0 for row in rows))
        log_metric(f"{name}/cut_reply", fmean(row.cut_reply > 0 for row in rows))
    if log_extra is not None:
        log_extra(f"{name}_error", [row.error or "" for row in rows])
    return [None if row.score is None or math.isnan(row.score) else row.score for row in rows]
