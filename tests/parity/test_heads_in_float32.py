"""Heads and pooling are float32 on every path: the same score as a float64 head on the backbone's own hidden states."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prefrank.model import head_modules, load_network, make_engine
from prefrank.model.engine import run
from prefrank.model.network import outer_name
from tests.parity.reference import CONFIGS, OTHERS, alone, batch_of, model_of, saved

LENGTHS = [3, 5, 5, 9, 17, 31]
BATCH = batch_of(LENGTHS)
Head = Callable[[Any, Tensor], Tensor]
# The heads of transformers' classes, from the hidden state that they are given
HEADS: dict[str, Head] = {
    "bert": lambda m, x: m.classifier(torch.tanh(m.bert.pooler.dense(x))),
    "roberta": lambda m, x: m.classifier.out_proj(torch.tanh(m.classifier.dense(x))),
    "mpnet": lambda m, x: m.classifier.out_proj(torch.tanh(m.classifier.dense(x))),
    "electra": lambda m, x: m.classifier.out_proj(F.gelu(m.classifier.dense(x))),
    "deberta-v2": lambda m, x: m.classifier(F.gelu(m.pooler.dense(x))),
    "llama": lambda m, x: m.score(x),
    "gemma": lambda m, x: m.score(x),
    "gpt2": lambda m, x: m.score(x),
    "gpt_neox": lambda m, x: m.score(x),
    "modernbert cls": lambda m, x: m.classifier(m.head(x)),
    "distilbert": lambda m, x: m.classifier(F.relu(m.pre_classifier(x))),
    "albert": lambda m, x: m.classifier(torch.tanh(m.albert.pooler(x))),
    "xlnet": lambda m, x: m.logits_proj(torch.tanh(m.sequence_summary.summary(x[:, -1]))),
}
NATIVE = ["bert", "roberta", "electra", "deberta-v2"]
LARGE = 20.0
"""What heads are multiplied with, so that a score has the size at which bfloat16 is coarse."""


def model(name: str) -> nn.Module:
    made = model_of(*(CONFIGS | OTHERS)[name])
    with torch.no_grad():
        for key, parameter in made.named_parameters():
            if key.endswith(("classifier.weight", "out_proj.weight", "score.weight", "logits_proj.weight")):
                parameter.mul_(LARGE)
    return made


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    yield seen
    hook.remove()


def wanted(reference: nn.Module, name: str, seen: list[Tensor]) -> Tensor:
    """Scores by a float64 head, of the hidden states that our head was given."""
    with torch.no_grad():
        return torch.cat([HEADS[name](reference, states.double()).view(-1) for states in seen]).float()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [name for name in HEADS if name != "xlnet"])  # transformers: float32 only
def test_in_half_precision(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    reference = model(name)
    network: Any = load_network(saved(reference, tmp_path), dtype=dtype)
    with torch.no_grad(), inputs_of(network.get_submodule(head_modules(network)[0])) as seen:
        scores = network(BATCH)
    assert next(iter(network.parameters())).dtype == dtype
    theirs = wanted(reference.double(), name, seen)
    torch.testing.assert_close(scores, theirs, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(theirs.to(dtype).float(), theirs, atol=1e-5, rtol=1e-5), "a head in half precision"
    assert {key.removeprefix(outer_name(network)) for key in network.state_dict()} == set(reference.state_dict())


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", HEADS)
def test_under_autocast(name: str, train: bool, tmp_path: Path) -> None:
    reference = model(name)
    network: Any = load_network(saved(reference, tmp_path), dropout=0.0).train(train)
    with torch.autocast("cpu", torch.bfloat16), inputs_of(network.get_submodule(head_modules(network)[0])) as seen:
        scores = network(BATCH)
    torch.testing.assert_close(scores, wanted(reference.double(), name, seen), atol=1e-5, rtol=1e-5)
    scores.sum().backward()
    gradient = network.get_parameter(f"{network.output_layer}.weight").grad
    assert gradient.dtype == torch.float32
    if name not in ("albert", "xlnet"):  # the last layer's own input, whose sum is the gradient
        assert not torch.equal(gradient, gradient.bfloat16().float())


def test_pooling_by_the_mean_is_in_float32(tmp_path: Path) -> None:
    reference = model("modernbert mean")
    network: Any = load_network(saved(reference, tmp_path), dtype=torch.bfloat16)
    states: list[Tensor] = []
    network.model.base_model.register_forward_hook(lambda *args: states.append(args[-1].last_hidden_state))
    reference.double()
    for row in alone(BATCH):
        with torch.no_grad():
            score = network(row)
            mean = states.pop().double().mean(1)
            theirs = reference.classifier(reference.head(mean)).view(1).float()
        torch.testing.assert_close(score, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NATIVE)
def test_in_torchs_engine(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    reference = model(name)
    network: Any = load_network(saved(reference, tmp_path), dtype=dtype)
    with inputs_of(network.get_submodule(head_modules(network)[0])) as seen:
        scores = make_engine(network, kernels="torch")(BATCH)
    assert seen[0].dtype == dtype
    torch.testing.assert_close(scores, wanted(reference.double(), name, seen), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_heads_of_adapters_are_float32_too(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = model("llama")
    saved(base, tmp_path / "base")
    targets = ["q_proj", "v_proj"]
    base.name_or_path = str(tmp_path / "base")
    config = LoraConfig(task_type="SEQ_CLS", target_modules=targets)
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    network: Any = load_network(tmp_path / "adapter", dtype=torch.bfloat16)
    assert network.score.weight.dtype == torch.float32
    assert network.model.norm.weight.dtype == torch.bfloat16
    with torch.no_grad(), inputs_of(network.score) as seen:
        scores = network(BATCH)
        theirs = (seen[0].double() @ network.score.weight.double().mT).view(-1).float()
    torch.testing.assert_close(scores, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_network_that_is_narrowed_whole_still_multiplies_in_float32(name: str, tmp_path: Path) -> None:
    network: Any = load_network(saved(model(name), tmp_path)).bfloat16()
    with torch.no_grad():
        assert not torch.equal(network(BATCH), network(BATCH).bfloat16().float())
    scores = run(make_engine(network), [BATCH])
    assert not torch.equal(scores, scores.bfloat16().float())
