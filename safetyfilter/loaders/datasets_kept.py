"""A data set of Hugging Face's whose rows a run keeps, for as long as the run has the same decisions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import datasets

from safetyfilter.loaders.deciders import Decider


class ReadRun:
    """The decider of a run, which copies of a data set have in common."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider

    def require_current(self) -> None:
        """Raise `RunError` where the run was decided anew."""
        self._decider.require_current()

    def __deepcopy__(self, memo: Any) -> ReadRun:
        return self


def _made_of_kept(name: str) -> Callable[..., Any]:
    """Return a method of `Dataset` that makes another data set of the same rows, as one whose rows the run keeps."""
    made: Callable[..., Any] = getattr(datasets.Dataset, name)

    @functools.wraps(made)
    def method(self: KeptRows, *args: Any, **options: Any) -> Any:
        self._run.require_current()
        return self.of(made(self, *args, **options), self._run)

    return method


class KeptRows(datasets.Dataset):  # type: ignore[misc]  # untyped; users need an object of that very class
    """A `Dataset` that is not read any more once the run that chose its rows was decided anew.

    So are views of it: in another format or order, with other columns, in batches, repeated, part of it, or as a
    stream. What ``map`` makes is a data set of its own, and so is what it is joined with others to.
    """

    _run: ReadRun

    @classmethod
    def of(cls, rows: Any, run: ReadRun) -> Any:
        """Return rows that a run chose as such; they are the same object, turned into one of this class."""
        rows.__class__, rows._run = cls, run
        return rows

    @property
    def _data(self) -> Any:
        """The table that holds the rows: whatever reads them, in whichever form, asks for it here."""
        if "_data" not in self.__dict__:
            raise AttributeError("_data")  # as of any object: it is closed
        self._run.require_current()
        return self.__dict__["_data"]

    @_data.setter
    def _data(self, table: Any) -> None:
        self.__dict__["_data"] = table

    @_data.deleter
    def _data(self) -> None:
        del self.__dict__["_data"]

    def __del__(self) -> None:  # without a look at the run, which may be gone
        self.__dict__.pop("_data", None)
        self.__dict__.pop("_indices", None)

    @property
    def num_rows(self) -> int:
        """The number of rows, which may be asked for at any time."""
        return len(self.__dict__["_data"] if self._indices is None else self._indices)

    # these are made by map or of the table itself, and not of a copy or a selection of the object
    add_column, add_item = _made_of_kept("add_column"), _made_of_kept("add_item")
    batch, repeat, flatten_indices = _made_of_kept("batch"), _made_of_kept("repeat"), _made_of_kept("flatten_indices")
    cast, class_encode_column = _made_of_kept("cast"), _made_of_kept("class_encode_column")
    align_labels_with_mapping = _made_of_kept("align_labels_with_mapping")

    def select(self, *args: Any, **options: Any) -> Any:
        """Return some of the rows; most shuffles, sorts and splits are made of this."""
        return self.of(super().select(*args, **options), self._run)

    def _new_dataset_with_indices(self, *args: Any, **options: Any) -> Any:
        """Return some of the rows, whose numbers datasets has in its cache."""
        return self.of(super()._new_dataset_with_indices(*args, **options), self._run)

    def iter(self, *args: Any, **options: Any) -> Iterator[Any]:
        """Return an iterator over batches."""
        self._run.require_current()
        return super().iter(*args, **options)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Any]:
        self._run.require_current()
        return super().__iter__()  # type: ignore[no-any-return]
