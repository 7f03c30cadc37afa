"""Tokenizer files that are broken or hostile: one line that names the file, or the right tokens."""

import base64
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers

from prefrank.errors import BadModel, BadText, PrefrankError
from prefrank.text import TextEncoder, TextSettings, load_tokenizer
from prefrank.text.tokenizer import FolderTokenizer
from prefrank.types import as_prompt
from tests.tiny import chat_folder, seed_folder, wordpiece_folder

Spec = dict[str, Any]


def model(**changes: object) -> Callable[[Spec], object]:
    return lambda spec: spec["model"].update(changes)


def normalizer(*steps: Spec) -> Callable[[Spec], object]:
    return lambda spec: spec.update(normalizer={"type": "Sequence", "normalizers": list(steps)})


def replace(pattern: Spec, content: str) -> Spec:
    return {"type": "Replace", "pattern": pattern, "content": content}


def template(single: str, pair: str, special: Spec | None = None) -> Callable[[Spec], object]:
    def pieces(texts: str) -> list[Spec]:
        return [
            {"Sequence": {"id": one, "type_id": 0}} if one in "AB" else {"SpecialToken": {"id": one, "type_id": 0}}
            for one in texts.split()
        ]

    found = {"type": "TemplateProcessing", "single": pieces(single), "pair": pieces(pair)}
    return lambda spec: spec.update(post_processor={**found, "special_tokens": special or {}})


def unigram(*vocab: object, unk_id: int | None = None) -> Callable[[Spec], object]:
    return lambda spec: spec.update(model={"type": "Unigram", "vocab": list(vocab), "unk_id": unk_id})


TOO_LARGE = base64.b64encode(struct.pack("<I", 0xFFFFFFFC) + b"abcd").decode()
LONG_MAP = base64.b64encode(struct.pack("<I", 4) + b"\0" * 4 + b"x" * 10_000 + b"\0").decode()
BROKEN: dict[str, tuple[Callable[[Spec], object], str]] = {
    "no vocabulary": (model(vocab={}), "model.vocab is {}; wanted at least one piece"),
    "vocabulary of text": (model(vocab="abc"), "model.vocab"),
    "null model": (lambda spec: spec.update(model=None), "model is null"),
    "unknown type": (model(type="Oracle"), "tokenizer.json cannot be read"),
    "unknown version": (lambda spec: spec.update(version="9.0"), "tokenizer.json cannot be read"),
    "negative id": (lambda spec: spec["model"]["vocab"].update(a=-1), "model.vocab.a is -1"),
    "large id": (lambda spec: spec["model"]["vocab"].update(a=1 << 31), "model.vocab.a is 2147483648"),
    "true for an id": (lambda spec: spec["model"]["vocab"].update(a=True), "model.vocab.a is True"),
    "long piece": (lambda spec: spec["model"]["vocab"].update({"a" * 3000: 7}), "PREFRANK_MAX_PIECE_CHARACTERS"),
    "long words": (model(max_input_chars_per_word=10**12), "PREFRANK_MAX_WORD_CHARACTERS"),
    "odd added tokens": (lambda spec: spec.update(added_tokens=[3]), "added_tokens is"),
    "added id": (lambda spec: spec["added_tokens"][0].update(id=1 << 32), r"added_tokens\[0\].id is 4294967296"),
    "many steps": (normalizer(*[{"type": "NFC"}] * 101), "normalizer.normalizers .*at most 100 steps"),
    "grows": (normalizer(replace({"String": "a"}, "a" * 10**6)), "PREFRANK_MAX_TEXT_GROWTH"),
    "grows by steps": (normalizer(*[replace({"String": "a"}, "aa")] * 40), "PREFRANK_MAX_TEXT_GROWTH"),
    "grows between": (normalizer(*[replace({"Regex": ""}, "a")] * 40), "PREFRANK_MAX_TEXT_GROWTH"),
    "grows before": (normalizer({"type": "Prepend", "prepend": "a" * 10**6}), "PREFRANK_MAX_TEXT_GROWTH"),
    "grows by a map": (
        normalizer({"type": "Precompiled", "precompiled_charsmap": LONG_MAP}),
        "PREFRANK_MAX_TEXT_GROWTH",
    ),
    "empty map": (normalizer({"type": "Precompiled", "precompiled_charsmap": ""}), "a whole character map"),
    "map of a false size": (
        normalizer({"type": "Precompiled", "precompiled_charsmap": TOO_LARGE}),
        "a whole character map",
    ),
    "bad regex": (normalizer(replace({"Regex": "(("}, "")), "pattern.Regex cannot be read"),
    "long regex": (normalizer(replace({"Regex": "a|" * 60_000}, "")), "PREFRANK_MAX_PATTERN_CHARACTERS"),
    "no second text": (template("A", "A"), r"pair holds \$A; wanted \$A and \$B"),
    "no text": (template("", "B"), "single holds no text"),
    "a text twice": (template("A A", "A B"), r"single holds \$A \$A"),
    "texts turned": (template("A", "B A"), r"pair holds \$B \$A"),
    "unknown token": (template("[X] A", "A B"), r"SpecialToken.id is '\[X\]', which .* lacks"),
    "large token": (
        template("[X] A", "[X] A B", {"[X]": {"id": "[X]", "ids": [4294967295], "tokens": ["[X]"]}}),
        "the post_processor gives the id 4,294,967,295",
    ),
    "pieces of no characters": (unigram(["", 0.0]), "makes tokens of no text"),
    "unknown beyond": (unigram(["a", 0.0], unk_id=7), "tokenizer.json cannot be read"),
    "chunks of nothing": (
        lambda spec: spec.update(pre_tokenizer={"type": "FixedLength", "length": 0}),
        "pre_tokenizer.length is 0",
    ),
}


