"""Every test and file that docs/details.md names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "details.md").read_text()


def test_every_test_it_names_exists() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    names = [name for name in re.findall(r"`(test_\w+)`", PAGE) if f"def {name}(" not in source]
    assert not names
    assert len(re.findall(r"`test_\w+`", PAGE)) >= 20


def test_every_file_it_names_exists() -> None:
    files = set(re.findall(r"`((?:data|text|model|training|scoring|evaluation)/[\w/]+\.py)`", PAGE))
    assert not [file for file in files if not (ROOT / "prefrank" / file).is_file()]
    assert len(files) >= 10
