"""OpenRLHF's reward from a served model. Usage: --reward.remote_url openrlhf_reward.py, or openrlhf_reward.py to try it

REWARD_URL is the server's address. OpenRLHF hands over texts that the policy's chat template has been through; a reward
model with a template of its own needs the bare prompt and reply: say what the policy's puts around them (here ChatML).
"""

import os

from prefrank.serving.rewards import OpenrlhfReward, PolicyText

CHATML = PolicyText(before="<|im_start|>user\n", after="<|im_end|>\n<|im_start|>assistant\n", ends=("<|im_end|>",))

reward_func = OpenrlhfReward(os.environ.get("REWARD_URL", "http://127.0.0.1:8000"), text=CHATML)

if __name__ == "__main__":
    prompt = f"{CHATML.before}What is yeast?{CHATML.after}"
    print(reward_func([f"{prompt}A fungus that makes dough rise.<|im_end|>"], [prompt], [None])["rewards"])
