"""LoRA: what is trained, what is saved, and that every way to load it gives the same scores."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from prefrank import RewardModel
from prefrank.cli import main
from prefrank.errors import BadInput, BadModel, BadRecipe, Interrupted, NotFound
from prefrank.model import head_parameter_names, load_network, score_batches
from prefrank.model.adapter import merged
from prefrank.scoring import checkpoint_info, merge_adapter
from prefrank.text import TextEncoder
from prefrank.training import make_recipe, train
from prefrank.training.loop.lora import add_adapters, check_trained, find_targets, save_adapter
from prefrank.training.loop.optim import freeze, parameter_groups
from prefrank.training.records.events import Event, StepDone
from prefrank.training.records.run_checkpoints import save_checkpoint
from prefrank.training.start import load_model
from tests.parity.reference import CONFIGS, OTHERS, alone, batch_of, model_of, reference_scores, saved
from tests.tiny import bert_folder, chat_folder, decoder_folder

BATCH = batch_of([2, 5, 5, 17, 31])
PEFT_WARNS = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft 0.21 of itself
CPU = torch.device("cpu")
LORA = {"lora_rank": 4, "learning_rate": 1e-2, "dropout": 0.0}
TEXTS = [("how do I bake bread", "good flour water"), ("what is salt", "no idea")]


def adapted(recipe, folder: Path, **changes):
    """A network with adapters that change its scores."""
    network = load_network(folder, dropout=0.0)
    freeze(network, wanted := recipe(**LORA | changes))
    torch.manual_seed(0)
    add_adapters(network, wanted)
    shake(network)
    return network


@torch.no_grad()
def shake(network) -> None:
    """Give B, which starts from 0, numbers that change the scores."""
    for name, parameter in network.named_parameters():
        if ".lora_B." in name:
            parameter.normal_(0.0, 0.3)


def scores_of(folder: Path) -> list[float]:
    return [score.value for score in RewardModel.load(folder).score_pairs(TEXTS)]


@pytest.mark.parametrize(
    "kind",
    ["bert", "roberta", "electra", "mpnet", "deberta v2 xxlarge", "deberta own position projections", "llama",
     "modernbert cls", "distilbert", "gpt2"],
)  # fmt: skip
def test_adapters_and_head_are_trained_and_nothing_else(kind, recipe, tmp_path):
    network = adapted(recipe, saved(model_of(*(CONFIGS | OTHERS)[kind]), tmp_path))
    head = set(head_parameter_names(network))
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert f"{network.output_layer}.weight" in head
    assert head < trained
    assert all(name in head or ".lora_" in name for name in trained)
    network.train()(BATCH).square().sum().backward()
    for name, parameter in network.named_parameters():
        has_gradient = parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        assert has_gradient == (name in trained), name
    in_groups = {id(p) for group in parameter_groups(network, recipe(**LORA)) for p in group["params"]}
    assert in_groups == {id(parameter) for parameter in network.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("kind", ["bert", "mpnet", "deberta-v2", "llama", "gpt2"])
def test_merging_changes_no_score_and_leaves_no_trace(kind, recipe, tmp_path):
    folder = saved(model_of(*(CONFIGS | OTHERS)[kind]), tmp_path)
    network, plain = adapted(recipe, folder), load_network(folder)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    scores = score_batches(network, [BATCH])
    assert (scores - score_batches(plain, [BATCH])).abs().max() > 0.01, "the adapters do nothing"
    with merged(network):
        assert network.state_dict().keys() == plain.state_dict().keys()
        torch.testing.assert_close(score_batches(network, [BATCH]), scores, atol=1e-5, rtol=0)
    after = dict(network.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_auto_targets_are_attention_and_feed_forward(bert, recipe):
    network = load_network(bert)
    names = {name.partition("layer.0.")[2] for name in find_targets(network, recipe(**LORA)) if "layer.0." in name}
    assert names == {
        *(f"attention.self.{part}" for part in ("query", "key", "value")),
        *("attention.output.dense", "intermediate.dense", "output.dense"),
    }
    assert len(find_targets(network, recipe(**LORA))) == 12


def test_targets_are_endings_of_names(bert, recipe):
    found = find_targets(load_network(bert), recipe(lora_targets=["query", "output.dense"], **LORA))
    assert len(found) == 6
    assert all(name.endswith(("query", "output.dense")) for name in found)


def test_frozen_layers_get_no_adapters(bert, recipe):
    network = load_network(bert)
    wanted = recipe(freeze_layers=1, **LORA)
    freeze(network, wanted)
    assert all(".layer.1." in name for name in find_targets(network, wanted))
    freeze(network, recipe(freeze_layers=2))
    with pytest.raises(BadRecipe, match=r"finds no linear layer .* all of them are frozen; lower freeze_layers"):
        find_targets(network, wanted)


def test_a_missing_target_is_named_with_those_there_are(recipe):
    with pytest.raises(BadRecipe, match=r"lora_targets names 'q_proj', which .*; there are query, key, value, dense$"):
        train(recipe(lora_targets="q_proj", **LORA))


def test_settings_of_adapters_without_a_rank_are_refused(recipe):
    with pytest.raises(BadRecipe, match="lora_alpha is set, but lora_rank is 0"):
        train(recipe(lora_alpha=32))


def test_an_untrained_head_is_refused(bert, recipe):
    """As peft leaves BERT's classifier under `LoraConfig(modules_to_save=["score"])`, which fits decoders alone."""
    network = adapted(recipe, bert)
    network.get_submodule(network.output_layer).requires_grad_(False)
    with pytest.raises(BadRecipe, match=r"the head of .* \(classifier\) would stay untrained"):
        check_trained(network, recipe(**LORA))


