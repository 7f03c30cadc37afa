"""A source's comparisons one at a time, in file order, in the memory of one row.

What `load_comparisons` does with all of a source at hand is left out here: repeated comparisons stay, ids may repeat,
nothing is grouped, and formats whose comparisons are gathered from many rows (OASST messages, rated summaries) cannot
be streamed. A malformed row does not end a stream: it is counted and passed over.
"""

import hashlib
from collections.abc import Callable, Iterator

from prefrank.data.candidates import OTHER_SPLIT, Drop, settle
from prefrank.data.catalogue import SUMMARY_SPLITS
from prefrank.data.load import VALIDATION_SHARE, split_of
from prefrank.data.sources import DataFile, Located, known_split, locate
from prefrank.errors import BadData, BadInput, NotFound
from prefrank.io.columns import Columns
from prefrank.io.rows import is_json_array
from prefrank.types import Comparison

MALFORMED = "malformed row"
_ENDS = 1 << 16
"""Bytes of a file's beginning and end that go into its fingerprint."""


class ComparisonStream:
    """Where a stream's files are; found and checked once, read as often as wanted.

    Args:
        source: a known name, a hub id, or a file or folder.
        split: as for `load_comparisons`, without `eval`; None reads everything.
        columns: as for `load_comparisons`; a row that lacks one is malformed.

    Raises:
        NotFound: no such source or split.
        BadData: a named column that is not there in a file's first row, or that nobody reads.
        BadInput: a format or a file that can only be read whole.
    """

    def __init__(self, source: str, *, split: str | None = None, columns: Columns | None = None) -> None:
        self.source, self.split = source, None if split is None else known_split(split)
        self._columns = dict(columns or {})
        self._located = locate(source, self.split, columns)
        if self.split is not None and self.split not in self._located.splits:
            raise NotFound(f"{source} has no split {split!r}; it has {', '.join(self._located.splits)}")
        self._files = self._located.files_of(self.split)
        for file in self._files:
            if not file.format.by_row:
                raise BadInput(f"{source}: its comparisons are gathered from many rows; leave out stream: true")
            if file.path.suffix != ".parquet" and is_json_array(file.path):
                raise BadInput(f"{file.path} is one JSON array, which is read whole; write one object per line")

    def read(self, dropped: Callable[[str], None]) -> Iterator[Comparison]:
        """One pass over the files.

        Args:
            dropped: called with the reason for each row that gives no comparison.

        Raises:
            BadData: a file that is damaged or cannot be read to its end.
        """
        for file in self._files:
            yield from self._read_file(file, dropped)

    @property
    def unread(self) -> tuple[str, ...]:
        """Files of the folder that are not read for any split."""
        return self._located.unread

    def fingerprint(self) -> str:
        """A hash of the files' names, sizes, and bytes at their ends; of what a run reads, without reading it all.

        Which columns are read belongs to it.
        """
        digest = hashlib.sha256(str(self.split).encode())
        if self._columns:
            digest.update(repr(sorted(self._columns.items())).encode())
        for file in self._files:
            size = file.path.stat().st_size
            digest.update(f"\0{self._located.shown(file.path)}\0{size}\0".encode())
            with file.path.open("rb") as opened:
                digest.update(opened.read(_ENDS))
                opened.seek(max(0, size - _ENDS))
                digest.update(opened.read())
        return digest.hexdigest()[:16]

    def _read_file(self, file: DataFile, dropped: Callable[[str], None]) -> Iterator[Comparison]:
        located, path = self._located, file.path
        label, name = located.label(path), located.shown(path)
        for record in file.records(bad_row=lambda error: dropped(MALFORMED)):
            try:
                (_, stated), *_ = file.format.read([record])
                if not isinstance(stated, Drop):
                    file.format.check(record, stated)
                kept = stated if isinstance(stated, Drop) else settle(stated)
                if not self._has_split(file, record.row.get("split")):
                    kept = Drop(OTHER_SPLIT)
            except BadData:
                dropped(MALFORMED)
                continue
            if isinstance(kept, Drop):
                dropped(kept.reason)
            elif self._falls_outside(located, split_of(kept.prompt)):
                dropped(OTHER_SPLIT)
            else:
                id = kept.id or f"{name}:{record.line}"
                yield Comparison(kept.prompt, kept.replies, kept.preferences, label, id, kept.ratings)

    def _has_split(self, file: DataFile, column: object) -> bool:
        """Of the summaries, whose rows of all splits stand in one file: whether the row's own column names ours."""
        return file.format_name != "summaries" or self.split is None or column in SUMMARY_SPLITS[self.split]

    def _falls_outside(self, located: Located, place: float) -> bool:
        """Whether a split that is made here by prompt puts the prompt on the other side."""
        made = self.split is not None and located.made_here
        return made and (place >= 1 - VALIDATION_SHARE) != (self.split == "validation")
