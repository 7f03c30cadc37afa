"""Folders that `datasets.save_to_disk` writes: `state.json` names a data set's files; one of splits has several."""

from pathlib import Path

from prefrank.errors import BadData, short
from prefrank.io.json_files import read_fields, repeated

STATE = "state.json"


def saved_names(folder: Path) -> tuple[str, ...]:
    """The names of a saved data set's files, in order; what else lies there, such as caches, is not part of it.

    Raises:
        BadData: a state.json that cannot be read, or a choice of rows that stands in a file of its own.
    """
    state = read_fields(folder / STATE, BadData)
    names = tuple(entry.text("filename") for entry in state.objects("_data_files"))
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise BadData(
            f"{folder / STATE}: the rows are chosen by another file; save the data set again with datasets 2 or newer"
        )
    for name in names:
        if Path(name).name != name or not name.endswith(".arrow"):
            raise BadData(f"{folder / STATE} names the file {short(name)}; wanted .arrow files that lie beside it")
    if (twice := repeated(names)) is not None:
        raise BadData(f"{folder / STATE} names the file {short(twice)} twice; save the data set again")
    return names


def saved_files(folder: Path) -> list[Path]:
    """The files of one saved data set.

    Raises:
        BadData: a folder of several, or one whose files are not all there.
    """
    if not (folder / STATE).is_file():
        parts = sorted(path.parent.name for path in folder.glob(f"*/{STATE}"))
        if not parts:
            raise BadData(f"{folder}: a folder is no file of rows; give a file, or what datasets.save_to_disk wrote")
        raise BadData(f"{folder}: it holds the splits {', '.join(parts)}; give one, such as {folder / parts[0]}")
    names = saved_names(folder)
    if missing := next((name for name in names if not (folder / name).is_file()), None):
        raise BadData(f"{folder / missing}: not there, and {STATE} names it; save the data set again")
    if not names:
        raise BadData(f"{folder / STATE}: it names no files; save the data set again")
    return [folder / name for name in names]
