"""Every test, file and module of ours that the pages of docs name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
DETAILS = (ROOT / "docs" / "details.md").read_text()
TESTS = list((ROOT / "tests").rglob("*.py"))
FOLDERS = "cli|data|evaluation|io|model|native|reports|scoring|serving|stats|text|training|wire"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_it_names_exists(page: Path) -> None:
    source = "\n".join(path.read_text() for path in TESTS)
    names = [name for name in re.findall(r"`(test_\w+)`", page.read_text()) if f"def {name}(" not in source]
    assert not names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_it_names_exists(page: Path) -> None:
    text = page.read_text()
    ours = re.findall(rf"(?<![\w/])((?:{FOLDERS})/[\w/]+\.(?:py|h|cpp|jinja))\b", text)
    others = re.findall(
        r"(?<![\w/])((?:prefrank|tests|benchmarks|examples|recipes)/[\w/.-]+\.(?:py|h|cpp|yaml))\b", text
    )
    missing = [file for file in ours if not (ROOT / "prefrank" / file).is_file()]
    assert not missing + [file for file in others if not (ROOT / file).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_it_names_exists(page: Path) -> None:
    """`prefrank.a.b` is a module, or a name that stands in the module `prefrank.a`."""
    missing = []
    for dotted in re.findall(r"\bprefrank(?:\.[a-z_]\w*)+(?:\.[A-Z]\w*)?", page.read_text()):
        *parts, name = dotted.split(".")
        folder = ROOT.joinpath(*parts)
        is_module = (folder / name).is_dir() or (folder / f"{name}.py").is_file()
        module = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        if not is_module and dotted != "prefrank.json" and not (module.is_file() and name in module.read_text()):
            missing.append(dotted)
    assert not missing


def test_the_page_on_details_names_its_tests_and_files() -> None:
    assert len(re.findall(r"`test_\w+`", DETAILS)) >= 20
    assert len(set(re.findall(rf"`(?:{FOLDERS})/[\w/]+\.py`", DETAILS))) >= 10
