"""Where comparisons come from: a known name, a hub id, a file or a folder; found here, read by `load`.

A known name and a local folder take one path: the hub's snapshot is a folder, and a folder is recognized by its
contents. A file's split is a word of its path (`train`, `validation`, `valid`, `val`, `dev`, `test`); where some files
of a folder name a split, those that do not (such as an export beside them) are not read, and `ReadingReport.unread`
says so.
"""

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from prefrank.data.catalogue import (
    ALIASES,
    BESIDE_TRAIN,
    KNOWN_SPLITS,
    PARQUET_BRANCH,
    SOURCES,
    SPLIT_WORDS,
    SUMMARY_SPLITS,
    PublishedSet,
)
from prefrank.data.cells import with_messages, with_objects, with_types
from prefrank.data.formats import ANY_ROW, FORMATS, Format, recognise
from prefrank.data.hh import SUBSETS
from prefrank.data.implicit import PROMPTS
from prefrank.errors import BadData, BadInput, NotFound, short, suggest
from prefrank.io.columns import Columns, mapped
from prefrank.io.plain_files import check_plain
from prefrank.io.rows import SUFFIXES, FileRow, Record, first_row, is_csv, is_data_file, read_records
from prefrank.io.saved import STATE, saved_names
from prefrank.limits import limit, past

_NOT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file, the split its path names ("" for none), its format, and its columns' names where they are others."""

    path: Path
    split: str
    format: Format
    format_name: str
    columns: Columns = field(default_factory=dict)

    def records(self, *, bad_row: Callable[[BadData], None] | None = None) -> Iterator[Record]:
        """The file's rows, under the names that readers know; of Parquet only what the format reads.

        Args:
            bad_row: called with the error of a row that cannot be read, which is then skipped; None raises the error.

        Raises:
            BadData: as `read_records`, and a row that lacks a named column.
        """
        csv = is_csv(self.path)
        for record in read_records(self.path, self._wanted(), bad_row=bad_row):
            try:
                yield Record(_as_read(record.row, csv, self.columns), record.path, record.line)
            except BadData as error:
                located_error = BadData(f"{record.where}: {error}")
                if bad_row is None:
                    raise located_error from None
                bad_row(located_error)

    def _wanted(self) -> tuple[str, ...] | None:
        """The columns to read of a Parquet file, under its own names."""
        if self.format.columns is None or self.format.whole:
            return None
        wanted = [*self.columns.values()]
        for name in dict.fromkeys((*self.format.columns, *self.format.beside, *ANY_ROW)):
            first, dot, rest = name.partition(".")
            if name not in self.columns:
                wanted.append(self.columns.get(first, first) + dot + rest)
        return tuple(dict.fromkeys(wanted))


@dataclass(frozen=True, slots=True)
class Located:
    """A source that was found: its name, its folder, its files, and the published set that they are, if any."""

    name: str
    root: Path
    files: tuple[DataFile, ...]
    published: PublishedSet | None = None
    unread: tuple[str, ...] = ()
    """Data files of the folder that belong to no split, as others do, and are not read."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that can be asked for."""
        named = {file.split for file in self.files}
        if self.files[0].format_name == "summaries":
            return tuple(split for split in SUMMARY_SPLITS if named & {"", _files_split(split)})
        return ("train", "validation") if self.made_here else tuple(s for s in SPLIT_WORDS if s in named)

    @property
    def made_here(self) -> bool:
        """Whether the splits are ours to make: none but train is published or named by a file, nor by a column."""
        named = set(self.published.splits) if self.published else {file.split for file in self.files}
        return named <= {"", "train"} and self.files[0].format_name != "summaries"

    def files_of(self, split: str | None) -> tuple[DataFile, ...]:
        """The files to read for a split; all of them where the split is made from their rows."""
        if split is None or self.made_here:
            return self.files
        return tuple(file for file in self.files if file.split in ("", _files_split(split)))

    def shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def label(self, path: Path) -> str:
        """The source of a file's comparisons: a subset of hh-rlhf keeps its name, since it is measured by itself."""
        subset = next((folder for folder in reversed(path.absolute().parts) if folder in SUBSETS), "")
        return f"hh/{subset}" if subset and self.files[0].format_name == "hh" else self.name


def parse_source(text: str) -> tuple[str, str | None]:
    """`SOURCE:SPLIT` as (source, split); without a split, or where the whole is a file, the split is None.

    >>> parse_source("anthropic_rlhf:test")
    ('anthropic_rlhf', 'test')

    Raises:
        NotFound: what follows the colon is no split.
    """
    source, colon, split = text.rpartition(":")
    if not colon or not source or re.search(r"[/\\]", split) or os.path.exists(text):
        return text, None
    return source, known_split(split)


def _files_split(split: str) -> str:
    """The split whose files hold it: `valid1` and `valid2` of the summaries are halves of validation."""
    return "validation" if split.startswith("valid") else split


