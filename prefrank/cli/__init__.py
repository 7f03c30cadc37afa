"""The command line. Results go to standard output, talk to standard error; this is the only part that prints.

Exit codes: 0 done; 1 a fault of prefrank's own; 2 wrong usage, or something that was not found; 3 data; 4 model;
5 recipe; 6 cannot write; 7 training diverged; 130 interrupted.
"""

import os
import sys

import click
from rich.console import Console

from prefrank.cli.commands import app
from prefrank.errors import PrefrankError


def main() -> None:
    """Run the command line and exit with its code."""
    console = Console(stderr=True)
    try:
        app(standalone_mode=False)
        code = 0
    except PrefrankError as error:
        console.print(f"[bold red]error:[/] {_plain(error)}", highlight=False, soft_wrap=True)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        console.print("[bold yellow]stopped[/]")
        code = 130
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _plain(error: PrefrankError) -> str:
    """The message on one line, with no markup read into it."""
    return " ".join(str(error).split()).replace("[", "\\[")
