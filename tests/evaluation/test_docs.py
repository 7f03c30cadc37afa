import re
from dataclasses import fields
from pathlib import Path

import pytest

from prefrank.evaluation import Counts, Estimate, Metrics

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("made", [Metrics, Counts, Estimate])
def test_every_measured_value_is_documented(made: type) -> None:
    missing = [field.name for field in fields(made) if f"`{field.name}`" not in PAGE]
    assert missing == []


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/evaluation.md", "exec"), {})
    assert re.match(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]\n\d+ \d+\n", capsys.readouterr().out)
