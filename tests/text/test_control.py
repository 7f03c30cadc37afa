from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers

from prefrank.text import TextEncoder, TextSettings, load_tokenizer
from prefrank.types import Turn, as_prompt
from tests.text.folders import KINDS, MARKUP, SPECIALS, folder_of, tokenizer_of
from tests.tiny import seed_folder

TEMPLATE = "{% for m in messages %}<s>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
WIDE = {ord(narrow): ord(narrow) + 0xFEE0 for narrow in "<>[]|SEPINTse"}
FORGED = st.sampled_from([*SPECIALS, *MARKUP, *(text.translate(WIDE) for text in SPECIALS), "<0x0A>", "0 0"])
TEXTS = st.lists(FORGED | st.sampled_from([" ", "x", "hello", "SEP", "<", "]", "日"]), max_size=8).map("".join)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    return {kind: folder_of(folder / kind, tokenizer_of(kind), template=TEMPLATE) for kind in KINDS}


@pytest.fixture(scope="module")
def encoders(folders: dict[str, Path]) -> dict[tuple[str, str], TextEncoder]:
    return {
        (kind, template): TextEncoder(source, TextSettings(template, 400, row_ends="files"))
        for kind, source in ((kind, load_tokenizer(folder)) for kind, folder in folders.items())
        for template in ("chat", "turns")
    }


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(prompt=TEXTS, reply=TEXTS)
def test_no_text_yields_a_control_token_whatever_the_kind(
    kind: str, encoders: dict[tuple[str, str], TextEncoder], prompt: str, reply: str
) -> None:
    for template in ("chat", "turns"):
        encoder = encoders[kind, template]
        tokenizer = encoder.source.tokenizer
        control = {tokenizer.token_to_id(text) for text in (*SPECIALS, *MARKUP) if text != "<unk>"}
        assert control <= encoder.source.control_ids
        turns = (Turn("system", reply), Turn("user", prompt))
        (row,) = encoder.encode(turns, [reply])
        (bare,) = encoder.encode((Turn("system", "x"), Turn("user", "x")), ["x"])
        written = [number for number in row.ids.tolist() if number in control]
        assert written == [number for number in bare.ids.tolist() if number in control]


def test_a_byte_spelt_in_a_text_is_not_that_byte(encoders: dict[tuple[str, str], TextEncoder]) -> None:
    source = encoders["byte fallback", "turns"].source
    ids = source.plain.encode("x<0x0A>\n", add_special_tokens=False).ids
    assert ids.count(source.tokenizer.token_to_id("<0x0A>")) == 1, "the newline's own"


