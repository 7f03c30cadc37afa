"""Texts in pieces against the same texts whole, for every kind of tokenizer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from prefrank.errors import BadText
from prefrank.text import TextEncoder, TextSettings, load_tokenizer
from prefrank.text.borders import borders
from prefrank.text.control import inside, without_control
from prefrank.text.reader import PIECE, Reader
from prefrank.types import Turn
from tests.text.folders import KINDS, MARKUP, SPECIALS, tokenizer_of
from tests.tiny import CORPUS, chat_folder, wordpiece_folder

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = [
    *("how do", "I bake", "'s", "the dough", "  ", " ", "\n", "\t", "é", "e\u0301", "й", "日本", "가 각", "한국 말"),
    *("12 34", ".", ", ", "…", "ｆｕｌｌ", "½", "\u0301", "▁", "İ ß", "aa", "aa aa", "x", "of a", "covid"),
    *(
        "面粉",
        "和，水",
        "aa,bb",
        "dough\nbake",
        "aa/bb:cc",
        "un covid",
        "<think>",
        "[SEP]",
        "<s>",
        "\u0600",
        "\u200d",
        "б г",
        "\u3000",
        "-",
        "DON'T",
        "don't do",
        "``no",
    ),
]
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=60).map(" ".join) | st.lists(
    st.sampled_from(WORDS), max_size=60
).map("".join)


def byte_level(*steps: pre_tokenizers.PreTokenizer) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, "don't do that's 1234"], trainer)
    return tokenizer


def spaced_pairs(**options: bool) -> Tokenizer:
    """Byte pairs without a pre-tokenizer, as Llama 2 and Gemma have them."""
    letters = sorted({*"".join(CORPUS)} - {" "})
    ids = {piece: n for n, piece in enumerate(["<unk>", "▁", *letters, *(f"<0x{n:02X}>" for n in range(256))])}
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("a", "a"), ("▁", "a"), ("▁a", "a"), ("▁", "▁"), ("d", "o")]
    merges += [("▁", "d"), ("▁d", "o"), ("▁do", "u")]
    for first, second in merges:
        ids.setdefault(first + second, len(ids))
    return Tokenizer(models.BPE(ids, merges, unk_token="<unk>", **options))


def steps(*names: normalizers.Normalizer) -> normalizers.Normalizer:
    return normalizers.Sequence([*names])


def made(name: str) -> Tokenizer:
    """One tokenizer of each kind that is proven."""
    no_regex = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def split(pattern: str) -> pre_tokenizers.PreTokenizer:
        return pre_tokenizers.Split(Regex(pattern), "isolated")

    byte_levels = {
        "gpt 2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
        "roberta": [pre_tokenizers.ByteLevel(add_prefix_space=True)],
        "llama 3": [split(LLAMA3), no_regex],
        "qwen": [split(QWEN), no_regex],
        "o200k": [split(O200K), no_regex],
        "inverted": [pre_tokenizers.Split(Regex(LLAMA3), "removed", invert=True), no_regex],
        "digits": [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=True)],
    }
    if name in byte_levels:
        tokenizer = byte_level(*byte_levels[name])
        if name == "qwen":
            tokenizer.normalizer = normalizers.NFC()
        return tokenizer
    if name in ("llama 2", "llama 2 new", "gemma"):
        tokenizer = spaced_pairs(fuse_unk=True, byte_fallback=True)
        if name == "llama 2":
            tokenizer.normalizer = steps(normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"))
        elif name == "gemma":
            tokenizer.normalizer = normalizers.Replace(" ", "▁")
            tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        return tokenizer
    tokenizer = tokenizer_of("unigram" if name in ("always", "first", "albert") else "wordpiece")
    if name in ("always", "first", "albert"):
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if name == "first" else "always")
        if name == "albert":
            tokenizer.normalizer = steps(
                normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.StripAccents(),
                normalizers.Lowercase(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip(),
            )  # fmt: skip
    else:
        whites = {"bert": pre_tokenizers.BertPreTokenizer(), "whitespace": pre_tokenizers.Whitespace()}
        tokenizer.pre_tokenizer = whites[name]
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    return tokenizer


NAMES = ("gpt 2", "roberta", "llama 3", "qwen", "o200k", "inverted", "digits", "llama 2", "llama 2 new", "gemma",
         "always", "first", "albert", "bert", "whitespace")  # fmt: skip
PROVEN_KINDS = tuple(kind for kind in KINDS if kind != "ignoring merges")


@pytest.fixture(scope="module")
def proven() -> dict[str, Tokenizer]:
    found = {name: made(name) for name in NAMES} | {kind: tokenizer_of(kind) for kind in PROVEN_KINDS}
    for tokenizer in found.values():
        tokenizer.add_tokens([AddedToken("covid", lstrip=True, rstrip=True), AddedToken("of a", single_word=True)])
        tokenizer.add_tokens([AddedToken("bake", normalized=True, single_word=True)])
    return found


def check(tokenizer: Tokenizer, text: str, piece: int) -> int:
    """See that pieces give what the whole gives; returns how many pieces there were."""
    whole = tokenizer.encode(text, add_special_tokens=False)
    reader = Reader(tokenizer, piece=piece)
    tokens = reader.tokens(text)
    assert tokens.ids.tolist() == whole.ids
    assert list(zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)) == whole.offsets
    assert list(reader.ids(text)) == whole.ids
    assert reader.count(text) == len(whole.ids)
    for most in (1, 3, 50):
        kept = reader.ids(text, most)
        assert len(kept) == len(whole.ids)
        assert kept[:most] == whole.ids[:most]
        assert kept[max(len(kept) - most, 0) :] == whole.ids[-most:]
    return len(list(reader._pieces(text, spans=False))) if text else 0


@pytest.mark.parametrize("name", [*NAMES, *PROVEN_KINDS])
@settings(deadline=None, max_examples=25)
@given(text=TEXTS, piece=st.sampled_from([1, 2, 5, 12]))
def test_a_text_in_pieces_gives_the_ids_of_the_whole(
    name: str, text: str, piece: int, proven: dict[str, Tokenizer]
) -> None:
    tokenizer = proven[name]
    check(tokenizer, text, piece)
    plain = without_control(tokenizer, [*SPECIALS, *MARKUP])
    for one in (plain, inside(plain)):
        check(one, text, piece)


@pytest.mark.parametrize("name", [*NAMES, *PROVEN_KINDS])
def test_texts_of_words_are_cut_into_many_pieces_by_every_proven_tokenizer(
    name: str, proven: dict[str, Tokenizer]
) -> None:
    assert check(proven[name], "how do I mix the dough with water " * 20, 10) > 20


UNPROVEN = {
    "unigram that is not split": lambda one: setattr(one, "pre_tokenizer", pre_tokenizers.Metaspace(split=False)),
    "unknown pattern": lambda one: setattr(one, "pre_tokenizer", pre_tokenizers.Split(Regex("th?e"), "isolated")),
    "words of several characters": lambda one: setattr(one, "normalizer", normalizers.Replace("the ", "x")),
    "pattern over spaces": lambda one: setattr(one, "normalizer", normalizers.Replace(Regex("e d"), "x")),
    "scripts": lambda one: setattr(one, "pre_tokenizer", pre_tokenizers.UnicodeScripts()),
    "spaces at the end": lambda one: setattr(one, "pre_tokenizer", pre_tokenizers.Split(" ", "merged_with_previous")),
}


@pytest.mark.parametrize("name", UNPROVEN)
def test_a_tokenizer_that_may_join_words_is_not_taken_for_proven(name: str) -> None:
    tokenizer = tokenizer_of("unigram")
    UNPROVEN[name](tokenizer)
    assert borders(tokenizer) is None
    check(tokenizer, "how do I mix the dough with water " * 3, 10)


def test_byte_pairs_that_join_a_character_with_a_space_are_not_proven() -> None:
    tokenizer = made("llama 2")
    assert borders(tokenizer) is not None
    spec = json.loads(tokenizer.to_str())
    spec["model"]["vocab"]["e▁"] = 1000
    spec["model"]["merges"].append(["e", "▁"])
    assert borders(Tokenizer.from_str(json.dumps(spec))) is None


def test_a_text_without_a_words_end_is_whole_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRANK_MAX_WHOLE_TEXT_BYTES", "500")
    tokenizer = tokenizer_of("word level")
    check(tokenizer, "a" * 450, 10)
    check(tokenizer, "the dough " * 200, 10)
    check(tokenizer, f"{'a' * 450} the dough {'a' * 450}", 10)
    with pytest.raises(BadText, match=r"a text has 600 characters .*PREFRANK_MAX_WHOLE_TEXT_BYTES"):
        Reader(tokenizer, piece=10).ids("a" * 600)
    with pytest.raises(BadText, match="this tokenizer reads texts only whole"):
        Reader(byte_level(pre_tokenizers.UnicodeScripts()), piece=10).ids("the dough " * 60)
    assert Reader(tokenizer, piece=10, growth=5).ids("a" * 90)
    with pytest.raises(BadText, match="a text has 150 characters"):
        Reader(tokenizer, piece=10, growth=5).ids("a" * 150)


@pytest.mark.parametrize("template", ["pair", "turns", "chat"])
@settings(deadline=None, max_examples=20)
@given(prompt=TEXTS, reply=TEXTS, limit=st.sampled_from([40, 60]))
def test_rows_of_texts_in_pieces_are_those_of_whole_texts(
    template: str, prompt: str, reply: str, limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    source = load_tokenizer(wordpiece_folder(folder) if template == "pair" else chat_folder(folder))
    encoder = TextEncoder(source, TextSettings(template, limit))
    turns = (Turn("system", reply), Turn("user", f"{prompt} {reply}"))
    rows = []
    for piece in (PIECE, 7):
        for one in (source.texts, source.texts_inside, source.rendered):
            one.piece = piece
        rows += encoder.encode(turns, [f"x {reply} {prompt}", "so"])
    for whole, cut in zip(rows[:2], rows[2:], strict=True):
        assert (whole.ids.tolist(), whole.types.tolist()) == (cut.ids.tolist(), cut.types.tolist())
        assert (whole.reply_start, whole.cut_prompt) == (cut.reply_start, cut.cut_prompt)
        assert (whole.cut_reply, whole.lost) == (cut.cut_reply, cut.lost)


MEMORY = """
import resource, sys
from pathlib import Path
from prefrank.text import TextEncoder, TextSettings
from prefrank.types import as_prompt
source = TextEncoder.load(Path(sys.argv[1])).source
encoder = TextEncoder(source, TextSettings(sys.argv[2], 64))
text = "mix flour, water! salt and yeast 12 " * 50_000
encoder.encode(as_prompt("hello"), ["there"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(row,) = encoder.encode(as_prompt("hello"), [text])
assert row.cut_reply > 300_000, row
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("template", ["pair", "chat"])
def test_a_long_reply_takes_a_hundred_mebibytes_and_not_half_a_gibibyte(template: str, tmp_path: Path) -> None:
    folder = wordpiece_folder(tmp_path) if template == "pair" else chat_folder(tmp_path)
    command = [sys.executable, "-c", MEMORY, str(folder), template]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert int(found.stdout) < 120


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("gpt 2", "roberta", "llama 3", "qwen", "o200k", "digits", "bert", "whitespace"), "word\nother\n"),
        (("gpt 2", "roberta", "llama 3", "qwen", "o200k", "digits", "bert", "whitespace"), "面粉和水，在热烤箱里，"),
        (("gpt 2", "roberta", "llama 3", "qwen", "o200k", "digits", "bert", "whitespace"), "name.of/some:thing,"),
        (("bert",), "面粉和水在热烤箱里烘烤"),
        (("gpt 2", "llama 3", "bert", "whitespace", "always", "llama 2"), "الدقيق والماء "),
    ],
)
def test_texts_without_spaces_between_latin_words_are_cut_into_many_pieces_too(
    names: tuple[str, ...], text: str, proven: dict[str, Tokenizer]
) -> None:
    for name in names:
        plain = without_control(proven[name], [*SPECIALS, *MARKUP])  # the unknown token may stand anywhere
        assert check(plain, text * 20, 10) > 10


def test_signs_are_no_places_where_a_normaliser_may_join_them_with_words() -> None:
    tokenizer = made("bert")
    tokenizer.normalizer = normalizers.Replace("d,", "x")
    assert check(tokenizer, "dough.and " * 20, 10) > 10
    assert check(tokenizer, "dough.and." * 20, 10) == 1


def test_the_bound_of_a_whole_text_is_of_bytes_after_its_characters_were_made_longer() -> None:
    tokenizer = tokenizer_of("unigram")
    for text in ("👩" * 600_000, "\ufdfa" * 100_000, "a" * 2_100_000):
        with pytest.raises(BadText, match=r"so many without a word's end\), more than 2,000,000 bytes, which"):
            Reader(tokenizer, piece=10).ids(text)
