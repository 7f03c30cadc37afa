"""TRL's GRPO with a served reward model, two steps. Usage: trl_reward.py URL POLICY OUTPUT (needs trl and datasets)

The fingerprint is pinned: the run ends with an error if the server's model is exchanged under it.
"""

import sys

from prefrank.serving.client import Client
from prefrank.serving.rewards import ClientOptions, TrlReward

PROMPTS = ("how do I bake bread at home", "what is the capital of france")


def make_reward(url: str) -> TrlReward:
    with Client(url) as client:
        client.wait_ready(60.0)
        model = client.models().models[0]
    return TrlReward(url, ClientOptions(model=model.name, fingerprint=model.fingerprint))


def main(url: str, policy: str, output: str) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    data = Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in PROMPTS])
    config = GRPOConfig(output, max_steps=2, per_device_train_batch_size=4, num_generations=4, max_completion_length=8,
                        logging_steps=1, report_to="none", bf16=False)  # fmt: skip
    trainer = GRPOTrainer(policy, make_reward(url), args=config, train_dataset=data)
    trainer.train()
    print([round(entry["reward"], 3) for entry in trainer.state.log_history if "reward" in entry])


if __name__ == "__main__":
    main(*sys.argv[1:])
