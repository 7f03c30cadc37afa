"""Integer weights: sums that never overflow, errors of the size that is claimed, folders that come back bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prefrank.errors import BadInput, BadModel
from prefrank.model import fingerprint, load_network, save_network, score_batches
from prefrank.model.checkpoint import load_for_scoring, load_quantised
from prefrank.model.families import lay_out
from prefrank.model.integer_network import quantise_network
from prefrank.model.integer_weights import (
    QUANTISED,
    WEIGHT_NORM,
    quantise_rows,
    quantise_table,
    quantise_weight,
    table_in_float,
)
from prefrank.model.weights import QUANTISED as FILE
from prefrank.model.weights import Weights
from tests.parity.reference import CONFIGS, LAID_OUT, OTHERS, V3, batch_of, model_of, saved

BATCH = batch_of([2, 5, 5, 17, 31])
KINDS = [*LAID_OUT, "electra projected", "deberta v2 xxlarge", "deberta own position projections",
         "deberta c2p", "deberta p2c, own projection", "deberta no position term", "deberta absolute only"]  # fmt: skip


def plain(tmp_path: Path, name: str = "deberta-v2") -> Path:
    return saved(model_of(*CONFIGS[name]), tmp_path / "float")


def quantised(folder: Path, precision: str = "int16") -> Path:
    target = folder.parent / precision
    target.mkdir()
    save_network(load_quantised(folder, precision), target)
    return target


def sums(x: Tensor, weight: Tensor) -> np.ndarray:
    """The largest that any partial sum of products could be: all of them with one sign. Exact."""
    return np.abs(x.long().numpy()) @ np.abs(weight.long().numpy()).T


MAGNITUDES = st.sampled_from(["gauss", "log-normal", "one large", "equal"])


def numbers(kind: str, rows: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator)
    if kind == "log-normal":
        x = x * torch.randn(rows, width, generator=generator).mul(3).exp()
    if kind == "one large":
        x[:, seed % width] = 1e4
    if kind == "equal":
        x = x.sign()
    return x


@settings(deadline=None, max_examples=60)
@given(
    kinds=st.tuples(MAGNITUDES, MAGNITUDES),
    width=st.sampled_from([1, 3, 32, 384, 1536, 6144]),
    seed=st.integers(0, 1000),
    power=st.integers(-15, 15),
    precision=st.sampled_from(QUANTISED),
)
def test_no_sum_of_products_can_overflow_for_any_input(
    kinds: tuple[str, str], width: int, seed: int, power: int, precision: str
) -> None:
    weight, _ = quantise_weight(numbers(kinds[0], 5, width, seed), precision)
    free = numbers(kinds[1], 4, width, seed + 1) * 10.0**power
    parallel = weight.float() * 10.0**power  # what comes nearest to the limit
    x, scale = quantise_rows(torch.cat([free, parallel]), weight)
    assert sums(x, weight).max() < 2**31
    assert x.abs().max() <= (32_000 if precision == "int16" else 127)
    torch.testing.assert_close(
        x * scale, torch.cat([free, parallel]).double(), rtol=0, atol=scale.max().item() * 0.5001
    )


def test_the_limit_is_used_up_by_an_input_parallel_to_the_weights() -> None:
    weight, _ = quantise_weight(numbers("gauss", 4, 1536, 0), "int16")
    x, _ = quantise_rows(weight.float(), weight)
    assert 0.998 * 2**31 < sums(x, weight).max() < 2**31


@pytest.mark.parametrize("precision", QUANTISED)
def test_a_weight_is_off_by_half_a_step_at_most_and_rows_of_zeros_stay_zero(precision: str) -> None:
    weight = numbers("log-normal", 6, 64, 3)
    weight[2] = 0
    weight[3] = 1e-42  # where float32 has few digits left
    integers, scale = quantise_weight(weight, precision)
    assert integers.dtype == getattr(torch, precision)
    error = (integers * scale.double()[:, None] - weight).abs()
    assert (error <= 0.5001 * scale.double()[:, None] + 1e-41).all()
    assert not integers[2].any()
    assert scale[2] == 0
    assert scale.isfinite().all()


def test_every_row_of_int16_weights_is_equally_long_unless_one_entry_is_nearly_all_of_it() -> None:
    weight = torch.cat([numbers("gauss", 5, 768, 0), numbers("equal", 5, 768, 1), torch.eye(1, 768)])
    integers, _ = quantise_weight(weight, "int16")
    norms = integers.double().norm(dim=1)
    assert norms[-1] == 32_767
    torch.testing.assert_close(norms[:-1], torch.full((10,), WEIGHT_NORM).double(), rtol=0, atol=0.5 * 768**0.5)


@pytest.mark.parametrize("kind", ["gauss", "log-normal", "equal"])
@pytest.mark.parametrize("width", [384, 3072])
def test_the_error_of_a_product_is_the_one_claimed_whatever_the_distribution(kind: str, width: int) -> None:
    x, weight = numbers(kind, 64, width, 0), numbers("gauss", 128, width, 1)
    integers, scales = quantise_weight(weight, "int16")
    rows, scale = quantise_rows(x, integers)
    wanted = x.double() @ weight.double().mT
    products = rows @ integers.double().mT * scale * scales
    error = (products - wanted).square().mean(1).sqrt() / wanted.square().mean(1).sqrt()
    assert error.median() == pytest.approx((width / 6) ** 0.5 / WEIGHT_NORM, rel=0.15)


@pytest.mark.parametrize("precision", QUANTISED)
@pytest.mark.parametrize("name", KINDS)
def test_quantising_on_the_way_in_and_reading_a_quantised_folder_are_the_same_bits(
    name: str, precision: str, tmp_path: Path
) -> None:
    direct = load_quantised(plain(tmp_path, name), precision)
    stored = load_quantised(quantised(tmp_path / "float", precision), precision)
    assert direct.state_dict().keys() == stored.state_dict().keys()
    for key, tensor in direct.state_dict().items():
        assert torch.equal(tensor, stored.state_dict()[key]), key
        assert tensor.dtype == stored.state_dict()[key].dtype, key
    assert torch.equal(score_batches(direct, [BATCH]), score_batches(stored, [BATCH]))
    assert fingerprint(direct, extra=b"") == fingerprint(stored, extra=b"")
    assert direct.config["quantization_config"] == stored.config["quantization_config"]


@pytest.mark.parametrize("name", KINDS)
def test_int16_scores_are_those_of_the_float_model_to_a_thousandth_of_their_spread(name: str, tmp_path: Path) -> None:
    wanted = score_batches(load_network(plain(tmp_path, name)), [BATCH])
    off = score_batches(load_quantised(tmp_path / "float", "int16"), [BATCH]) - wanted
    assert 0 < off.abs().max() < 1e-3 * wanted.std()
    far = score_batches(load_quantised(tmp_path / "float", "int8"), [BATCH]) - wanted
    assert off.abs().max() < far.abs().max() < 0.2 * wanted.std()


def test_a_network_in_memory_is_quantised_in_place(tmp_path: Path) -> None:
    network = load_network(plain(tmp_path))
    before = fingerprint(network, extra=b"")
    quantise_network(network, "int16")
    from_folder = load_quantised(tmp_path / "float", "int16")
    assert fingerprint(network, extra=b"") == fingerprint(from_folder, extra=b"") != before
    with pytest.raises(BadModel, match="quantized to int16 already; quantize the float model it came from"):
        quantise_network(network, "int8")


@pytest.mark.parametrize("name", ["deberta-v2", "deberta own position projections", "deberta p2c, own projection"])
def test_relative_positions_are_projected_by_the_float_weights(name: str, tmp_path: Path) -> None:
    floats = lay_out(load_network(plain(tmp_path, name)))
    integers = lay_out(load_quantised(quantised(tmp_path / "float", "int8"), "int8"))
    for ours, theirs in zip(integers.layers, floats.layers, strict=True):
        for table, scale, wanted in (
            (ours.position_keys, ours.position_keys_scale, theirs.position_keys),
            (ours.position_queries, ours.position_queries_scale, theirs.position_queries),
        ):
            assert (table is None) == (scale is None) == (wanted is None)
            if wanted is not None:
                assert table.dtype == torch.int16
                off = (table_in_float(table, scale) - wanted).abs()
                assert off.max() <= 0.5001 * scale.max() < 1e-4 * wanted.abs().max()
        assert (ours.up.weight.dtype, theirs.up.weight.dtype) == (torch.int8, torch.float32)
        assert torch.equal(ours.up.bias, theirs.up.bias)


@pytest.mark.parametrize("width", [1, 8, 33, 64, 128])
def test_no_sum_of_a_heads_products_with_relative_positions_can_overflow(width: int) -> None:
    table = torch.cat([numbers("log-normal", 3, 2 * width, 0), torch.ones(1, 2 * width), torch.zeros(1, 2 * width)])
    integers, _ = quantise_table(table, 2)
    largest = integers.view(5, 2, width).long().abs()
    assert width * largest.max() ** 2 < 2**31  # queries and keys have the same limit
    assert largest[3].min() > 0.99 * min((2**31 / width) ** 0.5, 2**15) or width == 1
    assert not integers[4].any()


def test_a_layout_stands_for_the_float_weights_times_their_scales(tmp_path: Path) -> None:
    floats, integers = lay_out(load_network(plain(tmp_path))), lay_out(load_quantised(tmp_path / "float", "int16"))
    for part in ("query", "key", "value", "attention_output", "up", "down"):
        ours, theirs = getattr(integers.layers[1], part), getattr(floats.layers[1], part)
        torch.testing.assert_close(
            ours.weight * ours.scale[:, None], theirs.weight, rtol=0, atol=ours.scale.max().item()
        )
    assert integers.head.dense.scale is None
    assert torch.equal(integers.embeddings.words, floats.embeddings.words)


def test_half_precision_weights_are_quantised_as_their_float32_values_and_never_converted_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = {name: tensor.half() for name, tensor in tensors_of(plain(tmp_path), "model.safetensors").items()}
    write(halves, tmp_path / "float", "model.safetensors")
    read = []
    once = Weights.read_once
    monkeypatch.setattr(Weights, "read_once", lambda self, name: read.append(name) or once(self, name))
    half = load_quantised(tmp_path / "float", "int16")
    assert read.count("deberta.encoder.layer.1.output.dense.weight") == 1
    assert half.state_dict()["deberta.embeddings.word_embeddings.weight"].dtype == torch.float32
    write({name: tensor.float() for name, tensor in halves.items()}, tmp_path / "float", "model.safetensors")
    assert fingerprint(half, extra=b"") == fingerprint(load_quantised(tmp_path / "float", "int16"), extra=b"")


def test_the_float_weights_are_out_of_memory_when_they_are_quantised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages count while they are mapped, and one mapped tensor keeps the pages of all."""
    monkeypatch.setattr("prefrank.model.weights._MAPPED_BYTES", 0)
    folder = saved(model_of("DebertaV2", V3 | {"hidden_size": 256, "intermediate_size": 1024}), tmp_path / "float")
    save_network(load_network(folder), folder)
    network = load_quantised(folder, "int16")
    assert resident(folder / "model.safetensors") < 1_500_000
    assert network.training is False  # and still there
    whole = load_network(folder)
    assert sum(tensor.sum() for tensor in whole.state_dict().values())
    assert resident(folder / "model.safetensors") > 6_000_000