def broken(folder: Path, change: Callable[[Spec], object]) -> Path:
    path = wordpiece_folder(folder) / "tokenizer.json"
    spec = json.loads(path.read_text())
    change(spec)
    path.write_text(json.dumps(spec))
    return folder


@pytest.mark.parametrize("name", BROKEN)
def test_a_tokenizer_that_cannot_be_used_is_one_line_with_file_and_key(name: str, tmp_path: Path) -> None:
    change, words = BROKEN[name]
    with pytest.raises(BadModel, match=words) as found:
        TextEncoder.load(broken(tmp_path, change))
    assert "\n" not in str(found.value)
    assert str(tmp_path) in str(found.value)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"version":', b"\xff\xfe{}", b"[" * 100_000, b'{"model": NaN}', b"null", b'{"a":1,"a":2}']
)
def test_a_tokenizer_json_of_another_kind_is_one_line(content: bytes, tmp_path: Path) -> None:
    (wordpiece_folder(tmp_path) / "tokenizer.json").write_bytes(content)
    with pytest.raises(BadModel, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


CONFIGS: list[tuple[str, str, str]] = [
    *(
        ("tokenizer_config.json", f'{{"model_max_length": {value}}}', "model_max_length|JSON")
        for value in ("NaN", '"512"', "true", "-1", "1e400", "[]", "5")
    ),
    ("tokenizer_config.json", '{"model_input_names": "ids"}', "model_input_names"),
    ("tokenizer_config.json", '{"model_input_names": [1]}', "model_input_names"),
    ("tokenizer_config.json", '{"chat_template": {"default": 3}}', "chat_template.default"),
    ("tokenizer_config.json", '{"chat_template": true}', "chat_template"),
    ("tokenizer_config.json", '{"added_tokens_decoder": []}', "added_tokens_decoder"),
    ("tokenizer_config.json", '{"added_tokens_decoder": {"5": "x"}}', "added_tokens_decoder.5"),
    ("tokenizer_config.json", '{"tokenizer_class": 4}', "tokenizer_class"),
    ("tokenizer_config.json", '{"add_bos_token": "no"}', "add_bos_token"),
    ("tokenizer_config.json", '{"eos_token": 4}', "eos_token"),
    ("tokenizer_config.json", '{"eos_token": {"content": 4}}', "eos_token.content"),
    ("tokenizer_config.json", "[" * 100_000, "nested"),
    ("special_tokens_map.json", '{"eos_token": ["a"]}', "eos_token"),
    ("added_tokens.json", '{"x": "y"}', "x is"),
    ("added_tokens.json", "[]", "holds a list"),
    ("chat_template.jinja", "\xff", "UTF-8"),
    ("tokenizer_config.json", '{"chat_template": "{%\\ud800"}', "half of a character"),
    ("config.json", "[]", "holds a list"),
    ("config.json", '{"bos_token_id": 9007199254740993}', "bos_token_id"),
    ("config.json", '{"eos_token_id": [1, "2"]}', "eos_token_id"),
    ("config.json", '{"eos_token_id": true}', "eos_token_id"),
]


@pytest.mark.parametrize(("file", "content", "words"), CONFIGS)
def test_files_beside_it_of_another_kind_are_one_line_with_file_and_key(
    file: str, content: str, words: str, tmp_path: Path
) -> None:
    (chat_folder(tmp_path) / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(BadModel, match=words) as found:
        TextEncoder.load(tmp_path)
    assert file in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "chat_template.jinja"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "loop"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(file: str, kind: str, tmp_path: Path) -> None:
    path = chat_folder(tmp_path) / file
    path.unlink(missing_ok=True)
    make = {
        "fifo": os.mkfifo,
        "folder": os.mkdir,
        "device": lambda path: os.symlink("/dev/zero", path),
        "loop": lambda path: os.symlink(path, path),
    }
    make[kind](path)
    with pytest.raises(PrefrankError, match=file):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("file", ["vocab.txt", "spm.model", "tokenizer.model"])
@pytest.mark.parametrize("content", [b"", b"\0\xff" * 99, "a\nb\n".encode("utf-16"), b"\x0a\xff\xff\xff\xff\x0fabc"])
def test_a_vocabulary_alone_that_cannot_be_read_is_one_line(file: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(content)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer" if file == "vocab.txt" else "LlamaTokenizer"})
    )
    with pytest.raises(BadModel, match=str(tmp_path)) as found:
        TextEncoder.load(tmp_path)
    assert "\n" not in str(found.value)


def test_a_torn_sentencepiece_file_is_one_line(tmp_path: Path) -> None:
    path = seed_folder(tmp_path) / "spm.model"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BadModel, match=str(tmp_path)):
        TextEncoder.load(tmp_path)


def test_a_configuration_that_points_to_other_files_is_not_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "wait")
    seed_folder(tmp_path / "seed")
    path = tmp_path / "seed/tokenizer_config.json"
    wanted = TextEncoder.load(tmp_path / "seed").fingerprint_bytes()
    places = dict.fromkeys(("vocab_file", "tokenizer_file", "special_tokens_map_file"), str(tmp_path / "wait"))
    path.write_text(json.dumps(json.loads(path.read_text()) | places | {"name_or_path": "somebody/else"}))
    assert TextEncoder.load(tmp_path / "seed").fingerprint_bytes() == wanted