def test_dropout_of_adapters_follows_torchs_generator(bert, recipe):
    network = adapted(recipe, bert, lora_dropout=0.5).train()
    torch.manual_seed(1)
    first = network(BATCH)
    assert not torch.equal(network(BATCH), first)
    torch.manual_seed(1)
    assert torch.equal(network(BATCH), first)


def test_checkpointed_layers_give_adapters_the_same_gradients(recipe, tmp_path):
    folder = saved(model_of(*OTHERS["llama"]), tmp_path)
    plain, checkpointed = (adapted(recipe, folder).train() for _ in range(2))
    checkpointed.gradient_checkpointing = True
    for network in (plain, checkpointed):
        network(BATCH).sum().backward()
    for ours, theirs in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        if ours.requires_grad:
            torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_run_learns_the_marked_reply_with_adapters_and_head(recipe, bert, pairs):
    trained = train(recipe(num_train_epochs=6, new_head=True, **LORA))
    assert trained.metrics[f"{pairs}:validation"].accuracy == 1.0
    start, end = (load_file(folder / "model.safetensors") for folder in (bert, trained.last))
    changed = {name for name in end if not torch.equal(start[name], end[name])}
    targets = find_targets(load_network(bert), recipe(**LORA))
    head = {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert changed == {f"{name}.weight" for name in targets} | head


@pytest.fixture(scope="module")
def run(tmp_path_factory, bert, pairs):
    """The folder of a finished LoRA run."""
    folder = tmp_path_factory.mktemp("lora")
    values = {"model_name": str(bert), "datasets": [str(pairs)], "output_dir": str(folder), "max_length": 64}
    values |= {"per_device_train_batch_size": 4, "trackers": "none", "new_head": True, "eval_steps": 3}
    train(make_recipe(values | LORA))
    return folder


def test_a_checkpoint_is_a_plain_folder_with_the_adapter_beside(run):
    for name in ("best", "last"):
        folder = run / name
        plain, from_adapter = scores_of(folder), scores_of(folder / "adapter")
        assert from_adapter == plain
        size = sum(path.stat().st_size for path in (folder / "adapter").glob("*.safetensors"))
        assert size < (folder / "model.safetensors").stat().st_size
        assert RewardModel.load(folder).fingerprint == RewardModel.load(folder / "adapter").fingerprint
    info = checkpoint_info(str(run / "last" / "adapter"))
    assert info["kind"].startswith("LoRA adapter of ")
    assert info["as_saved"]


def gpt2_folder(folder: Path) -> Path:
    """A random GPT-2 reward model, whose layers of attention and feed-forward are no `nn.Linear`."""
    chat_folder(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=420, n_positions=96, n_embd=32, n_layer=2, n_head=4, num_labels=1, pad_token_id=0, eos_token_id=1,
        bos_token_id=1, initializer_range=0.2, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    transformers.GPT2ForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_auto_targets_of_gpt2_are_its_own_kind_of_linear_layers(recipe, tmp_path):
    network = load_network(gpt2_folder(tmp_path))
    found = {name.partition("h.1.")[2] for name in find_targets(network, recipe(**LORA)) if "h.1." in name}
    assert found == {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
    assert len(find_targets(network, recipe(lora_targets=["c_attn"], **LORA))) == 2


@PEFT_WARNS
def test_gpt2_trains_with_adapters_and_every_way_to_load_it_agrees(recipe, tmp_path):
    base = gpt2_folder(tmp_path / "base")
    last = train(recipe(model_name=str(base), num_train_epochs=1, **LORA)).last
    assert json.loads((last / "adapter" / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    assert scores_of(last / "adapter") == pytest.approx(scores_of(last), abs=1e-6)
    assert scores_of(last) != pytest.approx(scores_of(base), abs=0.01)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(base)
    model = PeftModel.from_pretrained(plain, str(last / "adapter")).eval()
    with torch.no_grad():
        theirs = torch.cat([reference_scores(model, row).view(1) for row in alone(BATCH)])
    ours = score_batches(load_network(last / "adapter"), [BATCH])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@PEFT_WARNS
def test_peft_loads_the_adapter_over_transformers_base_with_the_same_scores(run, bert):
    base = transformers.AutoModelForSequenceClassification.from_pretrained(bert, attn_implementation="eager")
    model = PeftModel.from_pretrained(base, str(run / "last" / "adapter")).eval()
    with torch.no_grad():
        theirs = torch.cat([reference_scores(model, row).view(1) for row in alone(BATCH)])
    ours = score_batches(load_network(run / "last" / "adapter"), [BATCH])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, score_batches(load_network(run / "last"), [BATCH]), atol=1e-6, rtol=0)
    plain = score_batches(load_network(bert), [BATCH])
    assert (ours - plain).abs().max() > 0.01


def test_merging_an_adapter_writes_a_plain_folder(run, tmp_path):
    target = merge_adapter(run / "last" / "adapter", tmp_path / "merged")
    wanted, found = (load_file(folder / "model.safetensors") for folder in (run / "last", target))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert scores_of(target) == scores_of(run / "last")
    assert transformers.AutoModelForSequenceClassification.from_pretrained(target).config.num_labels == 1
    with pytest.raises(BadInput, match="is not an adapter"):
        merge_adapter(target, tmp_path / "again")


def test_the_command_merges(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prefrank", "merge", str(run / "last" / "adapter"), str(tmp_path / "merged")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert scores_of(tmp_path / "merged") == scores_of(run / "last")


def test_a_model_may_be_saved_over_a_checkpoint_with_an_adapter(run, tmp_path):
    folder = shutil.copytree(run / "best", tmp_path / "copy")
    RewardModel.load(folder).save(folder)
    assert not (folder / "adapter").exists()


def test_an_adapter_names_its_base_by_a_path_that_holds_anywhere(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = recipe(model_name=str(bert_folder(Path("base"))), **LORA)
    network, text = load_model(wanted, Path("base"), device=CPU), TextEncoder.load(Path("base"), max_length=64)
    save_adapter(Path("adapter"), network, text, {"recipe": wanted.model_dump(mode="json")}, fingerprint="")
    monkeypatch.chdir("/")
    assert load_network(tmp_path / "adapter").heads == ("REWARD",)


def test_an_adapter_without_its_base_says_so(run, tmp_path):
    folder = shutil.copytree(run / "last" / "adapter", tmp_path / "moved")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "./gone"}))
    with pytest.raises(NotFound, match=r"changes the model '\./gone', which is missing .*base_model_name_or_path"):
        RewardModel.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "has use_dora, which is not read here; merge it with peft first"),
        ({"peft_type": "IA3"}, "is of the kind 'IA3'"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path is null; wanted a string"),
    ],
)
def test_other_kinds_of_adapters_are_refused(change, message, run, tmp_path):
    folder = shutil.copytree(run / "last" / "adapter", tmp_path / "other")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadModel, match=message):
        load_network(folder)


