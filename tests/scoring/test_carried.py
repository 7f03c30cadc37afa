"""A model goes to other processes, pickled, copied or forked, and gives the same scores there."""

import copy
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
import torch

from prefrank import RewardModel, card_rank_model_fn, native
from prefrank.errors import BadInput, BadModel
from prefrank.model import threads
from tests.tiny import bert_folder, decoder_folder, neox_folder, seed_folder

PROMPT = "how do I bake bread at home"
REPLIES = ["mix flour water", "", "[SEP] no <|end|>", "flour " * 200]
OPTIONS = {"max_length": 64, "max_tokens": 100, "empty_score": -4.0}
KINDS = {
    "native": (bert_folder, {}),
    "torch": (bert_folder, {"kernels": "torch", "num_threads": 1}),
    "int16": (seed_folder, {"precision": "int16"}),
    "deberta": (seed_folder, {"deterministic": True}),
    "decoder": (decoder_folder, {"num_threads": 1}),
    "transformers": (neox_folder, {"num_threads": 1}),
    "bfloat16": (decoder_folder, {"precision": "bfloat16", "num_threads": 1}),
}


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    make, options = KINDS[request.param]
    if "precision" in options and make is seed_folder and not native.available():
        pytest.skip("the native kernels are not built: no C++ compiler")
    return RewardModel.load(make(tmp_path_factory.mktemp("carried")), **OPTIONS, **options)


def facts(model: RewardModel) -> tuple:
    return model.fingerprint, model.max_tokens, model.empty_score, model.engine.kernels, model.engine.precision


def test_a_pickled_model_scores_the_same(model: RewardModel) -> None:
    again = pickle.loads(pickle.dumps(model))
    assert again.score(PROMPT, REPLIES) == model.score(PROMPT, REPLIES)
    assert facts(again) == facts(model)
    assert again.encoder.settings == model.encoder.settings


def test_copies_score_the_same_and_share_their_weights(model: RewardModel) -> None:
    for again in (copy.copy(model), copy.deepcopy(model), copy.deepcopy([model])[0]):
        assert again is not model
        assert again.score(PROMPT, REPLIES) == model.score(PROMPT, REPLIES)
        assert facts(again) == facts(model)
        assert again.network is model.network


def test_a_model_that_was_not_loaded_carries_its_weights(model: RewardModel) -> None:
    made = RewardModel(model.network, model.encoder, max_tokens=100, deterministic=True)
    again = pickle.loads(pickle.dumps(made))
    assert again.score(PROMPT, REPLIES) == made.score(PROMPT, REPLIES)
    assert facts(again) == facts(made)
    assert facts(pickle.loads(pickle.dumps(again))) == facts(made)


def test_a_spawned_process_scores_the_same(model: RewardModel) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(model.score, (PROMPT, REPLIES)) == model.score(PROMPT, REPLIES)


def test_joblib_takes_the_model_and_the_cards_function(tmp_path: Path) -> None:
    model = RewardModel.load(bert_folder(tmp_path))
    parallel = joblib.Parallel(1, backend="loky")
    assert parallel([joblib.delayed(model.score)(PROMPT, REPLIES)]) == [model.score(PROMPT, REPLIES)]
    function = card_rank_model_fn(model)
    samples = ["how do I[SEP]mix flour"]
    assert pickle.loads(pickle.dumps(function))(samples).tolist() == function(samples).tolist()


def test_a_loaded_model_is_pickled_without_its_weights(tmp_path: Path) -> None:
    model = RewardModel.load(bert_folder(tmp_path / "m"))
    weights = sum(tensor.nbytes for tensor in model.network.state_dict().values())
    assert len(pickle.dumps(model)) < weights / 4
    again = pickle.loads(pickle.dumps(model))
    tensor = again.network.state_dict()["bert.embeddings.word_embeddings.weight"]
    assert tensor.data_ptr() != model.network.state_dict()["bert.embeddings.word_embeddings.weight"].data_ptr()


def test_a_folder_that_changes_or_goes_is_noticed(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "m")
    model = RewardModel.load(folder)
    want, before = model.score(PROMPT, REPLIES), pickle.dumps(model)
    bert_folder(folder, seed=1)
    assert pickle.loads(pickle.dumps(model)).score(PROMPT, REPLIES) == want  # carries its weights now
    with pytest.raises(BadModel, match="now holds"):
        pickle.loads(before)
    shutil.rmtree(folder)
    assert pickle.loads(pickle.dumps(model)).score(PROMPT, REPLIES) == want
    with pytest.raises(BadModel, match="which is not here; take a copy of that folder along"):
        pickle.loads(before)


def test_a_pickled_tokenizer_still_takes_text_for_text(tmp_path: Path) -> None:
    encoder = RewardModel.load(bert_folder(tmp_path)).encoder
    for again in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        assert again.count_tokens("x[SEP]y") == encoder.count_tokens("x[SEP]y") > 3
        assert again.source.with_special_tokens.encode("[SEP]", add_special_tokens=False).ids == [3]


def test_a_pickled_model_still_takes_rendered_texts(tmp_path: Path) -> None:
    model = RewardModel.load(decoder_folder(tmp_path), pre_rendered=True)
    prompt = "<|start|>user\nhello<|end|><|start|>assistant\n"
    again = pickle.loads(pickle.dumps(model))
    assert again.encoder.pre_rendered
    assert again.score(prompt, ["mix flour"]) == model.score(prompt, ["mix flour"])


FORK = """
import os, sys, time, torch
from prefrank import RewardModel
torch.set_num_threads(2)
model = RewardModel.load(sys.argv[1], kernels=sys.argv[2] or None)
pairs = [("how do I bake bread " * 8, "mix flour " * n) for n in range(1, 65)]
want = [score.value for score in model.score_pairs(pairs)]
torch.randn(1_000_000).exp()  # OpenMP's threads have started, whatever the model's size
child = os.fork()
if not child:
    again = RewardModel.load(sys.argv[1], kernels=sys.argv[2] or None)
    off = max(abs(a - b.value) for one in (model, again) for a, b in zip(want, one.score_pairs(pairs), strict=True))
    os._exit(0 if off < 1e-5 else 3)
for _ in range(200):
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.1)
os.kill(child, 9)
sys.exit("the child hangs")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(("make", "kernels"), [(bert_folder, "torch"), (bert_folder, ""), (decoder_folder, "")])
def test_a_forked_child_scores_and_loads_after_the_parent_used_its_threads(
    make: object, kernels: str, tmp_path: Path
) -> None:
    folder = make(tmp_path)
    result = subprocess.run([sys.executable, "-c", FORK, str(folder), kernels], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-500:]


def test_a_gpus_model_says_at_once_that_it_cannot_be_used_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    threads.check_fork(gpu)
    monkeypatch.setattr(threads, "_PROCESS", -1)
    with pytest.raises(BadInput, match="which a forked process cannot use; start processes with multiprocessing's"):
        threads.check_fork(gpu)
    threads.check_fork(torch.device("cpu"))
