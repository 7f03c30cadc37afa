"""A folder's own code runs only where it is asked for, and is never passed over for a plain class of the same names."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from prefrank.errors import BadModel
from prefrank.model import load_network, save_network, score_batches
from prefrank.model.checkpoint import load_for_scoring, load_quantised
from prefrank.model.custom_code import CLASSIFIER, custom_class
from prefrank.scoring import checkpoint_info
from prefrank.text import TextEncoder
from tests.parity.reference import CONFIGS, OTHERS, batch_of, model_of, saved
from tests.tiny import wordpiece_folder

BATCH = batch_of([2, 5, 5, 9])
NEGATED = """
from functools import wraps
from pathlib import Path
from transformers import {base}

Path({mark!r}).touch()


class Negated({base}):
    @wraps({base}.forward)
    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = -output.logits
        return output
"""
OWN_TYPE = """
from pathlib import Path
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

Path({mark!r}).touch()


class OwnConfig(PretrainedConfig):
    model_type = "own_reward"

    def __init__(self, vocab_size=100, hidden_size=16, **kwargs):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        super().__init__(**kwargs)


class OwnReward(PreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.v_head = nn.Linear(config.hidden_size, 1, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        return SequenceClassifierOutputWithPast(logits=self.v_head(self.words(input_ids).mean(1)))
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers copies code that is trusted to its cache: here to one of the test's own."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def negated(folder: Path, kind: str) -> Path:
    model = model_of(*(CONFIGS | OTHERS)[kind])
    saved(model, folder)
    change(folder, auto_map={CLASSIFIER: "modeling_own.Negated"})
    code = NEGATED.format(base=type(model).__name__, mark=str(folder / "ran"))
    (folder / "modeling_own.py").write_text(code)
    return folder


def own_type(folder: Path) -> Path:
    """As InternLM2's reward models: a type of its own, and a head of its own."""
    folder.mkdir()
    (folder / "modeling_own.py").write_text(OWN_TYPE.format(mark=str(folder / "ran")))
    names = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnReward"}
    config = {"model_type": "own_reward", "architectures": ["OwnReward"], "vocab_size": 100, "hidden_size": 16}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": names}))
    generator = torch.Generator().manual_seed(1)
    shapes = {"words.weight": (100, 16), "v_head.weight": (1, 16)}
    torch.save({name: torch.randn(s, generator=generator) for name, s in shapes.items()}, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "llama", "distilbert"])
def test_code_of_a_folder_is_neither_run_nor_passed_over(kind: str, tmp_path: Path) -> None:
    folder = negated(tmp_path / "own", kind)
    for load in (
        load_network,
        lambda folder: load_network(folder, new_head=True),
        lambda folder: load_for_scoring(folder, precision="bfloat16"),
        lambda folder: load_quantised(folder, "int16"),
        lambda folder: checkpoint_info(str(folder)),
    ):
        with pytest.raises(
            BadModel, match=r"code of its own \(auto_map names Negated in modeling_own.py\).*trust"
        ) as e:
            load(folder)
        assert "\n" not in str(e.value)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_trusted_code_scores_by_its_own_class(kind: str, tmp_path: Path) -> None:
    plain = load_network(saved(model_of(*(CONFIGS | OTHERS)[kind]), tmp_path / "plain"))
    network = load_network(negated(tmp_path / "own", kind), trust_remote_code=True)
    torch.testing.assert_close(score_batches(network, [BATCH]), -score_batches(plain, [BATCH]), atol=1e-5, rtol=0)
    assert (tmp_path / "own" / "ran").exists()
    assert type(network.model).__name__ == "Negated"  # type: ignore[attr-defined]


@pytest.mark.parametrize("typed", [True, False])
def test_a_tokenizer_of_its_own_is_not_run_and_asks_nobody(typed: bool, tmp_path: Path) -> None:
    folder = wordpiece_folder(tmp_path / "own")
    names = {"auto_map": {"AutoTokenizer": ["tokenization_own.Own", "tokenization_own.Own"]}, "tokenizer_class": "Own"}
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | names))
    if typed:
        (folder / "config.json").write_text(json.dumps({"model_type": "own_reward"}))
    code = "from pathlib import Path\nfrom transformers import BertTokenizer as Own\n"
    code += f"Path({str(folder / 'ran')!r}).touch()"
    (folder / "tokenization_own.py").write_text(code)
    assert TextEncoder.load(folder).settings.template == "pair"
    assert not (folder / "ran").exists()


