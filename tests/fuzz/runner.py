"""Where hostile examples run: a process of its own, under limits, so that nothing they do ends the tests.

`Worker.check` writes an example's files into a new folder, calls a target there, and holds the outcome against what is
allowed: the right result, or one `PrefrankError` of one line; of a command, its exit code and one line of error. Files
that were there are the same bytes afterwards, and none is left that the target does not write.

The process is forked from one that has imported everything (`multiprocessing`'s fork server), so that a new one after
a crash costs milliseconds. It is on Linux only: it reads `/proc`.
"""

import faulthandler
import os
import pickle
import re
import shutil
import signal
import socket
import stat
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from hypothesis import reject

from tests.fuzz.breaking import Broken, Fifo, Folder, Link

CPU_S, WALL_S = 6.0, 60.0
"""Of one example. Honest ones take a tenth of a second."""
MEMORY = 4 << 30
"""Bytes of address space beyond what a process with everything imported has."""
_MOST_DEATHS = 4
"""Of examples in one test that hang or crash, so that making one smaller ends."""

Tree = Mapping[str, bytes | Broken | Link | Fifo | Folder]
"""Files by their path in the example's folder."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an example.

    Args:
        kind: "result", "refused" or "fault".
        text: the error's message, or of a fault the traceback.
        value: a result's value.
        where: of a fault, the place that tells one kind from another.
    """

    kind: str
    text: str = ""
    value: Any = None
    where: str = ""


class Fault(AssertionError):
    """An outcome that is not allowed. Each place has a class of its own: hypothesis tells faults apart by theirs."""


_CLASSES: dict[str, type[Fault]] = {}
_OUTPUT: dict[int, int] = {}
"""Of this process's standard output and error, the files that they are read from."""


def _fault(where: str, text: str) -> NoReturn:
    raise _CLASSES.setdefault(where, type(f"Fault at {where}", (Fault,), {}))(text)


class Worker:
    """A process that runs examples.

    Args:
        place: a folder for theirs.

    Attributes:
        bases: valid folders of models and a run, by name, as files by their paths.
    """

    bases: dict[str, dict[str, bytes]]

    def __init__(self, place: Path) -> None:
        self._place = place
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["tests.fuzz.targets"])
        self._process: Any = None
        self._line: Any = None
        self._deaths: dict[bytes, Outcome] = {}
        self._count = 0

    def call(self, target: Callable[..., Any], *arguments: Any) -> Any:
        """The value of what must go well."""
        outcome = self._ask(target, self._place, arguments)
        assert outcome.kind == "result", outcome.text
        return outcome.value

    def check(
        self,
        target: Callable[..., Any],
        *arguments: Any,
        files: Tree,
        writes: Sequence[str] = (),
        keeps: Collection[str] = (),
    ) -> Any:
        """Run an example.

        Args:
            target: a function of a module, called in the example's folder.
            files: what is in it.
            writes: regular expressions of the paths that the target may make or change.
            keeps: paths among them that it may not change.

        Returns:
            The target's value; None where it was refused.

        Raises:
            Fault: what came is not allowed.
        """
        example = pickle.dumps((target, arguments, dict(files)))
        if example not in self._deaths and len(self._deaths) >= _MOST_DEATHS:
            reject()
        self._count += 1
        folder = self._place / f"example-{self._count}"
        plant(folder, files)
        before = photograph(folder)
        try:
            outcome = self._deaths.get(example) or self._ask(target, folder, arguments)
            if outcome.kind == "fault":
                if self._process is None:
                    self._deaths[example] = outcome
                _fault(outcome.where, outcome.text)
            compare_photographs(before, photograph(folder), writes, keeps)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if outcome.kind == "refused":
            check_message(outcome.text)
        return outcome.value

    def forget(self) -> None:
        """The examples that hung or crashed, before the next test."""
        self._deaths.clear()

    def close(self) -> None:
        if self._process is not None:
            self._line.close()
            self._process.join(5)
            self._process.kill()
            self._process.join()
            self._process = None

    def _ask(self, target: Callable[..., Any], folder: Path, arguments: Sequence[Any]) -> Outcome:
        if self._process is None:
            self._line, other = self._context.Pipe()
            self._process = self._context.Process(target=_serve, args=(other, self._place), daemon=True)
            self._process.start()
            other.close()
        try:
            self._line.send((target, folder, arguments))
            return self._line.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code, self._process = self._process.exitcode, None
            self._line.close()
        log = (self._place / "log").read_text(errors="replace")
        name = signal.Signals(-code).name if code < 0 else f"exit {code}"
        why = {"SIGPROF": f"it ran for {CPU_S:g} s", "SIGALRM": f"it took {WALL_S:g} s"}.get(
            name, f"the process died: {name}"
        )
        frames = re.findall(r'File "([^"]+)", line (\d+)', log)
        ours = next((f"{_short(file)}:{line}" for file, line in frames if "/prefrank/" in file), "")
        return Outcome("fault", f"{why}\n{log[:3000]}", where=f"{ours} {name}")


def plant(folder: Path, files: Tree) -> None:
    """Write an example's files."""
    folder.mkdir()
    for name, one in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(one, Link):
            path.symlink_to(one.to)
        elif isinstance(one, Fifo):
            os.mkfifo(path)
        elif isinstance(one, Folder):
            path.mkdir()
        else:
            path.write_bytes(one.content if isinstance(one, Broken) else one)


