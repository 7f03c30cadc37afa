"""Texts in pieces against the same texts whole, for every kind of tokenizer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from prefrank.text.control import inside, without_control
from prefrank.text.reader import Reader
from tests.text.folders import KINDS, MARKUP, SPECIALS, tokenizer_of
from tests.tiny import CORPUS

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
    *("un covid", "<think>", "[SEP]", "<s>", "\u0600", "\u200d", "б г", "\u3000", "-", "DON'T", "don't do", "``no"),
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
@settings(deadline=None, max_examples=60)
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
