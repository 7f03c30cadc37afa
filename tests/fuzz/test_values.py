"""Values of Python that are not texts are refused in one line by everything that scores."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrank.types import Turn
from tests.fuzz import breaking, targets
from tests.fuzz.profiles import fuzz
from tests.fuzz.runner import Worker


class Shouting(str):
    """A text that is not one everywhere."""

    def __str__(self) -> str:
        raise RuntimeError("loud")


def itself() -> list[Any]:
    """A list in itself."""
    made: list[Any] = []
    made.append(made)
    return made


def deep() -> list[Any]:
    made: list[Any] = ["a"]
    for _ in range(400):
        made = [made]
    return made


ODD: list[Any] = [
    None, 0, 1, 1.5, True, float("nan"), 10**5000, 1j, b"a", bytearray(b"a"), [], (), {}, set(), [[]],
    [None], {"a"}, frozenset({"a", "b"}), {"role": "user"}, {"role": "user", "content": "a"}, {"a": "b"}, object, print,
    Ellipsis, range(3), np.array(["a", "b"]), np.array(1), np.array([]), np.zeros((2, 2)), np.str_("a"), np.float64(1),
    np.array(["a", None], dtype=object), itself(), deep(), Turn("user", "a"), (Turn("user", "a"),), "a", "", "\ud800",
    [{"role": "user", "content": None}], [{"role": 1, "content": []}], [{"content": "a"}], [("user", "a")],
    [{"role": "user", "content": [{"type": "text", "text": 1}]}], [{"role": "assistant", "content": "a"}],
    [{"role": "user", "content": "a"}] * 3000, [{"role": "x" * 10_000, "content": "a"}], [Turn("user", "a")] * 2,
    ["a"] * 2000, ("a", "b"), ("a", "b", "c"), [("a", "b")], [("a",)], [["a", "b"]], ["ab"],
    {"prompt": "a", "reply": "b"}, [{"prompt": "a", "reply": "b"}], [("a", None)], [(None, "a")], [("a", 1)],
    Shouting("a"), itertools.chain, "x" * 300_000,
]  # fmt: skip
"""Some of it is sound."""
ANYTHING = st.integers(0, len(ODD) - 1).map(ODD.__getitem__) | st.text(max_size=5)


@fuzz
@pytest.mark.parametrize("name", targets.ODD_CALLS)
@given(data=st.data())
def test_what_is_no_text_is_refused(worker: Worker, name: str, data: st.DataObject) -> None:
    first = data.draw(ANYTHING)
    second = data.draw(ANYTHING | st.lists(ANYTHING, max_size=3))
    values = [breaking.pick(data.draw, [second, [(first, second)], [second, first]])]
    if name != "score_pairs":
        values.insert(0, first)
    model = data.draw(st.sampled_from(["ours", "decoder"]))
    worker.check(targets.call_model, "model", name, values, files=breaking.under("model", worker.bases[model]))
