import random
from collections import defaultdict

import numpy as np
import pytest

from prefrank.data import load_comparisons, split_of
from prefrank.data.overlap import (
    jaccard,
    near_duplicates,
    ngrams,
    prompt_key,
    shared_ngrams,
    text_of,
    words_of,
)
from prefrank.types import Turn

VOCABULARY = [f"{a}{b}" for a in ("ba", "do", "mi", "ru", "te") for b in ("ka", "lo", "na", "pi", "su", "ve", "zo")]


def sentence(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(VOCABULARY, k=words))


def plain_ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def test_words_are_letters_and_digits_in_one_case_and_form() -> None:
    assert words_of("Don't  PANIC: 42!") == ["don", "t", "panic", "42"]
    assert words_of("Stra\u00dfe, \uff21\uff22\uff23 caf\u00e9") == ["strasse", "abc", "caf\u00e9"]
    assert words_of("\u6211\u4eec3\u4e2a") == ["\u6211", "\u4eec", "3", "\u4e2a"]
    assert words_of("...") == ["..."]


def test_prompts_of_the_same_words_have_one_key() -> None:
    def key(*texts: str) -> bytes:
        return prompt_key(tuple(Turn("user", text) for text in texts))

    assert key("What is yeast?") == key(" what IS\tyeast") == key("What is", "yeast")
    assert len({key("What is yeast?"), key("What is bread?"), key("What is yeast", "?!", "now"), key("?")}) == 4


def test_ngrams_are_those_of_each_text_alone_and_distinct() -> None:
    draw = random.Random(0)
    texts = [sentence(draw, n) for n in (0, 1, 4, 5, 6, 40)] + ["a b a b a b a b"]
    for n in (1, 3, 5):
        result = ngrams(texts, n)
        assert np.diff(result.starts).tolist() == [len(plain_ngrams(text, n)) for text in texts]
        for text, words in enumerate(texts):
            again = ngrams([words], n)
            assert np.array_equal(result.of(text), again.hashes)
            assert np.array_equal(again.hashes, np.unique(again.hashes))


def test_a_short_text_has_no_ngram_unless_it_counts_as_a_whole() -> None:
    assert np.diff(ngrams(["one two", "one two three"], 3).starts).tolist() == [0, 1]
    whole = ngrams(["one two", "One, two!", "two one", "one two three"], 3, whole_if_short=True)
    assert np.diff(whole.starts).tolist() == [1, 1, 1, 1]
    assert len(set(whole.hashes.tolist())) == 3


def test_hashes_do_not_change_from_version_to_version() -> None:
    golden = [6344731972424272406, 13231486007620414563]
    assert ngrams(["the quick brown fox"], 3).hashes.tolist() == golden


def test_shares_are_those_of_the_text_with_fewer_ngrams() -> None:
    draw = random.Random(1)
    others = [sentence(draw, n) for n in (20, 30, 13, 5)]
    texts = [others[0] + " " + sentence(draw, 10), sentence(draw, 40), others[1][:80], others[2], others[3], ""]
    result = shared_ngrams(texts, others, n=13)
    expected = {}
    for t, text in enumerate(texts):
        for o, other in enumerate(others):
            a, b = plain_ngrams(text, 13), plain_ngrams(other, 13)
            if a & b:
                expected[t, o] = len(a & b) / min(len(a), len(b))
    shares = dict(
        zip(zip(result.text.tolist(), result.other.tolist(), strict=True), result.share.tolist(), strict=True)
    )
    assert shares == pytest.approx(expected)
    assert shares[0, 0] == shares[3, 2] == 1.0
    assert not {t for t, _ in shares} & {1, 4, 5}


@pytest.mark.parametrize("many_on", ["this side", "the other side"])
def test_a_template_is_no_overlap_however_long_it_is(many_on: str) -> None:
    draw = random.Random(2)
    template = sentence(draw, 30)
    many = [f"{template} {sentence(draw, 8)}" for _ in range(5)]
    one = [f"{template} {sentence(draw, 8)}"]
    sides = (many, one) if many_on == "this side" else (one, many)
    assert len(shared_ngrams(*sides, common=3).text) == 0
    assert len(shared_ngrams(*sides, common=5).text) == 5
    # the same texts, said to be of one origin
    assert (
        len(shared_ngrams(*sides, origins=[0] * len(sides[0]), other_origins=[0] * len(sides[1]), common=3).text) == 5
    )


