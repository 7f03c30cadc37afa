"""Folders of decoders that transformers ran before: the same fingerprints, scores, calibrations and files."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

from prefrank import RewardModel
from prefrank.errors import BadModel
from prefrank.model import fingerprint, load_for_scoring, load_network, save_network, score_batches
from prefrank.model.families import FAMILIES, find_family
from prefrank.model.heads import keep_heads
from prefrank.model.network import PackedDecoder, PackedNetwork, weights_digest
from prefrank.model.other import OtherNetwork, load_other
from prefrank.model.record import read_record, write_record
from prefrank.model.save import write_checkpoint
from prefrank.model.weights import read_config
from prefrank.scoring import checkpoint_info
from prefrank.scoring.carried import pack, unpack
from prefrank.text import TextEncoder
from tests.model.test_checkpoints import as_bin, as_bin_shards, as_old_bin, as_safetensors_shards, tensors_of
from tests.parity.reference import TABLE, batch_of, model_of, saved
from tests.parity.test_scored_token import decoder
from tests.tiny import decoder_folder

NAMES = [name for name, family in FAMILIES.items() if family.decoder]
BATCH = batch_of([2, 5, 5, 17, 31])
CPU = torch.device("cpu")
PROMPT, REPLIES = "how do I bake bread", ["mix flour", "no", "", "mix flour water salt and yeast"]
WEIGHTS = "model.safetensors"


def through_transformers(folder: Path, dtype: torch.dtype = torch.float32) -> OtherNetwork:
    """As every decoder was loaded once."""
    return load_other(folder, read_config(folder), new_heads=None, dropout=None, dtype=dtype, device=CPU)


def plain(folder: Path, name: str = "llama", *, num_labels: int = 1, **options: Any) -> Path:
    kind, size = TABLE[name]
    return saved(model_of(kind, size | options, num_labels=num_labels), folder)


def narrowed(folder: Path, dtype: torch.dtype = torch.bfloat16) -> Path:
    """The folder with its weights in another type, as other programs write them."""
    tensors = {name: tensor.to(dtype) for name, tensor in tensors_of(folder).items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [*NAMES, "mpnet"])
def test_a_fingerprint_is_the_one_it_was_through_transformers(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = plain(tmp_path, name)
    ours, theirs = load_network(folder, dtype=dtype), through_transformers(folder, dtype)
    assert isinstance(ours, PackedNetwork)
    assert fingerprint(ours, extra=b"x") == fingerprint(theirs, extra=b"x")
    close = {"atol": 1e-5 if dtype == torch.float32 else 0.05, "rtol": 0}
    torch.testing.assert_close(score_batches(ours, [BATCH]), score_batches(theirs, [BATCH]), **close)


def test_so_it_is_when_a_head_of_several_scores(tmp_path: Path) -> None:
    folder = plain(tmp_path, num_labels=3)
    ours, theirs = load_network(folder, heads=["LABEL_0", "LABEL_1", "LABEL_2"]), through_transformers(folder)
    digests = []
    for network in (ours, theirs):
        keep_heads(network, ["LABEL_1"])
        cut, whole = weights_digest(network, network.uncut)
        assert whole is not None
        digests.append((cut.hexdigest(), whole.hexdigest()))
    assert digests[0] == digests[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_folder_saved_before_loads_without_a_warning_and_with_its_calibration(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    before = through_transformers(narrowed(decoder(tmp_path / "plain", "llama", "a new token, one row more"), dtype))
    before.score_last_token()
    text = TextEncoder.load(tmp_path / "plain", max_length=128)
    (tmp_path / "ours").mkdir()
    written = write_checkpoint(tmp_path / "ours", before, text, {"step": 7}, calibration={"temperature": 2.0})
    record = read_record(tmp_path / "ours")
    assert record is not None
    assert record.padding_rows == 1

    model = RewardModel.load(tmp_path / "ours", device="cpu")  # a warning would be an error
    assert isinstance(model.network, PackedDecoder)
    assert model.fingerprint == written
    assert model.calibration == {"temperature": 2.0, "model": written}
    assert model.training == {"step": 7}
    theirs = RewardModel(before, text).score(PROMPT, REPLIES)
    for ours, score in zip(model.score(PROMPT, REPLIES), theirs, strict=True):
        assert ours.value == pytest.approx(score.value, abs=1e-5)
        assert (ours.tokens, ours.cut_prompt, ours.cut_reply) == (score.tokens, score.cut_prompt, score.cut_reply)
    assert checkpoint_info(str(tmp_path / "ours"))["as_saved"]


def test_a_folder_whose_weights_changed_is_still_found_out(tmp_path: Path) -> None:
    before = through_transformers(decoder_folder(tmp_path / "plain"))
    (tmp_path / "ours").mkdir()
    write_checkpoint(tmp_path / "ours", before, TextEncoder.load(tmp_path / "plain", max_length=128), None)
    tensors = tensors_of(tmp_path / "ours")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] += 1.0
    safetensors.torch.save_file(tensors, tmp_path / "ours" / WEIGHTS)
    with pytest.warns(UserWarning, match="is not the one that was saved there"):
        RewardModel.load(tmp_path / "ours", device="cpu")


def without_prefix(folder: Path) -> None:
    """As `AutoModel` saves a backbone, with the head beside it."""
    tensors = {name.removeprefix("model."): tensor for name, tensor in tensors_of(folder).items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS)


def with_old_buffers(folder: Path) -> None:
    more = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(2)}
    safetensors.torch.save_file(tensors_of(folder) | more, folder / WEIGHTS)


def with_a_language_head(folder: Path) -> None:
    safetensors.torch.save_file(tensors_of(folder) | {"lm_head.weight": torch.ones(100, 32)}, folder / WEIGHTS)


def with_parallel_pretraining(folder: Path) -> None:
    """A setting of Llama's config.json that changes the order of sums only."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pretraining_tp": 2}))


