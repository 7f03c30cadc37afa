"""What a sentencepiece file says that a converted tokenizer does not: how texts are normalised, which pieces control.

Format: sentencepiece's `sentencepiece_model.proto` (ModelProto: pieces, normalizer_spec), read with the package's own
protobuf classes.
"""

import base64
import json
from typing import Any

FILES = ("spm.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model")
"""The names that such files have in published folders."""
_UNKNOWN, _CONTROL = 2, 3


def control_pieces(content: bytes) -> tuple[str, ...]:
    """The pieces that stand for control and unknown tokens; none where the file is of another format."""
    model = _read(content)
    return tuple(piece.piece for piece in model.pieces if piece.type in (_UNKNOWN, _CONTROL)) if model else ()


def mended(tokenizer: str, content: bytes) -> str:
    """The JSON of a tokenizer converted from this file, with what the conversion left out or got wrong: the file's
    character map, its removal of spaces, its space before a text, and which piece is the unknown one."""
    model, spec = _read(content), json.loads(tokenizer)
    if model is None:
        return tokenizer
    unknown = next((piece.piece for piece in model.pieces if piece.type == _UNKNOWN), None)
    if spec["model"].get("unk_id") is not None:
        pieces = [piece for piece, _ in spec["model"]["vocab"]]
        spec["model"]["unk_id"] = pieces.index(unknown) if unknown in pieces else spec["model"]["unk_id"]
    rules, steps = model.normalizer_spec, _steps(spec["normalizer"])
    if rules.precompiled_charsmap and not any(step["type"] == "Precompiled" for step in steps):
        charsmap = base64.b64encode(rules.precompiled_charsmap).decode()
        place = sum(step["type"] == "Lowercase" for step in steps[:1])
        rest = [step for step in steps[place:] if step["type"] != "NFC"]  # the map composes characters itself
        steps = [*steps[:place], {"type": "Precompiled", "precompiled_charsmap": charsmap}, *rest]
    if rules.add_dummy_prefix and spec["pre_tokenizer"] is None:
        spec["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    whitespace_split = '"WhitespaceSplit"' in json.dumps(spec["pre_tokenizer"])
    if rules.remove_extra_whitespaces and rules.precompiled_charsmap and not whitespace_split:
        steps = [step for step in steps if step["type"] != "Replace" or step["content"] != "▁"]
        steps += [
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            {"type": "Strip", "strip_left": True, "strip_right": True},
        ]
    if steps != _steps(spec["normalizer"]):
        spec["normalizer"] = {"type": "Sequence", "normalizers": steps}
    return tokenizer if spec == json.loads(tokenizer) else json.dumps(spec, ensure_ascii=False)


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