def known_split(split: str) -> str:
    """A split's own name: `val` and `dev` are validation.

    Raises:
        NotFound: no split is called so.
    """
    if not isinstance(split, str):
        raise BadInput(f"split is {short(split)}; wanted a name, such as train")
    if split not in KNOWN_SPLITS:
        raise NotFound(f"no split is called {split!r}{suggest(split, KNOWN_SPLITS)}")
    return KNOWN_SPLITS[split]


def locate(source: str | Path, split: str | None, columns: Columns | None = None) -> Located:
    """Find a source's files, from the hub if it is a known name or a hub id.

    Args:
        source: a known name, a hub id, a file or a folder; a name wins over a folder, which `./name` gives.
        split: fetch this split's files only.
        columns: from names that readers know to the files' own.

    Raises:
        NotFound: nothing of that name, or the hub cannot be reached.
        BadData: files of no known format, or of several; a named column that is not there, or that nobody reads.
    """
    if not isinstance(source, str | Path):
        raise BadInput(f"a source is {short(source)}; wanted a name, a file or a folder")
    if columns is not None and not (
        isinstance(columns, Mapping) and all(isinstance(name, str) for name in (*columns, *columns.values()))
    ):
        raise BadInput(f"columns are {short(columns)}; wanted names with names, such as {{'prompt': 'question'}}")
    if isinstance(source, str):
        name = source if source in SOURCES else ALIASES.get(source.lower(), "")
        if name and (name == source or not os.path.exists(source)):
            return _starter(columns) if name == "starter" else _published(name, SOURCES[name], split, columns)
    if os.path.exists(source):
        return _local(Path(source), columns)
    is_file_name = str(source).endswith(SUFFIXES)
    if isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not is_file_name:
        return _other_hub(source, columns)
    hint = "" if is_file_name or isinstance(source, Path) else suggest(source, SOURCES)
    raise NotFound(f"no data set, file or folder is called {str(source)!r}{hint}")


def _starter(columns: Columns | None) -> Located:
    root = Path(str(resources.files("prefrank.data"))) / "starter"
    paths = _data_files(root) if root.is_dir() else []
    if not paths:
        raise NotFound(f"the starter set is not in {root}; install prefrank again")
    return Located("starter", root, _recognised(_by_name(root, paths), columns))


def _published(name: str, source: PublishedSet, split: str | None, columns: Columns | None) -> Located:
    if not source.hub:
        raise NotFound(f"{name} was never published; give the folder that holds its rm_train.jsonl as the source")
    wanted = [_files_split(split)] if split and len(source.splits) > 1 else list(source.splits)
    if wanted[0] not in source.splits:
        raise NotFound(f"{name} has no split {split!r}; it has {', '.join(source.splits)}")
    patterns = [pattern.format(split=word) for pattern in source.layout for word in wanted]
    root = _download(source.hub, source.revision, patterns)
    files = {path: word for path, word in _in_layout(source, root, _data_files(root)).items() if word in wanted}
    if not files:
        raise NotFound(f"{name} is not in {root}; {_advice(patterns, source.revision)}")
    format = FORMATS[source.format]
    for known in columns or ():
        if not format.reads(known):
            raise BadData(f"columns name {known!r}, which {name} does not read{suggest(known, format.columns or ())}")
    read = tuple(DataFile(path, word, format, source.format, columns or {}) for path, word in files.items())
    return Located(name, root, read, source)


def _data_files(root: Path) -> list[Path]:
    """The data files of a folder, hidden ones and the hub's own notes left aside; links to folders are not followed.

    Raises:
        BadData: a folder of more than a machine should look through.
    """
    paths, seen, most = [], 0, limit("data_files")
    for folder, folders, names in os.walk(root):
        seen += len(folders) + len(names)
        if seen > most:
            raise BadData(f"{root} holds {past('data_files')}; give the folder of the data alone")
        folders[:] = [name for name in folders if not name.startswith(".")]
        saved = saved_names(Path(folder)) if STATE in names else None  # not caches beside it
        left_out = set() if saved is None else {name for name in names if name.endswith(".arrow")} - set(saved)
        paths += [Path(folder, name) for name in names if _is_data(name) and name not in left_out]
    return sorted(paths)


