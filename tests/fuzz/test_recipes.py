"""Broken recipes, sweeps and facts are refused in one line; none runs code or writes outside its folder."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import breaking, targets
from tests.fuzz.breaking import Broken
from tests.fuzz.profiles import fuzz
from tests.fuzz.runner import Worker

YAML = [
    "&a [*a]", "&a {x: *a}", "{<<: {a: 1}}", "!!python/object/apply:os.mkdir [owned]", "!!python/name:os.system",
        "!x 1",
    "!!binary YQ==", "!!set {a}", "!!omap [a: 1]", "2024-01-01", "2024-01-01T00:00:00Z", "1:20:30", "0x1F", "0o17",
    "0b11", "1_000", ".inf", "-.inf", ".nan", "1e5", "1.e+5", "~", "yes", "off", "'\\x1b[2J'", '"\\x1b[2J"', '"\\0"',
    "|\n  a\n  b", "[" * 3000, "{a: " * 3000, "*nowhere", "? [a, b]\n: c", "@x", "`x`", "a: b: c", "\t1", "--- 1",
    "1\n---\n2", "%YAML 9.9", "[&x [1,1,1,1,1,1,1,1,1],*x,*x]", "9" * 5000, "\x85", "\u2028", "\ufeff1",
]  # fmt: skip
BOMB = "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9))
FOLDERS = [
    "run",
    "",
    ".",
    "run/",
    "./run/../run",
    "data.jsonl",
    "model",
    "model/inside",
    "a\nb",
    "[/red]",
    "run\x1b[2J",
]
"""For output_dir: none outside the example's folder, which a command may well write to."""


@st.composite
def yaml_of(draw: st.DrawFn, value: dict[str, Any]) -> Broken:
    """YAML of a mapping, broken as a value, by the syntax of one value, or as bytes."""
    act = breaking.pick(draw, ["value", "value", "syntax", "syntax", "bytes", "bomb", "twice"])
    lines = {key: json.dumps(one) for key, one in value.items()}
    if act == "value":
        changed, how = draw(breaking.values_of(value, most=1))
        if isinstance(changed, dict) and changed.get("output_dir") not in (None, value.get("output_dir")):
            changed["output_dir"] = breaking.pick(draw, FOLDERS)
            how += f", output_dir {changed['output_dir']!r}"
        return Broken(breaking.dump(changed).encode(), how)
    key = breaking.pick(draw, [one for one in lines if one != "output_dir"])
    how = f"{act} of {key}"
    if act == "syntax":
        lines[key] = breaking.pick(draw, YAML)
        how = f"{key}: {lines[key][:60]!r}"
    text = "".join(f"{key}: {one}\n" for key, one in lines.items())
    if act == "bytes":
        return draw(breaking.bytes_of(text.encode()))
    if act == "bomb":
        text = "a: &a [1]\n" + BOMB + text.replace(lines[key], "*j")
    elif act == "twice":
        text += f"{key}: {lines[key]}\n"
    return Broken(text.encode("utf-8", "surrogatepass"), how)


def planted(worker: Worker, files: dict[str, Any]) -> dict[str, Any]:
    return breaking.under("model", worker.bases["ours"]) | {"data.jsonl": targets.JSONL} | files


@fuzz
@given(broken=yaml_of(targets.RECIPE | {"heads": ["overall"], "evaluation": [], "seed": 1, "chat_template": None}))
def test_a_broken_recipe_is_refused_in_one_line(worker: Worker, broken: Broken) -> None:
    worker.check(targets.read_recipe, "recipe.yaml", files={"recipe.yaml": broken})


@fuzz
@given(broken=yaml_of(targets.RECIPE))
def test_a_broken_recipe_runs_dry_or_is_refused_in_one_line(worker: Worker, broken: Broken) -> None:
    worker.check(targets.foresee, "recipe.yaml", files=planted(worker, {"recipe.yaml": broken}))


@fuzz
@given(broken=yaml_of(targets.RECIPE))
def test_a_broken_recipe_trains_or_is_refused_in_one_line(worker: Worker, broken: Broken) -> None:
    files = planted(worker, {"recipe.yaml": broken})
    writes = [r"(run|runs|a\nb|\[|run\x1b\[2J)(/.*)?"]
    worker.check(targets.train_once, "recipe.yaml", files=files, writes=writes)


@fuzz
@given(broken=yaml_of({"learning_rate": [1e-3, 1e-4], "seed": [1, 2]}))
def test_a_broken_sweep_is_refused_in_one_line(worker: Worker, broken: Broken) -> None:
    worker.check(targets.read_sweep, "sweep.yaml", files={"sweep.yaml": broken})


@fuzz
@given(broken=yaml_of({"name": "mine", "data_license": {"mine": "mit"}, "language": ["en", "de"]}))
def test_broken_facts_are_shown_or_refused_in_one_line(worker: Worker, broken: Broken) -> None:
    files = planted(worker, {"facts.yaml": broken})
    worker.check(targets.write_card, files=files, writes=["model/README.md"])
