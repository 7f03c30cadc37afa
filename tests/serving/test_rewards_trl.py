"""TRL for real: two steps on a tiny random policy, with rewards of a server.

`make test-clients`, which `make test-all` calls, makes an environment with TRL for it. What runs TRL in the tests' own
process is skipped unless TRL is installed there.
"""

import ast
import math
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean

import pytest

from prefrank.serving.rewards import AsyncTrlReward, TrlReward
from tests.serving.clients.environments import HERE, interpreter_of, needs
from tests.serving.fake_server import FakeServe, worth
from tests.serving.live import Live
from tests.tiny import TEMPLATE, chat_folder

ROOT = Path(__file__).parents[2]
IS_HERE = find_spec("trl") is not None and find_spec("datasets") is not None
ENVIRONMENT = HERE if IS_HERE else "trl"
pytestmark = pytest.mark.slow
GENERATION = "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"


def policy_folder(folder: Path) -> Path:
    """A random two-layer Llama that writes text, with a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    chat_folder(folder, TEMPLATE + GENERATION)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=420, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, max_position_embeddings=256, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def trained(url: str, folder: Path) -> list[float]:
    """The mean rewards of the steps of the example's run."""
    example = ROOT / "examples" / "trl_reward.py"
    command = [
        str(interpreter_of(ENVIRONMENT)),
        str(example),
        url,
        str(policy_folder(folder / "policy")),
        str(folder / "run"),
    ]
    paths = {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | paths, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return ast.literal_eval(result.stdout.splitlines()[-1])


@needs(ENVIRONMENT)
def test_two_steps_of_grpo_with_a_served_model(bert_server: Live, tmp_path: Path) -> None:
    means = trained(bert_server.url, tmp_path)
    assert len(means) == 2
    assert all(math.isfinite(mean) and mean != 0 for mean in means)


@needs(ENVIRONMENT)
def test_the_rewards_of_two_steps_of_grpo_are_those_of_the_server(tmp_path: Path) -> None:
    server = FakeServe()
    try:
        means = trained(server.url, tmp_path)
    finally:
        server.close()
    steps = [body["pairs"] for path, body in server.asked if path == "/api/score"]
    assert [len(pairs) for pairs in steps] == [4, 4]
    assert all(len({pair["prompt"] for pair in pairs}) == 1 for pairs in steps)  # a group of each prompt
    assert all("<|" not in pair["reply"] for pairs in steps for pair in pairs)
    wanted = [fmean(worth(pair["prompt"], pair["reply"]) for pair in pairs) for pairs in steps]
    assert means == pytest.approx(wanted, abs=1e-3)


@pytest.mark.skipif(not IS_HERE, reason="trl and datasets are not installed beside the tests")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["GRPO", "RLOO"])
def test_rows_that_fail_are_left_out_of_training_and_shown_in_the_logs(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trl
    from datasets import Dataset

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = FakeServe()
    server.fails = {1}
    rewards = [TrlReward(server.url, name="sync"), AsyncTrlReward(server.url, name="later")]
    settings, trainer = getattr(trl, f"{method}Config"), getattr(trl, f"{method}Trainer")
    texts = ("how do I bake", "flour and salt")
    prompts = [[{"role": "user", "content": text}] if method == "GRPO" else text for text in texts]
    config = settings(
        str(tmp_path / "run"), max_steps=2, per_device_train_batch_size=4, num_generations=4, max_completion_length=6,
        logging_steps=1, report_to="none", bf16=False, use_cpu=True, log_completions=True, save_strategy="no",
    )  # fmt: skip
    try:
        data = Dataset.from_list([{"prompt": prompt, "answer": "x"} for prompt in prompts])
        running = trainer(str(policy_folder(tmp_path / "policy")), rewards, args=config, train_dataset=data)
        running.train()
    finally:
        for reward in rewards:
            reward.source.close()
        server.close()
    logged = [entry for entry in running.state.log_history if "reward" in entry]
    assert [(entry["sync/failed"], entry["later/failed"]) for entry in logged] == [(0.25, 0.25)] * 2
    for step, entry in enumerate(logged):
        pairs = server.asked[2 * step][1]["pairs"]
        mean = fmean(worth(pair["prompt"], pair["reply"]) for place, pair in enumerate(pairs) if place != 1)
        assert entry["rewards/sync/mean"] == pytest.approx(mean, abs=1e-3)
        assert entry["rewards/later/mean"] == pytest.approx(mean, abs=1e-3)