def _is_data(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.startswith(".") and name not in _NOT_DATA


def _in_layout(source: PublishedSet, root: Path, paths: Iterable[Path]) -> dict[Path, str]:
    """The files that stand where the hub has them, with their splits."""
    patterns = [(pattern.format(split=split), split) for pattern in source.layout for split in source.splits]
    named = [(re.compile(fnmatch.translate(pattern)), pattern.count("/"), split) for pattern, split in patterns]
    names = [(path, path.relative_to(root).as_posix()) for path in paths]
    return {
        path: split
        for path, name in names
        for pattern, depth, split in named
        if name.count("/") == depth and pattern.match(name)
    }


def _local(path: Path, columns: Columns | None) -> Located:
    if path.is_file():
        if not is_data_file(path):
            raise BadData(f"{path}: a file of this kind cannot be read; wanted one of {', '.join(SUFFIXES)}")
        return Located(path.name.split(".")[0], path.parent, _recognised({path: _split_in(path.name)}, columns))
    if not path.is_dir():
        check_plain(path, BadData)
    paths = _data_files(path)
    if not paths:
        raise NotFound(f"no data file in {path}; wanted files that end in one of {', '.join(SUFFIXES)}")
    named = _by_name(path, paths)
    name = os.path.basename(os.path.realpath(path))
    for source in SOURCES.values():
        files = _in_layout(source, path, paths)
        same = files and _format_of(next(iter(files)), columns) == source.format
        if same and not _has_more(source, named, files, columns):
            return Located(
                name,
                path,
                _recognised(files, columns),
                source,
                _beside(path, paths, files),
            )
    return Located(name, path, _recognised(named, columns), unread=_beside(path, paths, named))


def _beside(root: Path, paths: Iterable[Path], read: Iterable[Path]) -> tuple[str, ...]:
    there = set(read)
    return tuple(path.relative_to(root).as_posix() for path in paths if path not in there)


def _has_more(
    source: PublishedSet, named: Mapping[Path, str], files: Mapping[Path, str], columns: Columns | None
) -> bool:
    """Whether a folder in the layout of a published set has further splits of the same format, so is another set."""
    others = [path for path, split in named.items() if split and path not in files]
    return any(_format_of(path, columns) == source.format for path in others)


def _by_name(root: Path, paths: Iterable[Path]) -> dict[Path, str]:
    """Files and the splits that their paths name; where some name one, only those."""
    names = {path: path.relative_to(root).as_posix() for path in paths}
    splits = {path: _split_in(name) for path, name in names.items()}
    if "train" in splits.values():
        splits = {path: split or _split_in(names[path], BESIDE_TRAIN) for path, split in splits.items()}
    return {path: split for path, split in splits.items() if split} or splits


def _split_in(path: str, words: Mapping[str, str] = SPLIT_WORDS) -> str:
    split_words = [word for word in re.split(r"[/\\._-]+", path.lower()) if word in words]
    return words[split_words[-1]] if split_words else ""


def _format_of(path: Path, columns: Columns | None) -> str | None:
    row, csv = first_row(path), is_csv(path)
    where = f"{path}:{2 if csv else 1}"
    if row is None:
        return None
    try:
        row = _as_read(row, csv, columns or {})
    except BadData as error:
        raise BadData(f"{where}: {error}") from None
    return recognise(row, where, columns)


def _as_read(row: FileRow, csv: bool, columns: Columns) -> FileRow:
    """A row under the names, and with the values, that readers know.

    Whoever names the column of the prompt has said that no other one is it; an `input` or a `history` goes before it.
    """
    if columns:
        row = with_objects(row, columns.values()) if csv else row
        others = (*PROMPTS, "context") if columns.keys() & set(PROMPTS) else ()
        row = mapped(row, columns, without=others)
    return with_messages(with_types(row) if csv else row)


def _recognised(splits: Mapping[Path, str], columns: Columns | None) -> tuple[DataFile, ...]:
    """The files with rows, each with its format; all must share one reader."""
    names = {path: name for path in splits if (name := _format_of(path, columns))}
    if not names:
        raise BadData(f"{next(iter(splits))}: the file has no rows; wanted at least one comparison")
    readers = {FORMATS[name].read: path for path, name in names.items()}
    if len(readers) > 1:
        listed = " and ".join(f"{path.name} ({names[path]})" for path in readers.values())
        raise BadData(f"{listed} are of different formats; give one of them, or folders of one format each")
    return tuple(DataFile(path, splits[path], FORMATS[name], name, columns or {}) for path, name in names.items())


def _other_hub(id: str, columns: Columns | None) -> Located:
    """Any data set on the hub, in one of the formats of `FORMATS`; a scripted one through the Parquet branch."""
    try:
        roots = (_download(id, revision, [f"*{suffix}" for suffix in SUFFIXES]) for revision in (None, PARQUET_BRANCH))
        root = next((root for root in roots if _data_files(root)), None)
    except NotFound as error:
        raise NotFound(f"no file or folder is called {id!r}, and as a hub id: {error}") from None
    if root is None:
        raise NotFound(f"{id} on the hub holds no data file; wanted files that end in one of {', '.join(SUFFIXES)}")
    located = _local(root, columns)
    return Located(id, root, located.files, located.published, located.unread)


def _download(id: str, revision: str | None, patterns: Iterable[str]) -> Path:
    import huggingface_hub

    wanted = list(patterns)
    try:
        return Path(
            huggingface_hub.snapshot_download(id, repo_type="dataset", revision=revision, allow_patterns=wanted)
        )
    except Exception as error:  # the hub's client lets through the errors of its HTTP library, which varies by version
        why = " ".join(str(error).split())[:160]
        raise NotFound(f"cannot fetch {id} from the hub ({why}); {_advice(wanted, revision)}") from None


def _advice(patterns: Iterable[str], revision: str | None = None) -> str:
    branch = f" (revision {revision})" if revision else ""
    files = ", ".join(patterns)
    return f"put its files {files}{branch} in a folder, as on the hub, and give that folder as the source"
