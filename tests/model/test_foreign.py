"""Reward models of other programs' shapes are refused with what was found in them and what is known of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

from prefrank import RewardModel
from prefrank.errors import BadModel
from prefrank.model import load_network
from prefrank.model.checkpoint import load_for_scoring, load_quantised
from tests.parity.reference import CONFIGS, OTHERS, model_of, saved

LLAMA = OTHERS["llama"]


def language_model(folder: Path, kind: str, heads: dict[str, tuple[int, ...]], **config: Any) -> Path:
    """A decoder with these further tensors, as a folder of another program."""
    name, options = OTHERS[kind]
    model = transformers.AutoModelForCausalLM.from_config(model_of(name, options).config)
    tensors = {key: value for key, value in model.state_dict().items() if key != "lm_head.weight"}
    model.config.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    safetensors.torch.save_file(
        tensors | {key: torch.ones(shape) for key, shape in heads.items()}, folder / "model.safetensors"
    )
    return folder


# What published reward models hold: weights, what config.json says, and what the error has to say
FOREIGN: dict[str, tuple[str, dict[str, tuple[int, ...]], dict[str, Any], list[str]]] = {
    "ArmoRM": (
        "llama",
        {"regression_layer.weight": (19, 32), "gating.layers.0.weight": (8, 32), "reward_transform_matrix": (19, 19)},
        {"architectures": ["LlamaForRewardModelWithGating"]},
        ["LlamaForRewardModelWithGating", r"regression_layer.weight \[19, 32\]", "gating network", "authors' code"],
    ),
    "QRM": (
        "llama",
        {"regression_layer.weight": (10, 32), "gating.0.weight": (8, 32)},
        {"architectures": ["LlamaForRewardModelWithGating"]},
        ["gating.0.weight", "gating network"],
    ),
    "TRL's value head": (
        "gpt2",
        {"v_head.summary.weight": (1, 32), "v_head.summary.bias": (1,)},
        {"architectures": ["GPT2LMHeadModel"]},
        [r"v_head.summary.weight \[1, 32\]", "one value a token", "AutoModelForCausalLMWithValueHead", "score.weight"],
    ),
    "GRM": (
        "llama",
        {"v_head.summary.0.weight": (8, 32), "v_head.summary.2.weight": (1, 8)},
        {"architectures": ["LlamaForCausalLM"]},
        ["v_head.summary.0.weight", "value head of several layers", "authors' code"],
    ),
    "Starling": (
        "llama",
        {"v_head.weight": (1, 32)},
        {"architectures": ["GPTRewardModel"]},
        [r"v_head.weight \[1, 32\]", "linear value head", "score.weight"],
    ),
    "UltraRM": (
        "llama",
        {"regression_head.weight": (1, 32)},
        {"architectures": ["LlamaRewardModel"]},
        [r"regression_head.weight \[1, 32\]", "linear regression head", "score.weight"],
    ),
    "INF-ORM": (
        "llama",
        {"score.0.weight": (8, 32), "score.2.weight": (1, 8)},
        {"architectures": ["INFORMForSequenceClassification"]},
        ["INFORMForSequenceClassification", "score.0.weight", "several layers", "authors' code"],
    ),
    "Open Assistant": (
        "gpt_neox",
        {"out_proj.weight": (1, 32), "out_proj.bias": (1,)},
        {"model_type": "gpt_neox_reward_model", "architectures": ["GPTNeoXRewardModel"], "pooling": "last"},
        ["GPTNeoXRewardModel of the type 'gpt_neox_reward_model'", r"out_proj.weight \[1, 32\]", "pooling"],
    ),
    "a head nobody knows": (
        "qwen2",
        {"my_reward_head.weight": (1, 32)},
        {"architectures": ["MyModel"]},
        ["MyModel", r"my_reward_head.weight \[1, 32\]", "a head of its authors' own"],
    ),
    "a class nobody knows": ("qwen2", {}, {"architectures": ["Qwen2ForCausalLM"]}, ["train one", "Qwen2ForCausalLM"]),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_another_program_made_is_named(name: str, tmp_path: Path) -> None:
    kind, heads, config, words = FOREIGN[name]
    folder = language_model(tmp_path / "m", kind, heads, **config)
    with pytest.raises(BadModel, match=".*".join(words)) as error:
        load_network(folder)
    assert "\n" not in str(error.value)
    assert ("train one" in str(error.value)) == (name == "a class nobody knows"), "it has one"


def test_weights_behind_a_wrapper_are_named_too(tmp_path: Path) -> None:
    """TRL's own file has the language model under `pretrained_model`."""
    folder = language_model(tmp_path / "m", "llama", {"v_head.summary.weight": (1, 32)})
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    wrapped = {key if key.startswith("v_head") else f"pretrained_model.{key}": value for key, value in tensors.items()}
    torch.save(wrapped, folder / "pytorch_model.bin")
    with pytest.raises(BadModel, match=r"v_head.summary.weight.*AutoModelForCausalLMWithValueHead"):
        load_network(folder)


