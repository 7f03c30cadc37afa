"""Where a text may be cut so that its parts, encoded alone, give the ids of the whole: proven from a tokenizer's file.

The place looked at is before a single space between two words of letters; for some tokenizers (`_others`) also before
some punctuation or a line's end after a word, and between two Chinese characters. A tokenizer is taken for proven if
each of its steps is known to do there what it does whatever stands further off:

- normalizers that look at characters (or at what a grapheme or a composition is, which a space ends) alone;
- a pre-tokenizer that always begins a new piece there, or, without one, byte pairs none of which joins a character with
  a space mark that follows it (so Llama 2 and Gemma). Unigram models without such a pre-tokenizer sum up scores over
  the whole text, in floating point, and are not proven;
- added tokens: none stands at the place, as encoding its surroundings shows.

Steps at the ends of texts (a space put before the first word, white space removed) do not happen inside: the parts are
encoded with a word before or after them, whose ids are known and taken away (`reader.py`).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from tokenizers import Tokenizer

_LETTERS = "A-Za-zΑ-Ωα-ωА-ИК-Яа-ик-яא-תぁ-ゖァ-ヺ一-龥가-힣א-תء-غف-ي"
"""Letters in every version of Unicode, that compose with nothing that stands after them."""
_PLACE = re.compile(f"[{_LETTERS}]{{2}}(?= [{_LETTERS}]{{2}})")
_AFTER_WORDS = rf"[{_LETTERS}]{{2}}(?=[,.;:!?/，。；：！？、][ {_LETTERS}0-9]|\n[{_LETTERS}])"
"""Before a sign or a line's end that every pattern in `_WORDS` takes into a new piece, whatever follows it."""
_CHINESE = "[一-龥](?=[一-龥])"
_SHOWN = re.compile(r"[\s▁]*[^\s▁]*[^\W\d_]([ ▁])[^\W\d_][^\s▁]*[\s▁]*")
_LOCAL = frozenset(("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "Strip", "BertNormalizer",
                    "Precompiled", "Prepend"))  # fmt: skip
_UNICODE = frozenset(("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"))
_SPACES = frozenset((" {2,}", " +", r"\s+", r"\s{2,}", r"\A | \z"))
"""Patterns of Replace that are about runs of white space, or the ends of a text."""
_AT_WHITE_SPACE = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
_WORDS = frozenset((
    # GPT-2 (openai/gpt-2, encoder.py)
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # cl100k (openai/tiktoken, openai_public.py) as Llama 3, and as Qwen 2 write it
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    # o200k (the same file), also with single digits (Mistral)
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
))  # fmt: skip
"""Patterns of which no match goes on past a letter with a space, and one always begins at a space before a letter."""
_INSIDE_WORDS = frozenset((r"\p{N}", r"\p{N}+", r"\p{N}{1,3}", r"\d", r"\d+", r"[0-9]", r"[0-9]+",
                           "<(?=0x[0-9A-F]{2}>)"))  # fmt: skip
"""Patterns that no letter and no space is part of."""


@dataclass(frozen=True)
class Borders:
    """The places of one tokenizer.

    Args:
        gap: what the space is when it reaches the pre-tokenizer.
        words: the ids of added tokens that may stand beside it.
        reach: characters of the longest of these.
        places: what ends at a place that may be one.
        added: the ids of added tokens that may stand beside a place that is no space.
    """

    tokenizer: Tokenizer
    gap: str
    words: frozenset[int]
    reach: int
    places: re.Pattern[str]
    added: frozenset[int]

    def find(self, text: str, first: int, last: int) -> Iterator[int]:
        """The places between two others, in order."""
        for match in self.places.finditer(text, first, last):
            place = match.end()
            if text[place] != " ":
                if not self._beside(text, place, self.added):
                    yield place
            elif self._shown(text[place - 2 : place + 3]) == self.gap and not self._beside(text, place, self.words):
                yield place

    @cached_property
    def _shown(self) -> Any:
        normalizer = self.tokenizer.normalizer

        @cache
        def shown(around: str) -> str | None:
            return _gap(normalizer, around)

        return shown

    def _beside(self, text: str, place: int, words: frozenset[int]) -> bool:
        """Whether one of these added tokens touches a place."""
        if not words:
            return False
        around = text[max(place - self.reach, 0) : place + 1 + self.reach]
        return not words.isdisjoint(self.tokenizer.encode(around, add_special_tokens=False).ids)


