"""Model folders that are broken on purpose: one line that says what is wrong, before kernels or memory are touched."""

import json
import os
import subprocess
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from prefrank import RewardModel
from prefrank.errors import BadInput, BadModel, NotFound, PrefrankError
from prefrank.model import load_network, make_engine
from prefrank.model.distances import Buckets
from prefrank.model.families import lay_out
from prefrank.model.integer_network import quantise_network
from prefrank.model.layout import Norm
from prefrank.model.native_engine import check_shapes
from prefrank.model.save import save_network, write_checkpoint
from prefrank.text import TextEncoder
from prefrank.types import Batch
from tests.parity.reference import CONFIGS, OTHERS, batch_of, model_of, saved
from tests.tiny import bert_folder, decoder_folder, neox_folder

WEIGHTS = "model.safetensors"
HEAD = "classifier.weight"
QUERY = "bert.encoder.layer.0.attention.self.query.weight"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("hostile") / "plain")


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    made = tmp_path / "model"
    made.mkdir()
    for path in plain.iterdir():
        (made / path.name).write_bytes(path.read_bytes())
    return made


def put(folder: Path, **tensors: torch.Tensor | None) -> None:
    changed = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    kept = safetensors.torch.load_file(folder / WEIGHTS) | changed
    safetensors.torch.save_file({n: t for n, t in kept.items() if t is not None}, folder / WEIGHTS)