def test_a_torn_adapter_and_one_of_another_base_are_refused(run, tmp_path):
    folder = shutil.copytree(run / "last" / "adapter", tmp_path / "torn")
    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in tensors if name.endswith("query.lora_B.weight"))
    save_file(tensors | {name: torch.zeros(40, 4)}, folder / "adapter_model.safetensors")
    with pytest.raises(BadModel, match=r"the tensor .*query is \[40, 32\], in its base .* \[32, 32\]"):
        load_network(folder)
    del tensors[name]
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(BadModel, match=r"lacks .*query.lora_B.weight"):
        load_network(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(BadModel, match="cannot be read"):
        load_network(folder)


@PEFT_WARNS
@pytest.mark.parametrize("headed", [True, False])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # peft's, which sets it right
@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "gpt2"])
def test_adapters_that_peft_made_load_here(kind, headed, tmp_path):
    """With a head of their own, and without one, over a base that has it."""
    base = model_of(*(CONFIGS | OTHERS)[kind], num_labels=1)
    folder = saved(base, tmp_path / "base")
    target = "all-linear" if headed else [{"llama": "q_proj", "gpt2": "c_proj"}.get(kind, "query")]
    config = LoraConfig(
        task_type="SEQ_CLS" if headed else None, r=3, lora_alpha=5, use_rslora=not headed, target_modules=target
    )
    model = get_peft_model(base, config)
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(0.0, 0.2)
        theirs = torch.cat([reference_scores(model.eval(), row).view(1) for row in alone(BATCH)])
    model.peft_config["default"].base_model_name_or_path = str(folder)
    model.save_pretrained(str(tmp_path / "adapter"))
    network = load_network(tmp_path / "adapter")
    torch.testing.assert_close(score_batches(network, [BATCH]), theirs, atol=1e-5, rtol=0)


