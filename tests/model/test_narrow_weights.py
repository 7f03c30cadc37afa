"""Decoders in bfloat16 and float16 that stay so in memory and score in float32, to the bit."""

import copy
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from prefrank import RewardModel, native
from prefrank.errors import BadInput
from prefrank.model import fingerprint, load_for_scoring, load_network, save_network, score_batches
from prefrank.model.checkpoint import load_quantised
from prefrank.model.network import is_wide, precision_of
from prefrank.model.save import write_checkpoint
from prefrank.model.weights import Weights, bytes_in
from prefrank.scoring import checkpoint_info
from prefrank.scoring.quantise import quantise_folder
from tests.model.test_checkpoints import mapped_files, tensors_of
from tests.model.test_decoder_folders import BATCH, NAMES, PROMPT, REPLIES, WEIGHTS, narrowed, plain
from tests.parity.reference import model_of, saved
from tests.parity.test_scored_token import decoder, trained
from tests.tiny import chat_folder, decoder_folder

NARROW = [torch.bfloat16, torch.float16]
needs_kernels = pytest.mark.skipif(not native.available(), reason="the native kernels are not built: no C++ compiler")
MATRIX, NORM = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"


def widened(folder: Path, target: Path) -> Path:
    """A copy of a folder whose weights are the same numbers in float32."""
    shutil.copytree(folder, target)
    tensors = {name: tensor.float() for name, tensor in tensors_of(folder).items()}
    safetensors.torch.save_file(tensors, target / WEIGHTS, {"format": "pt"})
    return target


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_scores_and_fingerprint_are_those_of_the_weights_in_float32(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    folder = narrowed(plain(tmp_path / "narrow", name), dtype)
    narrow, wide = (load_for_scoring(place, precision=None) for place in (folder, widened(folder, tmp_path / "wide")))
    assert is_wide(narrow)
    assert not is_wide(wide)
    assert precision_of(narrow) == precision_of(wide) == "float32"
    types = {name: tensor.dtype for name, tensor in narrow.state_dict().items()}
    matrices = {name for name, tensor in narrow.state_dict().items() if tensor.ndim == 2}
    assert {types[name] for name in matrices} == {dtype, torch.float32}
    assert types["score.weight"] == types[NORM] == torch.float32
    assert torch.equal(score_batches(narrow, [BATCH]), score_batches(wide, [BATCH]))
    assert fingerprint(narrow, extra=b"x") == fingerprint(wide, extra=b"x")


def test_training_and_other_precisions_convert_as_they_are_asked_to(tmp_path: Path) -> None:
    folder = narrowed(plain(tmp_path))
    trained, half = load_network(folder), load_for_scoring(folder, precision="float16")
    assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}
    assert {p.dtype for name, p in half.named_parameters() if name != "score.weight"} == {torch.float16}
    assert not is_wide(trained)
    assert not is_wide(half)


