"""docs/security.md shows every bound, with its value."""

import os
import re
from pathlib import Path

from prefrank.limits import LIMITS

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
TABLE = re.compile(r"(<!-- bounds: [^\n]*-->\n).*?(<!-- end of bounds -->)", re.DOTALL)


def test_the_page_shows_every_bound() -> None:
    rows = "".join(
        f"| {bound.what} | {bound.most:,} {bound.unit} | `PREFRANK_MAX_{name.upper()}` |\n"
        for name, bound in LIMITS.items()
    )
    table = f"| of | at most | changed by |\n|---|---|---|\n{rows}"
    page = PAGE.read_text()
    wanted = TABLE.sub(lambda found: found[1] + table + found[2], page)
    if os.environ.get("PREFRANK_UPDATE"):
        PAGE.write_text(wanted)
    assert PAGE.read_text() == wanted, "run PREFRANK_UPDATE=1 .venv/bin/pytest tests/fuzz/test_security_page.py"