def photograph(folder: Path) -> dict[str, Any]:
    """Everything below a folder: of a file its bytes, of a link where it goes, of the rest what it is."""
    found: dict[str, Any] = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            mode = path.lstat().st_mode
            held = path.read_bytes() if stat.S_ISREG(mode) else os.readlink(path) if stat.S_ISLNK(mode) else None
            found[path.relative_to(folder).as_posix()] = (stat.S_IFMT(mode), stat.S_IMODE(mode), held)
    return found


def compare_photographs(
    before: Mapping[str, Any], after: Mapping[str, Any], writes: Sequence[str], keeps: Collection[str]
) -> None:
    """See that only what may be written was, and that nothing of its making is left."""
    allowed = re.compile("|".join(f"(?:{one})" for one in writes) or "$^", re.DOTALL)
    for name in sorted(before.keys() | after.keys()):
        left = re.search(r"(^|/)\.prefrank-|\.tmp(/|$)", name) and name not in before
        may = allowed.fullmatch(name) and name not in keeps
        if left or (before.get(name) != after.get(name) and not may):
            what = (
                "left behind" if left else "made" if name not in before else "changed" if name in after else "removed"
            )
            _fault(f"file {what}", f"{name!r} was {what}")


def check_message(text: str) -> None:
    """See that an error is one line that a terminal can show."""
    if not text.isprintable() or len(text) > 2000 or not text.strip():
        _fault("message", f"no line of at most 2,000 printable characters: {text[:300]!r} ({len(text)})")


def check_command(code: int, out: str, err: str) -> None:
    """See that a command ended as commands do, and wrote nothing that a terminal obeys."""
    if code not in (0, 2, 3, 4, 5, 6, 7):
        _fault(f"exit code {code}", f"exit code {code}\n{err[-2000:]}")
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    if len(errors) > 1 or "Traceback" in err:
        _fault("standard error", err[-2000:])
    for line in errors:
        check_message(line)
    for name, text in {"output": out, "error": err}.items():
        if found := re.search(r"[\x00-\x08\x0b-\x1f]", text):
            _fault(f"control character in standard {name}", repr(text[max(0, found.start() - 200) : found.end() + 20]))


def _serve(line: Connection, place: Path) -> None:
    """Run what is asked for until nobody asks."""
    _limit(place)
    while True:
        try:
            target, folder, arguments = line.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        signal.setitimer(signal.ITIMER_REAL, WALL_S)
        os.chdir(folder)
        outcome = _outcome(target, arguments)
        os.chdir("/")
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        line.send(outcome)


def _outcome(target: Callable[..., Any], arguments: Sequence[Any]) -> Outcome:
    from prefrank.errors import PrefrankError

    try:
        return Outcome("result", value=target(*arguments))
    except PrefrankError as error:
        return Outcome("refused", str(error))
    except Fault as error:
        return Outcome("fault", str(error), where=type(error).__name__.removeprefix("Fault at "))
    except BaseException as error:  # also the panics of Rust, which are no `Exception`
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f"{_short(one.filename)}:{one.lineno}" for one in frames if "/prefrank/" in one.filename]
        text = "".join(traceback.format_exception(error, chain=False))
        return Outcome("fault", text[-3000:], where=f"{(ours or ['?'])[-1]} {type(error).__name__}")


def _short(file: str) -> str:
    return "prefrank/" + file.rpartition("/prefrank/")[2]


def _limit(place: Path) -> None:
    """Limits of memory, time and files for this process, no network but the loopback, its output into files."""
    import resource  # which Windows has not

    log = (place / "log").open("w")
    faulthandler.enable(log)
    for number in (signal.SIGPROF, signal.SIGALRM):  # in C, so that native code and waiting are ended too
        signal.signal(number, signal.SIG_DFL)
        faulthandler.register(number, log, chain=True)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        _OUTPUT[stream] = os.open(place / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(_OUTPUT[stream], stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    socket.socket.connect = _nearby(socket.socket.connect, 1)  # type: ignore[method-assign]
    socket.getaddrinfo = _nearby(socket.getaddrinfo, 0)


def _nearby(call: Callable[..., Any], place: int) -> Callable[..., Any]:
    """A call of the network that reaches the loopback alone; its address stands at a place of its arguments."""

    def limited(*arguments: Any, **named: Any) -> Any:
        address = arguments[place] if len(arguments) > place else None
        if (address[0] if isinstance(address, tuple) else address) not in ("127.0.0.1", b"127.0.0.1"):
            raise OSError(101, "Network is unreachable")
        return call(*arguments, **named)

    return limited


def run_command(*arguments: str) -> tuple[int, str, str]:
    """Run `prefrank` in this process: its exit code, output and errors, which are checked."""
    from prefrank.cli import main

    for stream, file in _OUTPUT.items():  # anew, since a command may turn its output to nowhere
        os.dup2(file, stream)
        os.ftruncate(stream, 0)
        os.lseek(stream, 0, os.SEEK_SET)
    before, sys.argv = sys.argv, ["prefrank", *arguments]
    code: Any = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        sys.stderr.write(traceback.format_exc(chain=False))
        raise
    finally:
        sys.argv = before
        sys.stdout.flush()
        sys.stderr.flush()
    out, err = (os.pread(file, 1 << 24, 0).decode(errors="replace") for file in _OUTPUT.values())
    check_command(code, out, err)
    return code, out, err
