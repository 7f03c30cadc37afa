"""The bytes of files, plain or packed: `.gz`, `.xz` and `.zst` by the end of the name."""

import gzip
import io
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from prefrank.errors import BadData, NotFound, PrefrankError
from prefrank.io.plain_files import check_plain
from prefrank.limits import limit, past

PACKED_SUFFIXES = (".gz", ".xz", ".zst")
STREAM = Path("-")
"""Standard input or output, read and written by its handle: a system need not have a file of that name."""

_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)
_PIECE = 1 << 20
_STEP = 1 << 16
MOST_PACKED = 2000
"""Times that a large file may unpack to its own size: texts pack to a tenth, rows that repeat one long prompt with
hundreds of short replies to a thousandth."""
_LEAST_ROW = 2
"""Bytes that an honest row takes at the least, however well a file packs: some of it is not as in the row before."""


_LOOK_AHEAD = 4096


def most_rows(path: Path) -> int:
    """Rows, or lines, that a file may hold."""
    return sys.maxsize if path == STREAM else max(limit("packed_rows"), path.stat().st_size // _LEAST_ROW)


class RowBound:
    """Counts the rows of a file that is being read, and refuses what holds too many of them.

    Where the rows so far take less of the packed file than honest ones do, the rest is counted ahead, so that nobody
    works on very many rows of a file that is then refused. Other files are read once.

    Args:
        path: the file.
        again: its rows, or lines, read once more with as little work as can be.
    """

    def __init__(self, path: Path, again: Callable[[], Iterable[object]]) -> None:
        self._path, self._again = path, again
        self._most, self._look, self._size = sys.maxsize, sys.maxsize, 0
        self._raw: io.BufferedReader | None = None

    def opened(self, raw: io.BufferedReader) -> None:
        """Note the packed file from which the rows come."""
        self._raw, self._most, self._look = raw, most_rows(self._path), _LOOK_AHEAD
        self._size = os.fstat(raw.fileno()).st_size

    def check(self, row: int) -> None:
        """Raises BadData where the file has more rows than it may, of which this is one."""
        if row > self._most:
            raise BadData(f"{shown(self._path)}: holds less than two bytes a row and {past('packed_rows')}")
        if row >= self._look:
            self._look *= 2
            done = self._size if self._raw is None or self._raw.closed else self._raw.tell()
            if row * _LEAST_ROW > done:
                self._look = sys.maxsize
                for ahead, _ in enumerate(self._again(), start=1):
                    if ahead > self._most:
                        self.check(ahead)


@runtime_checkable
class Source(Protocol):
    """What lines can be read from."""

    def readline(self, size: int, /) -> bytes: ...


def shown(path: Path) -> str:
    """A path as messages name it."""
    return "standard input" if path == STREAM else str(path)


def unpacked(raw: io.BufferedReader, suffix: str) -> io.BufferedIOBase:
    """What an open file unpacks to, by the end of its name."""
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=raw, mode="rb")
    if suffix == ".xz":
        return io.BufferedReader(_Xz(raw))
    if suffix == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(raw, "zstd"))
    return raw


class _Xz(io.RawIOBase):
    """An .xz file, unpacked in bounded memory, which `lzma.LZMAFile` has no setting for."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file, self._most = file, limit("window_bytes")
        self._stream = self._next_stream()

    def _next_stream(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=self._most)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        while True:
            packed = b""
            if self._stream.eof:
                packed = self._stream.unused_data.lstrip(b"\0") or self._file.read(_STEP).lstrip(b"\0")
                if not packed and not self._file.peek(1):
                    return 0
                self._stream = self._next_stream()
            elif self._stream.needs_input and not (packed := self._file.read(_STEP)):
                raise EOFError("it ends before its end mark")
            if unpacked := self._stream.decompress(packed, len(view)):
                view[: len(unpacked)] = unpacked
                return len(unpacked)


def pieces(path: Path, bound: RowBound | None = None) -> Generator[bytes]:
    """The bytes of a file or of standard input, unpacked: its lines, each with its end, a long one in several pieces.

    Args:
        bound: counts the rows.

    Raises:
        NotFound: no such file.
        BadData: no plain file, one that cannot be opened or not be read to its end, or one that unpacks to too much.
    """
    try:
        if path == STREAM:
            if sys.stdin is None:
                raise BadData("standard input is closed; wanted rows of JSON")
            yield from _bounded(path, sys.stdin.buffer, None)
            return
        size = _plain_size(path)
        packed = path.suffix in PACKED_SUFFIXES
        with path.open("rb") as raw, unpacked(raw, path.suffix) as file:
            if bound is not None:
                bound.opened(raw)
            yield from _bounded(path, file, max(limit("unpacked_bytes"), MOST_PACKED * size) if packed else None)
    except _DAMAGE as error:
        raise unreadable(path, error) from None


def _plain_size(path: Path) -> int:
    try:
        return check_plain(path, BadData).st_size
    except BadData as error:
        if path.is_fifo() or path.is_char_device():
            raise BadData(f"{error}, or - for standard input") from None
        raise


def _bounded(path: Path, file: Source, most: int | None) -> Iterator[bytes]:
    done, blank, most_blank = 0, 0, limit("blank_lines")
    while piece := file.readline(_PIECE):
        done += len(piece)
        if most is not None and done > most:
            raise BadData(
                f"{path}: unpacks to over {MOST_PACKED} times its size and to {past('unpacked_bytes')}; is it honest?"
            )
        if piece.isspace():
            blank += 1
            if blank > most_blank:
                raise BadData(f"{shown(path)}: {past('blank_lines')}, stand in a row; take them out")
        else:
            blank = 0
        yield piece


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file or of standard input, each with its end; they end at "\\n" alone.

    Raises:
        NotFound, BadData: as `pieces`; also a line that is too long.
    """
    bound = RowBound(path, lambda: _ends(path))
    return joined(path, pieces(path, bound), bound)


def _ends(path: Path) -> Iterator[bytes]:
    return (piece for piece in pieces(path) if piece.endswith(b"\n"))


def joined(path: Path, parts: Iterable[bytes], bound: RowBound) -> Iterator[bytes]:
    """The lines that pieces make."""
    waiting: list[bytes] = []
    size, most, number = 0, limit("line_bytes"), 1
    for piece in parts:
        size += len(piece)
        if size > most:
            raise BadData(f"{shown(path)}:{number}: the line has {past('line_bytes')}; is it one row?")
        ends = piece.endswith(b"\n")
        bound.check(number)
        if waiting or not ends:
            waiting.append(piece)
            if not ends:
                continue
            piece = b"".join(waiting)
            waiting.clear()
        yield piece
        size = 0
        number += 1
    if waiting:
        yield b"".join(waiting)


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
        kind, cure = next((known for mark, known in _MARKS.items() if content.startswith(mark)), unknown)
        raise BadData(f"{where}: not UTF-8 text ({kind}); {cure}") from None


def unreadable(path: Path, error: Exception) -> PrefrankError:
    """What to say of a file that its system or library cannot read."""
    if isinstance(error, FileNotFoundError):
        return NotFound(f"there is no file {path}")
    if isinstance(error, IsADirectoryError):
        return BadData(f"{path}: a folder is no file of rows; give one of its files")
    if isinstance(error, PermissionError):
        return BadData(f"{path}: may not be read ({error.strerror}); give yourself the right to")
    reason = " ".join(str(error).split())
    if "Memory usage limit" in reason or "too much memory" in reason:  # of lzma, of zstd
        return BadData(f"{path}: unpacking it takes {past('window_bytes')}; pack it with a smaller window")
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
