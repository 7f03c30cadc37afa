import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prefrank import RewardModel
from prefrank.errors import BadText
from prefrank.text import TextEncoder, TextSettings, load_tokenizer
from prefrank.types import Prompt, Turn, as_prompt, as_turn
from tests.parity.reference import OTHERS, model_of, saved
from tests.text.folders import configure, folder_of, pair_folder, tokenizer_of
from tests.tiny import bert_folder, chat_folder

TYPED = ["input_ids", "token_type_ids", "attention_mask"]


def theirs_of(folder: Path, prompt: str, reply: str) -> dict[str, list[int]]:
    encoded = AutoTokenizer.from_pretrained(folder)(prompt, reply)
    ids = encoded["input_ids"]
    return {"ids": ids, "types": encoded.get("token_type_ids", [0] * len(ids))}


FAMILIES = [
    ("bert", "BertTokenizer", None), ("bert", "BertTokenizerFast", ["input_ids", "attention_mask"]),
    ("bert", "PreTrainedTokenizerFast", None), ("bert", "PreTrainedTokenizerFast", TYPED),
    ("bert", "ElectraTokenizer", None), ("bert", "DistilBertTokenizer", None), ("bert", None, None),
    ("roberta", "PreTrainedTokenizerFast", None), ("roberta", "PreTrainedTokenizerFast", TYPED),
    ("funnel", "PreTrainedTokenizerFast", TYPED), ("funnel", "PreTrainedTokenizerFast", None),
    ("xlnet", "PreTrainedTokenizerFast", TYPED), ("xlnet", "PreTrainedTokenizerFast", None),
]  # fmt: skip


@pytest.mark.parametrize(("family", "name", "names"), FAMILIES)
def test_a_pair_and_its_types_are_what_the_checkpoints_tokenizer_gives(
    family: str, name: str | None, names: list[str] | None, tmp_path: Path
) -> None:
    folder = configure(pair_folder(tmp_path / "plain", family), tokenizer_class=name, model_input_names=names)
    encoder = TextEncoder.load(folder, max_length=64)
    (row,) = encoder.encode(as_prompt("how do I bake"), ["mix flour"])
    assert {"ids": row.ids.tolist(), "types": row.types.tolist()} == theirs_of(folder, "how do I bake", "mix flour")
    (tmp_path / "saved").mkdir()
    encoder.save(tmp_path / "saved")
    (again,) = TextEncoder.load(tmp_path / "saved", encoder.settings).encode(as_prompt("how"), ["mix"])
    assert again.types.tolist() == theirs_of(tmp_path / "saved", "how", "mix")["types"]


def test_the_types_of_funnel_and_xlnet_are_their_own(tmp_path: Path) -> None:
    wanted = {"funnel": [2, 0, 0, 1, 1], "xlnet": [0, 0, 1, 1, 2]}
    for family, types in wanted.items():
        folder = configure(pair_folder(tmp_path / family, family), model_input_names=TYPED)
        (row,) = TextEncoder.load(folder).encode(as_prompt("bake"), ["mix"])
        assert row.types.tolist() == types


MODELS = {
    "xlnet": ("XLNet", OTHERS["xlnet"][1] | {"vocab_size": 200}),
    "albert": ("Albert", {"embedding_size": 16}),
    "funnel": ("Funnel", {"vocab_size": 200, "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 40,
                          "block_sizes": [1, 1], "num_decoder_layers": 1, "max_position_embeddings": 64}),
}  # fmt: skip


def their_score(folder: Path, prompt: str, reply: str) -> float:
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return model.eval()(**tokenizer(prompt, reply, return_tensors="pt")).logits.item()


