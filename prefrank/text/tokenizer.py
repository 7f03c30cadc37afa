"""A folder's tokenizer as a `tokenizers.Tokenizer`, with the files it came from.

Folders with a `tokenizer.json` need no transformers; a sentencepiece or vocabulary file alone is converted by it once.
Files published with truncation and padding switched on (as all-MiniLM's are) are read with both off.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from prefrank.errors import BadModel, NotFound, suggest
from prefrank.text import control, spm

CHAT_TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"
TOKENIZER_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    *spm.FILES,
    CHAT_TEMPLATE,
)
"""Beside `tokenizer.json`, what a saved checkpoint carries on unchanged."""
_TYPED = frozenset(
    ("BertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "ConvBertTokenizer", "LayoutLMTokenizer",
     "DebertaTokenizer", "DebertaV2Tokenizer")
)  # fmt: skip
_UNTYPED = frozenset(
    ("PreTrainedTokenizer", "TokenizersBackend", "RobertaTokenizer", "XLMRobertaTokenizer", "CamembertTokenizer",
     "DistilBertTokenizer", "MPNetTokenizer", "AlbertTokenizer", "XLNetTokenizer", "FunnelTokenizer", "LlamaTokenizer",
     "Qwen2Tokenizer", "GPT2Tokenizer", "GPTNeoXTokenizer", "GemmaTokenizer", "T5Tokenizer")
)  # fmt: skip
"""Tokenizer classes of transformers 5 whose `model_input_names` have, or lack, token_type_ids; others are asked."""


@dataclass(frozen=True)
class FolderTokenizer:
    """The tokenizer of a checkpoint folder.

    Args:
        tokenizer: as it is saved. Texts are read with `plain`, templates with `with_special_tokens`.
        files: name -> bytes of the other tokenizer files, copied into every checkpoint saved from here.
        model: the model's config.json, which may name tokens that the tokenizer's files do not.
        folder: where it was read.
    """

    tokenizer: Tokenizer
    files: dict[str, bytes]
    model: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """`tokenizer_config.json`, or nothing."""
        return json.loads(self.files.get("tokenizer_config.json", b"{}"))

    @cached_property
    def chat_templates(self) -> dict[str, str]:
        """Name -> Jinja source of the chat templates; `default` is the one that is used."""
        named = self.config.get("chat_template") or {}
        if isinstance(named, str):
            named = {"default": named}
        elif isinstance(named, list):
            named = {entry["name"]: entry["template"] for entry in named}
        found = dict(named)
        for name, content in self.files.items():
            if name == CHAT_TEMPLATE:
                found["default"] = content.decode()
            elif name.startswith(f"{MORE_TEMPLATES}/"):
                found[Path(name).stem] = content.decode()
        return found

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the default chat template, or None."""
        return self.chat_templates.get("default")

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """Name, such as `eos_token`, -> text: from tokenizer_config.json, else special_tokens_map.json, else the id
        in config.json (of several the first)."""
        found = {}
        for source in (json.loads(self.files.get("special_tokens_map.json", b"{}")), self.config):
            for name, token in source.items():
                text = token.get("content") if isinstance(token, dict) else token
                if name.endswith("_token") and isinstance(text, str):
                    found[name] = text
        for name in ("bos_token", "eos_token"):
            number = self.model.get(f"{name}_id")
            number = next(iter(number), None) if isinstance(number, list) else number
            if name in found or name in self.config or not isinstance(number, int) or number < 0:
                continue
            text = self.tokenizer.id_to_token(number)
            if text is not None:
                found[name] = text
        return found

    @cached_property
    def configured_tokens(self) -> dict[str, str]:
        """Those of `special_tokens` that tokenizer_config.json names."""
        return {name: text for name, text in self.special_tokens.items() if self.config.get(name)}

    def special_token(self, name: str) -> str | None:
        """A named special token's text, such as `eos_token`."""
        return self.special_tokens.get(name)

    @cached_property
    def control_strings(self) -> tuple[str, ...]:
        """What no text may yield the id of, longest first; see `control.control_strings`."""
        pieces = next((spm.control_pieces(self.files[name]) for name in spm.FILES if name in self.files), ())
        return control.control_strings(self.tokenizer, (*self.special_tokens.values(), *pieces), self.chat_template)

    @cached_property
    def control_pattern(self) -> re.Pattern[str]:
        """Finds control strings in a text."""
        if not self.control_strings:
            return re.compile(r"(?!)")
        firsts = "".join(sorted({re.escape(text[0]) for text in self.control_strings}))
        # Looking at one character first is what makes hundreds of strings quick to look for
        return re.compile(f"(?=[{firsts}])(?:{'|'.join(map(re.escape, self.control_strings))})")

    @cached_property
    def control_spelt(self) -> re.Pattern[str]:
        """Finds them in whatever case."""
        return re.compile(self.control_pattern.pattern, re.IGNORECASE)

    @cached_property
    def control_edges(self) -> tuple[frozenset[str], frozenset[str]]:
        """What control strings begin with, and what they end with, short of all of it."""
        cuts = [(text, place) for text in self.control_strings for place in range(1, len(text))]
        return frozenset(text[:place] for text, place in cuts), frozenset(text[place:] for text, place in cuts)

    @cached_property
    def written_by_models(self) -> frozenset[str]:
        """Control strings that the tokenizer does not call special and that the chat template names, such as
        `<think>`: a model writes them as tokens of its reply, so replies and assistant turns may hold them."""
        special = {token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special}
        special |= set(self.special_tokens.values())
        template = self.chat_template or ""
        return frozenset(text for text in self.control_strings if text not in special and text in template)

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """The ids of `control_strings`, without that of the unknown token, which any text may need."""
        unknown = control.unknown_token(self.tokenizer)
        ids = (self.tokenizer.token_to_id(text) for text in self.control_strings if text != unknown)
        return frozenset(number for number in ids if number is not None)

    @cached_property
    def plain(self) -> Tokenizer:
        """Reads texts: no text yields a control token. It may not be saved."""
        return control.without_control(self.tokenizer, self.control_strings)

    @cached_property
    def plain_inside(self) -> Tokenizer:
        """As `plain`, for what follows another token of the same row."""
        return control.inside(self.plain)

    @cached_property
    def with_special_tokens(self) -> Tokenizer:
        """Reads special-token strings as control tokens: for templates, never for text."""
        second = Tokenizer.from_str(self.tokenizer.to_str())
        second.encode_special_tokens = False
        return second

    @cached_property
    def gives_types(self) -> bool:
        """Whether transformers' class for this folder returns token types: `model_input_names`, else the class says."""
        if "model_input_names" in self.config:
            return "token_type_ids" in self.config["model_input_names"]
        name = str(self.config.get("tokenizer_class") or "").removesuffix("Fast")
        if name in _TYPED or name in _UNTYPED:
            return name in _TYPED
        if self.folder is None:
            return True
        from transformers import AutoTokenizer  # seconds to import; only for classes that are not listed

        try:
            # Without the word it asks, and a "y" on standard input runs the folder's code
            asked = AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True, trust_remote_code=False)
            names = asked.model_input_names
        except Exception:  # any error of its layers: then no other reading of this folder is to agree with
            return True
        return "token_type_ids" in names

    @cached_property
    def default_length(self) -> int | None:
        """The tokenizer's own `model_max_length`, None where it says none (a placeholder such as 1e30)."""
        length = self.config.get("model_max_length")
        return int(length) if isinstance(length, int | float) and 8 <= length <= 2**31 else None

    def __getstate__(self) -> dict[str, Any]:
        """Without what is worked out from the rest."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # a pickled tokenizer forgets that text has no control tokens
        self.tokenizer.encode_special_tokens = True

    def save(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text(self.tokenizer.to_str(), encoding="utf-8")
        for name, content in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)


def with_chat_template(source: FolderTokenizer, chat_template: str) -> FolderTokenizer:
    """The same tokenizer with another chat template as its default, which is saved with it.

    Args:
        chat_template: a name among the tokenizer's own templates, or the path of a Jinja file.

    Raises:
        NotFound: neither such a name nor such a file.
        BadModel: a file that is not text.
    """
    text = source.chat_templates.get(chat_template)
    if text is None:
        path = Path(chat_template).expanduser()
        if not path.is_file():
            known = suggest(chat_template, source.chat_templates) if source.chat_templates else "; it has none"
            raise NotFound(f"the tokenizer has no chat template {chat_template!r}, and there is no such file{known}")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BadModel(f"the chat template {path} is not UTF-8 text; give a Jinja file") from error
    return replace(source, files={**source.files, CHAT_TEMPLATE: text.encode()})


def load_tokenizer(folder: Path) -> FolderTokenizer:
    """Read the tokenizer of a checkpoint folder.

    Raises:
        BadModel: no tokenizer in the folder, or one that cannot be read.
    """
    more = sorted((folder / MORE_TEMPLATES).glob("*.jinja"))
    names = (*TOKENIZER_FILES, *(f"{MORE_TEMPLATES}/{path.name}" for path in more))
    files = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    path = folder / "tokenizer.json"
    if not path.is_file() and not files:
        raise BadModel(f"{folder} has no tokenizer; wanted tokenizer.json or a vocabulary file beside the weights")
    try:
        if path.is_file():
            tokenizer = Tokenizer.from_file(str(path))
        else:
            tokenizer, files = _converted(folder, files)
        config = folder / "config.json"
        model = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        found = FolderTokenizer(tokenizer, files, model if isinstance(model, dict) else {}, folder)
        _check(found)
    except Exception as error:  # the Rust and conversion layers raise plain Exception
        raise BadModel(f"the tokenizer in {folder} cannot be read: {error}; download it again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return found


def _check(found: FolderTokenizer) -> None:
    """Raise ValueError for files whose JSON is not of the kind that is read."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if not isinstance(json.loads(found.files.get(name, b"{}")), dict):
            raise ValueError(f"{name} holds no JSON object")
    named = found.config.get("chat_template") or {}
    texts: list[Any] = [named]
    if isinstance(named, dict):
        texts = list(named.values())
    elif isinstance(named, list):
        texts = [isinstance(one, dict) and "name" in one and one.get("template") for one in named]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("the chat_template in tokenizer_config.json is neither a text nor a list of named ones")


def _converted(folder: Path, files: dict[str, bytes]) -> tuple[Tokenizer, dict[str, bytes]]:
    """The tokenizer of a folder without tokenizer.json, and its files as they are to be saved.

    Where transformers' class for the folder normalises texts its own way, whatever tokenizer.json says, the files name
    the generic class, with all that the other knew, so that a saved folder is read alike.
    """
    from transformers import AutoTokenizer  # seconds to import; only for folders without tokenizer.json

    loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    text = loaded.backend_tokenizer.to_str()
    mended = next((spm.mended(text, files[name]) for name in spm.FILES if name in files), text)
    if mended != text:
        config = json.loads(files.get("tokenizer_config.json", b"{}"))
        known = {name: str(token) for name, token in loaded.special_tokens_map.items() if isinstance(token, str)}
        generic = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": loaded.model_input_names}
        content = json.dumps(known | config | generic, indent=2, ensure_ascii=False)
        files = {**files, "tokenizer_config.json": content.encode()}
    return Tokenizer.from_str(mended), files
