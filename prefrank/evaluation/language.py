"""Which language a text is in, as an ISO 639-1 code: for slices where the data do not say it.

Scripts that one language uses decide by themselves (kana, hangul, Thai, ...; Chinese characters with next to no kana
are zh); everything else is asked of py3langid, whose model comes with the package. "" means undecided and is given
freely, for texts that are short, mostly code, links or digits, or that the model is unsure of: a slice of wrong guesses
is worse than a smaller one. Without py3langid (the evaluate extra) every text is undecided;
`can_detect` tells.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from unicodedata import category

from prefrank.evaluation.items import Item

CUT = 400
"""Characters looked at, from the start, after links and fenced code are left out."""

MIN_LETTERS = 12
"""Fewer letters decide nothing, where the script does not."""

MIN_LETTER_SHARE = 0.7
"""Of the characters that are not spaces; below it the text is code, figures or a table. Prose has more than 0.9."""

MIN_CONFIDENCE = 0.2
"""Of py3langid's distribution over more than a hundred languages. Short questions in plain English get 0.2 to 0.5."""

MIN_KANA_SHARE = 0.2
"""Kana for each Chinese character from which a text is Japanese; below it a Chinese one quotes a name."""

_SCRIPTS = {
    "ja": "\u3040-\u30ff",
    "ko": "\u1100-\u11ff\uac00-\ud7a3",
    "th": "\u0e00-\u0e7f",
    "el": "\u0370-\u03ff",
    "hy": "\u0530-\u058f",
    "ka": "\u10a0-\u10ff",
    "pa": "\u0a00-\u0a7f",
    "gu": "\u0a80-\u0aff",
    "or": "\u0b00-\u0b7f",
    "ta": "\u0b80-\u0bff",
    "te": "\u0c00-\u0c7f",
    "kn": "\u0c80-\u0cff",
    "ml": "\u0d00-\u0d7f",
    "si": "\u0d80-\u0dff",
    "lo": "\u0e80-\u0eff",
    "my": "\u1000-\u109f",
    "km": "\u1780-\u17ff",
    "zh": "\u3400-\u4dbf\u4e00-\u9fff",
}
_SCRIPT = re.compile("|".join(f"([{characters}])" for characters in _SCRIPTS.values()))
_DENSE = {"zh": 3, "ja": 3, "ko": 3}
"""A character of these says as much as several letters do."""

_OF_A_LARGER = {"yue": "zh", "wuu": "zh", "pcm": "en", "arz": "ar", "ary": "ar", "apc": "ar", "azb": "az"}
"""Codes of three letters that a two-letter one stands for; others of three letters are undecided."""

_LINK_OR_CODE = re.compile(r"https?://\S+|```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)


def can_detect() -> bool:
    """Whether py3langid is installed; without it every text is undecided."""
    return find_spec("py3langid") is not None


def languages_of(items: Sequence[Item]) -> tuple[Item, ...]:
    """The items, with the language of the prompt where the data do not state one.

    Of the prompt, and not of a reply, because all replies to it share the slice; what the user says counts, and the
    other turns only where there is no user.
    """
    languages = iter(detect_languages([_asked(item) for item in items if not item.language]))
    return tuple(item if item.language else replace(item, language=next(languages)) for item in items)


def detect_languages(texts: Sequence[str]) -> list[str]:
    """ISO 639-1 codes, "" where undecided; equal texts are looked at once.

    >>> detect_languages(["Wie lange muss der Teig im Warmen ruhen?", "x = 3"])
    ['de', '']
    """
    if not can_detect():
        return [""] * len(texts)
    opened = [_LINK_OR_CODE.sub(" ", text[: 4 * CUT])[:CUT] for text in texts]
    known = {text: _detect(text) for text in dict.fromkeys(opened)}
    return [known[text] for text in opened]


def _asked(item: Item) -> str:
    texts = [turn.text for turn in item.prompt if turn.role == "user"] or [turn.text for turn in item.prompt]
    return "\n".join(texts)


def _detect(text: str) -> str:
    letters = sum(category(character)[0] in "LM" for character in text)  # vowel signs are marks (M)
    if not text.isascii() and (code := _by_script(text, letters)):
        return code
    shown = sum(not character.isspace() for character in text)
    return _by_model(text) if letters >= max(MIN_LETTERS, MIN_LETTER_SHARE * shown) else ""


def _by_script(text: str, letters: int) -> str:
    """The language whose script has most of the letters; "" where none does."""
    counts = dict.fromkeys(_SCRIPTS, 0)
    for match in _SCRIPT.finditer(text):
        counts[tuple(_SCRIPTS)[(match.lastindex or 1) - 1]] += 1
    if counts["ja"] > MIN_KANA_SHARE * counts["zh"]:
        counts["ja"] += counts["zh"]
    code = max(counts, key=lambda each: counts[each])
    most, weight = counts[code], _DENSE.get(code, 1)
    return code if most * weight > max(0, letters - most) and most * weight >= 4 else ""


def _by_model(text: str) -> str:
    """py3langid's best guess, if it is sure enough.

    Its scores are log posteriors; divided by the root of the text's bytes their softmax is calibrated over lengths, as
    py3langid's own `norm_probs` has it (langid.py, `_decide`), which its module-level functions do not offer.
    """
    import py3langid

    ranked = py3langid.rank(text)
    code, best = ranked[0]
    root = math.sqrt(len(text.encode("utf-8", "replace")))
    confidence = 1 / sum(math.exp((score - best) / root) for _, score in ranked)
    code = _OF_A_LARGER.get(code, code)
    return code if confidence >= MIN_CONFIDENCE and len(code) == 2 else ""
