"""The tree is the pipeline: who may import whom, and that every module imports."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import prefrank
import prefrank.scoring

ROOT = Path(prefrank.__file__).parent
BASE = {"types", "errors", "limits", "checks", "io"}
MAY_IMPORT = {
    "types": {"errors", "preferences"},
    "preferences": {"errors", "limits"},
    "errors": set(),
    "limits": {"errors"},
    "checks": {"errors"},
    "io": BASE,
    "palette": set(),
    "wire": BASE,
    "stats": BASE,
    "data": BASE | {"stats"},
    "text": BASE,
    "native": BASE,
    "model": BASE | {"native"},
    "training": BASE | {"stats", "palette", "data", "text", "model"},
    "scoring": BASE | {"stats", "data", "text", "model", "wire"},
    "serving": BASE | {"stats", "palette", "text", "model", "scoring", "wire"},
    "evaluation": BASE | {"stats", "data", "text", "scoring", "wire"},
    "reports": BASE | {"stats", "palette", "data", "scoring", "evaluation"},
    "__main__": {"cli"},
    "cli": BASE | {"stats", "data", "text", "model", "training", "scoring", "serving", "evaluation", "reports"},
}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        rooms |= {name.split(".")[1] for name in names if name.startswith("prefrank.")}
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_module_imports_only_what_its_place_allows(path: Path) -> None:
    own = room(path)
    assert own in MAY_IMPORT, f"{own} has no place in the tree; add it to MAY_IMPORT"
    forbidden = imported_rooms(path) - MAY_IMPORT[own] - {own}
    assert not forbidden, f"{path}: {own} may not import {sorted(forbidden)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_module_opens_with_what_it_does(path: Path) -> None:
    import_module(".".join(("prefrank", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"))
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_are_not_followed_in_ways_that_fail_on_circles_and_strangers(path: Path) -> None:
    """`Path.resolve` and `Path.expanduser` raise RuntimeError; those of `os.path` give the name back."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    written = {ast.unparse(call) for call in calls if isinstance(call, ast.Attribute)}
    odd = [one for one in written if one.endswith((".resolve", ".expanduser")) and one != "os.path.expanduser"]
    assert odd in ([], ["self.loader.resolve"]), f"{path}: {odd}; use os.path.realpath and os.path.expanduser"


@pytest.mark.parametrize("package", [prefrank, prefrank.scoring])
def test_public_names_are_there(package: ModuleType) -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) == set(package._WHERE)
    with pytest.raises(AttributeError, match="no name 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import prefrank.io.rows, prefrank.io.atomic", ["torch", "pyarrow"]),
        ("import prefrank.data", ["torch", "transformers"]),
        ("import prefrank.text", ["torch", "transformers"]),
        ("import prefrank.scoring", ["transformers", "accelerate", "pydantic", "prefrank.training"]),
        ("import prefrank.scoring.remote, prefrank.wire", ["torch", "transformers", "httpx", "prefrank.evaluation"]),
        ("import prefrank.serving", ["torch", "fastapi", "httpx"]),
        ("import prefrank.evaluation", ["torch", "transformers", "httpx", "prefrank.training"]),
        ("import prefrank.cli", ["torch", "transformers", "pyarrow", "numpy"]),
    ],
)
def test_importing_stays_light(statement: str, unwanted: list[str]) -> None:
    code = f"{statement}; import sys; print([name for name in {unwanted} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