def test_what_is_taken_over_is_found_behind_a_template() -> None:
    draw = random.Random(3)
    template, own = sentence(draw, 30), [sentence(draw, 20) for _ in range(6)]
    result = shared_ngrams([f"{template} {text}" for text in own[:5]], [f"{template} {text}" for text in own[4:]])
    assert result.text.tolist() == [4]
    assert result.share.tolist() == [1.0]


def test_sides_without_texts_share_nothing() -> None:
    for sides in ([], ["a"]), (["a"], []), ([], []):
        assert len(shared_ngrams(*sides).text) == 0
    assert near_duplicates([], []) == {}


def test_near_duplicates_are_those_that_a_comparison_of_all_pairs_finds() -> None:
    draw = random.Random(4)
    prompts, replies = [], []
    for _ in range(60):
        prompts.append(sentence(draw, 60))
        replies.append([sentence(draw, 50), sentence(draw, 70)])
        if draw.random() < 0.7:
            source = draw.randrange(len(prompts))
            prompts.append(prompts[source] + " and more")
            replies.append([reply + " of it" for reply in replies[source][::-1]])
    result = near_duplicates(prompts, replies, threshold=0.8)
    expected = defaultdict(set)
    sets = [[set(ngrams([t], 5).hashes.tolist()) for t in (p, *r)] for p, r in zip(prompts, replies, strict=True)]

    def alike(a: set[int], b: set[int]) -> bool:
        return len(a & b) / len(a | b) >= 0.8

    for later in range(len(sets)):
        for earlier in range(later):
            a, b = sets[later], sets[earlier]
            straight = alike(a[1], b[1]) and alike(a[2], b[2])
            crossed = alike(a[1], b[2]) and alike(a[2], b[1])
            if alike(a[0], b[0]) and (straight or crossed):
                expected[later].add(earlier)
    assert set(result) == set(expected)
    assert len(result) > 10
    for later, (earlier, like) in result.items():
        assert earlier in expected[later]
        assert earlier not in result
        assert all(alike(sets[later][1 + k], sets[earlier][1 + place]) for k, place in enumerate(like))


def test_one_prompt_with_other_replies_or_other_numbers_of_them_is_no_near_duplicate() -> None:
    draw = random.Random(5)
    prompt, long, short = sentence(draw, 300), sentence(draw, 100), "yes it is"
    groups = [[long, short], [long, "no it is not"], [long, short, "maybe"], [sentence(draw, 100), short]]
    assert near_duplicates([prompt] * 4, groups) == {}
    assert near_duplicates([prompt] * 2, [[long, short], ["Yes, it is!", long]]) == {1: (0, (1, 0))}


def test_similarity_is_that_of_jaccard() -> None:
    a, b = np.array([1, 2, 3], np.uint64), np.array([2, 3, 4, 5], np.uint64)
    assert jaccard(a, b) == 2 / 5
    assert jaccard(a, a) == 1


@pytest.mark.shared_data
def test_prompts_in_a_longer_text_are_found_and_next_to_no_others_of_hh(shared_data) -> None:
    parts = [
        load_comparisons(shared_data / "hh-rlhf" / "helpful-online", split=split).comparisons
        for split in ("train", "test")
    ]
    texts = [[text_of(comparison.prompt) for comparison in part] for part in parts]
    origins = [[split_of(comparison.prompt) for comparison in part] for part in parts]
    taken = [f"Please help me with this. {text} Thanks a lot!" for text in texts[1] if len(text.split()) > 30][:50]
    result = shared_ngrams(texts[0] + taken, texts[1], origins=origins[0] + list(range(50)), other_origins=origins[1])
    hit = set(result.text[result.share >= 0.5].tolist())
    assert set(range(len(texts[0]), len(texts[0]) + 50)) <= hit
    assert len(hit) - 50 <= 1
