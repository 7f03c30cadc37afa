"""Control tokens: which they are, and a tokenizer that no text can get them out of.

The library skips special tokens found in text, but not what the vocabulary itself holds: a sentencepiece vocabulary has
`[SEP]` as a piece like any other, which normalization may even spell from other characters. So those pieces are given
names here that no text can know; their ids stay free.
"""

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

_MARKUP = re.compile(r"<[|｜/]?[^\s<>]{1,60}>|\[/?[A-Z][A-Z_@ ]{1,30}\]|\[/?[a-z]+_[a-z_]+\]")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_HTML = frozenset((
    "a", "abbr", "address", "area", "article", "aside", "audio", "b", "base", "bdi", "bdo", "blockquote",
    "body", "br", "button", "canvas", "caption", "cite", "code", "col", "colgroup", "data", "datalist", "dd",
    "del", "details", "dfn", "dialog", "div", "dl", "dt", "em", "embed", "fieldset", "figcaption", "figure",
    "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "html", "i", "iframe", "img",
    "input", "ins", "kbd", "label", "legend", "li", "link", "main", "map", "mark", "menu", "meta", "meter",
    "nav", "noscript", "object", "ol", "optgroup", "option", "output", "p", "param", "picture", "pre",
    "progress", "q", "ruby", "s", "samp", "script", "section", "select", "small", "source", "span", "strong",
    "style", "sub", "summary", "sup", "svg", "table", "tbody", "td", "textarea", "tfoot", "th", "thead", "time",
    "title", "tr", "track", "u", "ul", "var", "video", "wbr",
))  # fmt: skip
"""Names of HTML's tags: content, though they are written like markup."""


def control_strings(tokenizer: Tokenizer, named: Sequence[str], chat_template: str | None) -> tuple[str, ...]:
    """The strings of the tokenizer's control tokens, longest first.

    They are the added tokens marked special; added tokens that are written like markup (`<|user|>`, `<think>`,
    `[INST]`), but for HTML tags, which are content; and of `named` (what special_tokens_map.json and the like say)
    those in the vocabulary that are written so. Added words and runs of spaces are text.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    strings = {token.content for token in added if token.special or _marks(token.content, chat_template)}
    strings |= {text for text in named if _MARKUP.fullmatch(text) and tokenizer.token_to_id(text) is not None}
    return tuple(sorted((text for text in strings if text), key=lambda text: (-len(text), text)))


def unknown_token(tokenizer: Tokenizer) -> str | None:
    """What stands for a text's characters that the vocabulary lacks."""
    model = json.loads(tokenizer.to_str())["model"]
    number = model.get("unk_id")
    return model.get("unk_token") if number is None else model["vocab"][number][0]


def _marks(text: str, chat_template: str | None) -> bool:
    if not _MARKUP.fullmatch(text):
        return False
    return text.strip("</>") not in _HTML or text in (chat_template or "")


def without_control(tokenizer: Tokenizer, strings: Sequence[str]) -> Tokenizer:
    """A copy that yields the same ids for texts, and never the ids of `strings` (but the unknown token's, for what it
    does not know)."""
    spec = json.loads(tokenizer.to_str())
    secret = secrets.token_hex(16)  # new in each process, so that no text can spell a name
    names = {text: f"{secret} {number}" for number, text in enumerate(strings)}
    _rename(spec["model"], names)
    for token in spec["added_tokens"]:
        if token["content"] in names:
            token["content"], token["special"] = names[token["content"]], True
    if spec["model"].get("byte_fallback") and (spec["model"]["type"] == "Unigram" or spec["model"]["ignore_merges"]):
        # The pieces of single bytes are for bytes, and not for a text that spells one
        split = {
            "type": "Split", "pattern": {"Regex": "<(?=0x[0-9A-F]{2}>)"}, "behavior": "MergedWithPrevious",
            "invert": False,
        }  # fmt: skip
        before = [spec["pre_tokenizer"]] if spec["pre_tokenizer"] else []
        spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*before, split]}
    made = Tokenizer.from_str(json.dumps(spec))
    made.encode_special_tokens = True
    return made


def _rename(model: dict[str, Any], names: dict[str, str]) -> None:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
        return
    model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if model.get("merges"):
        prefix = len(model.get("continuing_subword_prefix") or "")
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [[a, b] for a, b in pairs if not _controls(a, b, a + b[prefix:], names)]


def _controls(first: str, second: str, whole: str, names: dict[str, str]) -> bool:
    return first in names or second in names or whole in names or _BYTE.fullmatch(whole) is not None


def inside(tokenizer: Tokenizer) -> Tokenizer:
    """A copy for what is not the first of its row: it puts no word border before it."""
    spec = json.loads(tokenizer.to_str())
    steps = spec["pre_tokenizer"] or {}
    for step in (steps, *steps.get("pretokenizers", ())):
        if step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first":
            step["prepend_scheme"] = "never"
    made = Tokenizer.from_str(json.dumps(spec))
    made.encode_special_tokens = tokenizer.encode_special_tokens
    return made
