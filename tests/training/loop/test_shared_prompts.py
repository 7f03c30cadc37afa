"""Steps of a network that reads from left to right: rows share what they begin with, and the gradient is that of rows
that do not, however the step is split.
"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from prefrank.model import load_network
from prefrank.text import TextEncoder, plan_batches
from prefrank.training.feed.examples import Examples, encode
from prefrank.training.loop.extent import Extent, extent_apart, extent_of
from prefrank.training.loop.parts import plan_comparisons, plan_lockstep, rows_of
from prefrank.training.loop.step import Graphs, StepSums, accumulate_gradient, saved_bytes
from prefrank.types import Causal, Comparison
from tests.text.test_sharing import row
from tests.tiny import decoder_folder
from tests.training.conftest import make_comparisons
from tests.training.loop.test_step import LOSS, WHOLE, assert_same, gradients

ALL = range(8)
SMALL, MIDDLE = 40, 150
"""Budgets in which the replies to a prompt are in several micro-batches, and in which some comparisons are in one."""


def with_few_prompts(comparisons: tuple[Comparison, ...]) -> tuple[Comparison, ...]:
    """Comparisons 0, 3, 6 ask the same, as do 1, 4, 7 and 2, 5."""
    return tuple(replace(one, prompt=comparisons[n % 3].prompt) for n, one in enumerate(comparisons))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def examples(folder: Path) -> Examples:
    """Eight comparisons of three replies to three prompts."""
    encoder = TextEncoder.load(folder, max_length=128)
    return encode(with_few_prompts(make_comparisons(8, replies=3, words=12)), encoder)[0]


def network_of(folder: Path, dtype: torch.dtype = torch.float64) -> nn.Module:
    network = load_network(folder, dtype=dtype).train()
    assert isinstance(network, nn.Module)
    return network


def padded_gradients(folder: Path, examples: Examples) -> dict[str, Tensor]:
    """What a plain loop around transformers gives: every row padded and whole."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    rows = rows_of(examples, ALL)
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), model.config.pad_token_id)
    mask = torch.zeros_like(ids)
    for n, one in enumerate(rows):
        ids[n, : len(one.ids)], mask[n, : len(one.ids)] = torch.from_numpy(one.ids), 1
    scores = model(input_ids=ids, attention_mask=mask).logits[:, 0].float()
    (LOSS(scores, examples.labels(list(ALL))) / len(ALL)).backward()
    return gradients(model)


def shared_gradients(folder: Path, examples: Examples, max_tokens: int, **options) -> dict[str, Tensor]:
    network = network_of(folder)
    options = {"causal": network.causal, "sharing": network.sharing} | options
    accumulate_gradient(network, examples, ALL, LOSS, divide_by=len(ALL), max_tokens=max_tokens, **options)
    return gradients(network)


def test_the_gradient_is_that_of_padded_rows_however_the_step_is_split(folder, examples):
    reference = padded_gradients(folder, examples)
    ways = {
        "every row alone in one batch": shared_gradients(folder, examples, WHOLE, causal=None),
        "all shared in one batch": shared_gradients(folder, examples, WHOLE),
        "some comparisons in each part": shared_gradients(folder, examples, MIDDLE),
        "prompts repeated in micro-batches": shared_gradients(folder, examples, SMALL),
        "with graphs kept": shared_gradients(folder, examples, SMALL, graphs=Graphs(10**9, (), Causal())),
        "every row alone, one by one": shared_gradients(folder, examples, 1),
    }
    for name, found in ways.items():
        try:
            assert_same(found, reference, 1e-6)
        except AssertionError as error:
            pytest.fail(f"{name}: {error}")


def test_prompts_are_repeated_where_their_replies_are_in_several_micro_batches(folder, examples):
    """So that the test above holds what it says."""
    causal = network_of(folder).causal
    (part, *_) = plan_comparisons(examples, [0], max_tokens=SMALL, causal=causal)
    batches = plan_batches(rows_of(examples, part), max_tokens=SMALL, causal=causal)
    prompt = examples.rows(0)[0].ids[: examples.rows(0)[0].reply_start]
    assert len(batches) == 3
    assert all(batch.ids[: len(prompt)].tolist() == prompt.tolist() for batch in batches)


def test_sums_count_whole_rows_and_what_was_computed(folder, examples):
    network = network_of(folder)
    step = [
        accumulate_gradient(network, examples, ALL, LOSS, divide_by=8, max_tokens=budget, causal=network.causal)
        for budget in (WHOLE, SMALL, 1)
    ]
    assert [sums.tokens for sums in step] == [sum(map(examples.tokens, ALL))] * 3
    distinct = sum(len(b.ids) for b in plan_batches(rows_of(examples, ALL), max_tokens=WHOLE, causal=network.causal))
    cut = len(rows_of(examples, ALL))  # the end of every row, which is padding
    assert step[0].computed == distinct < step[1].computed < step[2].computed == step[2].tokens - cut
    assert (StepSums(computed=3) + StepSums(computed=4)).computed == 7


