"""A folder's tokenizer as a `tokenizers.Tokenizer`, with the files it came from.

Folders with a `tokenizer.json` need no transformers; a sentencepiece or vocabulary file alone is converted by it once.
Files published with truncation and padding switched on (as all-MiniLM's are) are read with both off.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from prefrank.errors import BadModel, BadText, NotFound, suggest
from prefrank.io.json_files import Fields, parse_json, read_fields
from prefrank.io.plain_files import read_bytes
from prefrank.limits import limit, past
from prefrank.text import control, spm
from prefrank.text.convert import in_transformers
from prefrank.text.folder_files import CHAT_TEMPLATE, MORE_TEMPLATES, TOKENIZER_FILES, check_files
from prefrank.text.reader import Reader, one_line
from prefrank.text.tokenizer_file import MOST_ID, growth, read_tokenizer

_TEMPLATE_FILE = re.compile(rf"{MORE_TEMPLATES}/[^/\\\0]+\.jinja")
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
        return parse_json(self.files.get("tokenizer_config.json", b"{}"), "tokenizer_config.json")

    @cached_property
    def chat_templates(self) -> dict[str, str]:
        """Name -> Jinja source of the chat templates; `default` is the one that is used."""
        named = self.config.get("chat_template") or {}
        if isinstance(named, str):
            named = {"default": named}
        elif isinstance(named, list):
            named = {entry["name"]: entry["template"] for entry in named}
        templates = dict(named)
        for name, content in self.files.items():
            if name == CHAT_TEMPLATE:
                templates["default"] = content.decode()
            elif name.startswith(f"{MORE_TEMPLATES}/"):
                templates[Path(name).stem] = content.decode()
        return templates

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the default chat template, or None."""
        return self.chat_templates.get("default")

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """Name, such as `eos_token`, -> text: from tokenizer_config.json, else special_tokens_map.json, else the id
        in config.json (of several the first)."""
        tokens = {}
        named = parse_json(self.files.get("special_tokens_map.json", b"{}"), "special_tokens_map.json")
        for source in (named, self.config):
            for name, token in source.items():
                text = token.get("content") if isinstance(token, dict) else token
                if name.endswith("_token") and isinstance(text, str):
                    tokens[name] = text
        for name in ("bos_token", "eos_token"):
            number = self.model.get(f"{name}_id")
            number = next(iter(number), None) if isinstance(number, list) else number
            if name in tokens or name in self.config or number is None or number < 0:
                continue
            text = self.tokenizer.id_to_token(number)
            if text is not None:
                tokens[name] = text
        return tokens

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
    def texts(self) -> Reader:
        """`plain` for texts of any length."""
        return Reader(self.plain, growth=self.growth)

    @cached_property
    def texts_inside(self) -> Reader:
        """`plain_inside` for texts of any length."""
        return Reader(self.plain_inside, growth=self.growth)

    @cached_property
    def rendered(self) -> Reader:
        """`with_special_tokens` for rendered texts of any length."""
        return Reader(self.with_special_tokens, growth=self.growth)

    @cached_property
    def growth(self) -> int:
        """How many times longer the normalizers may make a text."""
        return growth(json.loads(self.tokenizer.to_str()))

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
        files = {**self.files, "tokenizer.json": self.tokenizer.to_str().encode()}
        try:
            names = in_transformers(files, self.model, self.folder).model_input_names
        except BadModel:  # then no other reading of this folder is to agree with
            return True
        return "token_type_ids" in names

    @cached_property
    def default_length(self) -> int | None:
        """The tokenizer's own `model_max_length`, None where it says none (a placeholder such as 1e30).

        Raises:
            BadModel: fewer tokens than a row needs.
        """
        length = _fields(self, "tokenizer_config.json").number("model_max_length", None)
        if length is None or length > 2**31:
            return None
        if length < 8 or length % 1:
            _fields(self, "tokenizer_config.json").refuse("model_max_length", "a whole number of tokens, at least 8")
        return int(length)

    @cached_property
    def probe(self) -> str:
        """A short text that gives tokens, for trying out what stands around them.

        Raises:
            BadModel: none does.
        """
        for text in chain(("a", "A", "0"), _pieces(self.tokenizer)):
            if text in self.control_strings:
                continue
            with suppress(BadText), one_line(BadText, "a text cannot be encoded"):
                if self.tokenizer.encode(text, add_special_tokens=False).ids:  # `plain` is made when there are texts
                    return text
        raise BadModel(f"the tokenizer in {self.folder} makes tokens of no text; download it again")

    def __getstate__(self) -> dict[str, Any]:
        """Without what is worked out from the rest."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # a pickled tokenizer forgets that text has no control tokens
        self.tokenizer.encode_special_tokens = True

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and the other files into a folder.

        Raises:
            BadModel: a file of another name than a tokenizer's, which might lead out of the folder.
        """
        (folder / "tokenizer.json").write_text(self.tokenizer.to_str(), encoding="utf-8")
        for name, content in self.files.items():
            if name not in TOKENIZER_FILES and not _TEMPLATE_FILE.fullmatch(name):
                raise BadModel(f"{name!r} is no name of a tokenizer's file; wanted such as {TOKENIZER_FILES[0]}")
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
        path = Path(os.path.expanduser(chat_template))
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
        BadModel: no tokenizer in the folder, or one that cannot be read or used, naming file and key.
    """
    more = sorted(path.name for path in (folder / MORE_TEMPLATES).glob("*.jinja"))
    if len(more) > limit("chat_templates"):
        raise BadModel(f"{folder / MORE_TEMPLATES} has {len(more):,} templates, {past('chat_templates')}")
    names = (*TOKENIZER_FILES, *(f"{MORE_TEMPLATES}/{name}" for name in more))
    files = {name: read_bytes(folder / name, BadModel) for name in names if os.path.lexists(folder / name)}
    path, config = folder / "tokenizer.json", folder / "config.json"
    model = read_fields(config) if config.is_file() else Fields({}, str(config))
    for name in ("bos_token_id", "eos_token_id"):
        numbers = model[name] if isinstance(model.get(name), list) else [model.get(name)]
        if not all(number is None or (type(number) is int and -1 <= number <= MOST_ID) for number in numbers):
            model.refuse(name, f"an id from 0 to {MOST_ID:,}, or a list of ids")
    if os.path.lexists(path):
        content = read_bytes(path, BadModel)
        check_files(files, folder)
    elif files:
        check_files(files, folder)
        content, files = _converted(folder, files, model)
    else:
        raise BadModel(f"{folder} has no tokenizer; wanted tokenizer.json or a vocabulary file beside the weights")
    source = FolderTokenizer(read_tokenizer(content, str(path)), files, model.raw, folder)
    with one_line(BadModel, f"the tokenizer in {folder} cannot encode a text"):
        ids = source.tokenizer.encode(source.probe, source.probe).ids
    if max(ids, default=0) > MOST_ID:
        raise BadModel(f"{path}: the post_processor gives the id {max(ids):,}; wanted at most {MOST_ID:,}")
    return source


def _pieces(tokenizer: Tokenizer) -> Iterator[str]:
    """Some of the vocabulary, sorted only if they are asked for."""
    yield from (piece.strip(" ▁Ġ#") for piece in sorted(tokenizer.get_vocab())[:1000])


def _fields(source: FolderTokenizer, name: str) -> Fields:
    """One of its JSON files."""
    return Fields(parse_json(source.files.get(name, b"{}"), name), str((source.folder or Path()) / name))


def _converted(folder: Path, files: dict[str, bytes], model: Mapping[str, Any]) -> tuple[bytes, dict[str, bytes]]:
    """The tokenizer.json of a folder without one, and its files as they are to be saved.

    Where transformers' class for the folder normalizes texts its own way, whatever tokenizer.json says, the files name
    the generic class, with all that the other knew, so that a saved folder is read alike.
    """
    for name in spm.FILES:
        if name in files:
            spm.check_size(files[name], folder / name)
    loaded = in_transformers(files, model, folder)
    with one_line(BadModel, f"the tokenizer in {folder} cannot be converted"):
        text = loaded.backend_tokenizer.to_str()
        corrected = next((spm.corrected(text, files[name]) for name in spm.FILES if name in files), text)
    if corrected != text:
        config = json.loads(files.get("tokenizer_config.json", b"{}"))
        known = {name: str(token) for name, token in loaded.special_tokens_map.items() if isinstance(token, str)}
        generic = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": loaded.model_input_names}
        content = json.dumps(known | config | generic, indent=2, ensure_ascii=False)
        files = {**files, "tokenizer_config.json": content.encode()}
    return corrected.encode(), files