def test_an_adapter_without_a_head_over_a_base_without_one_is_refused(run, tmp_path):
    """As one whose trainer forgot the head."""
    model_of(*CONFIGS["bert"]).bert.save_pretrained(tmp_path / "base")
    folder = shutil.copytree(run / "last" / "adapter", tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    factors = {name: tensor for name, tensor in tensors.items() if ".lora_" in name}
    save_file(factors, folder / "adapter_model.safetensors")
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": str(tmp_path / "base")}
    path.write_text(json.dumps(config))
    with pytest.raises(BadModel, match="no reward head"):
        load_network(folder)


def test_an_adapter_scores_in_integers_as_its_merged_folder_does(run):
    ours, theirs = (
        [score.value for score in RewardModel.load(run / folder, precision="int16").score_pairs(TEXTS)]
        for folder in ("last/adapter", "last")
    )
    assert ours == theirs


def test_training_goes_on_from_an_adapter(run, recipe, pairs):
    trained = train(recipe(model_name=str(run / "last" / "adapter")))
    assert trained.last.is_dir()
    assert not (trained.last / "adapter").exists()
    network = load_model(recipe(model_name=str(run / "last")), run / "last", device=CPU)
    again = load_model(recipe(model_name="x"), run / "last" / "adapter", device=CPU)
    assert torch.equal(score_batches(network, [BATCH]), score_batches(again, [BATCH]))
    fresh = load_model(recipe(model_name="x", new_head=True), run / "last" / "adapter", device=CPU)
    assert not torch.equal(score_batches(network, [BATCH]), score_batches(fresh, [BATCH]))


@PEFT_WARNS
@pytest.mark.parametrize("make", [bert_folder, decoder_folder])
def test_adapters_of_several_heads_keep_them_here_and_in_peft(make, recipe, tmp_path):
    base = make(tmp_path / "base")
    wanted = recipe(model_name=str(base), heads=["overall", "accuracy"], **LORA)
    network = load_model(wanted, base, device=CPU)
    shake(network)
    record, text = {"recipe": wanted.model_dump(mode="json"), "step": 1}, TextEncoder.load(base, max_length=64)
    save_checkpoint(tmp_path / "two", network, text, record, state=None, previous=None)
    scores = score_batches(network, [BATCH])
    for folder in (tmp_path / "two", tmp_path / "two" / "adapter"):
        again = load_network(folder)
        assert again.heads == ("overall", "accuracy")
        torch.testing.assert_close(score_batches(again, [BATCH]), scores, atol=1e-5, rtol=0)
        assert RewardModel.load(folder, head="accuracy").network.heads == ("accuracy",)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=2, ignore_mismatched_sizes=True, attn_implementation="eager"
    )
    model = PeftModel.from_pretrained(model, str(tmp_path / "two" / "adapter")).eval()
    with torch.no_grad():
        theirs = torch.cat([reference_scores(model, row).view(1, 2) for row in alone(BATCH)])
    torch.testing.assert_close(scores, theirs, atol=1e-5, rtol=0)


def test_a_resumed_lora_run_gives_the_bits_of_one_that_was_not_stopped(recipe, tmp_path):
    """With an average, so that the saved adapter is not the one that is trained, and dropout in it."""
    keys = LORA | {"new_head": True, "num_train_epochs": 2, "dropout": 0.2, "ema_decay": 0.5, "lora_dropout": 0.3}

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    whole = train(recipe(output_dir=str(tmp_path / "whole"), **keys))
    with pytest.raises(Interrupted):
        train(recipe(output_dir=str(tmp_path / "cut"), **keys), callback=stop)
    resumed = train(recipe(output_dir=str(tmp_path / "cut"), resume=True, **keys))
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        ours, theirs = load_file(resumed.last / name), load_file(whole.last / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_model_with_new_heads_needs_the_recipes_word(bert, recipe, tmp_path):
    folder = bert_folder(tmp_path, num_labels=3)
    with pytest.raises(BadRecipe, match=r"heads are overall, accuracy, but .* has LABEL_0, LABEL_1, LABEL_2; name"):
        load_model(recipe(heads=["overall", "accuracy"], new_head=False), folder, device=CPU)
    network = load_model(recipe(heads=["overall", "accuracy"]), folder, device=CPU)
    assert network.heads == ("overall", "accuracy")
    some = load_model(recipe(heads=["LABEL_2", "LABEL_0"], new_head=False), folder, device=CPU)
    assert some.heads == ("LABEL_2", "LABEL_0")
    assert load_model(recipe(heads=["accuracy"]), bert, device=CPU).heads == ("REWARD",), "one head is one head"