def test_dropout_of_training_is_off_and_the_same_text_has_the_same_tokens(tmp_path: Path) -> None:
    path = chat_folder(tmp_path) / "tokenizer.json"
    wanted = load_tokenizer(tmp_path).plain.encode("how do I bake bread").ids
    spec = json.loads(path.read_text())
    spec["model"]["dropout"] = 0.9
    path.write_text(json.dumps(spec))
    assert load_tokenizer(tmp_path).plain.encode("how do I bake bread").ids == wanted
    assert load_tokenizer(tmp_path).tokenizer.model.dropout is None


def test_what_the_library_panics_at_is_one_line(tmp_path: Path) -> None:
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False}
    encoder = TextEncoder.load(broken(tmp_path, lambda spec: spec.update(pre_tokenizer=pattern, normalizer=None)))
    with pytest.raises(PrefrankError, match=r"a text cannot be encoded: .*retry-limit") as found:
        encoder.encode(as_prompt("hello"), ["a" * 5000])
    assert "\n" not in str(found.value)


def test_a_tokenizer_that_knows_few_letters_is_tried_with_those(tmp_path: Path) -> None:
    def letters(spec: Spec) -> None:
        spec["model"] = {"type": "WordLevel", "vocab": {"[CLS]": 2, "[SEP]": 3, "C": 4, "G": 5}, "unk_token": "[UNK]"}
        spec["normalizer"] = None
        spec["added_tokens"] = [one for one in spec["added_tokens"] if one["content"] in ("[CLS]", "[SEP]")]

    encoder = TextEncoder.load(broken(tmp_path, letters))
    assert encoder.settings.template == "pair"
    (row,) = encoder.encode(as_prompt("C"), ["G"])
    assert row.ids.tolist() == [2, 4, 3, 5, 3]


@pytest.mark.parametrize(
    "name", ["../x", "additional_chat_templates/../x", "a/b", "additional_chat_templates/a/b.jinja"]
)
def test_names_of_carried_files_never_leave_the_folder(name: str, tmp_path: Path) -> None:
    source = load_tokenizer(wordpiece_folder(tmp_path / "from"))
    (tmp_path / "to").mkdir()
    with pytest.raises(BadModel, match="not a name of a tokenizer's file"):
        FolderTokenizer(source.tokenizer, {name: b"x"}).save(tmp_path / "to")
    assert not (tmp_path / "x").exists()


def test_usual_normalisers_are_within_the_bound_of_growth(tmp_path: Path) -> None:
    path = wordpiece_folder(tmp_path) / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    steps = [normalizers.NFKC(), normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"), normalizers.StripAccents()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.save(str(path))
    assert load_tokenizer(tmp_path).growth == 1


def test_a_row_without_tokens_is_said(tmp_path: Path) -> None:
    path = chat_folder(tmp_path) / "tokenizer.json"
    spec = json.loads(path.read_text()) | {"added_tokens": [], "pre_tokenizer": None}
    path.write_text(json.dumps(spec | {"model": {"type": "BPE", "vocab": {"Q": 5}, "merges": []}}))
    with pytest.raises(BadText, match="the row of pair 0 has no tokens"):
        TextEncoder.load(tmp_path, TextSettings("turns", 20)).encode(as_prompt("x"), ["y"])