def configure(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(BadModel) as error:
        RewardModel.load(folder, device="cpu").rank("how do I", ["bake", "mix flour"])
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 900
    assert all(word in str(error.value) for word in words), str(error.value)


SHAPES = [(), (0,), (0, 24), (0, 32), (1, 33), (1, 31), (32, 1), (1, 32, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_head_of_another_shape_never_reaches_the_kernels(folder: Path, shape: tuple[int, ...]) -> None:
    put(folder, classifier__weight=torch.zeros(shape))
    refused(folder, str(folder))


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64], ids=str)
def test_weights_that_are_no_floats_are_named(folder: Path, dtype: torch.dtype) -> None:
    put(folder, **{QUERY: torch.zeros(32, 32).to(dtype)})
    refused(folder, QUERY, "wanted float32")


def test_quantised_folders_hold_the_very_types_that_kernels_read(tmp_path: Path) -> None:
    network = load_network(saved(model_of(*CONFIGS["deberta-v2"]), tmp_path / "float"))
    quantise_network(network, "int16")
    target = tmp_path / "int16"
    target.mkdir()
    save_network(network, target)
    path = target / "quantised.safetensors"
    whole = safetensors.torch.load_file(path)
    norm, scale = "deberta.embeddings.LayerNorm.weight", "deberta.encoder.layer.0.output.dense.weight_scale"
    table = "deberta.encoder.layer.0.attention.self.pos_key_proj.projected"
    for name, tensor, words in (
        (norm, whole[norm].half(), "is of float16; wanted float32"),
        (scale, torch.full_like(whole[scale], -1.0), "NaN, infinite or negative"),
        (scale, torch.full_like(whole[scale], float("nan")), "NaN, infinite or negative"),
        (table, torch.full_like(whole[table], -32768), "larger integers"),
    ):
        safetensors.torch.save_file(whole | {name: tensor}, path)
        with pytest.raises(BadModel, match=words):
            load_network_in_integers(target)


def load_network_in_integers(folder: Path) -> None:
    from prefrank.model import load_for_scoring

    load_for_scoring(folder, precision=None)


def test_kernels_are_given_buffers_of_their_sizes_only(plain: Path) -> None:
    from dataclasses import replace

    layout = lay_out(load_network(plain))
    check_shapes(layout)
    short = torch.ones(31)
    with pytest.raises(BadInput, match=r"norm of embeddings is \[31\]"):
        check_shapes(replace(layout, embeddings=replace(layout.embeddings, norm=Norm(short, short, 1e-12))))
    check_shapes(biased := replace(layout, distances=Buckets(32, 128), biases=torch.ones(32, layout.num_heads)))
    with pytest.raises(BadInput, match=r"the table of biases is \[31, 4\]"):
        check_shapes(replace(biased, biases=torch.ones(31, 4)))
    with pytest.raises(BadInput, match=r"the table of biases is \[32, 4\] of torch.float16"):
        check_shapes(replace(biased, biases=torch.ones(32, 4).half()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": np.array([3, 200, 4])}, "token ids reach 200"),
        ({"ids": np.array([3, -1, 4])}, "token ids reach"),
        ({"types": np.array([0, 1, 2], np.int8)}, "token types reach 2"),
        ({"starts": np.array([0, 3, 3]), "rows": np.arange(2)}, "has no rows, empty ones"),
        ({"starts": np.array([0, 4])}, "has no rows, empty ones"),
    ],
)
@pytest.mark.parametrize("kernels", [None, "torch"])
def test_a_batch_is_looked_at_before_it_is_scored(
    plain: Path, change: dict[str, Any], words: str, kernels: str | None
) -> None:
    good = {"ids": np.array([2, 5, 3]), "types": np.zeros(3, np.int8), "starts": np.array([0, 3]), "rows": np.arange(1)}
    engine = make_engine(load_network(plain), kernels=kernels)
    assert engine(Batch(**good)).isfinite().all()
    with pytest.raises(BadInput, match=words):
        engine(Batch(**good | change))


HUGE = {
    "num_hidden_layers": 10**9, "hidden_size": 2**40, "vocab_size": 2**50, "intermediate_size": 2**40,
    "num_attention_heads": 10**9, "max_position_embeddings": 2**40, "num_labels": 10**9, "type_vocab_size": 2**40,
}  # fmt: skip
WRONG = {
    "num_hidden_layers": 90_000, "hidden_size": True, "vocab_size": 0, "num_attention_heads": "4",
    "hidden_act": ["gelu"],
    "layer_norm_eps": "x", "architectures": 3, "auto_map": ["a"], "quantization_config": "x", "text_config": [1],
    "bos_token_id": 2**70, "model_type": {"a": 1}, "id2label": [1], "initializer_range": "x" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [*HUGE.items(), *WRONG.items()], ids=str)
def test_a_config_that_cannot_be_the_weights_is_refused_before_anything_is_made(
    folder: Path, key: str, value: object
) -> None:
    configure(folder, **{key: value})
    if key == "initializer_range":  # read only where a new head is drawn
        with pytest.raises(BadModel, match="initializer_range"):
            load_network(folder, new_head=True)
    else:
        refused(folder)


@pytest.mark.parametrize("new_head", [False, True])
@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size"])
@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_the_same_holds_for_decoders_and_models_of_transformers(
    name: str, key: str, new_head: bool, tmp_path: Path
) -> None:
    folder = saved(model_of(*OTHERS[name]), tmp_path / name)
    for value in (10**9, 99_999 if key == "num_hidden_layers" else 2**40):
        configure(folder, **{key: value})
        with pytest.raises(BadModel, match=r"wanted|describes a model|asks for") as error:
            load_network(folder, new_head=new_head)
        assert "\n" not in str(error.value)


def test_a_config_of_a_million_names_is_read(folder: Path) -> None:
    configure(folder, id2label={str(n): f"L{n}" for n in range(100_000)})
    assert load_network(folder).heads == ("REWARD",)


class Calls:
    def __init__(self, function: Callable[..., object], *given: object) -> None:
        self.function, self.given = function, given

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.given


PICKLES: dict[str, Any] = {
    "a key that is a number": {1: torch.zeros(1)},
    "meta": {HEAD: torch.empty(1, 32, device="meta")},
    "sparse": {HEAD: torch.ones(1, 32).to_sparse()},
    "one value for all": {HEAD: torch.ones(1).expand(1, 32)},
    "one value for more than there is": {HEAD: torch.ones(1).expand(10**9, 10**9)},
    "a tensor of torch's own integers": {HEAD: torch.zeros(1, 32, dtype=torch.complex64).conj()},
    "bytes out of a number": {HEAD: Calls(bytearray, 10**12)},
    "code": {HEAD: Calls(os.getcwd)},
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_of_something_else_than_plain_tensors_is_refused(folder: Path, kind: str) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors | PICKLES[kind], folder / "pytorch_model.bin")
    refused(folder)


ODD_TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "sparse": lambda: torch.ones(1, 32).to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "quantized in torch's own way": lambda: torch.quantize_per_tensor(torch.ones(1, 32), 1.0, 0, torch.qint8),
}


