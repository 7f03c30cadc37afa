"""Rows of Arrow columns that turn a value into Python only when it is asked for: what nobody reads cannot fail."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Columns(Protocol):
    """Columns of one batch of rows."""

    @property
    def names(self) -> Mapping[str, int]: ...

    def value(self, name: str, row: int) -> Any:
        """The value as JSON would have it. Raises BadData for one that cannot be read."""

    def child(self, name: str) -> "Columns | None":
        """The columns of a column of objects; None for another type."""

    def holds(self, row: int) -> bool:
        """Whether there is an object in this row, and not null."""


class LazyRow(Mapping[str, Any]):
    """One row; equal to the dict of the same values."""

    __slots__ = ("columns", "index")

    def __init__(self, columns: Columns, index: int) -> None:
        self.columns, self.index = columns, index

    def __getitem__(self, name: str) -> Any:
        if name not in self.columns.names:
            raise KeyError(name)
        return self.columns.value(name, self.index)

    def __contains__(self, name: object) -> bool:
        return name in self.columns.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns.names)

    def __len__(self) -> int:
        return len(self.columns.names)

    def reach(self, name: str) -> Any:
        """The value, or where it is an object a row of its own, so that what stands beside stays unread."""
        child = self.columns.child(name)
        if child is None:
            return self[name]
        return LazyRow(child, self.index) if child.holds(self.index) else None

    def __repr__(self) -> str:
        return f"a row with the columns {', '.join(self)}"
