"""Model folders in and out, in every layout that transformers has written, and every way they can be broken."""

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from safetensors import safe_open

from prefrank.errors import BadModel, NotFound, PrefrankError
from prefrank.model import head_parameter_names, load_network, save_network, score_batches
from prefrank.model import weights as weights_module
from prefrank.model.weights import Weights
from tests.parity.reference import CONFIGS, TABLE, V3, alone, batch_of, model_of, reference_scores, saved, scramble

FAMILIES = [*TABLE, "electra projected", "deberta v2 xxlarge"]
BATCH = batch_of([2, 5, 5, 17, 31])


def plain(tmp_path: Path, name: str = "bert") -> Path:
    return saved(model_of(*CONFIGS[name]), tmp_path)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def scores_of(folder: Path) -> torch.Tensor:
    return score_batches(load_network(folder), [BATCH])


def maps(path: Path) -> list[tuple[int, int]]:
    """Where this process has mapped the file."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    return [tuple(int(edge, 16) for edge in line[0].split("-")) for line in lines]


def mapped_files(network: torch.nn.Module, folder: Path) -> set[str]:
    """The files of a folder that are mapped while `network` is there; models of other tests may be mapped too."""
    gc.collect()
    assert next(network.parameters()).numel()
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = {line.split()[-1] for line in lines if line.endswith((".safetensors", ".bin"))}
    return {path for path in mapped if path.startswith(f"{folder}/")}


@pytest.fixture
def all_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are mapped however small they are."""
    monkeypatch.setattr("prefrank.model.weights._MAPPED_BYTES", 0)


