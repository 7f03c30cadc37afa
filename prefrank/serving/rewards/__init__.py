"""Rewards for trainers: one callable for each trainer's own interface, on a server or on a folder.

| trainer | value | goes to |
|---|---|---|
| TRL (GRPO, RLOO, online DPO) | `TrlReward`, `AsyncTrlReward` | `reward_funcs=[...]` |
| OpenRLHF | `OpenrlhfReward` | `reward_func` of the file given as the remote reward's URL |
| verl | `VerlReward`, `VerlManager` | `custom_reward_function`, `reward_manager` |
| slime | `SlimeReward` | `--custom-rm-path` |
| trlX | `TrlxReward` | `reward_fn=...` |

Prompts are messages, or texts in any well-known chat markup or in none; the control strings that end a reply are not
scored. Where that does not fit, `take="text"` sends whole texts (OpenRLHF, slime).

All are frozen values that pickle; connections and models are opened where they are used, once in each process. A reply
that cannot be scored is never worth 0 by itself: TRL gets None, which it leaves out; elsewhere it is an error, unless
`if_failed` says what it is worth. That no server answers is an error in all.
"""

from prefrank.serving.client.client_options import ClientOptions
from prefrank.serving.rewards.for_openrlhf import OpenrlhfReward
from prefrank.serving.rewards.for_slime import SlimeReward
from prefrank.serving.rewards.for_trl import AsyncTrlReward, TrlReward
from prefrank.serving.rewards.for_trlx import TrlxReward
from prefrank.serving.rewards.for_verl import VerlManager, VerlReward
from prefrank.serving.rewards.reward_source import Source

__all__ = [
    "AsyncTrlReward",
    "ClientOptions",
    "OpenrlhfReward",
    "SlimeReward",
    "Source",
    "TrlReward",
    "TrlxReward",
    "VerlManager",
    "VerlReward",
]
