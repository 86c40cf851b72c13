"""Hugging Face data sets without their excluded rows: Dataset, DatasetDict and their streaming kin."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from safetyfilter.errors import UsageError
from safetyfilter.loaders.datasets_rows import RowGetter, RowOptions
from safetyfilter.loaders.datasets_stored import filter_stored
from safetyfilter.loaders.datasets_streaming import filter_streaming
from safetyfilter.loaders.deciders import AttestedBy, Decider, RunOrFilter, decider_of
from safetyfilter.loaders.places import absolute
from safetyfilter.runs.record import COUNT_NAMES


def filter_dataset(
    ds: Any,
    by: RunOrFilter,
    *,
    image_column: str | None = None,
    key: RowGetter | None = None,
    split: str | None = None,
    root: str | os.PathLike[str] | None = None,
    verify_content: bool | None = None,
    verify: AttestedBy = None,
    batch_size: int = 1000,
    num_proc: int | None = None,
) -> Any:
    """Return a data set without its excluded rows; columns, features, format and images stay as they are.

    Parameters
    ----------
    ds : Dataset, DatasetDict, IterableDataset or IterableDatasetDict
        What to filter.
    by : path, Run, Decisions or SafetyFilter
        A run's directory: a row is kept if the run knows and keeps its key. A filter: each image is scored.
    image_column : str or None
        Found by name and type where None.
    key : str, callable or None
        The column that holds the keys, or a function of a row (images as they are stored: a dict of ``bytes`` and
        ``path``). Where None, the column ``key`` or ``__key__``, else with `root` the images' paths, else the row's
        number, after ``SPLIT/`` in a `DatasetDict`, as a scan has it.
    split : str or None
        For one split of a `DatasetDict` that was scanned as a whole: its name there. Where None, the data set's own
        name for itself is tried, where the run does not know its rows by their numbers alone.
    root : path or None
        The folder of images that was scanned, where it lies now, for rows that name their files: keys are the paths
        relative to it.
    verify_content : bool or None
        Also exclude a row whose encoded pictures are not those that were scored. Where None, it's done for keys that
        are row numbers, which say nothing of a row once the data set is shuffled or sorted, and for rows that hold
        other pictures than their image; of the rest, 64 from all over the data set are compared, of a stream the first.
    verify : path, URL, OfficerKey or None
        An officer's public key: the run has to be attested with it, and its decisions have to be those attested, or
        nothing is loaded; see `verify_run`, and ``docs/attestation.md`` for what is read.
    batch_size : int
        Rows decided at a time.
    num_proc : int or None
        Processes, for a `Dataset`.

    Returns
    -------
    as `ds`
        With a method ``filter_report()``: ``seen``, ``kept``, ``excluded`` and one count a reason. It belongs to this
        object; what is derived from it has none.

    Raises
    ------
    RunError
        The run knows none of the rows: a `Dataset` at once, a streaming one after a thousand rows. Or most of the
        images, or of a few where not all are checked, are not those that it scanned under these keys. Or, while
        what comes back is read: the run was decided anew.
    AttestationError
        The run is not attested with the key in `verify`, or not as it is now.
    UsageError
        A streaming data set without keys, or row numbers without a check of their images; or no image can be read; or
        rows hold several pictures, and it is not clear which column has their image.

    Notes
    -----
    Decisions are made anew each time, and never cached: the files that rows name may have changed. What comes back is
    an error to read after `safetyfilter decide`, and so are views of it (``shuffle``, ``select``, ``with_format``,
    ``to_iterable_dataset``); what ``map`` makes of a `Dataset` is a data set of its own, as an export is. A filter
    keeps one pipeline open for all rows of a `Dataset`; of a streaming one, datasets asks for a decision batch by
    batch, and each has a pipeline of its own.

    Examples
    --------
    >>> import datasets, safetyfilter as sf
    >>> from safetyfilter.standin import ENCODER, PROMPTS
    >>> from PIL import Image
    >>> encoder = sf.ClipEncoder.load(ENCODER, device="cpu")
    >>> ds = datasets.Dataset.from_dict({"image": [Image.new("RGB", (64, 48), "teal"), None]},
    ...                                 features=datasets.Features({"image": datasets.Image()}))
    >>> lenient = sf.Policy(thresholds={"explicit": 1, "minor": 1})
    >>> safe = filter_dataset(ds, sf.SafetyFilter(encoder, sf.zero_shot_probes(encoder, PROMPTS), lenient))
    >>> len(safe), safe.filter_report()["unscored"]
    (1, 1)
    """
    decider = decider_of(by, verify=bool(verify_content), attested=verify)
    options = RowOptions(
        image_column=image_column,
        key=key,
        split=split,
        root=None if root is None else absolute(root),
        verify_content=verify_content,
        batch_size=batch_size,
        num_proc=num_proc,
    )
    return _filtered(ds, decider, options)


def _filtered(ds: Any, decider: Decider, options: RowOptions) -> Any:
    import datasets

    if isinstance(ds, datasets.DatasetDict | datasets.IterableDatasetDict):
        splits = {name: _filtered(split, decider, replace(options, split=name)) for name, split in ds.items()}
        result = type(ds)(splits)
        result.filter_report = _Sum([split.filter_report for split in splits.values()])
        return result
    if isinstance(ds, datasets.IterableDataset):
        return filter_streaming(ds, decider, options)
    if not isinstance(ds, datasets.Dataset):
        raise UsageError(
            f"a {type(ds).__name__} is not a data set of Hugging Face's; give a Dataset, a DatasetDict or "
            "their streaming kin"
        )
    return filter_stored(ds, decider, options)


class _Sum:
    """Adds up the reports of splits."""

    def __init__(self, reports: Sequence[Callable[[], dict[str, int]]]) -> None:
        self._reports = reports

    def __call__(self) -> dict[str, int]:
        total: Counter[str] = Counter(dict.fromkeys(COUNT_NAMES, 0))
        for report in self._reports:
            total.update(report())
        return dict(total)
