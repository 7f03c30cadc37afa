"""How much texts share: keys of prompts, word n-grams in common, near-duplicates by MinHash.

Everything speaks of words: letters and digits, case-folded, compatibility forms unified; a sign of a script written
without spaces is a word of its own. Words become 64-bit hashes that are the same on every machine, and all that follows
is arithmetic on flat arrays of them. MinHash only proposes near-duplicates; each is then
verified on the texts themselves, so that chance costs a miss now and then but never a false alarm.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from prefrank.types import Prompt

NGRAM = 13
"""Words of an n-gram that says "copied": what GPT-3's authors looked for (Brown et al. 2020, appendix C)."""
COMMON = 3
"""An n-gram under more origins than this is wording that many share, such as an instruction's template."""
SHINGLE = 5
"""Words of a shingle for near-duplicates (Lee et al. 2022, arXiv 2107.06499, section 4.2)."""
NEAR = 0.8
"""Jaccard similarity of shingles from which two texts are nearly the same (the same paper)."""

_ALONE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+")
_ASCII_WORD = re.compile(r"[a-z0-9_]+")
_CHUNK = 1024
"""Texts hashed at a time, so that the arrays of a large data set never stand together."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
_BANDS, _REPLY_ROWS = 16, 3
"""A band proposes two comparisons with one equal minimum of their prompts and three of their replies. With similarity
0.8 in both, a pair agrees in a band with probability 0.8^4, and 16 bands miss one pair in 5,000."""


def words_of(text: str) -> list[str]:
    """The words of a text; a text of signs only is one word."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower()) or [text]
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(folded) or [folded]


def text_of(prompt: Prompt) -> str:
    """All turns of a prompt as one text."""
    return "\n".join(turn.text for turn in prompt)


def prompt_key(prompt: Prompt) -> bytes:
    """16 bytes that two prompts share if they have the same words, whatever their case, spaces and punctuation."""
    return _hash(" ".join(words_of(text_of(prompt))), 16)


def _hash(text: str, size: int) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()


class _WordHashes(dict[str, int]):
    """Word -> 64-bit hash, worked out once for each word."""

    def __missing__(self, word: str) -> int:
        self[word] = value = int.from_bytes(_hash(word, 8))
        return value


@dataclass(frozen=True, slots=True, eq=False)
class NGrams:
    """The distinct n-grams of S - 1 texts, hashed: those of text t are `hashes[starts[t]:starts[t + 1]]`, ascending."""

    hashes: UInt64[np.ndarray, " G"]
    starts: Int64[np.ndarray, " S"]

    def of(self, text: int) -> UInt64[np.ndarray, " g"]:
        return self.hashes[self.starts[text] : self.starts[text + 1]]


def ngrams(texts: Sequence[str], n: int, *, whole_if_short: bool = False) -> NGrams:
    """The word n-grams of texts.

    Args:
        texts: N texts.
        n: words of an n-gram, at least 1.
        whole_if_short: a text of fewer than n words is one n-gram as a whole, so that none is left without.
    """
    parts = list(_chunks(texts, n, whole_if_short=whole_if_short))
    counts = np.concatenate([[0], *(np.diff(part.starts) for part in parts)])
    hashes = np.concatenate([np.zeros(0, np.uint64), *(part.hashes for part in parts)])
    return NGrams(hashes, np.cumsum(counts, dtype=np.int64))


def _chunks(texts: Sequence[str], n: int, *, whole_if_short: bool = False) -> Iterator[NGrams]:
    """`ngrams` of `_CHUNK` texts at a time."""
    table = _WordHashes()
    for first in range(0, len(texts), _CHUNK):
        words = [words_of(text) for text in texts[first : first + _CHUNK]]
        if whole_if_short:
            words = [text_words + [""] * (n - len(text_words)) for text_words in words]
        sizes = np.array([len(text_words) for text_words in words])
        flat = np.fromiter(map(table.__getitem__, chain.from_iterable(words)), np.uint64, count=sizes.sum())
        yield _windows(flat, sizes, n)


