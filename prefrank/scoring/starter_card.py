"""The model card's own interface, for programs that were written against it.

The published reward models come with a `rank_model_fn(samples)` that takes `prefix[SEP]postfix` strings in chunks of
16 and floors empty replies at -4, counting every reply with at most three distinct characters as empty ("OK", "42").
Here it is a preset beside prefrank's own scoring, where strings are never split and `empty_score` is explicit. Two
things differ on purpose: strings with several separators, on which the card's function fails, are read as turns, and
over-long texts are truncated by the checkpoint's policy.
"""

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from jaxtyping import Float32

from prefrank.errors import BadInput
from prefrank.scoring.given import values_of
from prefrank.scoring.reward_model import RewardModel
from prefrank.types import Prompt, Role, Turn

FLOOR = -4.0
SEPARATOR = "[SEP]"


def card_rank_model_fn(model: RewardModel) -> Callable[[Iterable[str]], Float32[np.ndarray, " N"]]:
    """The card's `rank_model_fn` for a loaded model: samples in, an array of N float32 scores out.

    A sample of several parts is a conversation: user and assistant turns in turn, the last part the reply. The samples
    may be any sequence or iterable of strings. It can be pickled, as the model can.
    """
    return partial(_rank_samples, model)


def _rank_samples(model: RewardModel, samples: Iterable[str]) -> Float32[np.ndarray, " N"]:
    given = values_of(samples, "samples", f"a list of strings, such as ['prompt{SEPARATOR}reply']")
    pairs = [split_sample(sample, number) for number, sample in enumerate(given)]
    values = [score.value for score in model.score_pairs(pairs)]
    floored = [FLOOR if is_empty(reply) else value for (_, reply), value in zip(pairs, values, strict=True)]
    return np.array(floored, np.float32)


def split_sample(sample: object, number: int) -> tuple[Prompt, str]:
    """`prefix[SEP]postfix` to turns and a stripped reply; several prefixes alternate, the last one the user's."""
    if not isinstance(sample, str):
        raise BadInput(f"sample {number} is of type {type(sample).__name__}; wanted a string prompt{SEPARATOR}reply")
    *turns, reply = str.__str__(sample).split(SEPARATOR)
    if not turns:
        raise BadInput(f"sample {number} has no {SEPARATOR}; wanted prompt{SEPARATOR}reply")
    count = len(turns)
    roles: tuple[Role, Role] = ("user", "assistant")
    return tuple(Turn(roles[(count - 1 - i) % 2], text) for i, text in enumerate(turns)), reply.strip()


def is_empty(reply: str) -> bool:
    """The card's rule: nothing, or at most three distinct characters."""
    return len(set(reply)) <= 3
