"""docs/serving.md: its table of dialects and its arithmetic hold. PREFRANK_UPDATE=1 writes the table."""

import math
import os
import re
from pathlib import Path

import pytest

from prefrank.wire import PAGES, ROUTES
from prefrank.wire.route import STATUSES, Errors

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
BETWEEN = re.compile(r"(<!-- dialects: PREFRANK_UPDATE.*? -->\n).*?(<!-- dialects: end -->)", re.DOTALL)


def table() -> str:
    """Of each dialect its paths, and in which statuses it differs."""
    lines = ["| dialect | POST | GET | statuses that differ |", "|---|---|---|---|"]
    for dialect in sorted({route.dialect for route in ROUTES}):
        posts = [path for route in ROUTES if route.dialect == dialect for path in route.paths]
        gets = [path for page in PAGES if page.dialect == dialect for path in page.paths]
        errors = [route.errors for route in ROUTES if route.dialect == dialect]
        lines.append(f"| {dialect} | {_code(posts)} | {_code(gets)} | {_differing(errors[0])} |")
    return "\n".join(lines) + "\n"


def _code(paths: list[str]) -> str:
    return " ".join(f"`{path}`" for path in dict.fromkeys(paths))


def _differing(errors: Errors) -> str:
    by_status: dict[int, list[str]] = {}
    for kind, usual in STATUSES.items():
        if errors.status(kind) != usual:
            by_status.setdefault(errors.status(kind), []).append(kind.replace("_", " "))
    return "; ".join(f"{status}: {', '.join(kinds)}" for status, kinds in sorted(by_status.items()))


def test_the_table_of_dialects_is_the_codes() -> None:
    written = BETWEEN.search(PAGE.read_text())
    assert written is not None
    assert table() in written[0], "dialects have changed: PREFRANK_UPDATE=1 pytest tests/serving/test_serving_page.py"


def test_the_arithmetic_of_rows_and_cores_holds() -> None:
    rows = re.findall(r"^\|[^|]*\| (?:float32|int16|int8) \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == 6
    performance = (PAGE.parent / "performance.md").read_text()
    for row in rows:
        tokens, per_core, cores, planned, replicas = (float(cell.replace(",", "")) for cell in row.split("|"))
        assert f"| {tokens:,.0f} |" in performance
        assert per_core == pytest.approx(tokens / 187, abs=0.06)
        assert cores == pytest.approx(10_000 * 187 / tokens, abs=1)
        assert planned == pytest.approx(cores / 0.75, abs=1)
        assert replicas == math.ceil(planned / 8)


if os.environ.get("PREFRANK_UPDATE"):
    PAGE.write_text(BETWEEN.sub(lambda found: f"{found[1]}{table()}{found[2]}", PAGE.read_text()))
