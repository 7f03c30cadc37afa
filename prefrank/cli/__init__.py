"""The command line. Results go to standard output, all else to standard error; nothing else in prefrank prints.

Exit codes: 0 done; 1 a bug in prefrank; 2 wrong usage, or something that was not found; 3 data; 4 model;
5 recipe; 6 cannot write; 7 training diverged; 130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
"""

import csv
import errno
import io
import logging
import os
import signal
import sys
import warnings
from contextlib import suppress
from types import FrameType
from typing import Any

import typer
from rich.text import Text

from prefrank.cli import evaluating as evaluating  # its commands join the app
from prefrank.cli import serving as serving
from prefrank.cli.commands import app
from prefrank.cli.screen import say
from prefrank.errors import BadInput, CannotWrite, PrefrankError, message_of
from prefrank.reports.rich_tables import joined, text

EXTRAS = {
    "train": ("accelerate", "peft", "psutil", "pydantic", "yaml", "tensorboard"),
    "evaluate": ("httpx", "jinja2", "matplotlib", "py3langid", "sklearn"),
    "serve": ("fastapi", "starlette", "uvicorn", "prometheus_client"),
}


class _Stopped(BaseException):
    """A signal. No `Exception`: what a library takes for its own fault, or tries again, must not swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {'Ctrl-C' if number == signal.SIGINT else signal.Signals(number).name}")
        self.exit_code = 128 + number


def main() -> None:
    """Run the command line and exit with its code."""
    _catch_signals()
    _keep_numbers()
    csv.field_size_limit(2**31 - 1)  # a text of a CSV file may be long; for the whole process, so no library's to say
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a console need not know every character
    warnings.showwarning = _show_warning
    logging.setLogRecordFactory(_one_line)
    logging.getLogger("codecarbon").setLevel(logging.ERROR)  # it warns before it reads the level it is given
    try:
        code = _run()
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        code = 0
        _drop_output()
    sys.exit(code)


def _run() -> int:
    """The exit code of the command, whose error is said."""
    try:
        try:
            return app(standalone_mode=False) or 0
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where what it raises can still be said
    except (PrefrankError, _Stopped) as error:
        return _say(str(error), error.exit_code)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # which typer and rich turn into an exit with 1
            raise error.__context__ from None
        raise
    except typer.TyperException as error:  # wrong usage; empty where the help is shown instead
        return _say(error.format_message(), error.exit_code)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        extra = next((name for name, packages in EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        return _say(
            f"this needs the package {package}, which is not installed; run: pip install 'prefrank[{extra}]'", 2
        )
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        return _say(*_told(error))
    except RecursionError:
        return _say("something in the input is nested too deeply; make it flatter", BadInput.exit_code)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error).lower() for words in _NO_MEMORY):
            raise
        return _say(
            "there is not enough memory for this; give less at once, such as a smaller --max-tokens or model",
            BadInput.exit_code,
        )


_NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")
"""How torch says it."""


def _told(error: OSError) -> tuple[str, int]:
    """What the system refused, and the exit code of it."""
    place = error.filename or "the output"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        why = "the disk is full; free some space or choose another place"
    else:
        why = f"{error.strerror or error}; choose another place"
    writing = error.filename is None or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
    return (f"cannot write {place}: {why}", CannotWrite.exit_code) if writing else (f"{place}: {why}", 2)


def _keep_numbers() -> None:
    """Streams that are closed lead nowhere, so that no file that we open gets their number and a library's words."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this


def _drop_output() -> None:
    """What is still to be written to standard output can go nowhere."""
    if sys.stdout is not None:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str, code: int) -> int:
    """Say an error, where there is one to say, and return its exit code."""
    if message.strip():
        say(_error(message))
    return code


def _error(message: str) -> Text:
    return joined(joined("error:", style="bold red"), " ", text(message_of(" ".join(message.split()))))


def _show_warning(message: Warning | str, *place: Any, **more: Any) -> None:
    """Python's warnings, without the line of code that they come from."""
    say(joined("warning:", style="yellow"), " ", " ".join(str(message).split()))


def _one_line(*given: Any, **more: Any) -> logging.LogRecord:
    """What libraries log, in one line whatever it quotes."""
    record = logging.LogRecord(*given, **more)
    with suppress(Exception):  # their placeholders may not fit
        message = text(" ".join(record.getMessage().split())).plain
        record.msg, record.args = f"{record.levelname.lower()}: {message}", ()
    return record


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
    for caught in (signal.SIGINT, signal.SIGTERM, number):
        if signal.getsignal(caught) is _stop:
            signal.signal(caught, signal.SIG_DFL)
    raise _Stopped(number)