def test_a_type_of_its_own_asks_nobody(tmp_path: Path) -> None:
    folder = own_type(tmp_path / "own")
    with pytest.raises(BadModel, match=r"holds a OwnReward.*auto_map names OwnReward in modeling_own.py"):
        checkpoint_info(str(wordpiece_folder(folder)))
    assert not (folder / "ran").exists()


def test_a_trusted_type_of_its_own_is_loaded_by_automodel(tmp_path: Path) -> None:
    folder = own_type(tmp_path / "own")
    network = load_for_scoring(folder, precision=None, trust_remote_code=True)
    tensors = torch.load(folder / "pytorch_model.bin")
    rows = [BATCH.ids[a:b] for a, b in zip(BATCH.starts[:-1], BATCH.starts[1:], strict=True)]
    wanted = torch.stack([tensors["words.weight"][row].mean(0) @ tensors["v_head.weight"][0] for row in rows])
    torch.testing.assert_close(score_batches(network, [BATCH]), wanted, atol=1e-5, rtol=0)
    with pytest.raises(BadModel, match="cannot be quantized"):
        load_quantised(folder, "int16", trust_remote_code=True)
    (tmp_path / "again").mkdir()
    save_network(network, tmp_path / "again")
    with pytest.raises(BadModel, match="code of its own"):
        load_network(tmp_path / "again")
    again = load_network(tmp_path / "again", trust_remote_code=True)
    torch.testing.assert_close(score_batches(again, [BATCH]), wanted, atol=1e-5, rtol=0)


def test_an_adapter_does_not_run_its_bases_code(tmp_path: Path) -> None:
    base = negated(tmp_path / "own", "llama")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 1, "lora_alpha": 1}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    import safetensors.torch

    tensors = {"base_model.model.score.weight": torch.ones(1, 32)}
    safetensors.torch.save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(BadModel, match="code of its own"):
        load_network(adapter)
    assert not (base / "ran").exists()


@pytest.mark.parametrize(
    ("config", "entry"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, None),
        ({"model_type": "llama", "auto_map": {}}, None),
        ({"model_type": "llama", "auto_map": {CLASSIFIER: "m.Own"}}, CLASSIFIER),
        ({"model_type": "llama", "auto_map": {CLASSIFIER: "owner/name--m.Own"}}, CLASSIFIER),
        # another class's code, which would not score
        (
            {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"],
             "auto_map": {"AutoConfig": "c.OwnConfig", "AutoModelForCausalLM": "m.OwnLM"}},
            None,
        ),
        # the class that the weights were made by
        ({"model_type": "mistral", "architectures": ["Own"], "auto_map": {"AutoModel": "m.Own"}}, "AutoModel"),
        ({"model_type": "bert", "architectures": ["OwnLM"], "auto_map": {"AutoModelFor": "m.OwnLM"}}, CLASSIFIER),
        # types that transformers does not know
        ({"model_type": "own", "auto_map": {"AutoConfig": "c.OwnConfig"}}, CLASSIFIER),
        ({"model_type": "own", "auto_map": {"AutoConfig": "c.C", "AutoModel": "m.Own"}}, "AutoModel"),
    ],
)  # fmt: skip
def test_the_class_that_would_score_is_told_from_others(config: dict[str, Any], entry: str | None) -> None:
    assert custom_class(config) == entry
