"""Strategies that break what is valid: JSON, bytes, safetensors, texts, trees of files.

Each draws a `Broken`: the bytes, and what was done to them in words, which is what a failing test prints. They compose:
`bytes_of` takes any bytes, also those that `json_of` broke already.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True)
class Broken:
    """Bytes and how they came to be; shown as the latter."""

    content: bytes
    how: str = "unbroken"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # hypothesis prints by this
        printer.text(self.how)


@dataclass(frozen=True)
class Link:
    """A symbolic link in a tree of files."""

    to: str


@dataclass(frozen=True)
class Fifo:
    """A named pipe in a tree of files."""


@dataclass(frozen=True)
class Folder:
    """A folder in place of a file."""


class Raw(str):
    """JSON text that stands for itself."""


class Again(str):
    """A key that is not equal to itself, so that an object has it twice."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


NUMBERS = ["-1", "0", "1", "2", "7", "0.5", "-0.0", "1e-320", "3e38", "1e999", "-1e999", "NaN", "Infinity",
           "2147483648", "4294967297", "9007199254740993", "18446744073709551616", "1" + "0" * 400,
           "1" + "0" * 5000]  # fmt: skip
TEXTS = ["", " ", "\n", "\0", "\x1b[2J", "a\r\nb", "\x9b2J", "\u202ereversed", "\ud800", "x" * 100_000, "true", "1",
         "<script>alert(1)</script>", "](javascript:alert(1))", "[/red]", "[bold]", "{{ 7 * 7 }}", "%s%n", "# a\n\n---",
         "../../../../etc/passwd", "/dev/zero", "/dev/stdin", "~nosuchuser", "~/x", ".", "..", "a/b", "C:\\x",
         "https://a.b/c", "e\u0301" * 50, "\U0001f469\u200d\U0001f52c", "\ufeff"]  # fmt: skip
VALUES = [Raw("null"), Raw("true"), Raw("false"), *map(Raw, NUMBERS), *TEXTS, Raw("[]"), Raw("{}"), Raw("[[]]"),
          Raw('{"a": null}'), Raw("[null]"), Raw("[1, 2, 3]"), Raw("[" * 100_000), Raw("[" * 900 + "]" * 900),
          Raw('{"a":' * 5000 + "1" + "}" * 5000)]  # fmt: skip
"""What a value of a file may come to be; a text is dumped as JSON, `Raw` as it is."""


def dump(value: Any) -> str:
    """JSON with `Raw` parts, keys that stand twice, and lone surrogates as escapes."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {dump(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dump, value)) + "]"
    return json.dumps(value)


def short(value: Any) -> str:
    text = dump(value)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"


def pick(draw: st.DrawFn, values: Sequence[Any]) -> Any:
    """One of them itself, not one that is equal to it, as a strategy that hypothesis keeps may give."""
    return values[draw(st.integers(0, len(values) - 1))]


@st.composite
def values_of(draw: st.DrawFn, value: Any, most: int = 3) -> tuple[Any, str]:
    """A JSON value with one to three things changed in it, and these in words."""
    done = []
    for _ in range(draw(st.integers(1, most))):
        value, how = _change(draw, value, "")
        done.append(how)
    return value, "; ".join(done)


def _change(draw: st.DrawFn, value: Any, place: str) -> tuple[Any, str]:
    """Walk down to a part, as likely to stop at each level, and change that."""
    inner = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
    if inner and draw(st.booleans() if place else st.just(True)):
        key = pick(draw, list(inner))
        act = pick(draw, ["inside"] * 6 + ["delete", "again", "rename", "add", "swap"])
        rest = [(k, v) for k, v in inner.items() if k is not key]
        if act == "inside":
            new, how = _change(draw, inner[key], f"{place}.{key}")
            return _as(value, [(k, new if k is key else v) for k, v in inner.items()]), how
        odd = pick(draw, VALUES)
        if act == "delete":
            return _as(value, rest), f"{place}.{key} deleted"
        if act == "again":
            return _as(value, [*inner.items(), (Again(key), odd)]), f"{place}.{key} again as {short(odd)}"
        if act == "add":
            name = pick(draw, TEXTS)
            return _as(value, [*inner.items(), (name, odd)]), f"{place}.{short(name)} added as {short(odd)}"
        if act == "rename":
            name = pick(draw, TEXTS)
            return _as(value, [*rest, (name, inner[key])]), f"{place}.{key} renamed {short(name)}"
        other = pick(draw, list(inner))
        swapped = {**inner, key: inner[other], other: inner[key]}
        return _as(value, list(swapped.items())), f"{place}.{key} and {place}.{other} swapped"
    odd = pick(draw, [*VALUES, [value], {"a": value}, str(value) if isinstance(value, int | float) else [value]])
    return odd, f"{place or 'all'} := {short(odd)}"


def _as(like: Any, pairs: list[tuple[Any, Any]]) -> Any:
    return [one for _, one in pairs] if isinstance(like, list) else dict(pairs)


@st.composite
def json_of(draw: st.DrawFn, value: Any) -> Broken:
    """A JSON file of a value, broken as a value, now and then as bytes."""
    kind = pick(draw, ["value"] * 8 + ["bytes", "utf-16", "byte order mark"])
    if kind == "bytes":
        return draw(bytes_of(json.dumps(value).encode()))
    if kind == "utf-16":
        return Broken(json.dumps(value).encode("utf-16"), "UTF-16")
    if kind == "byte order mark":
        return Broken(b"\xef\xbb\xbf" + json.dumps(value).encode(), "a byte order mark")
    changed, how = draw(values_of(value))
    return Broken(dump(changed).encode(), how)


@st.composite
def lines_of(draw: st.DrawFn, values: Sequence[Any]) -> Broken:
    """JSON lines of which one is broken."""
    number = draw(st.integers(0, len(values) - 1))
    line = draw(json_of(values[number]))
    content = [line.content if n == number else json.dumps(one).encode() for n, one in enumerate(values)]
    return Broken(b"\n".join(content) + b"\n", f"line {number + 1}: {line.how}")


@st.composite
def same_json(draw: st.DrawFn, value: dict[str, Any]) -> Broken:
    """A JSON file that says the same: keys in another order, other white space, keys that nobody knows."""
    order = draw(st.permutations(list(value)))
    unknown = draw(st.dictionaries(st.sampled_from(["x_note", "x_of"]), st.sampled_from(["a", 1, None, [], {}])))
    indent = pick(draw, [None, 0, 2])
    changed = {key: value[key] for key in order} | unknown
    return Broken(json.dumps(changed, indent=indent).encode(), f"keys in another order, with {unknown}")


@st.composite
def bytes_of(draw: st.DrawFn, content: bytes) -> Broken:
    """Bytes with a bit flipped, cut, inserted into, a part repeated or zeroed; or none at all."""
    end = len(content)
    at = draw(st.one_of(st.integers(0, min(end, 64)), st.integers(0, end)))
    length = pick(draw, [1, 2, 8, 64, 4096])
    act = pick(draw, ["cut", "flip", "insert", "repeat", "zero", "empty", "more"])
    before, part, after = content[:at], content[at : at + length], content[at + length :]
    if act == "cut":
        return Broken(before, f"cut to {at} bytes of {end}")
    if act == "empty":
        return Broken(b"", "empty")
    if act == "more":
        return Broken(content + content, "twice in one file")
    if act == "flip":
        part = bytes([part[0] ^ 1 << draw(st.integers(0, 7))]) + part[1:] if part else part
    elif act == "insert":
        part = pick(draw, [b"\0", b"\xff", b"\n", b"\xef\xbb\xbf", b"\x80\x04", b"A" * 5000]) + part
    elif act == "repeat":
        part *= 50
    else:
        part = bytes(len(part))
    return Broken(before + part + after, f"{act} of {length} bytes at {at} of {end}")


@st.composite
def safetensors_of(draw: st.DrawFn, content: bytes) -> Broken:
    """A safetensors file with another header, or broken as bytes."""
    if draw(st.booleans()):
        return draw(bytes_of(content))
    (size,) = struct.unpack("<Q", content[:8])
    changed, how = draw(values_of(json.loads(content[8 : 8 + size])))
    header = dump(changed).encode()
    stated_size = pick(draw, [len(header)] * 6 + [0, 1, len(header) + 1, 1 << 40, (1 << 64) - 1])
    return Broken(struct.pack("<Q", stated_size) + header + content[8 + size :], f"header of {stated_size}: {how}")


@st.composite
def tensors_of(draw: st.DrawFn, content: bytes) -> Broken:
    """A sound safetensors file in which one tensor has another shape, type, name or numbers, or is not there."""
    (size,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    found = {
        name: (one["dtype"], one["shape"], data[slice(*one["data_offsets"])])
        for name, one in header.items()
        if name != "__metadata__"
    }
    heads = [name for name in found if "classif" in name or "score" in name]  # few, and told apart by their shapes
    name = pick(draw, heads if heads and draw(st.booleans()) else list(found))
    dtype, shape, held = found[name]
    act = pick(draw, ["shape", "shape", "type", "fill", "drop", "name", "more"])
    how = f"{act} of {name}"
    if act == "shape":
        flat = math.prod(shape)
        shapes = [[0, *shape[1:]], [0], [0, 24], shape[::-1], [flat], [1, *shape], [*shape, 1], [1, flat], [flat, 1],
                  [2 * shape[0], *shape[1:]], [3, *shape[1:]], [], [*shape[:-1], shape[-1] + 1], [1] * 70]  # fmt: skip
        new = pick(draw, shapes)
        length = math.prod(new) * len(held) // max(1, flat)
        found[name] = dtype, new, (held * 4 + bytes(length))[:length]
        how += f" from {shape} to {new}"
    elif act == "type":
        new, width = pick(
            draw, [("F16", 2), ("BF16", 2), ("F64", 8), ("I8", 1), ("I32", 4), ("I64", 8), ("BOOL", 1), ("F8_E4M3", 1)]
        )
        length = math.prod(shape) * width
        found[name] = new, shape, (held * 8)[:length]
        how += f" to {new}"
    elif act == "fill":
        number = pick(draw, [math.nan, math.inf, -math.inf, 3e38, 1e-45, 0.0])
        found[name] = dtype, shape, (struct.pack("<f", number) * len(held))[: len(held)]
        how += f" with {number}"
    elif act == "drop":
        del found[name]
    else:
        new = pick(
            draw,
            [
                "",
                "x",
                "../x",
                name.upper(),
                f"module.{name}",
                f"{name}.x",
                "\x1b[2J",
                "score.weight",
                "classifier.weight",
            ],
        )
        found[new] = found[name]
        if act == "name" and new != name:
            del found[name]
        how += f" as {new!r}"
    return Broken(_safetensors(found), how)


def _safetensors(tensors: Mapping[str, tuple[str, list[int], bytes]]) -> bytes:
    header, end = {}, 0
    for name, (dtype, shape, held) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(held)]}
        end += len(held)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(held for _, _, held in tensors.values())


def texts() -> st.SearchStrategy[str]:
    """What people do not write."""
    odd = [*TEXTS, "[CLS][SEP]", "<|end|>", "a" * 30_000, "a " * 9000, "\u0300" * 5000, "\t" * 500, "\ufffd", "ﷺ" * 300]
    return st.one_of(st.sampled_from(odd), st.text(max_size=30), st.text(st.characters(categories=["C", "Z", "M"])))


NAMES = [".photos.raw.tmp/a.jpg", ".thesis.v1.old/b.tex", "best/thesis.txt", "checkpoint-7/mine",
         "last/notes.txt", "README.md", "config.json", "prefrank.json",
         "model.safetensors", ".prefrank-0123abcd.tmp/new/mine", ".prefrank-0123abcd.tmp/made-by-prefrank.json",
         "notes", ".last.old/a", ".best.tmp/a", "last.tmp/a", "tensorboard/mine", "state/state.pt", "sweep/notes",
         "a\nb\x1b[2J"]  # fmt: skip
"""Of files that somebody may have in a folder, many of them as ours are called."""


@st.composite
def foreign(draw: st.DrawFn, names: Sequence[str] = NAMES) -> dict[str, Any]:
    """A tree of somebody's own files, links and pipes."""
    kinds = st.sampled_from(
        [b"mine", b"", b"{}", b'{"target": "last"}', Link("/etc/hostname"), Link("nowhere"), Link("."), Fifo()]
    )
    found: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True)):
        inside = any(other.startswith(f"{name}/") or name.startswith(f"{other}/") for other in found)
        if not inside:
            found[name] = draw(kinds)
    return found


def under(folder: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of files as part of another."""
    return {f"{folder}/{name}": one for name, one in tree.items()}