def _windows(words: UInt64[np.ndarray, " W"], sizes: Int64[np.ndarray, " N"], n: int) -> NGrams:
    """Distinct windows of n words that lie inside one text."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    count = max(0, len(words) - n + 1)
    value = np.zeros(count, np.uint64)
    for k in range(n):
        value = value * _ODD + words[k : k + count]
    value = _mixed(value)
    inside = owner[:count] == owner[n - 1 : n - 1 + count]
    value, owner = value[inside], owner[:count][inside]
    order = np.lexsort((value, owner))
    value, owner = value[order], owner[order]
    new = np.ones(len(value), bool)
    new[1:] = (value[1:] != value[:-1]) | (owner[1:] != owner[:-1])
    return NGrams(value[new], np.searchsorted(owner[new], np.arange(len(sizes) + 1)))


def _mixed(value: UInt64[np.ndarray, "*S"]) -> UInt64[np.ndarray, "*S"]:
    """Every bit of the outcome depends on every bit of the value (the finaliser of Steele et al. 2014, SplitMix)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """P pairs of a text and a text of the other side that have n-grams in common, sorted by text.

    Args:
        text: [P] number of the text.
        other: [P] number of the other side's text.
        share: [P] n-grams in common by those of the one that has fewer, 0 to 1; common wording left out.
    """

    text: Int64[np.ndarray, " P"]
    other: Int64[np.ndarray, " P"]
    share: Float64[np.ndarray, " P"]


def shared_ngrams(
    texts: Sequence[str],
    others: Sequence[str],
    *,
    origins: Sequence[object] | None = None,
    other_origins: Sequence[object] | None = None,
    n: int = NGRAM,
    common: int = COMMON,
) -> Shared:
    """Which texts share word n-grams with which others.

    An n-gram that stands in texts of more than `common` origins, on either side, is left out on both: it is a template
    or a phrase that everybody writes, and says nothing about copying. A text of fewer than n words shares nothing.

    Args:
        texts: N texts, such as training prompts; only their n-grams that the others have are kept in memory.
        others: M texts, such as those of an evaluation set.
        origins: of each text: texts of one origin count once; None: each text is its own.
        other_origins: the same for the others.
    """
    index = ngrams(others, n)
    owner = np.repeat(np.arange(len(others)), np.diff(index.starts))
    known, code = np.unique(index.hashes, return_inverse=True)
    maybe = np.zeros(1 << 22, bool)  # of the leading 22 bits: spares most n-grams the search
    maybe[known >> np.uint64(42)] = True
    hit_texts, hit_codes, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for number, part in enumerate(_chunks(texts, n)):
        at = np.flatnonzero(maybe[part.hashes >> np.uint64(42)])
        place = np.minimum(np.searchsorted(known, part.hashes[at]), max(0, len(known) - 1))
        at, place = (side[known[place] == part.hashes[at]] for side in (at, place))
        hit_texts.append(np.searchsorted(part.starts, at, side="right") - 1 + number * _CHUNK)
        hit_codes.append(place)
        sizes.append(np.diff(part.starts))
    text, hit = np.concatenate(hit_texts), np.concatenate(hit_codes)
    wide = _is_common(hit, _numbered(origins, len(texts))[text], len(known), common)
    wide |= _is_common(code, _numbered(other_origins, len(others))[owner], len(known), common)
    size = np.concatenate(sizes) - np.bincount(text[wide[hit]], minlength=len(texts))
    other_size = np.bincount(owner[~wide[code]], minlength=len(others))
    keep = ~wide[hit]
    return _pairs(text[keep], hit[keep], code, owner, size, other_size)


def _numbered(origins: Sequence[object] | None, count: int) -> Int64[np.ndarray, " N"]:
    if origins is None:
        return np.arange(count)
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(origin, len(numbers)) for origin in origins], np.int64)


def _is_common(codes: np.ndarray, origins: np.ndarray, num_codes: int, limit: int) -> np.ndarray:
    """[num_codes] whether each code stands under more than `limit` distinct origins."""
    pairs = np.unique(np.stack([codes, origins]), axis=1) if len(codes) else np.zeros((2, 0), np.int64)
    return np.bincount(pairs[0], minlength=num_codes) > limit


def _pairs(
    text: np.ndarray, hit: np.ndarray, code: np.ndarray, owner: np.ndarray, size: np.ndarray, other_size: np.ndarray
) -> Shared:
    """Count, for each pair of texts, the n-grams that both have."""
    order = np.argsort(code, kind="stable")
    first, end = (np.searchsorted(code[order], hit, side=side) for side in ("left", "right"))
    repeats = end - first
    place = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats) + np.repeat(first, repeats)
    num_others = max(1, len(other_size))
    both, counts = np.unique(np.repeat(text, repeats) * num_others + owner[order][place], return_counts=True)
    mine, other = np.divmod(both, num_others)
    return Shared(mine, other, counts / np.minimum(size[mine], other_size[other]))


