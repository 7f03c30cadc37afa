"""OpenRLHF's reward from a served model. Usage: --reward.remote_url openrlhf_reward.py, or openrlhf_reward.py to try it

REWARD_URL is the server's address. Prompts may be in any well-known chat markup (here ChatML), or in none.
"""

import os

from prefrank.serving.rewards import OpenrlhfReward

reward_func = OpenrlhfReward(os.environ.get("REWARD_URL", "http://127.0.0.1:8000"))

if __name__ == "__main__":
    prompt = "<|im_start|>user\nWhat is yeast?<|im_end|>\n<|im_start|>assistant\n"
    print(reward_func([f"{prompt}A fungus that makes dough rise.<|im_end|>"], [prompt], [None])["rewards"])
