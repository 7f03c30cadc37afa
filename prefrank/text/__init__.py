"""Texts to packed batches: template, encoding with the truncation policy, planning and packing."""

from prefrank.text.batches import distinct_rows, pack, plan_batches
from prefrank.text.defaults import default_length, default_settings, with_template
from prefrank.text.encoder import TextEncoder, check_texts
from prefrank.text.settings import PLAIN_TURNS, TextSettings
from prefrank.text.sharing import count_tokens
from prefrank.text.tokenizer import FolderTokenizer, load_tokenizer, with_chat_template

__all__ = [
    "PLAIN_TURNS",
    "FolderTokenizer",
    "TextEncoder",
    "TextSettings",
    "check_texts",
    "count_tokens",
    "default_length",
    "default_settings",
    "distinct_rows",
    "load_tokenizer",
    "pack",
    "plan_batches",
    "with_chat_template",
    "with_template",
]