def near_duplicates(
    prompts: Sequence[str], replies: Sequence[Sequence[str]], *, threshold: float = NEAR, n: int = SHINGLE
) -> dict[int, tuple[int, tuple[int, ...]]]:
    """Which comparisons nearly repeat an earlier one: the prompt, and each reply, have a Jaccard similarity of at
    least `threshold` in their word shingles. Asked of each text by itself, since a long prompt with other short replies
    is another comparison.

    Args:
        prompts: [C] texts.
        replies: [C] the replies to each.
        threshold: above 0, at most 1.
        n: words of a shingle.

    Returns:
        number of a comparison -> (number of an earlier one that itself repeats none, for each reply the place of its
        like there).
    """
    prompt_shingles = ngrams(prompts, n, whole_if_short=True)
    reply_shingles = ngrams([reply for group in replies for reply in group], n, whole_if_short=True)
    firsts = np.cumsum([0, *(len(group) for group in replies)])
    repeats: dict[int, tuple[int, tuple[int, ...]]] = {}
    for later, earlier in _proposals(prompt_shingles, NGrams(reply_shingles.hashes, reply_shingles.starts[firsts])):
        if later in repeats or earlier in repeats:
            continue
        if jaccard(prompt_shingles.of(later), prompt_shingles.of(earlier)) < threshold:
            continue
        mine, theirs = ([reply_shingles.of(r) for r in range(firsts[c], firsts[c + 1])] for c in (later, earlier))
        like = _match(mine, theirs, threshold)
        if like is not None:
            repeats[later] = earlier, like
    return repeats


def jaccard(a: UInt64[np.ndarray, " A"], b: UInt64[np.ndarray, " B"]) -> float:
    """Size of the intersection by that of the union, of two sets of distinct hashes."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


def _match(mine: Sequence[np.ndarray], theirs: Sequence[np.ndarray], threshold: float) -> tuple[int, ...] | None:
    """For each set the place of its nearest on the other side, one to one; None where one has no like there."""
    if len(mine) != len(theirs):
        return None
    like: list[int] = []
    for shingles in mine:
        similar = [-1.0 if place in like else jaccard(shingles, other) for place, other in enumerate(theirs)]
        like.append(int(np.argmax(similar)))
        if max(similar) < threshold:
            return None
    return tuple(like)


def _proposals(prompts: NGrams, replies: NGrams) -> list[tuple[int, int]]:
    """Pairs (later, earlier) of comparisons that agree in a band, earliest first."""
    draw = np.random.default_rng(0)
    pairs: set[tuple[int, int]] = set()
    for _ in range(_BANDS):
        key = _minima(prompts, draw)
        for _ in range(_REPLY_ROWS):
            key = _mixed(key * _ODD + _minima(replies, draw))
        order = np.argsort(key, kind="stable")
        new = np.ones(len(order), bool)
        new[1:] = key[order][1:] != key[order][:-1]
        first = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
        # each with the first of its band, and with the one before it
        for earlier in (first, np.roll(order, 1)):
            pairs |= set(zip(order[~new].tolist(), earlier[~new].tolist(), strict=True))
    return sorted(pairs)


def _minima(sets: NGrams, draw: np.random.Generator) -> UInt64[np.ndarray, " N"]:
    """The least hash of each set under one random hash function (Broder 1997, MinHash)."""
    factor, shift = draw.integers(0, 2**64, size=2, dtype=np.uint64)
    step = 4096
    return np.concatenate(
        [np.zeros(0, np.uint64)]
        + [
            _part_minima(sets, first, min(first + step, len(sets.starts) - 1), factor | np.uint64(1), shift)
            for first in range(0, len(sets.starts) - 1, step)
        ]
    )


def _part_minima(sets: NGrams, first: int, end: int, factor: np.uint64, shift: np.uint64) -> np.ndarray:
    starts = sets.starts[first : end + 1]
    hashed = _mixed(sets.hashes[starts[0] : starts[-1]] * factor + shift)
    return np.minimum.reduceat(hashed, starts[:-1] - starts[0])
