"""What prefrank bounds of the input it reads, in one table, so that no file can take a machine's memory or time.

Each bound is far beyond what honest input needs, is named in the error of what passes it, and is changed by an
environment variable: `PREFRANK_MAX_LINE_BYTES=4e9 prefrank score ...`. docs/security.md shows the table.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from prefrank.errors import BadInput


class Limit(NamedTuple):
    """One bound.

    Args:
        most: the greatest value that passes.
        unit: of it, in the plural.
        what: it bounds, for the documentation.
    """

    most: int
    unit: str
    what: str


LIMITS: Mapping[str, Limit] = {
    "json_bytes": Limit(1 << 29, "bytes", "one JSON file of a model or run (not of data)"),
    "answer_bytes": Limit(1 << 26, "bytes", "one answer of a server that scores, unpacked"),
    "model_parts": Limit(100_000, "parts", "layers or outputs that a config.json counts, tensors' shards of a model"),
    "pickle_bytes": Limit(1 << 26, "bytes", "the pickle of a pytorch_model.bin: names and shapes, without the numbers"),
    "template_bytes": Limit(
        1 << 26, "bytes", "memory that one rendering of a chat template makes, besides 32 a byte of its messages"
    ),
    "chat_templates": Limit(1_000, "templates", "the folder of additional chat templates of a tokenizer"),
    "template_characters": Limit(1 << 17, "characters", "the source of a chat template"),
    "template_steps": Limit(
        1_000_000, "steps", "work of one rendering of a chat template, besides 1,000 a message and one for 4 bytes"
    ),
    "whole_text_bytes": Limit(
        2_000_000,
        "bytes",
        "a text, or what of it has no end of a word, that a tokenizer"
        " reads whole; where it is proven to cut there, texts of any length are read in pieces",
    ),
    "text_growth": Limit(16, "times its length", "a text after the normalizers of a tokenizer"),
    "vocabulary_pieces": Limit(4_000_000, "pieces", "the vocabulary of a tokenizer"),
    "piece_characters": Limit(2_000, "characters", "one piece of a vocabulary, or one added token"),
    "added_tokens": Limit(150_000, "added tokens", "a tokenizer's tokens beside its vocabulary"),
    "pattern_characters": Limit(100_000, "characters", "a regular expression of a tokenizer"),
    "word_characters": Limit(500, "characters", "a word that a WordPiece tokenizer takes apart"),
    "step_prompts": Limit(100_000, "prompts", "one optimizer step, over all devices"),
    "sweep_runs": Limit(10_000, "runs", "the combinations that a sweep's file stands for"),
    "yaml_bytes": Limit(1 << 20, "bytes", "one YAML file: a recipe, a sweep, a card's facts"),
    "yaml_levels": Limit(100, "levels", "lists and mappings inside each other in a YAML file"),
    "yaml_values": Limit(100_000, "values", "everything in a YAML file, aliases written out"),
    "line_bytes": Limit(1 << 28, "bytes", "one row of a data file: a line, an element of a JSON array, a CSV row"),
    "blank_lines": Limit(1 << 20, "blank lines", "blank lines in a row in a data file"),
    "unpacked_bytes": Limit(
        1 << 30, "bytes", "what a data file unpacks to, where that is over 2,000 times its own size"
    ),
    "packed_rows": Limit(1 << 18, "rows", "rows or lines of a data file that has less than two bytes for each"),
    "window_bytes": Limit(1 << 28, "bytes", "memory that unpacking an .xz file takes"),
    "data_files": Limit(1 << 20, "files and folders", "what is in a folder of data"),
    "pairs": Limit(
        1 << 24,
        "pairs",
        "pairs of one ranked list, where each is needed; of all that are evaluated",
    ),
    "resamples": Limit(1_000_000, "resamples", "resamples and permutations of an evaluation"),
}
"""By name; the variable is `PREFRANK_MAX_` and the name in capitals."""


def limit(name: str) -> int:
    """The greatest value that passes: the environment's, else the table's.

    Raises:
        BadInput: the environment's is no number of at least 1.
    """
    variable = f"PREFRANK_MAX_{name.upper()}"
    given = os.environ.get(variable)
    if given is None:
        return LIMITS[name].most
    try:
        most = int(float(given))
    except (ValueError, OverflowError):
        most = 0
    if most < 1:
        raise BadInput(f"{variable} is {given!r}; wanted a number of {LIMITS[name].unit}, at least 1")
    return most


def past(name: str) -> str:
    """The words of an error for what passes a bound: how much there may be, and how to allow more."""
    return f"more than {limit(name):,} {LIMITS[name].unit}, which PREFRANK_MAX_{name.upper()} may raise"
