import math
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, DebertaV2Config, DebertaV2ForSequenceClassification

from prefrank.model import load_network
from prefrank.text import TextEncoder, TextSettings, plan_batches
from prefrank.training.feed.examples import Examples, encode
from prefrank.training.loop.parts import plan_comparisons, plan_lockstep, rows_of
from prefrank.training.loop.step import Graphs, accumulate_gradient, backpropagate, saved_bytes
from prefrank.training.losses.likelihoods import BradleyTerry
from prefrank.training.losses.preference_loss import LossSettings, PreferenceLoss
from tests.parity.reference import model_of, saved
from tests.tiny import wordpiece_folder
from tests.training.conftest import make_comparisons

LOSS = PreferenceLoss(BradleyTerry(), LossSettings(score_l2=0.01, centering=0.01))
WHOLE = 10_000


def deberta_folder(folder: Path) -> Path:
    wordpiece_folder(folder)
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=128, num_labels=1, initializer_range=0.3, type_vocab_size=0, relative_attention=True,
        position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type="p2c|c2p",
        position_biased_input=False, conv_kernel_size=3, conv_act="gelu",
    )  # fmt: skip
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["bert", "deberta"])
def folder(request, bert, tmp_path_factory) -> Path:
    return bert if request.param == "bert" else deberta_folder(tmp_path_factory.mktemp("deberta"))


@pytest.fixture(scope="module")
def examples(bert) -> Examples:
    """Eight prompts with three ranked replies each."""
    encoder = TextEncoder.load(bert, TextSettings("pair", 64))
    return encode(make_comparisons(8, replies=3, words=12), encoder)[0]


