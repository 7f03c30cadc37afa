"""Frozen dataclasses as JSON: what is read back is what was written, and what is wrong is named with its place."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefrank.errors import BadInput
from prefrank.io.schema import DEEPEST, MOST, Between, Stored, Wrong, plain, read


@dataclass(frozen=True, slots=True)
class Leaf:
    name: str
    share: Annotated[float, Between(0.0, 1.0)]
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    kind: Literal["oak", "fir"]
    leaves: tuple[Leaf, ...]
    span: tuple[float, float | None]
    marks: tuple[str | int | float, ...]
    by_name: Mapping[str, Leaf]
    points: Annotated[complex, Stored(lambda pair: complex(*pair), lambda value: [value.real, value.imag])]
    alive: bool
    free: Mapping[str, Any] = field(default_factory=dict)


leaves = st.builds(Leaf, st.text(), st.floats(0, 1), st.none() | st.integers(0, MOST))
finite = st.floats(allow_nan=False, allow_infinity=False)
trees = st.builds(
    Tree,
    kind=st.sampled_from(["oak", "fir"]),
    leaves=st.lists(leaves, max_size=3).map(tuple),
    span=st.tuples(finite, st.none() | finite),
    marks=st.lists(st.text(max_size=5) | st.integers(0, MOST) | finite, max_size=5).map(tuple),
    by_name=st.dictionaries(st.text(max_size=5), leaves, max_size=3),
    points=st.builds(complex, finite, finite),
    alive=st.booleans(),
    free=st.dictionaries(
        st.text(max_size=5), st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5), max_size=3
    ),
)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(trees)
def test_what_is_written_is_read_back(tree: Tree) -> None:
    assert read(Tree, json.loads(json.dumps(plain(tree)))) == tree


def whole() -> dict[str, Any]:
    leaf = {"name": "a", "share": 0.5, "size": 1}
    return {
        "kind": "oak",
        "leaves": [leaf, dict(leaf)],
        "span": [1, None],
        "marks": ["a", 1, 2.5],
        "by_name": {"x": dict(leaf)},
        "points": [1, 2],
        "alive": True,
        "free": {"a": [1]},
    }


def test_numbers_are_floats_where_floats_are_wanted_and_stay_whole_where_both_may_be() -> None:
    tree = read(Tree, whole())
    assert [type(part) for part in (*tree.span[:1], *tree.marks)] == [float, str, int, float]
    assert read(Leaf, {"name": "", "share": 1}).share == 1.0


def test_a_field_with_a_default_may_be_absent_and_no_other() -> None:
    assert read(Leaf, {"name": "a", "share": 0}) == Leaf("a", 0.0, None)
    with pytest.raises(Wrong, match=r"^name is missing$"):
        read(Leaf, {"share": 0})


def test_an_unknown_key_is_refused_or_passed_over() -> None:
    value = whole() | {"odd": 1}
    value["leaves"][1]["odder"] = 2
    with pytest.raises(Wrong, match=r"^leaves\[1\].odder is not known here$"):
        read(Tree, value)
    assert read(Tree, value, strict=False) == read(Tree, whole())


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("kind", "elm", "kind is 'elm'; wanted one of 'oak', 'fir'"),
        ("leaves", {}, "leaves is {}; wanted a list"),
        ("leaves", [1], r"leaves\[0\] is 1; wanted an object"),
        ("leaves", [{"name": 1, "share": 0}], r"leaves\[0\].name is 1; wanted a string"),
        ("leaves", [{"name": "", "share": 2}], r"leaves\[0\].share is 2.0; wanted a finite number from 0 to 1"),
        ("leaves", [{"name": "", "share": "1"}], r"leaves\[0\].share is '1'; wanted a finite number"),
        ("leaves", [{"name": "", "share": 0, "size": True}], r"size is True; wanted a whole number"),
        ("leaves", [{"name": "", "share": 0, "size": 2 * MOST}], r"size is \d+; wanted a whole number from 0 to"),
        ("span", [1], r"span is \[1\]; wanted a list of 2"),
        ("span", [1, "b"], r"span\[1\] is 'b'; wanted a finite number"),
        ("span", [math.nan, 1], r"span\[0\] is nan; wanted a finite number"),
        ("span", [10**400, 1], r"span\[0\] is .*; wanted a finite number"),
        ("marks", [True], r"marks\[0\] is True; wanted str or int or float"),
        ("by_name", [], r"by_name is \[\]; wanted an object"),
        ("by_name", {"x": None}, "by_name.x is null; wanted an object"),
        ("alive", 1, "alive is 1; wanted true or false"),
        ("free", {"a": math.inf}, "free.a is inf; wanted a finite number"),
        ("free", {"a": json.loads("[" * 50 + "]" * 50)}, f"at most {DEEPEST} levels"),
    ],
)
def test_a_part_that_is_wrong_is_named(key: str, value: Any, says: str) -> None:
    with pytest.raises(Wrong, match=says):
        read(Tree, whole() | {key: value})


@dataclass(frozen=True, slots=True)
class Even:
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise BadInput(f"{self.number} is odd")


def test_what_a_dataclass_checks_itself_is_named_with_its_place() -> None:
    with pytest.raises(Wrong, match="cannot be used: 3 is odd"):
        read(Even, {"number": 3})


@dataclass(frozen=True, slots=True)
class Unreadable:
    many: set[str]


def test_an_annotation_that_json_has_no_form_for_is_the_programmers_error() -> None:
    with pytest.raises(TypeError, match=r"set\[str\] is not an annotation"):
        read(Unreadable, {"many": []})
