"""What a tokenizer.json must be before the library reads it, which trusts what it reads.

The library takes all memory for some files (a character map of a false size), panics on others once a text comes (a
post-processor that names a token it does not define), and reads some that make short texts endless. What it only raises
an error for is left to it.
"""

import base64
import binascii
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers

from prefrank.errors import BadModel, short
from prefrank.io.json_files import Fields, parse_json
from prefrank.limits import limit, past
from prefrank.text.reader import one_line

MOST_ID = (1 << 31) - 1
_USUAL_GROWTH = 18
"""Times that Unicode's own forms make a character longer (U+FDFA in NFKC)."""
_DEPTH, _STEPS = 20, 100


def read_tokenizer(content: bytes, where: str) -> Tokenizer:
    """The tokenizer of a file; without dropout, truncation and padding, and reading texts as texts.

    Args:
        where: the file, for errors.

    Raises:
        BadModel: it is none that can be used, naming the key.
    """
    value = parse_json(content, where)
    spec = Fields(value if isinstance(value, dict) else {}, where)
    model = spec.object("model")
    _check_model(model)
    _check_added(spec)
    for name, inner in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")):
        for step in _flat(spec.object(name, None), inner):
            _check_step(step)
    if (grown := growth(spec)) > limit("text_growth"):
        raise BadModel(f"{where}: the normalizer makes a text up to {grown:,} times longer, {past('text_growth')}")
    for step in _flat(spec.object("post_processor", None), "processors"):
        _check_template(step)
    if model.number("dropout", None):  # for training: the same text must give the same ids
        content = json.dumps({**value, "model": {**model, "dropout": None}}).encode()
    with one_line(BadModel, f"{where} cannot be read"):
        tokenizer = Tokenizer.from_str(content.decode("utf-8-sig"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
    return tokenizer


def _check_model(model: Fields) -> None:
    vocab = model.get("vocab")
    if not isinstance(vocab, dict | list):
        model.refuse("vocab", "the pieces and their ids or scores")
    if not vocab:
        model.refuse("vocab", "at least one piece")
    where = f"{model.file}: {model.place('vocab')}"
    if len(vocab) > limit("vocabulary_pieces"):
        raise BadModel(f"{where} has {len(vocab):,} pieces, {past('vocabulary_pieces')}")
    pieces: Any = (
        vocab if isinstance(vocab, dict) else (piece[0] for piece in vocab if isinstance(piece, list) and piece)
    )
    longest = max((len(piece) for piece in pieces if isinstance(piece, str)), default=0)
    if longest > limit("piece_characters"):
        raise BadModel(f"{where} has a piece of {longest:,} characters, {past('piece_characters')}")
    if isinstance(vocab, dict):
        for piece, number in vocab.items():
            if type(number) is not int or not 0 <= number <= MOST_ID:
                Fields(vocab, model.file, model.place("vocab")).refuse(piece, f"an id from 0 to {MOST_ID:,}")
    most = model.integer("max_input_chars_per_word", None, most=1 << 64)
    if most is not None and most > limit("word_characters"):
        place = model.place("max_input_chars_per_word")
        raise BadModel(f"{model.file}: {place} is {most:,}, {past('word_characters')}")


def _check_added(spec: Fields) -> None:
    added = spec.objects("added_tokens", ())
    if len(added) > limit("added_tokens"):
        raise BadModel(f"{spec.file}: added_tokens has {len(added):,} entries, {past('added_tokens')}")
    for token in added:
        token.integer("id", most=MOST_ID)
        if len(token.text("content")) > limit("piece_characters"):
            place = token.place("content")
            raise BadModel(
                f"{token.file}: {place} has {len(token['content']):,} characters, {past('piece_characters')}"
            )


def _flat(step: Fields | None, inner: str, depth: int = 0) -> Iterator[Fields]:
    """A step's steps, in order."""
    if step is None:
        return
    if step.get("type") != "Sequence":
        yield step
        return
    if depth > _DEPTH or len(step.objects(inner)) > _STEPS:
        step.refuse(inner, f"at most {_STEPS} steps, nested at most {_DEPTH} deep")
    for inner_step in step.objects(inner):
        yield from _flat(inner_step, inner, depth + 1)


def _check_step(step: Fields) -> None:
    kind = step.text("type")
    pattern = step.object("pattern", None) if isinstance(step.get("pattern"), dict) else None
    regex = pattern.text("Regex", "") if pattern is not None else ""
    if len(regex) > limit("pattern_characters"):
        where = f"{step.file}: {step.place('pattern')}"
        raise BadModel(f"{where} has {len(regex):,} characters, {past('pattern_characters')}")
    if kind == "FixedLength" and step.integer("length", 1) == 0:
        step.refuse("length", "at least 1")
    if kind == "Precompiled":
        try:
            content = base64.b64decode(step.text("precompiled_charsmap"), validate=True)
        except (binascii.Error, ValueError):
            content = b""
        # Its size is in its first four bytes, and the library makes room for it (sentencepiece, normalizer.cc)
        size = struct.unpack("<I", content[:4])[0] if len(content) > 4 else 0
        if size % 4 or not 0 < size <= len(content) - 4:
            step.refuse("precompiled_charsmap", "a whole character map in base64")


def growth(spec: Mapping[str, Any]) -> int:
    """How many times longer the normalizers of a tokenizer.json may make a text, beyond what Unicode's own forms do."""
    times = 1
    top = spec if isinstance(spec, Fields) else Fields(spec, "tokenizer.json")
    for step in _flat(top.object("normalizer", None), "normalizers"):
        kind = step.text("type")
        if kind == "Prepend":
            times *= max(len(step.text("prepend")), 1)
        elif kind == "Precompiled":
            content = base64.b64decode(step.text("precompiled_charsmap"))
            texts = content[4 + struct.unpack("<I", content[:4])[0] :].split(b"\0")
            times *= -(-max(len(text.decode(errors="replace")) for text in texts) // _USUAL_GROWTH) or 1
        elif kind == "Replace":
            times *= _replaced(step.object("pattern"), len(step.text("content")))
    return times


def _replaced(pattern: Fields, size: int) -> int:
    """How many times longer a Replace with so many characters may make a text."""
    regex = pattern.text("Regex", None)
    if regex is None:
        return -(-size // max(len(pattern.text("String")), 1)) or 1
    with one_line(BadModel, f"{pattern.file}: {pattern.place('Regex')} cannot be read"):
        step = normalizers.Replace(Regex(regex), "x")
        grows = any(len(step.normalize_str(text)) > len(text) for text in _SAMPLES)  # where nothing stood
    return max(size, 1) + (size if grows else 0)


_SAMPLES = ("", "a b", " a ", "a  b\n", "".join(map(chr, range(1, 256))))


def _check_template(step: Fields) -> None:
    """See that a TemplateProcessing has each text once, and the tokens that it names."""
    if step.get("type") != "TemplateProcessing":
        return
    known = step.object("special_tokens")
    for name, wanted in (("single", ["A"]), ("pair", ["A", "B"])):
        texts = []
        for piece in step.objects(name):
            if "Sequence" in piece:
                texts.append(piece.object("Sequence").text("id"))
            elif piece.object("SpecialToken").text("id") not in known:
                raise BadModel(
                    f"{step.file}: {piece.place('SpecialToken.id')} is {short(piece['SpecialToken']['id'])}, which"
                    f" {step.place('special_tokens')} lacks; copy or download the tokenizer again"
                )
        if texts != wanted:
            shown = " ".join(f"${text}" for text in texts) or "no text"
            raise BadModel(
                f"{step.file}: {step.place(name)} holds {shown}; wanted {' and '.join(f'${text}' for text in wanted)},"
                " each once and in this order"
            )
