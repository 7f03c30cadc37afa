"""slime's rewards from a served model. Usage: --custom-rm-path slime_reward.reward (with --group-rm: .group_reward)

REWARD_URL is the server's address. Run as slime_reward.py it tries one sample. Prompts may be messages, or texts in any
well-known chat markup or in none.
"""

import asyncio
import os
from types import SimpleNamespace

from prefrank.serving.rewards import SlimeReward

reward = SlimeReward(os.environ.get("REWARD_URL", "http://127.0.0.1:8000"))
group_reward = reward.group

if __name__ == "__main__":
    sample = SimpleNamespace(prompt="What is yeast?", response="A fungus that makes dough rise.<|im_end|>")
    print(asyncio.run(reward(None, sample)))