@pytest.mark.parametrize("names", [TYPED, None])
@pytest.mark.parametrize("family", MODELS)
def test_models_read_through_transformers_get_the_types_of_their_tokenizer(
    family: str, names: list[str] | None, tmp_path: Path
) -> None:
    folder = pair_folder(tmp_path, "bert" if family == "albert" else family)
    configure(folder, tokenizer_class="PreTrainedTokenizerFast", model_input_names=names)
    saved(model_of(*MODELS[family]), folder)
    prompt, reply = "a b c d", "e f g"  # letters, whose ids the smallest vocabulary has
    (score,) = RewardModel.load(folder).score(prompt, [reply])
    assert score.value == pytest.approx(their_score(folder, prompt, reply), abs=1e-5)


def test_a_bert_whose_tokenizer_gives_no_types_is_scored_without_and_saved_so(tmp_path: Path) -> None:
    folder = configure(bert_folder(tmp_path / "plain"), tokenizer_class="PreTrainedTokenizerFast")
    RewardModel.load(folder).save(tmp_path / "ours")
    for each in (folder, tmp_path / "ours"):
        (score,) = RewardModel.load(each).score("how do I bake", ["mix flour"])
        assert score.value == pytest.approx(their_score(each, "how do I bake", "mix flour"), abs=1e-5)


def test_older_settings_keep_their_bytes_and_their_types(tmp_path: Path) -> None:
    folder = configure(bert_folder(tmp_path), tokenizer_class="PreTrainedTokenizerFast")
    old = {"template": "pair", "max_length": 64, "labels": False, "turn_strings": None}
    encoder = TextEncoder.load(folder, TextSettings.from_json(old))
    assert encoder.settings.to_json() == old
    assert json.dumps(old, sort_keys=True).encode() == encoder.fingerprint_bytes().split(b"\0")[1]
    (row,) = encoder.encode(as_prompt("bake"), ["mix"])
    assert row.types.tolist() == [0, 0, 0, 1, 1]
    (tmp_path / "again").mkdir()
    encoder.save(tmp_path / "again")
    assert theirs_of(tmp_path / "again", "bake", "mix")["types"] == row.types.tolist()


TALK = (Turn("system", "salt"), Turn("user", "flour " * 4), Turn("assistant", "water " * 4), Turn("user", "yeast " * 4))


@settings(deadline=None, max_examples=80)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    system=st.integers(0, 6),
    reply=st.integers(0, 10),
    limit=st.integers(8, 60),
    template=st.sampled_from(["pair", "turns"]),
)
def test_the_system_turn_is_cut_only_when_nothing_else_is_left_of_the_prompt(
    wordpiece: Path, sizes: list[int], system: int, reply: int, limit: int, template: str
) -> None:
    left = sizes[-1] or 0 < sum(sizes) <= limit  # of the prompt's own turns, whatever is left out
    assume(template == "pair" or system or reply or left)  # else the row may have no tokens
    strings = dict.fromkeys(("system", "user", "assistant"), ("", ""))
    says = Turn("system", "salt " * system)
    prompt: Prompt = (says, *(Turn("assistant" if n % 2 else "user", "flour " * size) for n, size in enumerate(sizes)))
    encoder = TextEncoder.load(wordpiece, TextSettings(template, limit, turn_strings=strings))
    (row,) = encoder.encode(prompt, ["hour " * reply])
    ids, numbers = row.ids.tolist(), encoder.source.tokenizer
    salt, flour, hour = (ids.count(numbers.token_to_id(word)) for word in ("salt", "flour", "hour"))
    assert len(ids) <= limit
    assert salt == system or flour == 0
    assert hour == reply or (salt, flour) == (0, 0)


def test_pairs_and_turns_refuse_what_they_cannot_hold(wordpiece: Path, chat: Path) -> None:
    call = as_turn({"role": "assistant", "tool_calls": [{"function": {"name": "oven", "arguments": "{}"}}]})
    pairs, turns = TextEncoder.load(wordpiece), TextEncoder.load(chat, TextSettings("turns", 99))
    for encoder in (pairs, turns):
        with pytest.raises(BadText, match=r"turn 0 of pair 1 holds tool_calls, which .*; write it into the text"):
            encoder.encode_pairs([(as_prompt("hi"), "x"), ((call, Turn("user", "hi")), "y")])
    with pytest.raises(BadText, match=r"turn 0 of pair 0 has the role tool, .* system, user, assistant only; give it"):
        turns.encode((Turn("tool", "230"), Turn("user", "hi")), ["x"])
    assert pairs.encode((Turn("tool", "salt"), Turn("user", "hi")), ["x"])[0].cut_prompt == 0


