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


def normalised(tokenizer: str, content: bytes) -> str:
    """The JSON of a tokenizer converted from this file, with the file's own normalisation where the conversion left it
    out: its character map, and its spaces removed."""
    model, spec = _read(content), json.loads(tokenizer)
    if model is None or not model.normalizer_spec.precompiled_charsmap:
        return tokenizer
    steps = _steps(spec["normalizer"])
    if not any(step["type"] == "Precompiled" for step in steps):
        charsmap = base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()
        place = sum(step["type"] == "Lowercase" for step in steps[:1])
        rest = [step for step in steps[place:] if step["type"] != "NFC"]  # the map composes characters itself
        steps = [*steps[:place], {"type": "Precompiled", "precompiled_charsmap": charsmap}, *rest]
    if model.normalizer_spec.remove_extra_whitespaces:
        steps += [
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            {"type": "Strip", "strip_left": True, "strip_right": True},
        ]
    spec["normalizer"] = {"type": "Sequence", "normalizers": steps}
    return json.dumps(spec)


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
