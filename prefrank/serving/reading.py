"""Texts of many requests to rows: together, so that each distinct text is tokenized once; apart where one is bad."""

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
    except Exception:
        return [_read_request(encoder, request) for request in requests]


def _read_request(encoder: TextEncoder, asked: Sequence[Asked]) -> Sequence[Row | Failed]:
    try:
        return _encode(encoder, asked)
    except Exception:
        return [_read_row(encoder, each, place) for place, each in enumerate(asked)]


def _read_row(encoder: TextEncoder, asked: Asked, place: int) -> Row | Failed:
    try:
        return _encode(encoder, [asked])[0]
    except BadInput as error:
        return Failed(str(error).replace("pair 0", f"row {place}"), "text")
    except Exception as error:  # whatever a text did to the tokenizer, the other rows have theirs
        return Failed(f"row {place} could not be read ({type(error).__name__})", "failed")


def _encode(encoder: TextEncoder, asked: Sequence[Asked]) -> list[Row]:
    whole = [place for place, each in enumerate(asked) if not each.prompt]
    pairs = [(each.prompt, each.reply) for each in asked if each.prompt]
    if not whole:
        return encoder.encode_pairs(pairs)
    read = dict(zip(whole, encoder.encode_whole([asked[place].reply for place in whole]), strict=True))
    others = iter(encoder.encode_pairs(pairs) if pairs else [])
    return [read[place] if place in read else next(others) for place in range(len(asked))]