@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_a_tensor_that_is_no_plain_one_is_refused_before_torch_warns_of_it(folder: Path, kind: str) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own of making and saving them
        torch.save(tensors | {HEAD: ODD_TENSORS[kind]()}, folder / "pytorch_model.bin")
    refused(folder, f"holds a tensor that is {kind}; save the weights as plain tensors")


def test_views_and_ordered_pickles_score_as_plain_tensors_do(folder: Path, plain: Path) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    apart = {name: tensor.T.contiguous().T if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    for number, kept in enumerate((apart, OrderedDict(tensors))):
        torch.save(kept, folder / "pytorch_model.bin", _use_new_zipfile_serialization=bool(number))
        assert RewardModel.load(folder).fingerprint == RewardModel.load(plain).fingerprint


@pytest.mark.parametrize("name", [WEIGHTS, f"{WEIGHTS}.index.json", "config.json", "prefrank.json", "modules.json"])
@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "a device"])
def test_what_is_no_plain_file_is_never_opened(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    if name.endswith("index.json"):
        (folder / WEIGHTS).unlink()
    make = {"a FIFO": os.mkfifo, "a folder": os.mkdir, "a device": lambda at: at.symlink_to("/dev/zero")}
    make[kind](path)
    refused(folder, name, kind)


def test_weights_that_may_not_be_read_are_not_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Path.open

    def closed(self: Path, *given: Any, **more: Any) -> Any:
        if self.name == WEIGHTS:
            raise PermissionError(13, "Permission denied", str(self))
        return before(self, *given, **more)

    monkeypatch.setattr(Path, "open", closed)
    refused(folder, WEIGHTS, "Permission denied")


@pytest.mark.parametrize("shard", ["", "..", ".", "config.json", "a/b.safetensors", "/etc/passwd", "a\0.bin", 3, None])
def test_an_index_names_weights_beside_it(folder: Path, shard: object) -> None:
    (folder / WEIGHTS).unlink()
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {"x": shard}}))
    refused(folder, "weight_map.x")


def test_weights_behind_links_load_as_hub_snapshots_have_them(folder: Path, plain: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "blob")
    (folder / WEIGHTS).symlink_to("../blob")
    assert RewardModel.load(folder).fingerprint == RewardModel.load(plain).fingerprint


def test_one_tensor_under_two_names_is_refused(folder: Path) -> None:
    put(folder, embeddings__word_embeddings__weight=torch.zeros(200, 32))
    refused(folder, "twice")


@pytest.mark.parametrize("name", ["", " ", "~nosuchuser/x", "a\0b", "a\nb", "x" * 10_000, "/dev/null", "owner/name/x"])
def test_a_name_of_no_model_is_one_line(name: str) -> None:
    with pytest.raises(NotFound) as error:
        RewardModel.load(name)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 900


OPTIONS = """
import sys
from prefrank import RewardModel, win_probability
from prefrank.errors import PrefrankError
nan, inf = float("nan"), float("inf")
WRONG = {
    "device": ["cuda:99", "tpu", "", -1, 3, "meta", "cuda:-1", True, "xla", "cpu\\0", "hpu", ["cpu"]],
    "num_threads": [1.5, True, 0, 10**9, "2", nan],
    "max_tokens": [True, 0, nan, 1.5, "5"],
    "max_length": [True, 0, nan, "5", 10**18],
    "empty_score": [True, nan, inf, "1", 10**400],
    "precision": [1, True, "x", ["float32"]],
    "kernels": ["x", 1, ["torch"]],
    "head": ["x", 1, ""],
}
model = RewardModel.load(sys.argv[1])
score = model.score("a", ["b"])[0]
tries = [lambda k=k, v=v: RewardModel.load(sys.argv[1], **{k: v}) for k, values in WRONG.items() for v in values]
tries += [lambda v=v: win_probability(score, score, temperature=v) for v in (0, -1, True, nan, inf, "1", None, 10**400)]
for one in tries:
    try:
        one()
    except PrefrankError as error:
        assert len(str(error).splitlines()) == 1
    else:
        raise AssertionError(one.__defaults__)
"""


