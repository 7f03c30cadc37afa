"""trlX's rewards from a served model. Usage: trlx_reward.py URL (or a reward model's folder)

In a training script: trlx.train(reward_fn=TrlxReward(URL), prompts=..., config=...)
"""

import sys

from prefrank.serving.rewards import TrlxReward


def main(url: str) -> None:
    reward_fn = TrlxReward(url)
    prompts, outputs = ["What is yeast?"] * 2, ["A fungus that makes dough rise.</s>", "No idea.</s>"]
    samples = [prompt + output for prompt, output in zip(prompts, outputs, strict=True)]
    print(reward_fn(samples=samples, prompts=prompts, outputs=outputs))


if __name__ == "__main__":
    main(*sys.argv[1:])
