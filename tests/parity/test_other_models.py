"""Other transformers models behind the packed call: transformers' own scores, whatever the batch."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
import torch
import transformers
from transformers.utils import logging

from prefrank.model import load_network, score_batches
from prefrank.model.families import FAMILIES
from prefrank.model.network import outer_name
from prefrank.model.other import OtherNetwork
from prefrank.model.quiet import quiet_transformers
from tests.parity.reference import CONFIGS, OTHERS, alone, batch_of, model_of, reference_scores, saved, scramble

LENGTHS = [2, 3, 3, 5, 9, 9, 17, 33]
NAMES = [name for name in OTHERS if name not in FAMILIES]
DECODERS = ["gemma", "gpt_neox", "gpt2"]


@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_those_of_transformers_for_each_row_alone(name: str, tmp_path: Path) -> None:
    reference = model_of(*OTHERS[name])
    network = load_network(saved(reference, tmp_path))
    assert isinstance(network, OtherNetwork)
    assert network.decoder == (name in DECODERS)
    batch = batch_of(LENGTHS, order=[3, 0, 7, 1, 2, 5, 4, 6])
    with torch.no_grad():
        theirs = torch.cat([reference_scores(reference, row).view(1) for row in alone(batch)])
        ours = network(batch)
        single = torch.cat([network(row) for row in alone(batch)])
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, single, atol=1e-5, rtol=0)


def test_gradients_reach_a_decoder(tmp_path: Path) -> None:
    reference = model_of(*OTHERS["gpt_neox"])
    network = load_network(saved(reference, tmp_path), dropout=0.0).train()
    batch = batch_of(LENGTHS)
    network(batch).sum().backward()
    torch.cat([reference_scores(reference, row) for row in alone(batch)]).sum().backward()
    ours = dict(network.named_parameters())
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(ours[f"model.{name}"].grad, parameter.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "modernbert cls", "albert"])
def test_a_saved_model_loads_in_transformers_with_the_same_scores(name: str, tmp_path: Path) -> None:
    from prefrank.model import save_network

    network = load_network(saved(model_of(*OTHERS[name]), tmp_path / "a"), dropout=0.3)
    (tmp_path / "b").mkdir()
    save_network(network, tmp_path / "b")
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "b", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.id2label == {0: "REWARD"}
    assert 0.3 not in model.config.to_dict().values(), "the dropout of one training run is not the model's"
    batch = batch_of(LENGTHS)
    with torch.no_grad():
        theirs = torch.cat([reference_scores(model, row).view(1) for row in alone(batch)])
    torch.testing.assert_close(score_batches(network, [batch]), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_neox", "modernbert cls"])
def test_a_new_head_goes_on_a_language_model(name: str, tmp_path: Path) -> None:
    kind, options = OTHERS[name]
    causal = name != "modernbert cls"
    config = model_of(kind, options, num_labels=2).config
    build = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMaskedLM
    language_model = build.from_config(config)
    scramble(language_model, 3)
    saved(language_model, tmp_path)
    with pytest.raises(ValueError, match="no reward head"):
        load_network(tmp_path)
    torch.manual_seed(5)
    network = load_network(tmp_path, new_head=True)
    torch.manual_seed(5)
    again = load_network(tmp_path, new_head=True)
    batch = batch_of(LENGTHS)
    scores = score_batches(network, [batch])
    assert torch.equal(scores, score_batches(again, [batch]))
    assert scores.std() > 0
    theirs = dict(language_model.named_parameters())
    inside = {name.removeprefix(outer_name(network)): parameter for name, parameter in network.named_parameters()}
    shared = {name: parameter for name, parameter in inside.items() if name in theirs}
    assert len(shared) >= len(inside) - 3, "all but the head"
    for name, parameter in shared.items():
        assert torch.equal(parameter, theirs[name]), name


@pytest.mark.parametrize("name", ["qwen2", "gpt_neox"])
def test_a_head_with_several_outputs_is_refused_or_replaced(name: str, tmp_path: Path) -> None:
    saved(model_of(*OTHERS[name], num_labels=3), tmp_path)
    with pytest.raises(ValueError, match="a classifier with 3 outputs"):
        load_network(tmp_path)
    assert load_network(tmp_path, new_head=True)(batch_of([4, 4])).shape == (2,)


def test_a_new_head_replaces_one_that_was_there(tmp_path: Path) -> None:
    reference = model_of(*OTHERS["gpt_neox"])
    state = load_network(saved(reference, tmp_path), new_head=True).state_dict()
    assert not torch.equal(state["model.score.weight"], reference.score.weight)
    norm = "gpt_neox.final_layer_norm.weight"
    assert torch.equal(state[f"model.{norm}"], reference.get_parameter(norm))


def test_checkpointed_layers_give_the_same_gradients(tmp_path: Path) -> None:
    folder = saved(model_of(*OTHERS["gpt_neox"]), tmp_path)
    plain, checkpointed = (load_network(folder).train() for _ in range(2))
    checkpointed.gradient_checkpointing = True
    assert checkpointed.gradient_checkpointing
    for network in (plain, checkpointed):
        network(batch_of(LENGTHS)).sum().backward()
    for ours, theirs in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_dropout_is_set_for_every_rate(tmp_path: Path) -> None:
    folder = saved(model_of(*OTHERS["gpt2"]), tmp_path)
    network = load_network(folder, dropout=0.25).train()
    rates = {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.25}
    batch = batch_of(LENGTHS)
    assert not torch.equal(network(batch), network(batch))


def test_a_model_transformers_does_not_know_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ValueError, match="transformers cannot load") as error:
        load_network(tmp_path)
    assert "\n" not in str(error.value)


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    config = transformers.T5Config(
        vocab_size=100, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4, num_labels=1, is_encoder_decoder=True
    )
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="encoder-decoder"):
        load_network(tmp_path)


def test_a_decoder_of_the_bert_family_is_not_run_as_an_encoder(tmp_path: Path) -> None:
    reference = model_of("Bert", CONFIGS["bert"][1] | {"is_decoder": True})
    network = load_network(saved(reference, tmp_path))
    batch = batch_of(LENGTHS)
    with torch.no_grad():
        theirs = torch.cat([reference_scores(reference, row) for row in alone(batch)])
    torch.testing.assert_close(score_batches(network, [batch]), theirs, atol=1e-5, rtol=0)


def test_what_transformers_says_is_as_before_when_the_last_of_several_threads_has_loaded() -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with ThreadPoolExecutor(2) as pool:
        first, second = Event(), Event()

        def enter(mine: Event, other: Event) -> int:
            with quiet_transformers():
                mine.set()
                assert other.wait(10)
                return logging.get_verbosity()

        levels = [pool.submit(enter, first, second), pool.submit(enter, second, first)]
        assert {level.result() for level in levels} == {logging.ERROR}
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
