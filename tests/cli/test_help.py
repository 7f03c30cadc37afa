"""docs/cli.md is the command line's own help: generated, and held to it. Rewrite it with PREFRANK_UPDATE=1."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
COMMANDS = [
    *(
        "",
        "train",
        "runs",
        "score",
        "rank",
        "serve",
        "evaluate",
        "compare",
        "leaderboard",
        "card",
        "calibrate",
        "suites",
    ),
    *("quantise", "merge", "data describe", "info"),
]
OPENING = """# Command line

Results go to standard output; progress, remarks and errors go to standard error, so that output can be piped.
An error is one line: what came, what was wanted, what to do.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a bug in prefrank; please report it |
| 2 | wrong usage, or a data set, model or file that was not found |
| 3 | data that cannot be used; the message names file and line |
| 4 | a model folder that cannot be used |
| 5 | a recipe that cannot be used |
| 6 | the output cannot be written, or the disk is full |
| 7 | training diverged |
| 130 | interrupted (training saves first) |
"""


def help_of(command: str) -> str:
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    environment.pop("FORCE_COLOR", None)
    result = subprocess.run(
        [sys.executable, "-c", "from prefrank.cli import main; main()", *command.split(), "--help"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    text = result.stdout.replace("Usage: -c", "Usage: prefrank")
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def section(command: str) -> str:
    return f"## {f'prefrank {command}'.strip()}\n\n```text\n{help_of(command)}\n```\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_documentation_holds_this_help(command: str) -> None:
    assert section(command) in PAGE.read_text(), "the help has changed: PREFRANK_UPDATE=1 pytest tests/cli/test_help.py"


def test_every_command_is_documented() -> None:
    from prefrank.cli.commands import app, data_app

    names = [command.callback.__name__ for command in app.registered_commands]
    names += [f"data {command.name}" for command in data_app.registered_commands]
    assert sorted(names) == sorted(COMMANDS[1:])


if os.environ.get("PREFRANK_UPDATE"):
    PAGE.write_text("\n".join([OPENING, *map(section, COMMANDS)]))
