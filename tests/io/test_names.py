"""Names for people: short, and as distinct as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrank.io.names import LONGEST, short_names


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["/home/ann/experiments/2026/runs/demo"], ["demo"]),
        (["/home/ann/experiments/2026/runs/demo/best"], ["demo/best"]),
        (["/home/ann/experiments/a/checkpoint-500", "/home/ann/experiments/b/checkpoint-500"],
         ["a/checkpoint-500", "b/checkpoint-500"]),
        (["/data/long/hh/helpful-base/test.jsonl.gz:eval", "/data/long/hh/harmless-base/test.jsonl.gz:eval"],
         ["helpful-base/test.jsonl.gz:eval", "harmless-base/test.jsonl.gz:eval"]),
        ([r"C:\Users\Ann\experiments\runs\small", r"C:\Users\Ann\experiments\runs\large"], ["small", "large"]),
        (["runs/demo", "runs/other"], ["runs/demo", "runs/other"]),
        (["OpenAssistant/reward-model-deberta-v3-large-v2"], ["OpenAssistant/reward-model-deberta-v3-large-v2"]),
        (["http://127.0.0.1:8080/v1/score/evaluation"], ["http://127.0.0.1:8080/v1/score/evaluation"]),
        (["python:my.package.module:function_of_mine"], ["python:my.package.module:function_of_mine"]),
        (["scores:/home/ann/experiments/scored.jsonl"], ["scores:scored.jsonl"]),
        (["/home/ann/experiments/runs/demo", "demo"], ["runs/demo", "demo"]),
        (["demo (/home/ann/results/first.json)", "demo (/home/ann/results/second.json)"],
         ["demo (first.json)", "demo (second.json)"]),
        (["longer reply", "shorter reply"], ["longer reply", "shorter reply"]),
    ],
)  # fmt: skip
def test_a_long_path_is_shown_by_what_tells_it_apart(names: list[str], shown: list[str]) -> None:
    assert short_names(names) == shown


PATHS = st.lists(st.sampled_from(["a", "b", "runs", "best", "checkpoint-1", "a long name of a folder"]), min_size=1)
NAMES = st.lists(PATHS.map("/".join) | PATHS.map(lambda parts: "/" + "/".join(parts)), max_size=6)


@given(NAMES)
def test_distinct_names_stay_distinct_and_none_grows(names: list[str]) -> None:
    shown = short_names(names)
    assert len(set(shown)) == len(set(names))
    assert [shown[names.index(name)] for name in names] == shown
    assert all(name.endswith(short) for name, short in zip(names, shown, strict=True))
    assert all(short == name for name, short in zip(names, shown, strict=True) if len(name) <= LONGEST)
