"""A folder's tokenizer as a `tokenizers.Tokenizer`, with the files it came from.

Folders with a `tokenizer.json` need no transformers; a sentencepiece or vocabulary file alone is converted by it once.
Files published with truncation and padding switched on (as all-MiniLM's are) are read with both off.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from prefrank.errors import BadModel

TOKENIZER_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "chat_template.jinja",
)
"""Beside `tokenizer.json`, what a saved checkpoint carries on unchanged."""


@dataclass(frozen=True)
class FolderTokenizer:
    """The tokenizer of a checkpoint folder.

    Args:
        tokenizer: splits special-token strings found in text, so that text cannot produce a control token.
        files: name -> bytes of the other tokenizer files, copied into every checkpoint saved from here.
    """

    tokenizer: Tokenizer
    files: dict[str, bytes]

    @cached_property
    def config(self) -> dict[str, Any]:
        """`tokenizer_config.json`, or nothing."""
        return json.loads(self.files.get("tokenizer_config.json", b"{}"))

    @cached_property
    def chat_template(self) -> str | None:
        """The Jinja source of the chat template, from its own file or from the tokenizer's configuration."""
        if "chat_template.jinja" in self.files:
            return self.files["chat_template.jinja"].decode()
        template = self.config.get("chat_template")
        if isinstance(template, list):
            return next((entry["template"] for entry in template if entry.get("name") == "default"), None)
        return template

    def special_token(self, name: str) -> str | None:
        """A named special token's text, such as `eos_token`."""
        token = self.config.get(name)
        return token.get("content") if isinstance(token, dict) else token

    @cached_property
    def with_special_tokens(self) -> Tokenizer:
        """A second tokenizer that reads special-token strings as control tokens: for templates, never for text."""
        second = Tokenizer.from_str(self.tokenizer.to_str())
        second.encode_special_tokens = False
        return second

    @cached_property
    def special_strings(self) -> tuple[str, ...]:
        added = self.tokenizer.get_added_tokens_decoder().values()
        return tuple(sorted((token.content for token in added if token.special), key=len, reverse=True))

    def save(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text(self.tokenizer.to_str(), encoding="utf-8")
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def load_tokenizer(folder: Path) -> FolderTokenizer:
    """Read the tokenizer of a checkpoint folder.

    Raises:
        BadModel: no tokenizer in the folder, or one that cannot be read.
    """
    files = {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}
    path = folder / "tokenizer.json"
    if not path.is_file() and not files:
        raise BadModel(f"{folder} has no tokenizer; wanted tokenizer.json or a vocabulary file beside the weights")
    try:
        tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else _converted(folder)
        json.loads(files.get("tokenizer_config.json", b"{}"))
    except Exception as error:  # the Rust and conversion layers raise plain Exception
        raise BadModel(f"the tokenizer in {folder} cannot be read: {error}; download it again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return FolderTokenizer(tokenizer, files)


def _converted(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer  # seconds to import; only for folders without tokenizer.json

    loaded = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    return Tokenizer.from_str(loaded.backend_tokenizer.to_str())