def ends_of(folder: Path) -> tuple[list[str], list[str]]:
    encoder = TextEncoder.load(folder, template="turns")
    (row,) = encoder.encode(as_prompt("hello there"), ["bake"])
    tokens = [encoder.source.tokenizer.id_to_token(number) for number in row.ids.tolist()]
    return tokens[:2], tokens[-1:]


def test_bos_and_eos_come_from_wherever_the_folder_says(tmp_path: Path) -> None:
    config = {"bos_token": None, "eos_token": None, "unk_token": None, "pad_token": None}
    tokenizer = tokenizer_of("byte-level")
    bos = tokenizer.token_to_id("<s>")
    folder = folder_of(tmp_path / "map", tokenizer, tokenizer_config=config)
    (folder / "special_tokens_map.json").write_text('{"bos_token": {"content": "<s>"}, "eos_token": "</s>"}')
    assert ends_of(folder) == (["U", "ser"], ["</s>"]), "a name alone asks for no BOS"
    configure(folder, add_bos_token=True)
    assert ends_of(folder) == (["<s>", "U"], ["</s>"])
    folder = folder_of(tmp_path / "config", tokenizer, tokenizer_config=config)
    configure(folder, bos_token=None, eos_token=None)
    eos = [tokenizer.token_to_id("</s>"), tokenizer.token_to_id("<|im_end|>")]
    (folder / "config.json").write_text(json.dumps({"bos_token_id": bos, "eos_token_id": eos}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos[1]}))
    assert ends_of(folder)[1] == ["</s>"]
    llama3 = Tokenizer.from_str(tokenizer.to_str())
    llama3.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", bos)]),
    ])  # fmt: skip
    folder = folder_of(tmp_path / "llama3", llama3)
    assert ends_of(folder)[0] == ["<s>", "U"]
    assert ends_of(configure(folder, add_bos_token=False))[0] == ["U", "ser"]
    old = TextEncoder.load(folder, TextSettings("turns", 99)).encode(as_prompt("hi"), ["bake"])[0]
    assert bos not in old.ids.tolist(), "as it was trained"


def test_a_template_that_writes_bos_gets_one(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("byte-level")
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    folder = folder_of(tmp_path, tokenizer, template=template, tokenizer_config={"add_bos_token": True})
    (row,) = TextEncoder.load(folder).encode(as_prompt("hi"), ["there"])
    assert row.ids.tolist().count(bos) == 1
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "there"}]
    assert row.ids.tolist() == AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, return_dict=False)


@pytest.mark.parametrize(
    ("said", "positions", "want"),
    [(None, None, 512), (1e30, None, 512), (8192, None, 4096), (None, 1024, 1024), (2048, 1024, 1024), (384, 512, 384),
     (1e30, 131072, 4096)],
)  # fmt: skip
def test_a_plain_checkpoint_is_read_as_far_as_it_says(
    tmp_path: Path, said: float | None, positions: int | None, want: int
) -> None:
    folder = configure(chat_folder(tmp_path), model_max_length=said)
    assert TextEncoder.load(folder, positions=positions).settings.max_length == want
    assert TextEncoder.load(folder, positions=positions, max_length=99).settings.max_length == 99


def test_no_row_has_more_types_than_tokens(wordpiece: Path) -> None:
    encoder = TextEncoder.load(wordpiece, TextSettings("pair", 12, token_types="tokenizer"))
    for row in encoder.encode(TALK, ["", "hour", "hour " * 40]):
        assert row.types.shape == row.ids.shape
        assert row.types.dtype == np.int8
        assert row.types.tolist() == sorted(row.types.tolist())
    assert load_tokenizer(wordpiece).gives_types
