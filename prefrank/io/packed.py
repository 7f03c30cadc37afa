"""The bytes of files, plain or packed: `.gz`, `.xz` and `.zst` by the end of the name."""

import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from prefrank.errors import BadData, NotFound, PrefrankError

PACKED_SUFFIXES = (".gz", ".xz", ".zst")
STREAM = Path("-")
"""Standard input or output, read and written by its handle: a system need not have a file of that name."""

_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)


def shown(path: Path) -> str:
    """A path as messages name it."""
    return "standard input" if path == STREAM else str(path)


def open_packed(path: Path) -> io.BufferedIOBase:
    """A file's bytes, unpacked; the caller closes it."""
    if path.suffix == ".gz":
        return gzip.GzipFile(path)
    if path.suffix == ".xz":
        return lzma.LZMAFile(path)
    if path.suffix == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
    return path.open("rb")


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file or of standard input, each with its end; they end at "\\n" alone.

    Raises:
        NotFound: no such file.
        BadData: a file that cannot be opened, or not be read to its end.
    """
    try:
        if path == STREAM:
            if sys.stdin is None:
                raise BadData("standard input is closed; wanted rows of JSON")
            yield from sys.stdin.buffer
            return
        with open_packed(path) as file:
            yield from file
    except _DAMAGE as error:
        raise unreadable(path, error) from None


_SAVE = "save it as UTF-8"
_MARKS = {
    b"\xff\xfe": ("UTF-16", _SAVE),
    b"\xfe\xff": ("UTF-16", _SAVE),
    b"\x1f\x8b": ("gzip", "its name must end in .gz"),
    b"\xfd7zXZ": ("xz", "its name must end in .xz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "its name must end in .zst"),
    b"PAR1": ("Parquet", "its name must end in .parquet"),
    b"ARROW1": ("Arrow", "its name must end in .feather or .arrow"),
}
"""What a file that is no text begins with, and what to do."""


def decoded(content: bytes, where: str, encoding: str = "utf-8-sig") -> str:
    """A line of UTF-8.

    Raises:
        BadData: something else, with what it looks like.
    """
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        unknown = (f"{error.reason} at byte {error.start}", _SAVE)
        found, cure = next((known for mark, known in _MARKS.items() if content.startswith(mark)), unknown)
        raise BadData(f"{where}: not UTF-8 text ({found}); {cure}") from None


def unreadable(path: Path, error: Exception) -> PrefrankError:
    """What to say of a file that its system or library cannot read."""
    if isinstance(error, FileNotFoundError):
        return NotFound(f"no file is called {str(path)!r}")
    if isinstance(error, IsADirectoryError):
        return BadData(f"{path}: a folder is no file of rows; give one of its files")
    if isinstance(error, PermissionError):
        return BadData(f"{path}: may not be read ({error.strerror}); give yourself the right to")
    reason = " ".join(str(error).split())
    return BadData(f"{path}: cannot be read to its end ({reason}); is it whole? Fetch or write it again")


@runtime_checkable
class Sink(Protocol):
    """What bytes can be written into."""

    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> object: ...


@contextmanager
def packed_writer(path: Path, suffix: str) -> Iterator[Sink]:
    """A file to write bytes into, packed as `suffix` says; the same bytes in give the same file."""
    with path.open("wb") as file:
        if suffix not in PACKED_SUFFIXES:
            yield file
            return
        with _packer(file, suffix) as packer:
            yield packer


def _packer(file: io.BufferedWriter, suffix: str) -> io.BufferedIOBase:
    if suffix == ".gz":
        return gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
    if suffix == ".xz":
        return lzma.LZMAFile(file, "wb")
    import pyarrow as pa

    return io.BufferedWriter(pa.CompressedOutputStream(file, "zstd"))