@pytest.mark.parametrize(
    "layout",
    [as_bin, as_old_bin, as_safetensors_shards, as_bin_shards, without_prefix, with_old_buffers, with_a_language_head,
     with_parallel_pretraining],
)  # fmt: skip
def test_every_layout_gives_the_same_scores(layout: Callable[[Path], None], tmp_path: Path) -> None:
    wanted = score_batches(load_network(plain(tmp_path)), [BATCH])
    layout(tmp_path)
    assert torch.equal(score_batches(load_network(tmp_path), [BATCH]), wanted)


def test_a_backbone_with_another_programs_head_is_trained_from(tmp_path: Path) -> None:
    more = {"v_head.summary.weight": torch.ones(1, 32), "value.bias": torch.ones(3)}
    safetensors.torch.save_file(tensors_of(plain(tmp_path)) | more, tmp_path / WEIGHTS)
    with pytest.raises(BadModel, match="it knows no"):
        load_network(tmp_path)
    assert load_network(tmp_path, new_head=True)(BATCH).shape == (5,)


@pytest.mark.parametrize("settings", [{"quant_method": "gptq", "bits": 4}, {"load_in_4bit": True}], ids=str)
def test_weights_that_other_programs_quantised_go_to_transformers(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = plain(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    assert find_family(read_config(folder)) is None
    with pytest.raises(BadModel) as error:  # the libraries are not here, or the weights not such
        load_network(folder)
    assert "transformers cannot load" in str(error.value)
    assert "\n" not in str(error.value)


def test_dropped_padding_rows_of_more_than_there_are_are_refused(tmp_path: Path) -> None:
    model = RewardModel.load(decoder_folder(tmp_path / "plain"), device="cpu")
    folder = model.save(tmp_path / "ours")
    record = read_record(folder)
    assert record is not None
    fields = {name: getattr(record, name) for name in record.__slots__} | {"padding_rows": 421}
    write_record(folder, type(record)(**fields))
    with pytest.raises(BadModel, match="counts 421 padding_rows, but the model has 420 embeddings"):
        RewardModel.load(folder)


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "kv heads": ({"num_key_value_heads": 4}, r"\.[kv]_proj.weight is \[16, 32\], its config.json asks for \[32, 32\]"),
    "kv heads that do not divide": ({"num_key_value_heads": 3}, "num_key_value_heads is 3; wanted a number that divid"),
    "layers": ({"num_hidden_layers": 3}, r"lack model.layers.2"),
    "fewer layers": ({"num_hidden_layers": 1}, r"it knows no model.layers.1"),
    "width of heads": ({"head_dim": 16}, r"proj.weight is .*, its config.json asks for"),
    "another family": ({"model_type": "qwen3"}, r"lack model.layers.0.self_attn.k_norm.weight"),
    "an encoder": ({"model_type": "bert"}, r"no reward head"),
    "a rope of nobody": ({"rope_parameters": {"rope_type": "spiral"}}, r"rope_type is 'spiral'; wanted a kind"),
    "a rope of nobody, older": (
        {"rope_parameters": None, "rope_scaling": {"type": "spiral", "factor": 2.0}}, r"type is 'spiral'; wanted a kind"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_a_config_that_is_not_the_weights_own_is_one_line(case: str, tmp_path: Path) -> None:
    changes, words = MISFITS[case]
    config = json.loads((plain(tmp_path) / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadModel, match=words) as error:
        load_network(tmp_path)
    assert "\n" not in str(error.value)


def test_weights_of_another_architecture_are_named(tmp_path: Path) -> None:
    plain(tmp_path / "llama")
    saved(model_of("GPTNeoX", {}), tmp_path / "neox")
    shutil.copy(tmp_path / "neox" / WEIGHTS, tmp_path / "llama" / WEIGHTS)
    with pytest.raises(BadModel, match=r"its config.json: it knows no gpt_neox.*they lack model.embed_tokens"):
        load_network(tmp_path / "llama")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_of_weights_that_are_no_numbers_names_the_reply(value: float, tmp_path: Path) -> None:
    folder = decoder_folder(tmp_path)
    tensors = tensors_of(folder)
    tensors["model.layers.1.mlp.down_proj.weight"][:] = value
    safetensors.torch.save_file(tensors, folder / WEIGHTS)
    model = RewardModel.load(folder, device="cpu")
    with pytest.raises(BadModel, match=r"score of the reply 'mix flour' is nan; its weights are not usable"):
        model.score(PROMPT, ["mix flour"])
    with pytest.raises(BadModel, match=r"the tensor model.layers.1.mlp.down_proj.weight has entries that are NaN"):
        load_for_scoring(folder, precision="int16")


def test_more_tokens_than_trained_positions_are_refused(tmp_path: Path) -> None:
    folder = decoder_folder(tmp_path)
    with pytest.raises(BadModel, match="max_length is 300 tokens but the model has positions for 256"):
        RewardModel.load(folder, max_length=300)
    with pytest.raises(ValueError, match="a row has 257 tokens, the model takes 256"):
        load_network(folder)(batch_of([257]))


def test_a_saved_folder_is_a_plain_one_of_transformers(tmp_path: Path) -> None:
    network = load_network(plain(tmp_path / "plain", "mistral"), new_head=True, heads=("helpful", "kind"))
    (tmp_path / "ours").mkdir()
    save_network(network, tmp_path / "ours")
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(model).__name__ == "MistralForSequenceClassification"
    assert model.config.id2label == {0: "helpful", 1: "kind"}
    assert set(model.state_dict()) == set(tensors_of(tmp_path / "ours"))


ROPES: dict[str, dict[str, Any]] = {
    "dynamic": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0},
    "longrope": {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "factor": 4.0,
                 "rope_theta": 10_000.0, "original_max_position_embeddings": 16},
}  # fmt: skip

OF_ROPES: dict[str, dict[str, Any]] = {"dynamic": {"max_position_embeddings": 16}, "longrope": {}}


@pytest.mark.parametrize("name", ROPES)
def test_networks_of_every_rope_travel_as_bytes_and_are_copied(name: str, tmp_path: Path) -> None:
    folder = plain(tmp_path, **OF_ROPES[name], rope_parameters=ROPES[name])
    network = load_network(folder)
    wanted = score_batches(network, [BATCH])
    assert torch.equal(score_batches(unpack(pack(network, None)), [BATCH]), wanted)
    assert torch.equal(score_batches(copy.deepcopy(network), [BATCH]), wanted)


def test_texts_are_cut_to_the_trained_length_though_positions_stretch(tmp_path: Path) -> None:
    """As it was before, so that plain folders keep their fingerprint."""
    folder = decoder_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"rope_parameters": ROPES["dynamic"]}
    (folder / "config.json").write_text(json.dumps(config))
    model = RewardModel.load(folder, device="cpu")
    assert model.encoder.settings.max_length == 256
    assert RewardModel(through_transformers(folder), model.encoder).fingerprint == model.fingerprint
    longer = RewardModel.load(folder, device="cpu", max_length=1000)
    (score,) = longer.score("bake " * 500, ["mix flour"])
    assert score.past_trained == score.tokens - 256 > 0, "which a score says"
    assert longer.score("bake", ["mix flour"])[0].past_trained == 0
