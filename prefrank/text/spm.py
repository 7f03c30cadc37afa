"""What a sentencepiece file says that a converted tokenizer does not: how texts are normalized, which pieces control.

Format: sentencepiece's `sentencepiece_model.proto` (ModelProto: pieces, normalizer_spec), read with the package's own
protobuf classes.
"""

import base64
import json
from typing import Any

from prefrank.errors import BadModel
from prefrank.limits import limit, past

FILES = ("spm.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model")
"""The names that such files have in published folders."""
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
_UNIGRAM, _BPE, _WORD = 1, 2, 3
"""Types of pieces and of models, by the file's numbers."""


def control_pieces(content: bytes) -> tuple[str, ...]:
    """The pieces that stand for control and unknown tokens; none where the file is of another format."""
    model = _read(content)
    return tuple(piece.piece for piece in model.pieces if piece.type in (_UNKNOWN, _CONTROL)) if model else ()


def check_size(content: bytes, where: object) -> None:
    """See that a file is of a size that converting it takes seconds.

    Raises:
        BadModel: it is empty, or past a bound.
    """
    if not content:
        raise BadModel(f"{where} is empty; copy or download it again")
    file = _read(content)
    # tiktoken's files have a line for each piece, in base64
    sizes = [len(piece.piece) for piece in file.pieces] if file else [len(line) // 2 for line in content.splitlines()]
    if len(sizes) > limit("vocabulary_pieces"):
        raise BadModel(f"{where} has {len(sizes):,} pieces, {past('vocabulary_pieces')}")
    if max(sizes, default=0) > limit("piece_characters"):
        raise BadModel(f"{where} has a piece of {max(sizes):,} characters, {past('piece_characters')}")


def corrected(tokenizer: str, content: bytes) -> str:
    """The JSON of a tokenizer converted from this file, with what the conversion left out or got wrong: the kind of
    model, bytes for unknown characters, the character map, spaces, the space before a text, which piece is unknown."""
    file, spec = _read(content), json.loads(tokenizer)
    if file is None:
        return tokenizer
    converted = spec["model"]["type"]
    _correct_model(spec, file)
    rules, split = file.normalizer_spec, '"WhitespaceSplit"' in json.dumps(spec["pre_tokenizer"])
    usual = rules.precompiled_charsmap and rules.add_dummy_prefix and rules.remove_extra_whitespaces
    steps = _steps(spec["normalizer"])
    decoders = converted == "BPE" == spec["model"]["type"] and not rules.remove_extra_whitespaces
    if decoders and (spec["pre_tokenizer"] is None or not rules.add_dummy_prefix):  # these write spaces their own way
        steps = [*_charsmap(rules), *(step for step in steps if step["type"] not in ("Precompiled", "NFC"))]
        if rules.add_dummy_prefix:
            spec["pre_tokenizer"] = {
                "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False,
            }  # fmt: skip
    elif not (usual and split and file.trainer_spec.model_type == _UNIGRAM):
        steps = [*(step for step in steps if not _spaces(step)), *_charsmap(rules)]
        steps += _FEWER_SPACES if rules.remove_extra_whitespaces else []
        # Before spaces that are kept it is one more, which the pre-tokenizer would not put there
        first = rules.add_dummy_prefix and not rules.remove_extra_whitespaces
        steps += [{"type": "Prepend", "prepend": " "}] if first else []
        spec["pre_tokenizer"] = {
            "type": "Metaspace", "replacement": "▁", "split": rules.remove_extra_whitespaces,
            "prepend_scheme": "always" if rules.add_dummy_prefix and not first else "never",
        }  # fmt: skip
    else:
        steps = [*_charsmap(rules), *(step for step in steps if step["type"] not in ("Precompiled", "NFC"))]
    if steps != _steps(spec["normalizer"]):
        spec["normalizer"] = {"type": "Sequence", "normalizers": steps}
    return tokenizer if spec == json.loads(tokenizer) else json.dumps(spec, ensure_ascii=False)


def _correct_model(spec: dict[str, Any], file: Any) -> None:
    model, trainer = spec["model"], file.trainer_spec
    listed = model["vocab"] if isinstance(model["vocab"], list) else sorted(model["vocab"], key=model["vocab"].get)
    pieces: list[str] = [piece if isinstance(piece, str) else piece[0] for piece in listed]
    ids = {piece: place for place, piece in enumerate(pieces)}
    unknown = next((piece.piece for piece in file.pieces if piece.type == _UNKNOWN), None)
    if unknown not in ids:
        unknown = model.get("unk_token") if model.get("unk_id") is None else pieces[model["unk_id"]]
    if trainer.model_type == _BPE:
        spec["model"] = {
            "type": "BPE", "vocab": ids, "merges": _merges(file, ids), "unk_token": unknown, "fuse_unk": True,
            "byte_fallback": trainer.byte_fallback, "dropout": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "ignore_merges": False,
        }  # fmt: skip
    elif trainer.model_type == _WORD:
        spec["model"] = {"type": "WordLevel", "vocab": ids, "unk_token": unknown}
    else:
        scores = {piece.piece: piece.score for piece in file.pieces}
        scores |= dict(listed) if model["type"] == "Unigram" else {}
        # sentencepiece always takes the pieces that its user defined (unigram_model.cc, EncodeOptimized)
        most = max((piece.score for piece in file.pieces if piece.type == _NORMAL), default=0.0)
        chosen = {piece.piece for piece in file.pieces if piece.type == _USER_DEFINED}
        scores |= {piece: len(piece.encode()) * most - 0.1 for piece in chosen}
        spec["added_tokens"] = [
            token for token in spec["added_tokens"] if token["special"] or token["content"] not in chosen
        ]
        spec["model"] = {
            "type": "Unigram", "unk_id": None if unknown is None else ids[unknown],
            "vocab": [[piece, scores.get(piece, 0.0)] for piece in pieces], "byte_fallback": trainer.byte_fallback,
        }  # fmt: skip


def _merges(file: Any, ids: dict[str, int]) -> list[list[str]]:
    """All pairs of pieces that make a piece, the best piece first."""
    normal = sorted((piece for piece in file.pieces if piece.type == _NORMAL), key=lambda piece: -piece.score)
    return [
        [text[:cut], text[cut:]]
        for text in (piece.piece for piece in normal)
        for cut in range(1, len(text))
        if text in ids and text[:cut] in ids and text[cut:] in ids
    ]


_FEWER_SPACES = [
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": r"\A | \z"}, "content": ""},
]


def _spaces(step: dict[str, Any]) -> bool:
    """Whether a step does what is done here by the file's rules."""
    kind = step["type"]
    return kind in ("Precompiled", "NFC", "Strip", "Prepend") or (kind == "Replace" and step["content"] in (" ", "▁"))


def _charsmap(rules: Any) -> list[dict[str, Any]]:
    """The character map. The library reads it one character at a time where several are longer than five bytes, so
    composing is done after it once more: kana with a mark of their own, Korean in single letters."""
    charsmap = base64.b64encode(rules.precompiled_charsmap).decode()
    steps = [{"type": "Precompiled", "precompiled_charsmap": charsmap}] if charsmap else []
    return [*steps, {"type": "NFC"}] if "nfkc" in rules.name else steps


def _steps(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if normalizer is None:
        return []
    return list(normalizer["normalizers"]) if normalizer["type"] == "Sequence" else [normalizer]


def _read(content: bytes) -> Any:
    from sentencepiece import sentencepiece_model_pb2 as proto  # not needed by folders without such a file

    model: Any = vars(proto)["ModelProto"]()  # protobuf makes its classes at run time
    try:
        model.ParseFromString(content)
    except Exception:  # tokenizer.model may be of another program (tiktoken's has lines of base64)
        return None
    return model if len(model.pieces) else None