@pytest.fixture
def model(tmp_path: Path) -> RewardModel:
    folder = narrowed(decoder_folder(tmp_path / "narrow"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return RewardModel.load(folder, device="cpu")


def test_a_model_tells_its_precision(model: RewardModel, tmp_path: Path) -> None:
    assert model.engine.precision == "float32"
    facts = checkpoint_info(str(tmp_path / "narrow"))
    assert facts["precision"] == "float32"
    assert facts["fingerprint"] == model.fingerprint
    asked = RewardModel.load(tmp_path / "narrow", device="cpu", precision="bfloat16")
    assert (asked.engine.precision, asked.engine.kernels) == ("bfloat16", "torch")
    assert asked.fingerprint != model.fingerprint


@needs_kernels
def test_kernels_widen_what_is_held_narrow_and_refuse_to_compute_narrow(model: RewardModel, tmp_path: Path) -> None:
    wide = RewardModel.load(widened(tmp_path / "narrow", tmp_path / "wide"), device="cpu")
    assert model.engine.kernels in native.KERNELS
    assert model.score(PROMPT, REPLIES) == wide.score(PROMPT, REPLIES)
    with pytest.raises(BadInput, match="compute in float32, not in bfloat16; leave kernels or precision out"):
        RewardModel.load(tmp_path / "narrow", device="cpu", precision="bfloat16", kernels=model.engine.kernels)


@needs_kernels
def test_a_folder_is_quantised_with_its_figures(model: RewardModel, tmp_path: Path) -> None:
    figures = quantise_folder(tmp_path / "narrow", tmp_path / "int16", "int16", num_rows=40)
    assert 0 < figures.rms_percent < 0.5
    again = RewardModel.load(tmp_path / "int16", device="cpu")  # a warning would be an error
    assert again.engine.precision == "int16"
    assert again.fingerprint != model.fingerprint
    loaded = RewardModel.load(tmp_path / "narrow", device="cpu", precision="int16")
    assert again.score(PROMPT, REPLIES) == loaded.score(PROMPT, REPLIES)
    near = [score.value for score in model.score(PROMPT, REPLIES)]
    assert [score.value for score in again.score(PROMPT, REPLIES)] == pytest.approx(near, abs=1e-2)
    assert checkpoint_info(str(tmp_path / "int16"))["as_saved"]


def test_it_is_saved_in_float32_with_its_fingerprint(model: RewardModel, tmp_path: Path) -> None:
    scores = model.score(PROMPT, REPLIES)
    folder = model.save(tmp_path / "saved")
    tensors = tensors_of(folder)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    stored = tensors_of(tmp_path / "narrow")
    assert all(torch.equal(tensors[name], tensor.float()) for name, tensor in stored.items())
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    again = RewardModel.load(folder, device="cpu")  # a warning would be an error
    assert again.score(PROMPT, REPLIES) == scores
    assert RewardModel.load(widened(tmp_path / "narrow", tmp_path / "wide"), device="cpu").fingerprint


def test_in_a_folder_of_ours_it_is_known_by_its_fingerprint(model: RewardModel, tmp_path: Path) -> None:
    """Other programs narrow folders of ours; nothing is said of one that was not checked."""
    folder = narrowed(model.save(tmp_path / "saved"))
    again = RewardModel.load(folder, device="cpu")
    assert is_wide(again.network)
    assert again.fingerprint == model.fingerprint
    assert again.score(PROMPT, REPLIES) == model.score(PROMPT, REPLIES)


def test_it_travels_and_is_copied(model: RewardModel) -> None:
    wanted = model.score(PROMPT, REPLIES)
    assert pickle.loads(pickle.dumps(model)).score(PROMPT, REPLIES) == wanted
    made = RewardModel(copy.deepcopy(model.network), model.encoder)  # of no folder: it travels as bytes
    assert is_wide(made.network)
    again = pickle.loads(pickle.dumps(made))
    assert is_wide(again.network)
    assert again.score(PROMPT, REPLIES) == made.score(PROMPT, REPLIES) == wanted


@pytest.mark.parametrize("precision", ["int16", "int8"])
def test_it_is_quantised_as_the_same_numbers_in_float32(precision: str, tmp_path: Path) -> None:
    folder = narrowed(plain(tmp_path / "narrow", "qwen2"))
    narrow = load_quantised(folder, precision)
    wide = load_quantised(widened(folder, tmp_path / "wide"), precision)
    assert narrow.state_dict()["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert narrow.state_dict()[MATRIX].dtype == {"int16": torch.int16, "int8": torch.int8}[precision]
    assert fingerprint(narrow, extra=b"") == fingerprint(wide, extra=b"")
    assert torch.equal(score_batches(narrow, [BATCH]), score_batches(wide, [BATCH]))
    near = score_batches(load_network(folder), [BATCH])
    close = {"int16": 0.02, "int8": 0.2}[precision]
    torch.testing.assert_close(score_batches(narrow, [BATCH]), near, atol=close, rtol=0)

    target = tmp_path / "quantised"
    target.mkdir()
    save_network(narrow, target)
    again = load_for_scoring(target, precision=None)
    assert is_wide(again)
    assert precision_of(again) == precision
    assert fingerprint(again, extra=b"") == fingerprint(narrow, extra=b"")
    assert torch.equal(score_batches(again, [BATCH]), score_batches(narrow, [BATCH]))


@needs_kernels
def test_a_padding_tokens_row_is_left_out_of_quantised_networks_and_put_back(tmp_path: Path) -> None:
    network, text = trained(decoder(tmp_path / "plain", "llama", "a new token, one row more"))
    (tmp_path / "ours").mkdir()
    write_checkpoint(tmp_path / "ours", network, text, None)
    model = RewardModel.load(narrowed(tmp_path / "ours"), device="cpu", precision="int16")
    assert model.network.vocab_size == network.vocab_size
    assert model.network.scored_padding is None
    again = RewardModel.load(model.save(tmp_path / "int16"), device="cpu")  # a warning would be an error
    assert again.network.vocab_size == network.vocab_size
    assert (
        len(safetensors.torch.load_file(tmp_path / "int16" / "quantised.safetensors")["model.embed_tokens.weight"])
        > network.vocab_size
    )
    assert again.score(PROMPT, REPLIES) == model.score(PROMPT, REPLIES)


def test_weights_stay_in_the_mapped_file_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefrank.model.weights._MAPPED_BYTES", 0)
    folder = narrowed(plain(tmp_path))
    copied: list[str] = []
    read = Weights.read_once
    monkeypatch.setattr(Weights, "read_once", lambda self, name: (copied.append(name), read(self, name))[1])
    network = load_for_scoring(folder, precision=None)
    assert all("norm" in name or name == "score.weight" for name in copied)
    assert mapped_files(network, tmp_path) == {str(folder / WEIGHTS)}


def test_bytes_of_a_large_tensor_are_converted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefrank.model.weights._CONVERTED_AT_ONCE", 7)
    tensor = torch.randn(5, 9).bfloat16()
    parts = [bytes(part) for part in bytes_in(torch.float32, tensor[1:])]
    assert len(parts) == 6
    assert b"".join(parts) == tensor[1:].float().numpy().tobytes()


PEAK = """
import sys
from pathlib import Path
from prefrank import RewardModel

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def score(folder):
    model = RewardModel.load(folder, device="cpu", num_threads=1)
    model.score("bake a cake " * 100, ["mix flour " * 50, "eat " * 70, "no"])
    return model  # kept

small = score(sys.argv[1])
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
before = memory("VmRSS")
large = score(sys.argv[2])
print(memory("VmHWM") - before)
"""
"""What a model takes beyond what everything else, the work space included, took before."""


@needs_kernels
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a peak from here on")
def test_narrow_weights_take_no_more_memory_than_the_file_holds(tmp_path: Path) -> None:
    folders = []
    for layers in (1, 3):
        folder = chat_folder(tmp_path / str(layers))
        size = {"vocab_size": 1000, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
        size |= {"num_hidden_layers": layers, "num_key_value_heads": 4, "max_position_embeddings": 2048}
        folders.append(saved(model_of("Llama", size, pad_token_id=None).bfloat16(), folder))
    command = [sys.executable, "-c", PEAK, *map(str, folders)]
    taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    stored = (folders[1] / WEIGHTS).stat().st_size
    assert 0.8 * stored < taken < 1.15 * stored
