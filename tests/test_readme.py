"""What the README shows runs: its Python on a tiny model, its commands' options, its links, its formats."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prefrank.data import load_comparisons
from tests.tiny import bert_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_block_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("python")
    exec(block.replace("runs/demo", str(bert_folder(tmp_path))), {})
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["1", "2"]


def test_the_formats_load(tmp_path: Path) -> None:
    (block,) = blocks("json")
    for number, line in enumerate(block.strip().splitlines()):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(json.loads(line)) + "\n")
        assert len(load_comparisons(path).comparisons) == 1


def test_every_command_and_option_exists() -> None:
    lines = [line.split("#")[0] for block in blocks("bash") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("prefrank ")]
    assert len(commands) >= 7
    for line in commands:
        words = line.split()[1:]
        command = words[:2] if words[0] == "data" else words[:1]
        result = subprocess.run(
            [sys.executable, "-c", "from prefrank.cli import main; main()", *command, "--help"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert all(option in result.stdout for option in re.findall(r"--[a-z-]+", line)), line


def test_the_two_commands_are_targets_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [line.split()[1] for block in blocks("bash") for line in block.splitlines() if line.startswith("make ")]
    assert {"demo", "test"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing
