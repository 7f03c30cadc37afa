"""Texts of many requests to rows: together, so that each distinct text is tokenized once; apart where one is bad.

A panic of the tokenizers library, which is written in Rust, is a BaseException.
"""

from collections.abc import Sequence

from prefrank.errors import BadInput
from prefrank.text import TextEncoder
from prefrank.types import Row
from prefrank.wire.route import Asked, Failed


def read_requests(encoder: TextEncoder, requests: Sequence[Sequence[Asked]]) -> list[Sequence[Row | Failed]]:
    """The rows of each request, in order; where a text cannot be read, why. Nothing is raised."""
    try:
        rows = iter(_encode(encoder, [asked for request in requests for asked in request]))
        return [[next(rows) for _ in request] for request in requests]
    except BaseException:
        return [_read_request(encoder, request) for request in requests]


def _read_request(encoder: TextEncoder, asked: Sequence[Asked]) -> Sequence[Row | Failed]:
    try:
        return _encode(encoder, asked)
    except BaseException:
        return [_read_row(encoder, each, place) for place, each in enumerate(asked)]


def _read_row(encoder: TextEncoder, asked: Asked, place: int) -> Row | Failed:
    try:
        return _encode(encoder, [asked])[0]
    except BadInput as error:
        return Failed(str(error).replace("pair 0", f"row {place}"), "text")
    except BaseException as error:  # whatever a text did to the tokenizer, the other rows have theirs
        return Failed(f"row {place} could not be read ({type(error).__name__})", "failed")


def _encode(encoder: TextEncoder, asked: Sequence[Asked]) -> list[Row]:
    whole = [place for place, each in enumerate(asked) if not each.prompt]
    pairs = [(each.prompt, each.reply) for each in asked if each.prompt]
    if not whole:
        return encoder.encode_pairs(pairs)
    read = dict(zip(whole, encoder.encode_whole([asked[place].reply for place in whole]), strict=True))
    others = iter(encoder.encode_pairs(pairs) if pairs else [])
    return [read[place] if place in read else next(others) for place in range(len(asked))]


def too_long(row: Row, place: int) -> Failed:
    """In place of a row that would have to be cut, where it must not be."""
    over = row.cut_prompt + row.cut_reply
    return Failed(
        f"row {place} has {len(row.ids) + over:,} tokens, {over:,} more than the model takes; shorten it, or allow it"
        " to be cut",
        "too_long",
    )
