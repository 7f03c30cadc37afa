"""Which token of a decoder's row is scored: transformers' rule for plain checkpoints; folders of ours agree with it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prefrank import RewardModel
from prefrank.model import Network, load_network, save_network, score_batches
from prefrank.model.network import as_decoder
from prefrank.model.save import write_checkpoint
from prefrank.model.segments import scored_places
from prefrank.scoring import checkpoint_info
from prefrank.text import TextEncoder
from prefrank.types import Batch, Row, as_prompt
from tests.parity.reference import OTHERS, alone, batch_of, model_of, reference_scores, saved
from tests.tiny import chat_folder

LENGTHS = [2, 3, 3, 5, 9, 9, 17, 33]
DECODERS = ["llama", "qwen2", "qwen3", "gpt_neox", "gpt2"]
REPLIES = ["mix flour", "no", "", "mix flour water salt and yeast; the dough needs an hour to rise"]


def ending_in(batch: Batch, token: int) -> Batch:
    batch.ids[batch.starts[1:] - 1] = token
    return batch


@pytest.mark.parametrize("name", DECODERS)
def test_a_plain_checkpoint_whose_padding_ends_texts_scores_as_in_transformers(name: str, tmp_path: Path) -> None:
    reference = model_of(*OTHERS[name], pad_token_id=7, eos_token_id=7)
    network = load_network(saved(reference, tmp_path))
    batch = ending_in(batch_of(LENGTHS, order=[3, 0, 7, 1, 2, 5, 4, 6]), 7)
    batch.ids[batch.starts[1] : batch.starts[2]] = 7  # nothing but padding
    with torch.no_grad():
        wanted = torch.cat([reference_scores(reference, row).view(1) for row in alone(batch)])
        torch.testing.assert_close(network(batch), wanted, atol=1e-5, rtol=0)
        single = torch.cat([network(row) for row in alone(batch)])
        torch.testing.assert_close(single, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", DECODERS)
def test_without_a_padding_id_the_last_token_is_scored(name: str, tmp_path: Path) -> None:
    reference = model_of(*OTHERS[name], pad_token_id=None, eos_token_id=7)
    network = load_network(saved(reference, tmp_path))
    batch = ending_in(batch_of(LENGTHS), 7)
    with torch.no_grad():
        wanted = torch.cat([reference_scores(reference, row).view(1) for row in alone(batch)])
        torch.testing.assert_close(network(batch), wanted, atol=1e-5, rtol=0)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5), st.integers(0, 3))
def test_the_scored_place_is_transformers_rightmost_token_that_is_not_padding(rows: list[list[int]], pad: int) -> None:
    starts = np.cumsum([0, *map(len, rows)])
    zeros = np.zeros(len(rows), np.int64)
    ids = np.concatenate(rows)
    batch = Batch(ids=ids, types=np.zeros(len(ids), np.int8), rows=zeros, starts=starts)
    wanted = [(torch.arange(len(row)) * (torch.tensor(row) != pad)).argmax().item() for row in rows]
    assert scored_places(batch, pad).tolist() == wanted
    assert scored_places(batch, None).tolist() == [len(row) - 1 for row in rows]


# What a folder's tokenizer and model have beside <|start|> and <|end|>, which the template uses and <|end|> is padding:
# further special tokens, the tokenizer's padding, spare rows of embeddings, and the token that is chosen.
FOLDERS: dict[str, tuple[tuple[str, ...], str | None, int, str]] = {
    "its own padding": (("<|pad|>", "<|other|>"), "<|pad|>", 0, "<|pad|>"),
    "its own padding, whatever its name": (("<|reserved|>", "<|other|>"), "<|other|>", 0, "<|other|>"),
    "an unused special token": (("<|other|>", "<|reserved_3|>"), "<|end|>", 0, "<|reserved_3|>"),
    "any unused special token": (("<|other|>",), None, 0, "<|other|>"),
    "a new token in a spare row": ((), "<|end|>", 3, "<pad>"),
    "a new token, one row more": ((), "<|end|>", 0, "<pad>"),
    "no padding at all": ((), None, 0, "<pad>"),
}


def decoder(folder: Path, name: str, case: str, *, template: bool = True, **options: Any) -> Path:
    """A plain decoder checkpoint with the padding of its config as its tokenizer has it."""
    extra, pad, spare, _ = FOLDERS[case]
    chat_folder(folder, **({} if template else {"template": None}), extra=extra)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": pad, "padding_side": "left"}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|end|>", "pad_token": pad}))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    kind, size = OTHERS[name]
    size = size | {"vocab_size": len(tokenizer) + spare, "max_position_embeddings": 128} | options
    ids = {"pad_token_id": pad and tokenizer.convert_tokens_to_ids(pad), "eos_token_id": tokenizer.eos_token_id}
    return saved(model_of(kind, size, **ids), folder)


def in_transformers(folder: Path, rows: list[Row]) -> Tensor:
    """What AutoTokenizer and AutoModelForSequenceClassification make of rows, in one padded batch."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert max(tokenizer.pad_token_id, tokenizer.vocab_size - 1) < model.get_input_embeddings().num_embeddings
    batch = tokenizer.pad({"input_ids": [row.ids.tolist() for row in rows]}, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits[:, 0]


def trained(folder: Path, template: str | None = None) -> tuple[Network, TextEncoder]:
    """As training starts: a new head."""
    network = load_network(folder, new_head=True)
    output: Any = network.get_submodule(network.output_layer)
    with torch.no_grad():
        output.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return network, TextEncoder.load(folder, max_length=128, template=template)


def own_scores(network: Network, text: TextEncoder, rows: list[Row]) -> Tensor:
    from prefrank.text import plan_batches

    return score_batches(network, plan_batches(rows, max_tokens=64))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("case", FOLDERS)
@pytest.mark.parametrize("name", DECODERS)
def test_a_folder_of_ours_scores_alike_in_padded_batches_of_transformers(
    name: str, case: str, tied: bool, tmp_path: Path
) -> None:
    network, text = trained(decoder(tmp_path / "plain", name, case, tie_word_embeddings=tied))
    decoder_of = as_decoder(network)
    assert decoder_of is not None
    assert decoder_of.scored_padding is None
    folder = tmp_path / "ours"
    folder.mkdir()
    fingerprint = write_checkpoint(folder, network, text, None)
    rows = text.encode(as_prompt("how do I bake bread"), REPLIES)
    ours = own_scores(network, text, rows)
    assert ours.std() > 1e-3
    torch.testing.assert_close(in_transformers(folder, rows), ours, atol=1e-5, rtol=0)

    again = RewardModel.load(folder)
    values = [score.value for score in again.score("how do I bake bread", REPLIES)]
    torch.testing.assert_close(torch.tensor(values), ours, atol=1e-5, rtol=0)
    assert again.fingerprint == fingerprint
    assert checkpoint_info(str(folder))["as_saved"]
    assert [tuple(p.shape) for p in again.network.parameters()] == [tuple(p.shape) for p in network.parameters()]

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token == FOLDERS[case][3]
    assert tokenizer.padding_side == "right"
    assert not any(tokenizer.pad_token_id in row.ids for row in rows)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        assert json.loads((folder / file).read_text())["pad_token"] == tokenizer.pad_token


@pytest.mark.parametrize("case", FOLDERS)
def test_turns_without_a_chat_template_are_padded_safely_too(case: str, tmp_path: Path) -> None:
    network, text = trained(decoder(tmp_path / "plain", "llama", case, template=False), "turns")
    assert text.settings.template == "turns"
    folder = tmp_path / "ours"
    folder.mkdir()
    write_checkpoint(folder, network, text, None)
    rows = text.encode(as_prompt("how do I bake bread"), REPLIES)
    torch.testing.assert_close(in_transformers(folder, rows), own_scores(network, text, rows), atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", FOLDERS)
def test_a_plain_checkpoint_saved_by_us_keeps_its_scores_in_both(case: str, tmp_path: Path) -> None:
    """Padding that ends texts stays what it is: the score was read before it, and still is."""
    model = RewardModel.load(decoder(tmp_path / "plain", "llama", case))
    rows = model.encoder.encode(as_prompt("how do I bake bread"), REPLIES)
    ours = own_scores(model.network, model.encoder, rows)
    folder = model.save(tmp_path / "ours")
    torch.testing.assert_close(in_transformers(folder, rows), ours, atol=1e-5, rtol=0)
    again = RewardModel.load(folder)
    torch.testing.assert_close(own_scores(again.network, again.encoder, rows), ours, atol=1e-5, rtol=0)
    assert RewardModel.load(again.save(tmp_path / "twice")).fingerprint == again.fingerprint


def test_a_folder_saved_before_this_rule_is_scored_at_the_last_token(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "plain", "llama", "a new token, one row more")
    network, text = trained(folder)
    rows = text.encode(as_prompt("how do I bake bread"), REPLIES)
    wanted = own_scores(network, text, rows)
    save_network(network, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": config["eos_token_id"]}))
    record = {"prefrank": "0.1", "format": 1, "text": text.text_json(), "fingerprint": "", "training": None}
    (folder / "prefrank.json").write_text(json.dumps(record))
    torch.testing.assert_close(own_scores(load_network(folder), text, rows), wanted, atol=1e-5, rtol=0)


def test_weights_saved_alone_keep_the_last_token(tmp_path: Path) -> None:
    network, text = trained(decoder(tmp_path / "plain", "llama", "a new token, one row more"))
    (tmp_path / "alone").mkdir()
    save_network(network, tmp_path / "alone")
    rows = text.encode(as_prompt("how do I bake bread"), REPLIES)
    again = own_scores(load_network(tmp_path / "alone"), text, rows)
    torch.testing.assert_close(again, own_scores(network, text, rows), atol=1e-5, rtol=0)


def test_a_config_and_a_tokenizer_that_name_two_paddings_agree_when_saved(tmp_path: Path) -> None:
    plain = decoder(tmp_path / "plain", "llama", "any unused special token")
    other = AutoTokenizer.from_pretrained(plain).convert_tokens_to_ids("<|other|>")
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps(config | {"pad_token_id": other}))
    model = RewardModel.load(plain)
    rows = model.encoder.encode(as_prompt("how do I bake bread"), REPLIES)
    folder = model.save(tmp_path / "ours")
    ours = own_scores(model.network, model.encoder, rows)
    torch.testing.assert_close(in_transformers(folder, rows), ours, atol=1e-5, rtol=0)


def test_info_says_which_token_is_scored(tmp_path: Path) -> None:
    plain = decoder(tmp_path / "plain", "llama", "a new token, one row more")
    end = AutoTokenizer.from_pretrained(plain).eos_token_id
    assert checkpoint_info(str(plain))["scored_token"] == f"the rightmost that is not padding ({end}, <|end|>)"
    network, text = trained(plain)
    (tmp_path / "ours").mkdir()
    write_checkpoint(tmp_path / "ours", network, text, None)
    assert checkpoint_info(str(tmp_path / "ours"))["scored_token"] == "the last"
