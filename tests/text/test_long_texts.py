import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer

from prefrank.errors import BadModel
from prefrank.text import TextEncoder, TextSettings, load_tokenizer
from prefrank.text.reader import Reader
from prefrank.types import Turn
from tests.text.families import FAMILIES
from tests.tiny import chat_folder

WORDS = "the flour and water bake in a hot oven until it is done, yeast salt 230 degrees for an hour "
SPOKEN = {"chatml", "llama 3", "deepseek", "qwen 3"}


def encoder_of(folder: Path, family: str, limit: int, piece: int | None = None) -> TextEncoder:
    strings, template = FAMILIES[family]
    if not folder.exists():
        folder.mkdir()
        chat_folder(folder, template)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in strings])
        tokenizer.save(str(folder / "tokenizer.json"))
    source = load_tokenizer(folder)
    if piece is not None:
        for name, of in (("texts", "plain"), ("texts_inside", "plain_inside"), ("rendered", "with_special_tokens")):
            source.__dict__[name] = Reader(getattr(source, of), piece=piece)
    return TextEncoder(source, TextSettings("chat", limit, token_types="none", row_ends="files"))


@pytest.mark.parametrize("family", sorted(SPOKEN))
def test_rows_of_texts_read_in_pieces_are_those_of_texts_read_whole(tmp_path: Path, family: str) -> None:
    long = WORDS * 12
    for limit in (60, 200, 700):
        whole = encoder_of(tmp_path / "x", family, limit)
        pieces = encoder_of(tmp_path / "x", family, limit, piece=250)
        assert pieces.source.texts.borders is not None
        for prompt, reply in (
            ((Turn("user", "hello"),), long),
            ((Turn("user", long),), "bake"),
            ((Turn("user", long),), long),
            ((Turn("system", long), Turn("user", "hello")), long + FAMILIES[family][0][-1] + "a"),
            ((Turn("user", "a"), Turn("assistant", long), Turn("user", long)), long + "</think>" + long),
            ((Turn("user", f"{FAMILIES[family][0][-1]} " * 40 + long),), " \n" + long + "  "),
        ):
            (one,), (other,) = whole.encode(prompt, [reply]), pieces.encode(prompt, [reply])
            assert one.ids.tolist() == other.ids.tolist()
            assert (one.cut_prompt, one.cut_reply, one.lost) == (other.cut_prompt, other.cut_reply, other.lost)


@pytest.mark.parametrize("text", ["", "a", WORDS * 9, WORDS * 3 + "\n" * 99 + WORDS])
def test_a_layout_says_where_each_token_stands(tmp_path: Path, text: str) -> None:
    reader = Reader(load_tokenizer(chat_folder(tmp_path, "x")).plain, piece=80)
    layout, tokens = reader.layout(text, {5}), Reader(reader.tokenizer).tokens(text)
    assert len(layout) == len(tokens.ids)
    assert [layout.span(n) for n in range(len(layout))] == list(
        zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)
    )
    for before in (0, 1, len(text) // 2, len(text)):
        inside = tokens.starts[(tokens.starts > 0) & (tokens.starts < before)]
        assert layout.last_start(before) == (int(inside[-1]) if len(inside) else None)
    noted = [n for n in range(len(layout.places) - 1) if np.isin(layout.tokens(n).ids, [5]).any()]
    assert list(layout.noted) == noted
    assert (
        [reader.more_than(text, n) for n in (0, len(layout) - 1, len(layout))] == [len(layout) > 0] * 2 + [False]
        if (text)
        else not reader.more_than(text, 0)
    )


WRONG = {
    "template": ["chats", 1, None, [], {}, True], "max_length": [0, -1, 7, 1e9, 2**40, "512", None, True, [512]],
    "labels": [1, "true", None, []], "token_types": ["types", 0, None, {}], "row_ends": ["", 1, None, []],
    "turn_strings": [[], "x", {"user": "x"}, {"user": ["a", "b"]}, {"assistant": ["a"]}, {"assistant": [1, 2]},
                     {"assistant": ["a", "\ud800"]}, {"nobody": ["a", "b"], "assistant": ["a", "b"]}],
    "templates": ["chat"], "": [1], "a\x1b[2Jb\nc": [1],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_text_settings_that_are_none_are_one_line_with_file_and_key(key: str, value: object) -> None:
    said = {"template": "chat", "max_length": 64, key: value}
    with pytest.raises(BadModel, match=r"^here/prefrank.json: text[. ][^\n\x1b]*$"):
        TextSettings.from_json(json.loads(json.dumps(said)), "here/prefrank.json")


@pytest.mark.parametrize("content", ["é".encode("latin-1"), "{{ x }}".encode("utf-16"), b"\xff\xfe", b"\xed\xa0\x80"])
@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/more.jinja"])
def test_templates_of_other_encodings_are_named(tmp_path: Path, content: bytes, name: str) -> None:
    folder = chat_folder(tmp_path, "x")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    with pytest.raises(BadModel, match=rf"^the chat template \S*{name} is not UTF-8 text \([^\n]*\)$"):
        load_tokenizer(folder)


@pytest.mark.parametrize(("bound", "said"), [("VOCABULARY_PIECES", "pieces"), ("ADDED_TOKENS", "entries")])
def test_a_tokenizer_of_more_pieces_or_tokens_than_allowed_names_the_variable(
    tmp_path: Path, bound: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = chat_folder(tmp_path, "x")
    monkeypatch.setenv(f"PREFRANK_MAX_{bound}", "1")
    with pytest.raises(
        BadModel, match=rf"^\S*tokenizer.json: \S+ has \d+ {said}, more than 1 .*PREFRANK_MAX_{bound} may"
    ):
        load_tokenizer(folder)


def test_a_tokenizer_of_more_chat_templates_than_allowed_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = chat_folder(tmp_path, "x")
    (folder / "additional_chat_templates").mkdir()
    for name in ("one", "other"):
        (folder / f"additional_chat_templates/{name}.jinja").write_text("{{ messages }}")
    assert set(load_tokenizer(folder).chat_templates) == {"default", "one", "other"}
    monkeypatch.setenv("PREFRANK_MAX_CHAT_TEMPLATES", "1")
    with pytest.raises(BadModel, match=r"has 2 templates, more than 1 templates, which PREFRANK_MAX_CHAT_TEMPLATES"):
        load_tokenizer(folder)