def test_the_cure_for_a_model_with_code_is_that_code(tmp_path: Path) -> None:
    code = {"AutoConfig": "c.GRMConfig", "AutoModelForCausalLM": "m.GRM"}
    heads = {"v_head.summary.0.weight": (8, 32)}
    folder = language_model(tmp_path / "m", "llama", heads, architectures=["LlamaForCausalLM"], auto_map=code)
    with pytest.raises(BadModel, match=r"several layers.*trust_remote_code=True"):
        load_network(folder)


def test_a_head_of_an_encoder_is_named(tmp_path: Path) -> None:
    model = model_of(*CONFIGS["bert"])
    saved(model, tmp_path)
    tensors = {key: value for key, value in model.state_dict().items() if not key.startswith("classifier")}
    safetensors.torch.save_file(tensors | {"value_head.weight": torch.ones(1, 32)}, tmp_path / "model.safetensors")
    with pytest.raises(BadModel, match=r"value_head.weight \[1, 32\].*a head of its authors' own"):
        load_network(tmp_path)


MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
]


@pytest.mark.parametrize("whole", [True, False])
def test_a_head_in_a_module_of_its_own_is_refused(whole: bool, tmp_path: Path) -> None:
    """A folder of sentence-transformers: the transformer alone would score without the layer behind it."""
    model: Any = model_of(*CONFIGS["bert"])
    saved(model if whole else model.bert, tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps(MODULES))
    words = "no reward head.*modules of sentence-transformers: Transformer in ., Pooling in 1_Pooling, Dense in 2_Dense"
    for load in (load_network, lambda folder: load_quantised(folder, "int16")):
        with pytest.raises(BadModel, match=words):
            load(tmp_path)
    assert load_network(tmp_path, new_head=True).heads == ("REWARD",)


def test_a_transformer_that_is_only_pooled_is_one_to_train(tmp_path: Path) -> None:
    model: Any = model_of(*CONFIGS["bert"])
    saved(model.bert, tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps(MODULES[:2]))
    with pytest.raises(BadModel, match=r"no reward head; train one.*found BertModel"):
        load_network(tmp_path)


def test_a_config_in_a_subfolder_is_pointed_at(tmp_path: Path) -> None:
    saved(model_of(*CONFIGS["bert"]), tmp_path / "0_Transformer")
    with pytest.raises(BadModel, match=r"has no config.json.*there is one in 0_Transformer"):
        load_for_scoring(tmp_path, precision=None)


def test_a_gguf_file_is_said_with_how_to_convert_it(tmp_path: Path) -> None:
    file = tmp_path / "model" / "tiny-Q4.gguf"
    file.parent.mkdir()
    file.write_bytes(b"GGUF")
    for name in (file, file.parent):
        with pytest.raises(BadModel, match=r"tiny-Q4.gguf is a GGUF file, .*gguf_file='tiny-Q4.gguf'\), and save both"):
            RewardModel.load(name)
    (file.parent / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(BadModel, match=r"is a GGUF file"):
        RewardModel.load(file.parent)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    saved(model_of(*OTHERS["gpt2"]), tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(BadModel, match="what Git LFS leaves in place of the weights"):
        load_network(tmp_path)
