"""Attention of a whole batch in one kernel call, against the loop over groups of rows, on a CPU.

The Triton kernels themselves run in Triton's interpreter where disentangled-flash and triton are installed and
TRITON_INTERPRET=1 is set; everywhere else a stand-in of ten lines, with the kernels' arguments, takes their place.
"""

import inspect
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prefrank.errors import BadInput
from prefrank.io.json_files import Fields
from prefrank.model import flash, load_network, score_batches
from prefrank.model.families.bert import SelfAttention
from prefrank.model.families.deberta_config import read_deberta_config
from prefrank.model.families.disentangled import DisentangledAttention, Relative
from prefrank.model.pack import Pack, pack_batch
from prefrank.model.packed_encoder import read_encoder_config
from tests.parity.reference import CONV, V3, VOCAB, batch_of, model_of, saved

CPU = torch.device("cpu")
SHAPE = {
    "model_type": "deberta-v2", "vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 24, "relative_attention": True,
    "position_buckets": 8, "share_att_key": True, "pos_att_type": "p2c|c2p", "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
MODELS = {
    "log buckets": {},
    "no buckets": {"position_buckets": -1, "max_relative_positions": 12},
    "own projections": {"share_att_key": False},
    "c2p": {"pos_att_type": "c2p"},
    "p2c": {"pos_att_type": "p2c"},
    "p2c, own projection": {"pos_att_type": "p2c", "share_att_key": False},
    "no position term": {"pos_att_type": None},
}
BATCHES = {
    "many lengths": [5, 2, 20, 1, 20, 17, 1],
    "one token each": [1, 1, 1],
    "one row": [19],
    "past the last bucket": [40, 3],
}
PACKAGE = flash._kernels  # what the tests put other kernels in the place of


def stand_in(
    query: Tensor, key: Tensor, value: Tensor, position_keys: Tensor | None, position_queries: Tensor | None,
    by_distance: Tensor, starts: Tensor, *, max_seqlen: int, score_scale: float, dropout_p: float, **_: Any,
) -> Tensor:  # fmt: skip
    lengths = starts.diff().long()
    row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    place = torch.arange(len(row)) - starts[row]
    apart = (place[:, None] - place[None, :]).clamp(1 - max_seqlen, max_seqlen - 1) + max_seqlen - 1
    slots = by_distance[apart].long().expand(len(query), -1, -1)
    scores = query @ key.mT
    if position_keys is not None:
        scores = scores + (query @ position_keys.mT).gather(2, slots)
    if position_queries is not None:
        scores = scores + (key @ position_queries.mT).gather(2, slots.mT).mT
    scores = (scores * score_scale).masked_fill(row[:, None] != row[None, :], -torch.inf)
    return (nn.functional.dropout(scores.softmax(-1), dropout_p) @ value).transpose(0, 1).flatten(1)


def interpreted(monkeypatch: pytest.MonkeyPatch) -> flash.Kernels:
    """The package's kernels; it refuses CPU tensors by name, which the interpreter does not need."""
    from disentangled_flash.training import _kernels as package
    from disentangled_flash.tuning import KernelConfig
    from triton.runtime import interpreter

    def widened(x: Any) -> Any:
        if x.dtype.name != "bf16":
            return x
        numbers = torch.from_numpy(x.data.view(np.int16).copy()).view(torch.bfloat16).float().numpy()
        return interpreter.TensorHandle(numbers, interpreter.tl.float32)

    # The interpreter keeps bfloat16 as integers and multiplies those (triton 3.9.0).
    dot = interpreter.InterpreterBuilder.create_dot
    monkeypatch.setattr(
        interpreter.InterpreterBuilder, "create_dot", lambda self, a, b, *rest: dot(self, widened(a), widened(b), *rest)
    )

    source = inspect.getsource(package.training_attention_packed).replace('"cuda"', '"cpu"')
    names: dict[str, Any] = dict(vars(package))
    exec(source, names)
    tile = KernelConfig(16, 16, 4)
    tiles = {"forward_config": KernelConfig(32, 16, 4), "dq_config": tile, "dkv_config": tile}
    return replace(PACKAGE(), attend=names["training_attention_packed"], tiles=lambda *_: tiles)


@pytest.fixture(params=["stand-in", "interpreter", "gpu"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where the kernels run: a stand-in or the interpreter on the CPU, or a GPU where there is one."""
    if request.param == "stand-in":
        stand_ins = flash.Kernels(stand_in, lambda slots, device: (None, len(slots)), lambda *_: {})
        monkeypatch.setattr(flash, "_kernels", lambda: stand_ins)
        return CPU
    if find_spec("disentangled_flash") is None or find_spec("triton") is None:
        pytest.skip("disentangled-flash and triton are not installed")
    interpreting = os.environ.get("TRITON_INTERPRET") == "1"
    if request.param == "gpu":
        if interpreting or not torch.cuda.is_available():
            pytest.skip("there is no GPU, or TRITON_INTERPRET is set")
        return torch.device("cuda")
    if not interpreting:
        pytest.skip("Triton's kernels run on a CPU with TRITON_INTERPRET=1 only")
    kernels = interpreted(monkeypatch)
    monkeypatch.setattr(flash, "_kernels", lambda: kernels)
    return CPU


def random_attention(
    options: dict[str, Any], longest: int, device: torch.device
) -> tuple[DisentangledAttention, Relative]:
    torch.manual_seed(0)
    config = read_deberta_config(Fields.of(SHAPE | options), dropout=None)
    attention = DisentangledAttention(config).to(device)
    order = config.distances.rows(longest)
    table = torch.randn(2 * config.distances.span, 64, device=device, requires_grad=True)
    return attention, Relative(table=table, order=order.to(device), longest=longest)


def packed(lengths: list[int], device: torch.device) -> tuple[Pack, flash.PackedRows]:
    batch = batch_of(lengths)
    pack = pack_batch(batch, vocab_size=VOCAB, max_positions=None, device=device)
    return pack, flash.lay_rows(batch.starts, device)


def loop(attention: DisentangledAttention, hidden: Tensor, pack: Pack, relative: Relative, firsts_only: bool) -> Tensor:
    queries = hidden[pack.firsts] if firsts_only else hidden
    return attention(queries, hidden, pack, pack.group_rows if firsts_only else pack.group_tokens, relative)


def in_one_call(
    attention: DisentangledAttention, hidden: Tensor, rows: flash.PackedRows, relative: Relative, firsts_only: bool,
    dropout: float = 0.0,
) -> Tensor:  # fmt: skip
    queries = hidden[rows.firsts] if firsts_only else hidden
    keys, asked = attention.pos_key_proj or attention.key_proj, attention.pos_query_proj or attention.query_proj
    return flash.attend(
        attention.query_proj(queries) * attention.scale,
        attention.key_proj(hidden),
        attention.value_proj(hidden),
        num_heads=attention.num_heads,
        rows=rows,
        slots=flash.lay_slots(relative.order.cpu(), hidden.device),
        position_keys=keys(relative.table) if "c2p" in attention.terms else None,
        position_queries=asked(relative.table) * attention.scale if "p2c" in attention.terms else None,
        dropout=dropout,
    )


def gradients(output: Tensor, attention: nn.Module, *others: Tensor) -> dict[str, Tensor]:
    named = dict(attention.named_parameters()) | {f"input {number}": x for number, x in enumerate(others)}
    weights = torch.linspace(-1, 1, output.numel(), device=output.device).view_as(output)
    slopes = torch.autograd.grad((output * weights).sum(), list(named.values()), allow_unused=True, retain_graph=True)
    return {name: torch.zeros(()) if value is None else value for name, value in zip(named, slopes, strict=True)}


def assert_same(got: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(
            got[name], value, rtol=0, atol=tolerance * max(1.0, float(value.detach().abs().max())),
            msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


@pytest.mark.parametrize("firsts_only", [False, True], ids=["every query", "first tokens"])
@pytest.mark.parametrize("lengths", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_one_call_gives_the_loops_output_and_gradients(
    options: dict[str, Any], lengths: list[int], firsts_only: bool, device: torch.device
) -> None:
    attention, relative = random_attention(options, max(lengths), device)
    pack, rows = packed(lengths, device)
    hidden = torch.randn(sum(lengths), 64, device=device, requires_grad=True)
    wanted = loop(attention, hidden, pack, relative, firsts_only)
    got = in_one_call(attention, hidden, rows, relative, firsts_only)
    assert_same({"output": got}, {"output": wanted})
    assert_same(gradients(got, attention, hidden, relative.table), gradients(wanted, attention, hidden, relative.table))


def test_a_row_is_blind_to_its_neighbours(device: torch.device) -> None:
    attention, relative = random_attention({}, 20, device)
    _, rows = packed([7, 20, 1], device)
    hidden = torch.randn(28, 64, device=device, requires_grad=True)
    before = in_one_call(attention, hidden, rows, relative, False)
    (reached,) = torch.autograd.grad(before[7:27].sum(), hidden)
    assert reached[7:27].abs().min() > 0
    assert not reached[:7].any()
    assert not reached[27:].any()
    noisy = hidden.detach().clone()
    noisy[:7] += 100.0
    noisy[27:] = -100.0
    assert torch.equal(in_one_call(attention, noisy, rows, relative, False)[7:27], before[7:27])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_half_precision_stays_half_and_close(dtype: torch.dtype, tolerance: float, device: torch.device) -> None:
    attention, relative = random_attention({}, 20, device)
    pack, rows = packed([20, 4, 1], device)
    hidden = torch.randn(25, 64, device=device, requires_grad=True)
    wanted = loop(attention, hidden, pack, relative, False)
    gradient = gradients(wanted, attention, hidden, relative.table)
    half, low = hidden.detach().to(dtype).requires_grad_(), relative.table.detach().to(dtype).requires_grad_()
    got = in_one_call(attention.to(dtype), half, rows, replace(relative, table=low), False)
    assert got.dtype == dtype
    assert_same({"output": got.float()}, {"output": wanted}, tolerance)
    slopes = gradients(got, attention, half, low)
    assert_same({name: value.float() for name, value in slopes.items()}, gradient, tolerance)


@pytest.mark.slow
def test_a_row_past_512_tokens_of_a_published_shape(device: torch.device) -> None:
    options = {"position_buckets": 256, "max_position_embeddings": 512, "num_attention_heads": 1}
    attention, relative = random_attention(options, 600, device)
    pack, rows = packed([600, 30], device)
    hidden = torch.randn(630, 64, device=device, requires_grad=True)
    wanted = loop(attention, hidden, pack, relative, False)
    got = in_one_call(attention, hidden, rows, relative, False)
    assert_same({"output": got}, {"output": wanted})
    assert_same(gradients(got, attention, hidden, relative.table), gradients(wanted, attention, hidden, relative.table))


def test_dropout_keeps_the_mean_and_differs_from_call_to_call(device: torch.device) -> None:
    attention, relative = random_attention({}, 9, device)
    _, rows = packed([9, 4], device)
    hidden = torch.randn(13, 64, device=device)
    with torch.no_grad():
        whole = in_one_call(attention, hidden, rows, relative, False)
        torch.manual_seed(1)
        draws = torch.stack([in_one_call(attention, hidden, rows, relative, False, dropout=0.5) for _ in range(60)])
    assert not torch.equal(draws[0], draws[1])
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - whole).abs() / error).mean() < 1.2  # 0.8 for a normal mean


def test_dropout_drops_the_same_in_the_backward_pass(device: torch.device) -> None:
    attention, relative = random_attention({}, 20, device)
    _, rows = packed([20, 4], device)
    hidden = torch.randn(24, 64, device=device, requires_grad=True)

    def total(x: Tensor) -> Tensor:
        torch.manual_seed(1)
        output = in_one_call(attention, x, rows, relative, False, dropout=0.5)
        return (output * torch.linspace(-1, 1, output.numel(), device=device).view_as(output)).sum()

    (gradient,) = torch.autograd.grad(total(hidden), hidden)
    step = torch.randn_like(hidden) * 3e-2
    with torch.no_grad():
        difference = total(hidden + step) - total(hidden - step)
    torch.testing.assert_close(2 * (gradient * step).sum(), difference, rtol=1e-2, atol=0)


def test_it_scores_in_inference_mode(device: torch.device) -> None:
    attention, relative = random_attention({}, 9, device)
    pack, rows = packed([9, 2], device)
    hidden = torch.randn(11, 64, device=device)
    with torch.inference_mode():
        got = in_one_call(attention, hidden, rows, relative, True)
        torch.testing.assert_close(got, loop(attention, hidden, pack, relative, True), rtol=0, atol=1e-5)


@pytest.mark.parametrize("firsts_only", [False, True], ids=["every query", "first tokens"])
@pytest.mark.parametrize("lengths", BATCHES.values(), ids=BATCHES)
def test_berts_attention_is_the_loops_too(lengths: list[int], firsts_only: bool, device: torch.device) -> None:
    torch.manual_seed(0)
    config = read_encoder_config(Fields.of(SHAPE), dropout=None, num_types=0, norm_eps=1e-7, padding_id=0)
    attention = SelfAttention(config).to(device)
    pack, rows = packed(lengths, device)
    hidden = torch.randn(sum(lengths), 64, device=device, requires_grad=True)
    queries = hidden[pack.firsts] if firsts_only else hidden
    wanted = attention(queries, hidden, pack, pack.group_rows if firsts_only else pack.group_tokens)
    parts = attention.query(queries) * 32**-0.5, attention.key(hidden), attention.value(hidden)
    got = flash.attend(*parts, num_heads=2, rows=rows, dropout=0.0)
    assert_same({"output": got}, {"output": wanted})
    assert_same(gradients(got, attention, hidden), gradients(wanted, attention, hidden))


FAMILIES = {
    "bert": ("Bert", {}),
    "electra": ("Electra", {"embedding_size": 20}),
    "deberta v2 xxlarge": ("DebertaV2", V3 | CONV),
    "deberta convolution on the only layer": ("DebertaV2", V3 | CONV | {"num_hidden_layers": 1}),
    "deberta p2c, own projection": ("DebertaV2", V3 | {"pos_att_type": ["p2c"], "share_att_key": False}),
    "deberta absolute only": ("DebertaV2", V3 | {"relative_attention": False, "position_biased_input": True}),
}


@pytest.mark.parametrize("checkpointed", [False, True], ids=["activations kept", "checkpointed"])
@pytest.mark.parametrize(("kind", "options"), FAMILIES.values(), ids=FAMILIES)
def test_a_fused_network_gives_the_same_scores_and_gradients(
    kind: str, options: dict[str, Any], checkpointed: bool, device: torch.device, tmp_path: Path
) -> None:
    wide = options | {"hidden_size": 64, "num_attention_heads": 2}
    network = load_network(saved(model_of(kind, wide), tmp_path), dropout=0.0, device=device).train()
    network.gradient_checkpointing = checkpointed
    batch = batch_of([5, 20, 20, 1])
    plain = network(batch)
    wanted = gradients(plain, network)
    network.fused = True
    fused = network(batch)
    assert_same({"scores": fused}, {"scores": plain})
    assert_same(gradients(fused, network), wanted)
    torch.testing.assert_close(score_batches(network, [batch]), plain.detach().cpu(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("multiprocessors", [1, 10_000], ids=["large tiles", "small tiles"])
def test_the_tiles_that_the_package_picks_are_right_too(
    multiprocessors: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if flash._kernels().attend is stand_in or device.type == "cuda":
        pytest.skip("only the interpreter has tiles of its own")
    from disentangled_flash.tuning import DeviceResources

    gpu = DeviceResources(shared_memory_per_block=166_912, multiprocessor_count=multiprocessors)
    monkeypatch.setattr(DeviceResources, "current", lambda device: gpu)
    chosen = replace(flash._kernels(), tiles=PACKAGE().tiles)
    monkeypatch.setattr(flash, "_kernels", lambda: chosen)
    attention, relative = random_attention({}, 70, device)
    pack, rows = packed([70, 1, 12], device)
    hidden = torch.randn(83, 64, device=device, requires_grad=True)
    wanted = loop(attention, hidden, pack, relative, False)
    got = in_one_call(attention, hidden, rows, relative, False)
    assert_same({"output": got}, {"output": wanted})
    assert_same(gradients(got, attention, hidden, relative.table), gradients(wanted, attention, hidden, relative.table))


def test_more_tokens_than_the_kernels_can_index_is_an_error(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention, relative = random_attention({}, 33, device)
    _, rows = packed([33], device)
    slots = flash.lay_slots(relative.order.cpu(), device)
    limit = (2**31 - 1) // (2 * max(len(slots.table_rows), slots.columns))
    flash._check_size(limit, 2, slots)
    with pytest.raises(BadInput, match=f"a batch has {limit + 1:,} tokens .* set max_tokens to at most {limit}"):
        flash._check_size(limit + 1, 2, slots)
    monkeypatch.setattr(flash, "_check_size", lambda *_: pytest.fail("checked"))
    with pytest.raises(pytest.fail.Exception, match="checked"):
        in_one_call(attention, torch.randn(33, 64, device=device), rows, relative, False)


@pytest.mark.parametrize(
    ("place", "head_width", "absent", "words"),
    [
        ("cpu", 64, [], "it runs on a GPU and the model is on cpu; use device='cuda' or kernels='torch'"),
        ("cuda", 64, ["disentangled_flash"], "disentangled_flash, which is not installed; pip install 'prefrank[gpu]'"),
        ("cuda", 64, ["triton"], "triton, which is not installed; it comes with torch's builds for CUDA"),
        ("cuda", 24, [], "it takes heads 32, 64 or 128 wide and the model's are 24; use kernels='torch'"),
        ("cuda:1", 64, [], None),
    ],
)
def test_what_stands_in_the_way_is_named(
    place: str, head_width: int, absent: list[str], words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash, "find_spec", lambda name: None if name in absent else object())
    reason = flash.obstacle(device=torch.device(place), head_width=head_width)
    assert (reason or "").endswith(words or "")
    assert (reason is None) == (words is None)


@pytest.mark.skipif(find_spec("disentangled_flash") is not None, reason="disentangled-flash is installed")
def test_a_missing_package_is_an_error_and_not_another_path() -> None:
    with pytest.raises(BadInput, match=r"needs disentangled-flash 1\.1\.1 .* pip install 'prefrank\[gpu\]'"):
        flash.lay_slots(torch.arange(3), CPU)


def test_slots_are_the_table_rows_that_distances_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "_kernels", lambda: flash.Kernels(stand_in, lambda s, d: (None, len(s)), lambda *_: {}))
    slots = flash.lay_slots(torch.tensor([3, 3, 3, 5, 7, 7, 7]), CPU)  # distances -3 to 3
    assert slots.by_distance.tolist() == [0, 0, 1, 2, 2]
    assert slots.table_rows.tolist() == [3, 5, 7, 7, 7, 7, 7, 7]  # a multiple of 8


def test_rows_know_their_lengths() -> None:
    rows = flash.lay_rows(np.array([0, 4, 5, 12]), CPU)
    assert (rows.firsts.tolist(), rows.starts.tolist(), rows.longest) == ([0, 4, 5], [0, 4, 5, 12], 7)
