"""Training a decoder: transformers' padded batches score its folders alike, and a resumed run keeps its bits."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefrank import RewardModel
from prefrank.errors import Interrupted
from prefrank.model import checkpoint
from prefrank.scoring import checkpoint_info
from prefrank.training import Recipe, train
from prefrank.training.records.events import Event, StepDone
from prefrank.training.records.run_checkpoints import read_state
from prefrank.types import as_prompt
from tests.parity.test_scored_token import REPLIES, decoder, in_transformers


def stop(event: Event) -> None:
    if isinstance(event, StepDone) and event.step == 3:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("case", ["a new token, one row more", "an unused special token"])
@pytest.mark.parametrize(("kind", "new_head"), [("llama", True), ("llama", False), ("gpt2", True)])
def test_a_trained_folder_scores_alike_in_transformers_and_resumes(
    kind: str, case: str, new_head: bool, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    keys = {"model_name": str(decoder(tmp_path / "plain", kind, case)), "num_train_epochs": 1, "eval_steps": 2}
    keys |= {"new_head": new_head}
    whole = train(recipe(output_dir=str(tmp_path / "whole"), **keys))
    model = RewardModel.load(whole.last)
    assert checkpoint_info(str(tmp_path / "whole"))["as_saved"], "a run's folder stands for its best checkpoint"
    rows = model.encoder.encode(as_prompt("how do I bake bread"), REPLIES)
    ours = [score.value for score in model.score("how do I bake bread", REPLIES)]
    torch.testing.assert_close(in_transformers(whole.last, rows), torch.tensor(ours), atol=1e-5, rtol=0)

    with pytest.raises(Interrupted):
        train(recipe(output_dir=str(tmp_path / "cut"), **keys), callback=stop)
    resumed = train(recipe(output_dir=str(tmp_path / "cut"), resume=True, **keys))
    after, before = load_file(resumed.last / "model.safetensors"), load_file(whole.last / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)
    continued = train(
        recipe(output_dir=str(tmp_path / "more"), **keys | {"model_name": str(whole.last), "new_head": False})
    )
    again = RewardModel.load(continued.last)
    ours = [score.value for score in again.score("how do I bake bread", REPLIES)]
    torch.testing.assert_close(in_transformers(continued.last, rows), torch.tensor(ours), atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{"ema_decay": 0.5}, {"average_last": 2}, {"lora_rank": 2}], ids=str)
def test_a_run_that_was_stopped_while_transformers_ran_its_model_goes_on(
    changes: dict[str, Any], recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the very state: what is left to differ is how the two round."""
    folder = decoder(tmp_path / "plain", "llama", "a new token, one row more")
    keys = {"model_name": str(folder), "num_train_epochs": 1, "eval_steps": 2, "new_head": False, "dropout": 0.0}
    keys |= changes
    whole = train(recipe(output_dir=str(tmp_path / "whole"), **keys))
    with monkeypatch.context() as before:
        before.setattr(checkpoint, "find_family", lambda config: None)
        with pytest.raises(Interrupted):
            train(recipe(output_dir=str(tmp_path / "cut"), **keys), callback=stop)
    saved = read_state(tmp_path / "cut" / "last")
    assert all(name.startswith("model.") for name in saved["optimizer"])
    resumed = train(recipe(output_dir=str(tmp_path / "cut"), resume=True, **keys))
    assert resumed.steps == whole.steps > 3
    after, wanted = load_file(resumed.last / "model.safetensors"), load_file(whole.last / "model.safetensors")
    start = load_file(folder / "model.safetensors")
    assert any((wanted[name] - start[name][: len(wanted[name])]).abs().max() > 1e-3 for name in start)
    for name, tensor in wanted.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-4, rtol=0, msg=name)