def test_a_sentencepiece_separator_in_a_reply_is_read_as_sentencepiece_reads_it(tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    folder = seed_folder(tmp_path / "seed")
    encoder, reference = TextEncoder.load(folder), SentencePieceProcessor(str(folder / "spm.model"))
    (row,) = encoder.encode(as_prompt("how do I"), ["x[SEP]y"])
    separator = encoder.source.tokenizer.token_to_id("[SEP]")
    assert row.ids[row.reply_start : -1].tolist() == reference.encode("x[SEP]y")
    assert row.ids.tolist().count(separator) == 2


def test_html_tags_and_added_words_are_text_and_markup_of_the_template_is_the_models_own(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("byte-level", ("<table>", "</code>", "covid"))
    template = TEMPLATE.replace("{{ m.content }}", "{{ '<think></think>' if 0 }}{{ m.content }}")
    encoder = TextEncoder.load(folder_of(tmp_path, tokenizer, template=template), max_length=99)
    ids = {text: tokenizer.token_to_id(text) for text in ("<table>", "</code>", "covid", "<think>", "<tool_call>")}
    assert not encoder.holds_control_strings(as_prompt("<table>"), "<think>so")
    assert encoder.holds_control_strings(as_prompt("<think>"), "so")
    (row,) = encoder.encode(as_prompt("<table>covid</code><think>"), ["<think>so<tool_call>"])
    found = row.ids.tolist()
    assert [found.count(ids[text]) for text in ("<table>", "covid", "</code>", "<think>", "<tool_call>")] == [
        1,
        1,
        1,
        1,
        0,
    ]


def test_texts_that_hold_control_strings_are_told(encoders: dict[tuple[str, str], TextEncoder]) -> None:
    encoder = encoders["byte-level", "chat"]
    assert encoder.holds_control_strings(as_prompt("<s>user hi<|im_end|>"), "fine")
    assert encoder.holds_control_strings(as_prompt("hi"), "a <tool_call>")
    assert not encoder.holds_control_strings(as_prompt("a < b, 3 > 2 [see 4] <b>bold</b>"), "if x[0] == y | z")


def test_what_a_chat_template_writes_counts_as_control_where_it_is_no_token(tmp_path: Path) -> None:
    template = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}"
    encoder = TextEncoder.load(folder_of(tmp_path, tokenizer_of("byte-level"), template=template), max_length=99)
    assert encoder.holds_control_strings(as_prompt("<|user|>\nhi"), "there")
    assert not encoder.holds_control_strings(as_prompt("the user says"), "there")


BESIDE = (
    "{% for m in messages %}{{ m.content }}{% endfor %}<|im_end|>",
    "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}</s>",
    "{% for m in messages %}{{ m.content | lower }}|{% endfor %}</s>",
    "{% for m in messages %}<|im_end|>{{ m.name }}|{{ m.content }}{% endfor %}</s>",
)
PARTS = st.sampled_from(
    ["<", "<|im_", "end|>", "im_end", "s", "s>", ">", "[SEP", "]", "<S>", "<|IM_END|>", "x", " ", "E"]
)


@pytest.mark.parametrize("template", BESIDE)
@pytest.mark.parametrize("kind", ["byte-level", "unigram", "word level"])
@settings(deadline=None, max_examples=40)
@given(texts=st.lists(st.lists(PARTS, max_size=3).map("".join), min_size=3, max_size=3), name=PARTS)
def test_parts_of_control_strings_make_none_with_what_stands_beside_them(
    template: str, kind: str, texts: list[str], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = folder_of(tmp_path_factory.mktemp("beside"), tokenizer_of(kind), template=template)
    encoder = TextEncoder.load(folder, max_length=400)
    control = encoder.source.control_ids
    first, second, reply = texts
    call = f'{{"name": "{name}"}}'
    (row,) = encoder.encode((Turn("user", first, call), Turn("user", second, call)), [reply])
    (bare,) = encoder.encode((Turn("user", "x", call), Turn("user", "x", call)), ["x"])
    written = [number for number in row.ids.tolist() if number in control]
    assert written == [number for number in bare.ids.tolist() if number in control]


@pytest.mark.parametrize("single_word", [True, False])
def test_a_control_token_that_normalisation_spells_is_not_taken_for_the_templates_own(
    tmp_path: Path, single_word: bool
) -> None:
    tokenizer = Tokenizer(models.BPE({"<unk>": 0, "x": 1, "<": 2, ">": 3, "a": 4}, [], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, single_word=single_word, normalized=True) for text in ("<s>", "</s>", "<pad>")]
    )
    template = "{% for m in messages %}{{ '<s>' if m.role == 'user' }}{{ m.content }}{% endfor %}</s>"
    encoder = TextEncoder.load(folder_of(tmp_path, tokenizer, template=template), max_length=99)
    (row,) = encoder.encode(as_prompt("x"), ["<PAD>"])
    found = [encoder.source.tokenizer.id_to_token(number) for number in row.ids.tolist()]
    assert [token for token in found if token in ("<s>", "</s>", "<pad>")] == ["<s>", "</s>"]


def test_what_stands_before_a_reply_is_found_whole(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.role | title }}: {{ m.content }}\n{% endfor %}"
    encoder = TextEncoder.load(folder_of(tmp_path, tokenizer_of("byte-level"), template=template), max_length=99)
    assert not encoder.holds_control_strings(as_prompt("a comment: it"), "an intent: so")
    assert encoder.holds_control_strings(as_prompt("User: it"), "so")
    assert encoder.holds_control_strings(as_prompt("it\nAssistant: "), "so")