def test_an_option_of_another_kind_is_one_line(plain: Path) -> None:
    # in a process of its own, where nothing checks the types of arguments before we do
    done = subprocess.run([sys.executable, "-c", OPTIONS, str(plain)], capture_output=True, text=True)
    assert not done.returncode, done.stderr[-500:]


A, B = (f"base_model.model.{QUERY.removesuffix('.weight')}.lora_{letter}.weight" for letter in "AB")


def adapter(folder: Path, base: str, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors")
    known = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps(known | config))
    return folder


GOOD = {A: torch.ones(2, 32), B: torch.ones(32, 2)}
BAD_ADAPTERS: list[tuple[dict[str, Any], dict[str, torch.Tensor]]] = [
    *(({"r": value}, GOOD) for value in (-1, 0, True, 1.5, 3, "2", None)),
    *(({"lora_alpha": value}, GOOD) for value in (float("nan"), float("inf"), 0, True, "4", None, 10**400)),
    *(({"base_model_name_or_path": value}, GOOD) for value in ("~nosuchuser", "", ".", None, 3, "x\0y")),
    *(({key: value}, GOOD) for key, value in (("rank_pattern", {"a": 1}), ("peft_type", 3), ("use_rslora", 1))),
    ({}, {A: torch.ones(2, 33), B: torch.ones(32, 2)}),
    ({}, {A: torch.ones(2, 32).int(), B: torch.ones(32, 2).int()}),
    ({}, {A: torch.ones(()), B: torch.ones(32, 2)}),
    ({}, {A: torch.ones(0, 32), B: torch.ones(32, 0)}),
    ({}, GOOD | {"base_model.model.classifier.weight": torch.ones(0, 32)}),
]


