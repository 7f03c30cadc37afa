"""The pages on data say what the code does: every reason, source and column is there, and the examples load."""

import json
import re
from pathlib import Path

import pytest

from prefrank.data import (
    SOURCES,
    arena,
    candidates,
    conversations,
    hh,
    load_comparisons,
    oasst,
    own,
    pairs,
    pointwise,
    rated,
    summaries,
)
from tests.data.files import write_lines

DOCS = Path(__file__).parents[2] / "docs"
DATA, FORMATS = ((DOCS / name).read_text() for name in ("data.md", "formats.md"))
REASONS = {
    value
    for module in (arena, candidates, conversations, hh, oasst, own, pairs, pointwise, rated, summaries)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str) and not name.startswith("_") and name != "CUE"
}


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_is_documented(reason: str) -> None:
    assert f"`{reason}`" in DATA.replace("\n", " ")


def test_every_source_and_column_is_documented() -> None:
    assert [name for name in SOURCES if f"`{name}`" not in DATA] == []
    assert [name for name in own.COLUMNS if f"`{name}`" not in FORMATS] == []


def test_the_rows_of_the_page_on_formats_load(tmp_path: Path) -> None:
    rows = [
        json.loads(line) for block in re.findall(r"```json\n(.*?)```", FORMATS, re.S) for line in block.splitlines()
    ]
    assert len(rows) >= 7
    for i, row in enumerate(rows):
        assert load_comparisons(write_lines(tmp_path / f"{i}.jsonl", [row])).report.kept == 1
