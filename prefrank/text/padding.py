"""The padding token of a decoder's folder.

transformers reads a decoder's score at the rightmost token that is not padding. A model that was trained on the last
token of a row is read there too if its padding can end no row. Such a token is, in this order: the tokenizer's own, if
it is special, no end token and not in the template; another special token that nothing uses; a new one, for which the
model may need one embedding more.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from tokenizers import AddedToken, Tokenizer

from prefrank.text.tokenizer import FolderTokenizer

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "cls_token")
_NEW = ("<pad>", "[PAD]", "<|padding|>", "<|pad|>")
_IDLE = ("pad", "reserved", "unused", "placeholder")
"""In the names of special tokens that are there for nothing else; they are taken first."""


def safe_padding(source: FolderTokenizer, template: str, used: Collection[int]) -> tuple[FolderTokenizer, int]:
    """The tokenizer with a padding token that can end no row, and its id.

    Args:
        template: the source of what puts control tokens around texts.
        used: ids that stand in rows, or end texts.
    """
    named = {source.special_token(name) for name in _NAMED}
    free = [
        token.content
        for number, token in sorted(source.tokenizer.get_added_tokens_decoder().items())
        if token.special and number not in used and token.content not in named and token.content not in template
    ]
    own = source.special_token("pad_token")
    idle = [token for word in _IDLE for token in free if word in token.lower()]
    chosen = own if own in free else next(iter(idle + free), None)
    if chosen is None:
        source, chosen = _with_new(source)
    return named_padding(source, chosen), _id(source, chosen)


def wanted_padding(source: FolderTokenizer, wanted: int) -> FolderTokenizer:
    """The tokenizer with the padding token of this id, which gets a name if it is the next that has none."""
    token = source.tokenizer.id_to_token(wanted)
    if token is None:
        source, token = _with_new(source)
        if _id(source, token) != wanted:
            return source
    return named_padding(source, token)


def named_padding(source: FolderTokenizer, token: str) -> FolderTokenizer:
    """The tokenizer whose files name this padding token, on the right, where absolute positions need it."""
    files = dict(source.files)
    config = _object(files.get("tokenizer_config.json"))
    config |= {"pad_token": token, "padding_side": "right"}
    number = _id(source, token)
    if isinstance(listed := config.get("added_tokens_decoder"), dict) and str(number) not in listed:
        plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        config["added_tokens_decoder"] = {**listed, str(number): {"content": token, **plain}}
    files["tokenizer_config.json"] = _bytes(config)
    if "special_tokens_map.json" in files:
        files["special_tokens_map.json"] = _bytes(_object(files["special_tokens_map.json"]) | {"pad_token": token})
    if "added_tokens.json" in files and token not in source.tokenizer.get_vocab(with_added_tokens=False):
        files["added_tokens.json"] = _bytes(_object(files["added_tokens.json"]) | {token: number})
    return replace(source, files=files)


def _with_new(source: FolderTokenizer) -> tuple[FolderTokenizer, str]:
    tokenizer = Tokenizer.from_str(source.tokenizer.to_str())
    numbered = (f"<|pad_{number}|>" for number in range(len(tokenizer.get_vocab()) + 1))
    name = next(name for name in (*_NEW, *numbered) if tokenizer.token_to_id(name) is None)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False)])
    tokenizer.encode_special_tokens = source.tokenizer.encode_special_tokens
    return replace(source, tokenizer=tokenizer), name


def _id(source: FolderTokenizer, token: str) -> int:
    number = source.tokenizer.token_to_id(token)
    assert number is not None
    return number


def _object(content: bytes | None) -> dict[str, Any]:
    return json.loads(content) if content else {}


def _bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