def borders(tokenizer: Tokenizer) -> Borders | None:
    """The places of a tokenizer; None where they are not proven."""
    spec = json.loads(tokenizer.to_str())
    if not all(_is_local(step) for step in _steps(spec["normalizer"], "normalizers")):
        return None
    gap = _gap(tokenizer.normalizer, "aa aa")
    if gap is None:
        return None
    if not _splits(_steps(spec["pre_tokenizer"], "pretokenizers"), gap, spec["model"]):
        return None
    others = _others(spec)
    words, added, reach = set[int](), set[int](), 0
    for number, token in tokenizer.get_added_tokens_decoder().items():
        if token.special and tokenizer.encode_special_tokens:
            continue  # not looked for in texts
        shown = tokenizer.normalizer.normalize_str(token.content) if tokenizer.normalizer else token.content
        added.add(number)
        for content in (token.content, shown):
            bare = content.strip(" ▁\t\n")
            if not bare or bare[0].isalpha() or bare[-1].isalpha():
                words.add(number)
            if number in words or others:
                reach = max(reach, len(content) + 2)
    places = re.compile("|".join((_PLACE.pattern, *others)))
    return Borders(tokenizer, gap, frozenset(words), reach, places, frozenset(added)) if reach < 1000 else None


def _others(spec: dict[str, Any]) -> tuple[str, ...]:
    """What ends at other places than spaces, where every step of a tokenizer is known to begin a piece there."""
    normal = _steps(spec["normalizer"], "normalizers")
    steps = [step for step in _steps(spec["pre_tokenizer"], "pretokenizers") if step["type"] != "Digits"]
    if not steps or any(step["type"] not in _UNICODE for step in normal):
        return ()
    kind, regex = steps[0]["type"], steps[0].get("pattern", {}).get("Regex")
    if kind == "Split" and regex in _WORDS:
        return (_AFTER_WORDS,)
    if kind in ("BertPreTokenizer", "Whitespace") or (kind == "ByteLevel" and steps[0]["use_regex"]):
        apart = kind == "BertPreTokenizer" and any(step.get("handle_chinese_chars") for step in normal)
        return (_AFTER_WORDS, _CHINESE) if apart else (_AFTER_WORDS,)
    return ()


def _gap(normalizer: Any, around: str) -> str | None:
    """What a normalizer makes of the one space of a text, where it is still one between letters."""
    shown = normalizer.normalize_str(around) if normalizer else around
    match = _SHOWN.fullmatch(shown)
    return match.group(1) if match else None


def _steps(step: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """A step's steps, however deep."""
    if step is None:
        return []
    return [each for inside in step[inner] for each in _steps(inside, inner)] if step["type"] == "Sequence" else [step]


def _is_local(step: dict[str, Any]) -> bool:
    if step["type"] != "Replace":
        return step["type"] in _LOCAL
    pattern, content = step["pattern"].get("String"), step["content"]
    if pattern is None:
        return step["pattern"]["Regex"] in _SPACES and content in ("", " ", "▁")
    return len(pattern) == 1 or bool(pattern and content and not re.search(r"[\s▁]", pattern + content))


def _splits(steps: list[dict[str, Any]], gap: str, model: dict[str, Any]) -> bool:
    """Whether a piece always begins at the gap."""
    for step in steps:
        kind = step["type"]
        if kind in _AT_WHITE_SPACE or (kind == "ByteLevel" and step["use_regex"]):
            return gap == " "
        if kind == "Metaspace":
            if step["split"] or gap not in (" ", step["replacement"]):
                return gap in (" ", step["replacement"])
            gap = step["replacement"]
        elif kind == "ByteLevel":
            gap = "Ġ" if gap == " " else ""
        elif kind == "CharDelimiterSplit":
            if step["delimiter"] == gap:
                return True
        elif kind == "Split":
            parts = _split(step, gap)
            if parts is not None:
                return parts
        elif kind not in ("Digits", "Punctuation"):
            return False
    return _never_joins(model, gap)


def _split(step: dict[str, Any], gap: str) -> bool | None:
    """Whether a Split begins a piece at the gap, or nobody knows; None where it is about other characters."""
    behavior, text, pattern = step["behavior"], step["pattern"].get("String"), step["pattern"].get("Regex")
    if pattern in _WORDS:
        return gap == " " and behavior == ("Removed" if step["invert"] else "Isolated")
    if step["invert"]:
        return False
    if text is not None and text == gap:
        return behavior in ("Removed", "Isolated", "MergedWithNext")
    if pattern in _INSIDE_WORDS or (text is not None and text and gap not in text):
        return None
    return False


def _never_joins(model: dict[str, Any], gap: str) -> bool:
    """Whether byte pairs join nothing with a space mark after it."""
    if model["type"] != "BPE" or not gap or gap not in model["vocab"]:
        return False
    options = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    joined = re.compile(f"[^{gap}]{gap}")
    return not any(model.get(name) for name in options) and not any(map(joined.search, model["vocab"]))
