"""Adapters of decoders: the scored token and the text settings they are used with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prefrank import RewardModel
from prefrank.errors import BadModel
from prefrank.model import load_network, score_batches
from prefrank.model.network import as_decoder
from prefrank.model.save import write_checkpoint
from prefrank.scoring import merge_adapter
from prefrank.text import TextEncoder
from prefrank.types import as_prompt
from tests.parity.reference import alone, batch_of, reference_scores
from tests.parity.test_scored_token import REPLIES, decoder, in_transformers, own_scores, trained

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
CASE = "a new token, one row more"


def adapter(base: Path, folder: Path, *, headed: bool = True) -> nn.Module:
    """As peft saves one, without a record of ours."""
    model = AutoModelForSequenceClassification.from_pretrained(base)
    config = LoraConfig(task_type="SEQ_CLS" if headed else None, r=2, target_modules=["q_proj"])
    made = get_peft_model(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(0.0, 0.3)
    made.save_pretrained(str(folder))
    return made.eval()


@pytest.mark.parametrize("headed", [True, False])
def test_of_a_plain_base_it_scores_as_in_peft(headed: bool, tmp_path: Path) -> None:
    base = decoder(tmp_path / "base", "llama", CASE)
    model = adapter(base, tmp_path / "adapter", headed=headed)
    batch = batch_of([3, 5, 5, 9])
    batch.ids[batch.starts[1:] - 1] = AutoTokenizer.from_pretrained(base).eos_token_id
    with torch.no_grad():
        wanted = torch.cat([reference_scores(model, row).view(1) for row in alone(batch)])
    ours = score_batches(load_network(tmp_path / "adapter"), [batch])
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("headed", [True, False])
def test_of_a_base_of_ours_it_scores_the_last_token_with_its_text_settings(headed: bool, tmp_path: Path) -> None:
    network, text = trained(decoder(tmp_path / "plain", "llama", CASE))
    text = TextEncoder(text.source, replace(text.settings, max_length=77))
    (tmp_path / "base").mkdir()
    write_checkpoint(tmp_path / "base", network, text, None)
    model = adapter(tmp_path / "base", tmp_path / "adapter", headed=headed)
    adapted = load_network(tmp_path / "adapter")
    rows = text.encode(as_prompt("how do I bake bread"), REPLIES)
    ours = own_scores(adapted, text, rows)
    with torch.no_grad():
        wanted = torch.cat([model(torch.tensor(row.ids)[None]).logits.view(1) for row in rows])
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)
    merged = merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    torch.testing.assert_close(in_transformers(merged, rows), wanted, atol=1e-5, rtol=1e-5)
    again = RewardModel.load(merged)
    assert again.encoder.settings.max_length == 77
    values = [score.value for score in again.score("how do I bake bread", REPLIES)]
    torch.testing.assert_close(torch.tensor(values), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("scored", "padding"), [(None, False), ("last", False), ("not padding", True)])
def test_a_record_of_ours_decides(scored: str | None, padding: bool, tmp_path: Path) -> None:
    base = decoder(tmp_path / "base", "llama", CASE)
    adapter(base, tmp_path / "adapter")
    record = {"format": 1, "text": {}, "fingerprint": "", "training": None, "heads": ["REWARD"]}
    record |= {"scored_token": scored} if scored else {}
    (tmp_path / "adapter" / "prefrank.json").write_text(json.dumps(record))
    network = as_decoder(load_network(tmp_path / "adapter"))
    assert network is not None
    end = AutoTokenizer.from_pretrained(base).eos_token_id
    assert network.scored_padding == (end if padding else None)


def test_a_torn_record_beside_an_adapter_is_one_line(tmp_path: Path) -> None:
    adapter(decoder(tmp_path / "base", "llama", CASE), tmp_path / "adapter")
    (tmp_path / "adapter" / "prefrank.json").write_text('{"format": 1, "te')
    with pytest.raises(BadModel, match=r"prefrank.json cannot be read as JSON") as error:
        load_network(tmp_path / "adapter")
    assert "\n" not in str(error.value)


def test_peft_reads_an_adapter_over_a_base_of_ours(tmp_path: Path) -> None:
    """The base has the padding token's embedding in its file, which an adapter never touches."""
    network, text = trained(decoder(tmp_path / "plain", "llama", CASE))
    (tmp_path / "base").mkdir()
    write_checkpoint(tmp_path / "base", network, text, None)
    adapter(tmp_path / "base", tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    model = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    rows = text.encode(as_prompt("how do I bake bread"), REPLIES)
    batch = tokenizer.pad({"input_ids": [row.ids.tolist() for row in rows]}, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**batch).logits[:, 0]
    torch.testing.assert_close(own_scores(load_network(tmp_path / "adapter"), text, rows), theirs, atol=1e-5, rtol=0)
