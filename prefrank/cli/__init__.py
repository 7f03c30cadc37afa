"""The command line. Results go to standard output, talk to standard error; this is the only part that prints.

Exit codes: 0 done; 1 a fault of prefrank's own; 2 wrong usage, or something that was not found; 3 data; 4 model;
5 recipe; 6 cannot write; 7 training diverged; 130 interrupted.
"""

import os
import signal
import sys
from io import TextIOWrapper
from types import FrameType

from rich.console import Console
from rich.markup import escape

from prefrank.cli import measuring as measuring  # its commands join the app
from prefrank.cli.commands import app
from prefrank.errors import Interrupted, PrefrankError

EXTRAS = {
    "train": ("accelerate", "peft", "psutil", "pydantic", "yaml", "tensorboard"),
    "evaluate": ("httpx", "jinja2", "matplotlib", "py3langid", "scipy", "sklearn"),
}


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):  # a console of few characters (cp1252, ASCII) shows "?" for the others
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGINT, _stop)  # training puts its own handler in this one's place, to save first
    try:
        app()
    except PrefrankError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        extra = next((name for name, packages in EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        _say(f"this needs the package {package}, which is not installed; run: pip install 'prefrank[{extra}]'")
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str) -> None:
    text = escape(" ".join(message.split()))
    Console(stderr=True, emoji=False).print(f"[bold red]error:[/] {text}", highlight=False, soft_wrap=True)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Interrupted("stopped by Ctrl-C")