def gradients(network: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return found


def assert_same(ours: dict[str, Tensor], reference: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Relative to the norm of each parameter's gradient, or to a hundredth of the largest.

    Some gradients are zero but for rounding: a bias of BERT's keys shifts every logit of a softmax alike.
    """
    assert ours.keys() == reference.keys()
    floor = 0.01 * max(gradient.norm() for gradient in reference.values())
    for name, gradient in reference.items():
        gap = (ours[name] - gradient).norm() / gradient.norm().clamp(min=floor)
        assert gap < tolerance, f"{name}: {gap:.1e}"


def padded_gradients(folder: Path, examples: Examples) -> dict[str, Tensor]:
    """What a plain transformers loop does: pad everything into one batch, one forward, one backward pass.

    Weights are in float64, scores in float32 as everywhere, so that what is left of a gap is not rounding.
    """
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    rows = rows_of(examples, range(len(examples)))
    longest = max(len(row.ids) for row in rows)
    ids, mask, types = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(3))
    for n, row in enumerate(rows):
        ids[n, : len(row.ids)] = torch.from_numpy(row.ids)
        mask[n, : len(row.ids)] = 1
        types[n, row.reply_start : len(row.ids)] = 1
    typed = {} if model.config.model_type == "mpnet" else {"token_type_ids": types}
    scores = model(input_ids=ids, attention_mask=mask, **typed).logits[:, 0].float()
    (LOSS(scores, examples.labels(range(len(examples)))) / len(examples)).backward()
    return gradients(model)


def our_gradients(
    folder: Path, examples: Examples, order: list[int], *, max_tokens: int, cached: bool, **options
) -> dict[str, Tensor]:
    network = load_network(folder, dropout=0.0, dtype=torch.float64).train()
    if options.pop("shared", False):
        options["sharing"] = network.sharing
    if cached:
        preferences = examples.labels(order)
        loss = lambda scores: LOSS(scores, preferences) / len(order)  # noqa: E731
        backpropagate(network, plan_batches(rows_of(examples, order), max_tokens=max_tokens), loss)
    else:
        accumulate_gradient(network, examples, order, LOSS, divide_by=len(order), max_tokens=max_tokens, **options)
    return gradients(network)


def test_cached_packed_sorted_and_plain_padded_gradients_agree(folder, examples):
    reference = padded_gradients(folder, examples)
    order, longest = list(range(len(examples))), max(map(examples.longest, range(len(examples))))
    ways = {
        "direct, one packed micro-batch": our_gradients(folder, examples, order, max_tokens=WHOLE, cached=False),
        "whole comparisons in many": our_gradients(folder, examples, order, max_tokens=200, cached=False),
        "each comparison cached": our_gradients(folder, examples, order, max_tokens=longest, cached=False),
        "each comparison cached, some graphs kept": our_gradients(
            folder, examples, order, max_tokens=20, cached=False, graphs=Graphs(10**6)
        ),
        "tables shared by all micro-batches": our_gradients(
            folder, examples, order, max_tokens=longest, cached=False, shared=True
        ),
        "cached over all, sorted": our_gradients(folder, examples, order, max_tokens=150, cached=True),
        "cached, every row alone": our_gradients(folder, examples, order[::-1], max_tokens=1, cached=True),
    }
    for name, found in ways.items():
        try:
            assert_same(found, reference)
        except AssertionError as error:
            pytest.fail(f"{name}: {error}")


def test_so_do_those_of_an_mpnet_whose_table_of_biases_every_micro_batch_reads(examples, tmp_path):
    folder = saved(model_of("MPNet", {"vocab_size": 200, "max_position_embeddings": 128}), tmp_path)
    reference, order = padded_gradients(folder, examples), list(range(len(examples)))
    assert_same(our_gradients(folder, examples, order, max_tokens=200, cached=False, shared=True), reference)
    assert_same(our_gradients(folder, examples, order, max_tokens=150, cached=True), reference)


def test_cached_and_direct_give_the_same_scores(bert, examples):
    network = load_network(bert, dropout=0.0).train()
    rows = rows_of(examples, [0, 1, 2])
    one, many = (backpropagate(network, plan_batches(rows, max_tokens=n), torch.sum) for n in (WHOLE, 1))
    assert torch.allclose(one, many, atol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_keeping_graphs_changes_no_bit_with_dropout_on_too(folder, examples, shared):
    """Scored twice from the same generator state, or once with every graph kept: the same scores and gradients."""
    network = load_network(folder, dropout=0.3).train()
    found = {}
    longest = plan_batches(rows_of(examples, [0]), max_tokens=20)[-1]
    for room in (0, 2 * saved_bytes(network.parameters(), lambda: network(longest))[1], 10**9):
        torch.manual_seed(1)
        graphs = Graphs(room, network.parameters())
        sums = [
            accumulate_gradient(
                network, examples, range(len(examples)), LOSS, divide_by=2, max_tokens=20, graphs=graphs,
                sharing=network.sharing if shared else None,
            )
            for _ in range(2)
        ]  # fmt: skip
        kept = graphs.num_kept(network, plan_batches(rows_of(examples, [0]), max_tokens=20))
        found[room] = kept, sums, torch.get_rng_state(), gradients(network)
    assert [kept for kept, *_ in found.values()] == [1, 2, 3]
    for _, sums, state, ours in found.values():
        assert sums == found[0][1]
        assert torch.equal(state, found[0][2])
        assert ours.keys() == found[0][3].keys()
        assert all(torch.equal(ours[name], found[0][3][name]) for name in ours)


def test_sharing_tables_keeps_the_gradient_of_frozen_parts_away(folder, examples):
    network = load_network(folder, dropout=0.0).train()
    words = next(p for name, p in network.named_parameters() if "word_embeddings" in name)
    words.requires_grad_(False)
    accumulate_gradient(network, examples, [0], LOSS, divide_by=1, max_tokens=20, sharing=network.sharing)
    assert words.grad is None
    assert network.get_parameter(f"{network.output_layer}.weight").grad is not None


def test_the_bytes_autograd_keeps_are_counted_once_and_parameters_not_at_all():
    weight, x = torch.ones(4, 4, requires_grad=True), torch.ones(8, 4)

    def run() -> Tensor:
        y = x @ weight  # keeps x and the weight
        return (y * y).sum() + y.exp().sum()  # keeps y twice, and exp(y)

    answer, count = saved_bytes([weight], run)
    assert count == 3 * 8 * 4 * 4
    assert answer.grad_fn is not None


def test_processes_in_lockstep_make_the_same_number_of_passes(bert, examples):
    """Whoever has fewer parts or micro-batches repeats a spare row, which adds nothing to the gradient."""
    shares = [[0, 1, 2, 3, 4], [5], []]
    lockstep = plan_lockstep(examples, shares, max_tokens=40)
    passes, found = [], []
    for share in shares:
        network = load_network(bert, dropout=0.0).train()
        made: list[bool] = []

        def forward(batch, network=network, made=made):
            made.append(torch.is_grad_enabled())
            return network(batch)

        accumulate_gradient(forward, examples, share, LOSS, divide_by=6, max_tokens=40, lockstep=lockstep)
        passes.append(made)
        found.append(gradients(network))
    assert passes[0] == passes[1] == passes[2]
    assert {True, False} == set(passes[0])
    network = load_network(bert, dropout=0.0).train()
    accumulate_gradient(network, examples, range(6), LOSS, divide_by=6, max_tokens=WHOLE)
    together = {name: sum(one[name] for one in found) for name in found[0]}
    assert_same(together, gradients(network))


def test_dropout_is_on_in_the_direct_pass_too(bert, examples):
    network = load_network(bert, dropout=0.3).train()
    batches = plan_batches(rows_of(examples, [0]), max_tokens=WHOLE)
    one, other = (backpropagate(network, batches, torch.sum) for _ in range(2))
    assert not torch.equal(one, other)


def peak_saved(run) -> int:
    """The most tensors that autograd kept at one time."""
    alive, peak = set(), 0

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    def pack(tensor: Tensor) -> Kept:
        nonlocal peak
        kept = Kept(tensor)
        alive.add(id(kept))
        weakref.finalize(kept, alive.discard, id(kept))
        peak = max(peak, len(alive))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        run()
    return peak


@pytest.mark.parametrize("cached", [True, False])
def test_no_more_than_one_micro_batchs_graph_lives_at_a_time(bert, examples, cached):
    network = load_network(bert, dropout=0.0).train()
    rows = rows_of(examples, range(len(examples)))
    budget = max(map(examples.tokens, range(len(examples))))
    batches = plan_batches(rows, max_tokens=budget)
    alone = [peak_saved(lambda batch=batch: network(batch).sum().backward()) for batch in batches]

    def step() -> None:
        if cached:
            backpropagate(network, batches, torch.sum)
        else:
            loss = lambda scores, preferences: scores.sum()  # noqa: E731
            accumulate_gradient(network, examples, range(len(examples)), loss, divide_by=1, max_tokens=budget)

    assert len(batches) > 3
    assert peak_saved(step) <= max(alone) + 8  # the loss keeps a few tensors of its own
    graphs: list[Tensor] = []
    assert peak_saved(lambda: graphs.extend(network(batch).sum() for batch in batches)) > 2 * max(alone)


def test_sums_count_preferences_tokens_and_right_answers(bert, examples):
    network = load_network(bert, dropout=0.0).train()
    sums = accumulate_gradient(network, examples, [0, 3], LOSS, divide_by=2, max_tokens=100)
    preferences = examples.labels([0, 3])
    scores = torch.cat([network(batch) for batch in plan_batches(rows_of(examples, [0, 3]), max_tokens=1)])
    order = [n for batch in plan_batches(rows_of(examples, [0, 3]), max_tokens=1) for n in batch.rows]
    scores = scores[torch.argsort(torch.tensor(order))]
    assert sums.preferences == 6
    assert sums.tokens == examples.tokens(0) + examples.tokens(3)
    assert sums.loss == pytest.approx(LOSS(scores, preferences).item(), rel=1e-5)
    assert sums.correct == (scores[preferences.winner] > scores[preferences.loser]).sum()


def test_accumulating_ragged_parts_equals_one_batch(bert, examples):
    """Sums divided once by the global count: no mean of means."""
    network = load_network(bert, dropout=0.0).train()
    accumulate_gradient(network, examples, [0, 1, 2, 3, 4], LOSS, divide_by=5, max_tokens=WHOLE)
    whole = gradients(network)
    for part in ([0], [1, 2, 3], [4]):
        accumulate_gradient(network, examples, part, LOSS, divide_by=5, max_tokens=WHOLE)
    assert_same(gradients(network), whole)


@pytest.mark.parametrize("max_tokens", [1, WHOLE])
def test_a_score_that_is_not_finite_names_its_comparison_and_leaves_no_gradient(bert, examples, max_tokens):
    network = load_network(bert, dropout=0.0).train()

    def broken(batch):
        scores = network(batch)
        return scores * torch.where(torch.from_numpy(batch.ids == bad).any(), math.nan, 1.0)

    bad = int(rows_of(examples, [2])[0].ids[4])  # a digit of the question's number
    sums = accumulate_gradient(broken, examples, [2], LOSS, divide_by=1, max_tokens=max_tokens)
    assert sums.not_finite == ("made/2",)
    assert all(p.grad is None for p in network.parameters())


def test_no_comparisons_give_no_gradient(bert, examples):
    network = load_network(bert)
    assert accumulate_gradient(network, examples, [], LOSS, divide_by=1, max_tokens=10).tokens == 0


@settings(deadline=None, max_examples=30)
@given(data=st.data(), budget=st.integers(1, 600))
def test_every_chosen_comparison_is_planned_once_and_within_budget(examples, data, budget):
    chosen = data.draw(st.lists(st.integers(0, len(examples) - 1), unique=True))
    parts = plan_comparisons(examples, chosen, max_tokens=budget)
    assert sorted(c for part in parts for c in part) == sorted(chosen)
    assert all(len(part) == 1 or sum(map(examples.tokens, part)) <= budget for part in parts)
