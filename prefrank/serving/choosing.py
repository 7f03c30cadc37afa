"""Which of the waiting rows make the next batch.

The kernels take rows of any lengths together at no cost, so there an encoder's rows go by age. In torch attention runs
once for each length of a batch, and rows of about one length go together.
"""

from collections.abc import Sequence

from prefrank.text.sharing import KEYS_PER_TOKEN, common_length
from prefrank.types import Causal, Row


def choose(rows: Sequence[Row], causal: Causal | None, *, by_length: bool, max_tokens: int, streams: int) -> list[int]:
    """Places of the oldest row and of those that it goes best with: those that came next, or are of about its length,
    or where the network reads from left to right those that have most of its beginning.

    Args:
        rows: the window of those that wait, the oldest first; at least one.
        by_length: whether rows of about one length go best together.
        max_tokens: of a batch, tokens in common counted once; a longer row stands alone.
        streams: that work at once: none takes more than a fair share of the window while it is short, but rows that
            have over half of the oldest one's tokens are not torn from it, as they would be computed twice.
    """
    oldest = len(rows[0].ids)
    common = [0 if causal is None else common_length(rows[0].ids, row.ids) for row in rows]
    apart = [abs(len(row.ids) - oldest) if by_length else 0 for row in rows]
    order = sorted(range(1, len(rows)), key=lambda place: (-common[place], apart[place]))
    total = oldest + sum(len(row.ids) - alike for row, alike in zip(rows[1:], common[1:], strict=True))
    fair = min(max_tokens, -(-total // streams))
    chosen, tokens, keys = [0], oldest, oldest
    for place in order:
        length = len(rows[place].ids)
        tokens, keys = tokens + length - common[place], keys + length
        most = max_tokens if 2 * common[place] > oldest else fair
        if tokens > most or keys > KEYS_PER_TOKEN * max_tokens:
            break
        chosen.append(place)
    return chosen