def resident(path: Path) -> int:
    """Bytes of the file that this process has in memory through its mappings."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        inside = line.endswith(str(path)) if "-" in line.split()[0] else inside
        total += 1024 * int(line.split()[1]) if inside and line.startswith("Rss:") else 0
    return total


def test_a_folder_is_loaded_in_its_own_precision_and_no_other(tmp_path: Path) -> None:
    folder = quantised(plain(tmp_path))
    network = load_for_scoring(folder, precision=None)
    assert lay_out(network).layers[0].query.weight.dtype == torch.int16
    with pytest.raises(BadModel, match="is quantized to int16; to have int8, load the float model it came from"):
        load_for_scoring(folder, precision="int8")
    with pytest.raises(BadModel, match="is quantized to int16, which only scores; load the float model it came from"):
        load_for_scoring(folder, precision="float32")
    assert load_for_scoring(tmp_path / "float", precision=None).classifier.weight.dtype == torch.float32
    assert next(load_for_scoring(tmp_path / "float", precision="bfloat16").parameters()).dtype == torch.bfloat16
    with pytest.raises(BadInput, match="there is no precision 'int61'; did you mean 'int16'"):
        load_for_scoring(folder, precision="int61")
    with pytest.raises(BadInput, match="'float16' is not a precision to quantize to; known: int16, int8"):
        load_quantised(folder, "float16")


def test_transformers_refuses_a_quantised_folder(tmp_path: Path) -> None:
    """It ignores a method of quantisation it does not know, so it must find no weights under a name of its own."""
    with pytest.raises(OSError, match=r"no file named model.safetensors"):
        transformers.AutoModelForSequenceClassification.from_pretrained(quantised(plain(tmp_path)))


def test_a_model_of_transformers_cannot_be_quantised(tmp_path: Path) -> None:
    saved(model_of(*OTHERS["gpt_neox"]), tmp_path)
    with pytest.raises(BadModel, match="holds a 'gpt_neox' model, which cannot be quantized; load it in float32"):
        load_quantised(tmp_path, "int16")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_named(value: float, tmp_path: Path) -> None:
    tensors = tensors_of(plain(tmp_path), "model.safetensors")
    tensors["deberta.encoder.layer.1.output.dense.weight"][3, 4] = value
    write(tensors, tmp_path / "float", "model.safetensors")
    with pytest.raises(
        BadModel, match=r"the tensor deberta.encoder.layer.1.output.dense.weight has entries that are NaN"
    ):
        load_quantised(tmp_path / "float", "int16")


def tensors_of(folder: Path, name: str = FILE) -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / name)


def write(tensors: dict[str, Tensor], folder: Path, name: str = FILE) -> None:
    safetensors.torch.save_file(tensors, folder / name, metadata={"format": "pt"})


def without(folder: Path, ending: str) -> None:
    write({name: tensor for name, tensor in tensors_of(folder).items() if not name.endswith(ending)}, folder)


def of_precision(folder: Path, precision: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["precision"] = precision
    (folder / "config.json").write_text(json.dumps(config))


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / FILE).unlink(), "is missing quantised.safetensors"),
    (lambda folder: (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-9]), "cannot be read as weights"),
    (lambda folder: without(folder, "1.output.dense.weight_scale"), "lack deberta.*layer.1.output.dense.weight_scale"),
    (lambda folder: without(folder, "pos_key_proj.projected"), "lack deberta.*0.attention.self.pos_key_proj.projected"),
    (
        lambda folder: of_precision(folder, "int4"),
        "quantization_config.precision is 'int4', this prefrank reads int16 and int8",
    ),
    (lambda folder: of_precision(folder, "int8"), "weight is of int16; wanted int8"),
    (lambda folder: of_precision(folder, None), "quantization_config.precision is null"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN)
def test_a_broken_quantised_folder_is_one_line_that_says_what_is_wrong(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = quantised(plain(tmp_path))
    damage(folder)
    with pytest.raises(BadModel, match=message) as error:
        load_for_scoring(folder, precision=None)
    assert "\n" not in str(error.value)