@pytest.mark.parametrize("number", range(len(BAD_ADAPTERS)))
def test_an_adapter_that_is_none_is_one_line(plain: Path, tmp_path: Path, number: int) -> None:
    with pytest.raises(PrefrankError) as error:
        RewardModel.load(adapter(tmp_path / "a", str(plain), *BAD_ADAPTERS[number]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("length", [1, 2, 3, 20])
def test_adapters_in_a_circle_are_refused(tmp_path: Path, length: int) -> None:
    for number in range(length):
        adapter(tmp_path / str(number), str(tmp_path / str((number + 1) % length)), {}, {})
    with pytest.raises(BadModel, match=r"based on itself|stands on 8 others"):
        RewardModel.load(tmp_path / "0")


def test_an_adapter_still_loads(plain: Path, tmp_path: Path) -> None:
    made = RewardModel.load(adapter(tmp_path / "a", str(plain), {}, GOOD))
    assert made.fingerprint != RewardModel.load(plain).fingerprint


@pytest.mark.parametrize("temperature", [0, -1, True, float("nan"), float("inf"), "1", None, 10**400])
def test_a_temperature_that_divides_nothing_is_refused(plain: Path, tmp_path: Path, temperature: object) -> None:
    model = RewardModel.load(plain)
    path = model.save(tmp_path / "saved") / "prefrank.json"
    record = json.loads(path.read_text()) | {"calibration": {"temperature": temperature, "model": model.fingerprint}}
    path.write_text(json.dumps(record))
    with pytest.raises(BadModel, match=r"prefrank\.json"):
        RewardModel.load(path.parent)


def test_a_score_that_is_no_number_is_never_given(folder: Path) -> None:
    put(folder, classifier__bias=torch.full((1,), float("nan")))
    refused(folder, "is nan")


def test_weights_that_changed_since_they_were_saved_are_said_once_at_load(plain: Path, tmp_path: Path) -> None:
    target = RewardModel.load(plain).save(tmp_path / "saved")
    RewardModel.load(target, max_length=40)  # warnings are errors here
    RewardModel.load(target, precision="bfloat16")
    RewardModel.load(RewardModel.load(target, precision="bfloat16").save(tmp_path / "narrow"), precision="bfloat16")
    RewardModel.load(RewardModel.load(target, precision="int16").save(tmp_path / "int16"))
    content = bytearray((target / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (target / WEIGHTS).write_bytes(content)
    with pytest.warns(UserWarning, match="is not the one that was saved there") as warned:
        RewardModel.load(target)
    assert len(warned) == 1


def test_a_folder_that_is_copied_into_file_by_file_is_read_again(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = RewardModel.load(plain).save(tmp_path / "saved")
    other = RewardModel.load(bert_folder(tmp_path / "other", seed=7))
    source = other.save(tmp_path / "source")
    (target / WEIGHTS).write_bytes((source / WEIGHTS).read_bytes())

    def rest_comes(seconds: float) -> None:
        for path in source.iterdir():
            (target / path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr("prefrank.scoring.reward_model.time.sleep", rest_comes)
    assert RewardModel.load(target).fingerprint == other.fingerprint  # warnings are errors here


@pytest.mark.parametrize("make", [bert_folder, decoder_folder])
def test_heads_are_known_to_be_those_that_were_saved(make: Callable[[Path], Path], tmp_path: Path) -> None:
    plain, target = make(tmp_path / "plain"), tmp_path / "saved"
    network = load_network(plain, heads=("help", "harm"), new_head=True)
    target.mkdir()
    write_checkpoint(target, network, TextEncoder.load(plain, positions=network.max_positions), None)
    for head in (None, "help", "harm"):
        RewardModel.load(target, head=head)  # warnings are errors here
    content = bytearray((target / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (target / WEIGHTS).write_bytes(content)
    for head in (None, "harm"):
        with pytest.warns(UserWarning, match="is not the one that was saved there"):
            RewardModel.load(target, head=head)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64], ids=str)
def test_weights_that_are_no_floats_are_not_cast_by_transformers(tmp_path: Path, dtype: torch.dtype) -> None:
    folder, name = neox_folder(tmp_path), "gpt_neox.layers.0.mlp.dense_h_to_4h.weight"
    put(folder, **{name: torch.zeros(48, 32).to(dtype)})
    refused(folder, name, "wanted floats")
    put(folder, **{name: None, name.removeprefix("gpt_neox."): torch.zeros(48, 32).to(dtype)})
    refused(folder, name.removeprefix("gpt_neox."), "wanted floats")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
@pytest.mark.parametrize("name", ["kernels-community/flash-attn", "flash_attention_2", "owner/x@main:y", {"": "a/b"}])
def test_a_program_that_config_json_names_is_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, name: Any
) -> None:
    from transformers import modeling_utils

    folder = neox_folder(tmp_path)
    wanted = RewardModel.load(folder).score("how do I", ["bake"])[0].value
    monkeypatch.setattr(modeling_utils, "is_kernels_available", lambda: True)
    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", lambda *_, **__: pytest.fail("looked for"))
    configure(folder, **{key: name})
    assert RewardModel.load(folder).score("how do I", ["bake"])[0].value == wanted


def test_settings_that_are_too_deep_to_be_written_again_are_refused(folder: Path) -> None:
    (folder / "config.json").write_text(
        (folder / "config.json").read_text()[:-2] + ', "x": ' + "[" * 500 + "]" * 500 + "}"
    )
    refused(folder, "config.json", "nested too deeply")


def test_rows_of_any_length_still_score_alike(plain: Path) -> None:
    engine = make_engine(load_network(plain), kernels="torch")
    assert engine(batch_of([1, 5, 128])).isfinite().all()
