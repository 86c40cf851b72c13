"""A data set of Hugging Face's whose rows a run keeps, for as long as the run has the same decisions."""

from __future__ import annotations

from collections.abc import Iterator
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


class KeptRows(datasets.Dataset):  # type: ignore[misc]  # untyped; users need an object of that very class
    """A `Dataset` that is not read any more once the run that chose its rows was decided anew.

    So are views of it: in another format or order, with other columns, part of it, or as a stream. What ``map`` makes
    is a data set of its own.
    """

    _run: ReadRun

    @classmethod
    def of(cls, rows: Any, run: ReadRun) -> Any:
        """Return rows that a run chose as such; they are the same object, turned into one of this class."""
        rows.__class__, rows._run = cls, run
        return rows

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

    def _getitem(self, *args: Any, **options: Any) -> Any:
        self._run.require_current()
        return super()._getitem(*args, **options)