def as_bin(folder: Path) -> None:
    torch.save(tensors_of(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def as_old_bin(folder: Path) -> None:
    torch.save(tensors_of(folder), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (folder / "model.safetensors").unlink()


def in_shards(folder: Path, stem: str, suffix: str, write: Callable[[dict, Path], None]) -> None:
    names = sorted(tensors := tensors_of(folder))
    (folder / "model.safetensors").unlink()
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    shards = [f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    for shard, part in zip(shards, parts, strict=True):
        write({name: tensors[name] for name in part}, folder / shard)
    index = {"weight_map": {name: shard for shard, part in zip(shards, parts, strict=True) for name in part}}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def as_safetensors_shards(folder: Path) -> None:
    in_shards(folder, "model", "safetensors", lambda tensors, path: safetensors.torch.save_file(tensors, path))


def as_bin_shards(folder: Path) -> None:
    in_shards(folder, "pytorch_model", "bin", torch.save)


def with_legacy_names(folder: Path) -> None:
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for name, tensor in tensors_of(folder).items():
        for new, legacy in old.items():
            name = name.replace(new, legacy)
        tensors[name] = tensor
    tensors["bert.embeddings.position_ids"] = torch.arange(64)[None]
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def in_half_precision(folder: Path) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in tensors_of(folder).items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("layout", [as_bin, as_old_bin, as_safetensors_shards, as_bin_shards, with_legacy_names])
def test_every_layout_gives_the_same_scores(layout: Callable[[Path], None], tmp_path: Path) -> None:
    wanted = scores_of(plain(tmp_path))
    layout(tmp_path)
    assert torch.equal(scores_of(tmp_path), wanted)


def test_weights_are_read_into_the_dtype_asked_for(tmp_path: Path) -> None:
    wanted = scores_of(plain(tmp_path))
    in_half_precision(tmp_path)
    network = load_network(tmp_path)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    torch.testing.assert_close(score_batches(network, [BATCH]), wanted, atol=0.05, rtol=0)
    half = load_network(tmp_path, dtype=torch.bfloat16)
    head = head_parameter_names(half)
    assert {p.dtype for name, p in half.named_parameters() if name not in head} == {torch.bfloat16}
    assert {p.dtype for name, p in half.named_parameters() if name in head} == {torch.float32}
    assert half(BATCH).dtype == torch.float32


def test_a_numbered_cpu_is_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that lie well in the file stay there, mapped."""
    save_network(load_network(plain(tmp_path)), tmp_path)
    copied: list[str] = []
    read = Weights.read_once
    monkeypatch.setattr(Weights, "read_once", lambda self, name: (copied.append(name), read(self, name))[1])
    load_network(tmp_path, device=torch.device("cpu:0"))
    of_numbered = copied.copy()
    load_network(tmp_path)
    assert of_numbered * 2 == copied
    assert len(of_numbered) < 3


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_network_loads_in_transformers_and_back(name: str, tmp_path: Path) -> None:
    network = load_network(plain(tmp_path, name), dropout=0.3)
    folder = tmp_path / "ours"
    folder.mkdir()
    save_network(network, folder)
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (model.config.num_labels, model.config.id2label) == (1, {0: "REWARD"})
    assert 0.3 not in model.config.to_dict().values(), "an override of one run is not the model's own rate"
    with torch.no_grad():
        theirs = torch.cat([reference_scores(model, row).view(1) for row in alone(BATCH)])
    torch.testing.assert_close(score_batches(network, [BATCH]), theirs, atol=1e-5, rtol=0)
    assert torch.equal(scores_of(folder), score_batches(network, [BATCH]))


def test_saved_files_are_readable_like_any_other(tmp_path: Path) -> None:
    save_network(load_network(plain(tmp_path)), tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.usefixtures("all_mapped")
def test_a_network_can_be_saved_into_the_folder_it_is_mapped_from(tmp_path: Path) -> None:
    save_network(load_network(plain(tmp_path)), tmp_path)
    network = load_network(tmp_path)
    wanted = score_batches(network, [BATCH])
    assert mapped_files(network, tmp_path) == {str(tmp_path / "model.safetensors")}
    other = load_network(tmp_path)
    with torch.no_grad():
        other.get_parameter("bert.embeddings.word_embeddings.weight").mul_(2)
    changed = score_batches(other, [BATCH])
    save_network(other, tmp_path)
    assert torch.equal(scores_of(tmp_path), changed)
    assert torch.equal(score_batches(network, [BATCH]), wanted)
    assert not torch.equal(changed, wanted)
    save_network(network, tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "gone")
    assert torch.equal(score_batches(network, [BATCH]), wanted)


@pytest.mark.parametrize("layout", [lambda folder: None, as_bin])
def test_a_small_model_is_not_harmed_by_what_another_program_does_to_its_file(
    layout: Callable[[Path], None], tmp_path: Path
) -> None:
    layout(plain(tmp_path))
    network = load_network(tmp_path)
    assert mapped_files(network, tmp_path) == set()
    wanted = score_batches(network, [BATCH])
    for path in tmp_path.glob("*model*"):
        os.truncate(path, 0)
    assert torch.equal(score_batches(network, [BATCH]), wanted)


@pytest.mark.usefixtures("all_mapped")
def test_training_never_touches_the_file(tmp_path: Path) -> None:
    save_network(load_network(plain(tmp_path)), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    network = load_network(tmp_path)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(BATCH).sum().backward()
    optimizer.step()
    state = network.state_dict()
    unchanged = {name for name, tensor in tensors_of(tmp_path).items() if torch.equal(tensor, state[name])}
    assert not unchanged
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.usefixtures("all_mapped")
@pytest.mark.parametrize("name", FAMILIES)
def test_what_we_save_is_used_where_it_is_mapped(name: str, tmp_path: Path) -> None:
    """All but what follows a tensor whose size is not a multiple of 64 bytes; those come last in the file."""
    save_network(load_network(plain(tmp_path, name)), tmp_path)
    network = load_network(tmp_path)
    [(start, end)] = maps(tmp_path / "model.safetensors")
    for key, tensor in network.state_dict().items():
        assert start <= tensor.data_ptr() < end or tensor.nbytes % 64, key
        assert tensor.data_ptr() % 64 == 0, key


@pytest.mark.usefixtures("all_mapped")
@pytest.mark.parametrize("layout", [lambda folder: None, as_safetensors_shards, as_bin, in_half_precision])
def test_converting_leaves_no_second_copy_mapped(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(plain(tmp_path))
    network = load_network(tmp_path, dtype=torch.float64)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float64}
    assert mapped_files(network, tmp_path) == set()


def test_many_tensors_are_converted_in_the_memory_of_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the file is opened anew on the way."""
    wanted = {name: tensor.double() for name, tensor in tensors_of(plain(tmp_path)).items()}
    opened = []
    once = weights_module._open
    monkeypatch.setattr(weights_module, "_open", lambda path: opened.append(path) or once(path))
    monkeypatch.setattr(weights_module, "_PASSING_BYTES", 4000)
    network = load_network(tmp_path, dtype=torch.float64)
    assert len(opened) > 5
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in network.state_dict().items())


def test_shared_memory_is_written_out(tmp_path: Path) -> None:
    network = load_network(plain(tmp_path))
    state = dict(network.named_parameters())
    state["bert.encoder.layer.0.attention.self.key.bias"].data = state[
        "bert.encoder.layer.0.attention.self.query.bias"
    ].data
    save_network(network, tmp_path)
    assert torch.equal(scores_of(tmp_path), score_batches(network, [BATCH]))


def test_what_config_json_says_beyond_the_head_is_kept(tmp_path: Path) -> None:
    raw = json.loads((plain(tmp_path) / "config.json").read_text())
    raw |= {"num_labels": 3, "id2label": {"0": "a", "1": "b", "2": "c"}, "torch_dtype": "float16", "note": "kept"}
    raw |= {"architectures": ["BertModel"]}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    save_network(load_network(tmp_path), tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["architectures"] == ["BertForSequenceClassification"]
    assert written["dtype"] == "float32"
    assert written["note"] == "kept"
    assert "num_labels" not in written
    assert "torch_dtype" not in written


def test_a_bare_backbone_takes_a_new_head(tmp_path: Path) -> None:
    """all-MiniLM's file: no prefix, no head, position ids stored."""
    reference = model_of(*CONFIGS["bert"])
    reference.bert.save_pretrained(tmp_path)
    tensors = tensors_of(tmp_path) | {"embeddings.position_ids": torch.arange(64)[None]}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(BadModel, match="no reward head; train one, or pass a reward model"):
        load_network(tmp_path)
    torch.manual_seed(1)
    network = load_network(tmp_path, new_head=True)
    state = network.state_dict()
    assert torch.equal(state["bert.pooler.dense.weight"], tensors["pooler.dense.weight"])
    assert torch.equal(state["classifier.bias"], torch.zeros(1))
    assert 0.005 < state["classifier.weight"].std() < 0.04
    torch.manual_seed(1)
    assert torch.equal(
        load_network(tmp_path, new_head=True).state_dict()["classifier.weight"], state["classifier.weight"]
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [("BertForMaskedLM", "bert"), ("BertForPreTraining", "bert"), ("RobertaModel", "roberta"),
     ("RobertaForMaskedLM", "roberta"), ("ElectraForPreTraining", "electra"), ("ElectraForMaskedLM", "electra"),
     ("DebertaV2ForMaskedLM", "deberta-v2"), ("DebertaV2Model", "deberta v2 xxlarge"), ("MPNetModel", "mpnet"),
     ("MPNetForMaskedLM", "mpnet")],
)  # fmt: skip
def test_pretraining_checkpoints_take_a_new_head(kind: str, name: str, tmp_path: Path) -> None:
    backbone = getattr(transformers, kind)(model_of(*CONFIGS[name]).config)
    scramble(backbone, 4)
    saved(backbone, tmp_path)
    with pytest.raises(BadModel, match="no reward head"):
        load_network(tmp_path)
    network = load_network(tmp_path, new_head=True)
    theirs = {key.split(".", 1)[1]: value for key, value in backbone.state_dict().items() if "." in key}
    theirs |= backbone.state_dict()
    for key, value in network.state_dict().items():
        if key not in head_parameter_names(network):
            assert torch.equal(value, theirs[key.split(".", 1)[1]]), key
    assert network(BATCH).std() > 0


def test_deberta_checkpoints_may_carry_an_unused_position_table_and_old_heads(tmp_path: Path) -> None:
    tensors = tensors_of(plain(tmp_path, "deberta-v2"))
    extra = ["deberta.embeddings.position_embeddings.weight", "lm_predictions.lm_head.bias",
             "mask_predictions.dense.weight", "cls.predictions.bias"]  # fmt: skip
    wanted = scores_of(tmp_path)
    safetensors.torch.save_file(tensors | {name: torch.zeros(4) for name in extra}, tmp_path / "model.safetensors")
    assert torch.equal(scores_of(tmp_path), wanted)


@pytest.mark.parametrize("name", ["bert", "roberta", "deberta-v2"])
def test_a_head_with_several_outputs_is_refused_or_replaced(name: str, tmp_path: Path) -> None:
    model = model_of(*CONFIGS[name], num_labels=3)
    saved(model, tmp_path)
    with pytest.raises(BadModel, match="a classifier with 3 outputs"):
        load_network(tmp_path)
    network = load_network(tmp_path, new_head=True)
    assert network(BATCH).shape == (5,)
    key = "deberta.encoder.layer.0.output.dense.weight" if name == "deberta-v2" else None
    if key:
        assert torch.equal(network.state_dict()[key], model.state_dict()[key])


def test_a_new_head_replaces_one_that_was_there_and_keeps_the_pooler(tmp_path: Path) -> None:
    tensors = tensors_of(plain(tmp_path, "deberta-v2"))
    state = load_network(tmp_path, new_head=True).state_dict()
    assert not torch.equal(state["classifier.weight"], tensors["classifier.weight"])
    assert torch.equal(state["pooler.dense.weight"], tensors["pooler.dense.weight"])


def test_native_models_load_without_transformers_and_torchs_compiler(tmp_path: Path) -> None:
    """Importing either takes seconds, and torch does it for a mere norm on the meta device."""
    import subprocess
    import sys

    code = (
        "import sys, pathlib; from prefrank.model import load_network, save_network\n"
        "from prefrank.model.checkpoint import load_quantised\n"
        f"folder = pathlib.Path({str(plain(tmp_path, 'deberta-v2'))!r})\n"
        "save_network(load_network(folder, new_head=True), folder)\n"
        "save_network(load_quantised(folder, 'int16'), folder)\n"
        "load_quantised(folder, 'int16')\n"
        "assert not {'transformers', 'torch._dynamo'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_ends_in_evaluation_mode_with_dropout_only_when_training(tmp_path: Path) -> None:
    network = load_network(plain(tmp_path, "deberta v2 xxlarge"))
    assert torch.equal(network(BATCH), network(BATCH))
    assert not torch.equal(network.train()(BATCH), network(BATCH))
    still = load_network(tmp_path, dropout=0.0).train()
    assert torch.equal(still(BATCH), still(BATCH))


def change(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def drop(folder: Path, name: str) -> None:
    tensors = {key: tensor for key, tensor in tensors_of(folder).items() if key != name}
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def add(folder: Path, name: str) -> None:
    safetensors.torch.save_file(tensors_of(folder) | {name: torch.zeros(3)}, folder / "model.safetensors")


def in_integers(folder: Path) -> None:
    changed = {
        name: t.to(torch.int8) if name.endswith("output.dense.weight") else t for name, t in tensors_of(folder).items()
    }
    safetensors.torch.save_file(changed, folder / "model.safetensors")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def lose_a_shard(folder: Path) -> None:
    as_safetensors_shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def cut_bin(folder: Path) -> None:
    as_bin(folder)
    cut(folder / "pytorch_model.bin")


def not_tensors(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"step": 3}, folder / "pytorch_model.bin")


def escaping_shard(folder: Path) -> None:
    as_safetensors_shards(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}')


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    (
        lambda folder: (folder / "config.json").write_text('{"model_type": "bert",'),
        "config.json cannot be read as JSON",
    ),
    (lambda folder: (folder / "config.json").write_text("[1]"), "holds a list; wanted an object"),
    (lambda folder: change(folder, model_type=None), "config.json: model_type is null; wanted a string"),
    (lambda folder: change(folder, hidden_size="32"), "hidden_size is '32'; wanted a whole number"),
    (lambda folder: change(folder, hidden_size=None), "config.json: hidden_size is null; wanted"),
    (
        lambda folder: change(folder, num_attention_heads=5),
        "num_attention_heads is 5; wanted a number that divides",
    ),
    (lambda folder: change(folder, num_hidden_layers=0), "num_hidden_layers is 0; wanted a whole number from 1"),
    (
        lambda folder: change(folder, hidden_act="gleu"),
        "hidden_act is .* activation; did you mean .gelu.",
    ),
    (
        lambda folder: change(folder, hidden_dropout_prob=1.5),
        "hidden_dropout_prob is 1.5; wanted a finite number",
    ),
    (
        lambda folder: change(folder, position_embedding_type="relative_key"),
        "embedding_type is .*; wanted absolute",
    ),
    (lambda folder: change(folder, vocab_size=90), r"word_embeddings.weight is \[100, 32\].*asks for \[90, 32\]"),
    (lambda folder: (folder / "model.safetensors").unlink(), "has no weights; wanted model.safetensors or"),
    (lambda folder: cut(folder / "model.safetensors"), "cannot be read as weights"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b""), "cannot be read as weights"),
    (lose_a_shard, "missing model-00002-of-00002.safetensors, which another"),
    (escaping_shard, "weight_map.a is .*; wanted the name of a weights file beside it"),
    (cut_bin, "cannot be read as weights"),
    (not_tensors, "does not hold a plain dictionary of tensors"),
    (lambda folder: drop(folder, "bert.encoder.layer.1.output.dense.bias"), "lack bert.encoder.layer.1.output.dense.b"),
    (lambda folder: drop(folder, "classifier.weight"), "no reward head"),
    (lambda folder: drop(folder, "bert.pooler.dense.bias"), "lack bert.pooler.dense.bias"),
    (lambda folder: add(folder, "bert.encoder.layer.2.output.dense.bias"), "it knows no bert.encoder.layer.2"),
    (lambda folder: add(folder, "qa_outputs.weight"), "it knows no qa_outputs.weight"),
    (in_integers, "output.dense.weight is of int8; wanted float32"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN)
def test_a_broken_folder_is_one_line_that_says_what_is_wrong(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    damage(plain(tmp_path))
    with pytest.raises(BadModel, match=message) as error:
        load_network(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model folder"):
        load_network(tmp_path / "nothing")


def test_an_even_convolution_is_refused(tmp_path: Path) -> None:
    saved(model_of("DebertaV2", V3 | {"conv_kernel_size": 4}), tmp_path)
    with pytest.raises(BadModel, match="conv_kernel_size is 4; wanted an odd number"):
        load_network(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x02}q\x00."])
def test_any_garbage_is_a_prefrank_error(content: bytes, tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(PrefrankError):
        load_network(tmp_path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    plain(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"classifier.weight": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadModel, match="cannot be read as weights"):
        load_network(tmp_path)
    assert not (tmp_path / "sprung").exists()
