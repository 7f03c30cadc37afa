"""The files beside a tokenizer.json: which are a tokenizer's, and what must be in them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from prefrank.errors import BadModel
from prefrank.io.json_files import Fields, kind_of, parse_json
from prefrank.text import spm
from prefrank.text.tokenizer_file import MOST_ID

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
_NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))


def check_files(files: Mapping[str, bytes], folder: Path) -> None:
    """See that the files beside tokenizer.json are of the kinds that are read.

    Raises:
        BadModel: naming file and key.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"):
        if name not in files:
            continue
        where = str(folder / name)
        value = parse_json(files[name], where)
        if not isinstance(value, dict):
            raise BadModel(f"{where} holds {kind_of(value)}; wanted an object")
        if half := re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False)):
            raise BadModel(f"{where} holds half of a character ({half[0]!a}); copy or download it again")
        fields = Fields(value, where)
        if name in ("added_tokens.json", "vocab.json"):
            for piece in fields:
                fields.integer(piece, most=MOST_ID)
            continue
        for token in _NAMED:
            if isinstance(fields.get(token), dict):
                fields.object(token).text("content")
            elif fields.get(token) is not None and not isinstance(fields[token], str):
                fields.refuse(token, "a string, or an object with content")
        if name == "tokenizer_config.json":
            _check_config(fields)
    for name, content in files.items():
        if name == CHAT_TEMPLATE or name.startswith(f"{MORE_TEMPLATES}/"):
            try:
                content.decode()
            except UnicodeDecodeError as error:
                place = f"{error.reason} at byte {error.start}"
                raise BadModel(f"the chat template {folder / name} is not UTF-8 text ({place})") from None


def _check_config(config: Fields) -> None:
    config.text("tokenizer_class", None)
    config.flag("add_bos_token", None)
    config.number("model_max_length", None, least=1.0)
    config.texts("model_input_names", ())
    if (decoder := config.object("added_tokens_decoder", None)) is not None:
        for number in decoder:
            decoder.object(number).text("content")
    named, wanted = config.get("chat_template"), "a text, or a list of objects with name and template"
    if isinstance(named, list):
        for template in config.objects("chat_template"):
            template.text("name")
            template.text("template")
    elif isinstance(named, dict):
        for name in named:
            config.object("chat_template").text(name)
    elif named is not None and not isinstance(named, str):
        config.refuse("chat_template", wanted)
