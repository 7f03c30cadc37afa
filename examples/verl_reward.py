"""verl's rewards from a served model. Usage: verl_reward.py, or in verl's configuration one of

    reward.custom_reward_function.path=verl_reward.py reward.custom_reward_function.name=compute_score
    reward.reward_manager.source=importlib reward.reward_manager.name=manager
        reward.reward_manager.module.path=verl_reward.py

REWARD_URL is the server's address. The first needs the prompt in each row's `extra_info`, under the name "question".
"""

import asyncio
import os

from prefrank.serving.rewards import VerlManager, VerlReward

URL = os.environ.get("REWARD_URL", "http://127.0.0.1:8000")

compute_score = VerlReward(URL, prompt_key="question").compute_score_later
manager = VerlManager(URL)

if __name__ == "__main__":
    print(asyncio.run(compute_score("demo", "A fungus.", None, {"question": "What is yeast?"}))["score"])