def test_keeping_graphs_of_shared_prompts_changes_no_bit(folder, examples):
    found = {}
    for room in (0, 10**9):
        network = network_of(folder, torch.float32)
        graphs = Graphs(room, network.parameters(), network.causal)
        sums = accumulate_gradient(
            network, examples, ALL, LOSS, divide_by=8, max_tokens=SMALL, causal=network.causal, graphs=graphs
        )
        batches = plan_batches(rows_of(examples, [0]), max_tokens=SMALL, causal=network.causal)
        found[room] = graphs.num_kept(network, batches), sums, gradients(network)
    (one, before, ours), (all_of_them, after, theirs) = found.values()
    assert (one, all_of_them) == (1, 3)
    assert before == after
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_graphs_take_is_forecast_at_least_from_one_that_was_measured(folder, examples):
    """Keys that shared prompts are read for count, though they add no token."""
    network = network_of(folder, torch.float32)
    causal = network.causal
    batches = [
        plan_batches(rows_of(examples, chosen), max_tokens=WHOLE, causal=causal)[0] for chosen in ([0], [0, 3, 6], ALL)
    ]
    sizes = [saved_bytes(network.parameters(), lambda batch=batch: network(batch))[1] for batch in batches]
    extents = [extent_of(batch, causal) for batch in batches]
    assert all(
        size <= 1.02 * extent.kept_over(extents[0]) * sizes[0] for size, extent in zip(sizes, extents, strict=True)
    )


def test_processes_in_lockstep_make_the_same_passes_over_shared_prompts(folder, examples):
    budget = 50
    shares = [[0, 1, 2, 3, 4], [5], []]
    causal = network_of(folder).causal
    lockstep = plan_lockstep(examples, shares, max_tokens=budget, causal=causal)
    parts = plan_comparisons(examples, shares[0], max_tokens=budget, causal=causal)
    shared, alone = (
        tuple(len(plan_batches(rows_of(examples, part), max_tokens=budget, causal=one)) for part in parts)
        for one in (causal, None)
    )
    assert lockstep.plans[0] == shared != alone
    passes, found = [], []
    for share in shares:
        network = network_of(folder)
        made: list[bool] = []

        def forward(batch, network=network, made=made):
            made.append(torch.is_grad_enabled())
            return network(batch)

        accumulate_gradient(
            forward, examples, share, LOSS, divide_by=6, max_tokens=budget, causal=causal, lockstep=lockstep
        )
        passes.append(made)
        found.append(gradients(network))
    assert passes[0] == passes[1] == passes[2]
    network = network_of(folder)
    accumulate_gradient(network, examples, range(6), LOSS, divide_by=6, max_tokens=WHOLE)
    assert_same({name: sum(one[name] for one in found) for name in found[0]}, gradients(network), 1e-6)


@settings(deadline=None, max_examples=40)
@given(
    data=st.data(),
    budget=st.integers(1, 700),
    causal=st.builds(
        Causal, padding=st.none() | st.integers(256, 260), fixed_until=st.none() | st.integers(5, 60),
        by_length=st.booleans(),
    ),
)  # fmt: skip
def test_a_part_of_several_comparisons_is_one_micro_batch(examples, data, budget, causal):
    chosen = data.draw(st.lists(st.integers(0, len(examples) - 1), unique=True))
    parts = plan_comparisons(examples, chosen, max_tokens=budget, causal=causal)
    assert sorted(c for part in parts for c in part) == sorted(chosen)
    plans = [plan_batches(rows_of(examples, part), max_tokens=budget, causal=causal) for part in parts]
    assert all(len(part) == 1 or len(plan) == 1 for part, plan in zip(parts, plans, strict=True))


def test_parts_are_as_full_as_they_may_be(folder):
    encoder = TextEncoder.load(folder, max_length=128)
    apart = encode(make_comparisons(30, replies=2, words=12), encoder)[0]
    parts = plan_comparisons(apart, range(30), max_tokens=300, causal=Causal())
    assert len(parts) > 4
    for part, after in pairwise(parts):
        assert len(plan_batches(rows_of(apart, part), max_tokens=300, causal=Causal())) == 1
        assert len(plan_batches(rows_of(apart, [*part, after[0]]), max_tokens=300, causal=Causal())) > 1


def test_comparisons_of_one_prompt_are_in_one_part_and_shorter_ones_come_first(examples):
    budget = 2 * MIDDLE
    parts, again = (plan_comparisons(examples, order, max_tokens=budget, causal=Causal()) for order in (ALL, ALL[::-1]))
    assert len(parts) > 1
    assert [set(part) for part in parts] == [set(part) for part in again]
    prompts = [{c % 3 for c in part} for part in parts]
    assert sum(map(len, prompts)) == 3
    longest = [max(map(examples.longest, part)) for part in parts]
    assert longest == sorted(longest)


def test_an_extent_counts_tokens_keys_and_pairs():
    prompt, replies = list(range(10)), [[20, 21], [30, 31, 32]]
    rows = [row([*prompt, *prompt, *reply]) for reply in replies]
    (batch,) = plan_batches(rows, max_tokens=100, causal=Causal())
    pairs = 20 * 21 // 2 + (2 * 20 + 3) + (3 * 20 + 6)
    assert extent_of(batch, Causal()) == Extent(25, 20 + 22 + 23, pairs)
    lengths = np.array([3, 5])
    assert extent_apart(lengths, None) == Extent(8, 8, 34)
    assert extent_apart(lengths, Causal()) == Extent(8, 8, 6 + 15)
    assert Extent(1, 2, 3) + Extent(4, 5, 6) == Extent(5, 7, 9)
