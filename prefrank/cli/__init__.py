"""The command line. Results go to standard output, talk to standard error; this is the only part that prints.

Exit codes: 0 done; 1 a fault of prefrank's own; 2 wrong usage, or something that was not found; 3 data; 4 model;
5 recipe; 6 cannot write; 7 training diverged; 130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
"""

import csv
import errno
import io
import os
import signal
import sys
from types import FrameType

from rich.console import Console
from rich.markup import escape

from prefrank.cli import measuring as measuring  # its commands join the app
from prefrank.cli.commands import app
from prefrank.errors import CannotWrite, PrefrankError

EXTRAS = {
    "train": ("accelerate", "peft", "psutil", "pydantic", "yaml", "tensorboard"),
    "evaluate": ("httpx", "jinja2", "matplotlib", "py3langid", "scipy", "sklearn"),
}


class _Stopped(BaseException):
    """A signal. No `Exception`: what a library takes for its own fault, or tries again, must not swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {'Ctrl-C' if number == signal.SIGINT else signal.Signals(number).name}")
        self.exit_code = 128 + number


def main() -> None:
    """Run the command line and exit with its code."""
    _catch_signals()
    csv.field_size_limit(2**31 - 1)  # a text of a CSV file may be long; for the whole process, so no library's to say
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a console need not know every character
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where what it raises can still be said
    except (PrefrankError, _Stopped) as error:
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
        _drop_output()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _drop_output()
        _say(
            f"cannot write {error.filename or 'the output'}: the disk is full; free some space or choose another place"
        )
        sys.exit(CannotWrite.exit_code)


def _drop_output() -> None:
    """What is still to be written to standard output can go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str) -> None:
    text = escape(" ".join(message.split()))
    Console(stderr=True, emoji=False).print(f"[bold red]error:[/] {text}", highlight=False, soft_wrap=True)


def _catch_signals() -> None:
    """Stop by an exception, so that no half-written file stays; training puts its own handlers in place, to save first.
    A second signal ends the process where it stands, without a word.

    What the caller had ignored stays so, as `nohup` does with SIGHUP.
    """
    signal.signal(signal.SIGINT, _stop)
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    for one in (signal.SIGINT, signal.SIGTERM, number):
        if signal.getsignal(one) is _stop:
            signal.signal(one, signal.SIG_DFL)
    raise _Stopped(number)
