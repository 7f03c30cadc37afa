"""Rotary positions are those of transformers, from both ways to ask for them."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from prefrank.errors import BadModel
from prefrank.io.json_files import Fields
from prefrank.model.families.decoder_spec import read_decoder_spec

SIZE = {
    "vocab_size": 10, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 8, "max_position_embeddings": 64,
}  # fmt: skip
FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3, 2, 3, 4, 5.5], "long_factor": [1.5, 2, 3, 4, 5, 6, 7.25, 9]}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "nothing said": ("llama", {}),
    "another base": ("qwen2", {"rope_parameters": {"rope_theta": 500_000.0, "rope_type": "default"}}),
    "another base, before": ("mistral", {"rope_theta": 1e6, "rope_scaling": None}),
    "linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4}}),
    "linear, before": ("llama", {"rope_theta": 5e4, "rope_scaling": {"type": "linear", "factor": 2.5}}),
    "dynamic": ("qwen3", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0},
                          "head_dim": 16, "max_position_embeddings": 24}),
    "dynamic, before": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 8}, "max_position_embeddings": 7}),
    "llama3": ("llama", {"rope_parameters": LLAMA3 | {"rope_type": "llama3", "rope_theta": 500_000.0}}),
    "llama3, before": ("llama", {"rope_theta": 500_000.0, "rope_scaling": LLAMA3 | {"rope_type": "llama3"}}),
    "yarn": ("qwen3", {"rope_parameters": YARN | {"rope_theta": 1e6}, "head_dim": 16}),
    "yarn of two scales": ("llama", {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.2}}),
    "yarn, all settings": ("qwen2", {"rope_parameters": YARN | {"beta_fast": 20, "beta_slow": 2, "truncate": False,
                                                               "attention_factor": 1.25}}),
    "yarn, null settings": ("qwen2", {"rope_parameters": YARN | {"rope_theta": 100.0, "truncate": None,
                                                                 "beta_slow": 0.5, "attention_factor": None}}),
    "yarn without a length": ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 2.0}}),
    "longrope": ("llama", {"rope_parameters": FACTORS | {"rope_type": "longrope", "factor": 4.0,
                                                        "original_max_position_embeddings": 16}}),
    "longrope, length beside": ("llama", {"rope_scaling": FACTORS | {"type": "longrope"},
                                          "original_max_position_embeddings": 24}),
    "phi3": ("phi3", {"partial_rotary_factor": 0.5}),
    "phi3 of a part": ("phi3", {"partial_rotary_factor": 0.5, "original_max_position_embeddings": 16,
                                "rope_scaling": {"type": "longrope", "short_factor": FACTORS["short_factor"][:4],
                                                 "long_factor": FACTORS["long_factor"][:4]}}),
}  # fmt: skip


def raw(model_type: str, options: dict[str, Any]) -> dict[str, Any]:
    return SIZE | {"model_type": model_type, "pad_token_id": None} | options


def their_angles(config: dict[str, Any], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines that transformers turns a row of this length by, from a model that has seen no other."""
    made: Any = transformers.AutoConfig.for_model(**config)
    model = transformers.AutoModel.from_config(made)
    cosines, sines = model.rotary_emb(torch.zeros(1), torch.arange(length)[None])
    half = cosines.shape[-1] // 2
    return cosines[0, :, :half], sines[0, :, :half]


@pytest.mark.filterwarnings("ignore")  # transformers has opinions on settings
@pytest.mark.parametrize("name", KINDS)
def test_every_row_turns_as_in_transformers(name: str) -> None:
    config = raw(*KINDS[name])
    rope = read_decoder_spec(Fields.of(config), dropout=None).rope
    lengths = [1, 7, 8, 16, 17, 24, 25, 64]
    positions = np.concatenate([np.arange(length) for length in lengths])
    ours = rope.angles(positions, np.repeat(lengths, lengths))
    theirs = zip(*(their_angles(config, length) for length in lengths), strict=True)
    for mine, yours in zip(ours, map(torch.cat, theirs), strict=True):
        torch.testing.assert_close(mine, yours, atol=1e-6, rtol=0)
    table = rope.causal(None)
    assert len({table.table(length) for length in lengths}) == len({cosines.tobytes() for cosines in _tables(config)})


def _tables(config: dict[str, Any]) -> list[np.ndarray]:
    """What transformers turns the second token of rows of each length by."""
    return [their_angles(config, length)[0][1].numpy() for length in (7, 8, 16, 17, 24, 25, 64)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rope_scaling": {"type": "mrope"}}, "rope_scaling.type is 'mrope'; wanted a kind of rotary positions"),
        ({"rope_parameters": {"rope_type": "lama3"}}, "did you mean 'llama3'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "rope_parameters.factor is missing"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, "a number above 0"),
        ({"rope_parameters": {"rope_theta": -3.0}}, "rope_theta"),
        ({"rope_theta": 1}, "rope_theta is 1; wanted a number above 1"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; wanted 1"),
        ({"rope_scaling": FACTORS | {"type": "longrope", "long_factor": [1.0]}}, "a list of 8 numbers above 0"),
        ({"rope_scaling": LLAMA3 | {"type": "llama3", "high_freq_factor": 1}}, "more than low_freq_factor, 1"),
        ({"hidden_size": 60}, "heads of an even width"),
        ({"hidden_size": 8, "rope_scaling": {"type": "dynamic", "factor": 2}}, "since only 2 channels turn"),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 2.0}, "sliding_attention": {"rope_theta": 3.0}}},
            "the same positions in all layers",
        ),
    ],
)
def test_positions_that_cannot_be_had_are_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadModel) as error:
        read_decoder_spec(Fields.of(raw("llama", options)), dropout=None)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_equal_positions_for_each_kind_of_layer_are_read() -> None:
    one = {"rope_type": "linear", "factor": 2.0}
    whole, apart = (
        read_decoder_spec(Fields.of(raw("qwen2", {"rope_parameters": settings})), dropout=None).rope.frequencies
        for settings in (one, {"full_attention": one, "sliding_attention": dict(one)})
    )
    np.testing.assert_array_equal(whole, apart)
