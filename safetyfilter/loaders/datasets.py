"""Hugging Face data sets without their excluded rows: Dataset, DatasetDict and their streaming kin."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import REASON_NAMES, Reason
from safetyfilter.errors import RunError, SourceError, UsageError
from safetyfilter.filter import SafetyFilter
from safetyfilter.loaders.checks import ImageCheck, require_readable, require_used, spread
from safetyfilter.loaders.counts import SharedCounts, reconciled
from safetyfilter.loaders.gate import SOON, By, decider, encoded, reasons_for
from safetyfilter.runs.decisions import Decisions
from safetyfilter.sources.tables import image_column_of, key_column_of, undecoded

Key = str | Callable[[dict[str, Any]], str | None]


def filter_dataset(
    ds: Any,
    by: By,
    *,
    image_column: str | None = None,
    key: Key | None = None,
    verify_content: bool | None = None,
    batch_size: int = 1000,
    num_proc: int | None = None,
) -> Any:
    """A data set without its excluded rows; columns, features, format and images stay as they are.

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
        ``path``). Where None, the column ``key`` or ``__key__``, else the row's number, after ``SPLIT/`` in a
        `DatasetDict`, as a scan has it.
    verify_content : bool or None
        Also exclude a row whose encoded image is not the one that was scored. Where None, it's done for keys that are
        row numbers, and only for these: a number says nothing of a row once the data set is shuffled or sorted.
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
        images, or of a few where not all are checked, are not those that it scanned under these keys.
    UsageError
        A streaming data set without keys, or row numbers without a check of their images.

    Notes
    -----
    Decisions are cached by datasets' own cache under a fingerprint of the data set, the run, its policy and the
    arguments here: with another policy they are made anew.

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
    import datasets

    chosen = decider(by)
    if isinstance(ds, datasets.DatasetDict | datasets.IterableDatasetDict):
        splits = {
            name: filter_dataset(
                split,
                chosen,
                image_column=image_column,
                key=_in_split(split, key, name),
                verify_content=verify_content,
                batch_size=batch_size,
                num_proc=num_proc,
            )
            for name, split in ds.items()
        }
        result = type(ds)(splits)
        result.filter_report = _Sum([split.filter_report for split in splits.values()])
        return result
    if isinstance(ds, datasets.IterableDataset):
        return _streaming(ds, chosen, image_column, key, bool(verify_content), batch_size)
    if not isinstance(ds, datasets.Dataset):
        raise UsageError(
            f"a {type(ds).__name__} is no data set of Hugging Face's; give a Dataset, a DatasetDict or "
            "their streaming kin"
        )
    return _stored(ds, chosen, image_column, key, verify_content, batch_size, num_proc)


def _stored(
    ds: Any,
    chosen: Decisions | SafetyFilter,
    image_column: str | None,
    key: Key | None,
    verify: bool | None,
    batch_size: int,
    num_proc: int | None,
) -> Any:
    key = key_column_of(ds.features.arrow_schema, key) if key is None or isinstance(key, str) else key
    by_number = key is None or isinstance(key, _Row)
    if verify is None:
        verify = by_number
    if by_number and not verify and isinstance(chosen, Decisions):
        raise UsageError(
            "row numbers are no keys without a check of the images: after a shuffle or a selection they "
            "name other rows; leave verify_content out, or give a column with key="
        )
    decide = _Rows(ds, chosen, image_column, key if key is not None else _Row(""), verify)
    fingerprint = hashlib.sha256(json.dumps([ds._fingerprint, decide.identity]).encode()).hexdigest()[:16]
    if not len(ds):
        bits = np.empty(0, np.uint16)
    else:
        decided = decide.rows.map(
            decide,
            with_indices=True,
            batched=True,
            batch_size=batch_size,
            num_proc=num_proc,
            remove_columns=decide.rows.column_names,
            new_fingerprint=fingerprint,
            features=_features(),
            desc="deciding",
        )
        bits = np.asarray(decided.with_format("numpy")["reasons"][:], np.uint16)
    counts = dict(reconciled(bits))
    if not isinstance(chosen, Decisions):
        require_readable(counts)
    else:
        if by_number and 2 * counts["drifted"] > len(bits):
            raise RunError(
                f"{counts['drifted']:,} of {len(bits):,} images are not those that the run scanned under these row "
                "numbers: filter the data set before it is shuffled or selected from, or name a column of keys with "
                "key="
            )
        require_used(chosen, counts)
        if not verify:
            _require_same_images(ds, chosen, image_column, key)
    kept = ds.select(np.flatnonzero(bits == 0), new_fingerprint=hashlib.sha256(fingerprint.encode()).hexdigest()[:16])
    kept.filter_report = _Sum([_Fixed(counts)])
    return kept


def _streaming(
    ds: Any, chosen: Decisions | SafetyFilter, image_column: str | None, key: Key | None, verify: bool, batch_size: int
) -> Any:
    if ds.features is None:
        ds = ds._resolve_features()
    schema = ds.features.arrow_schema
    needed = verify or isinstance(chosen, SafetyFilter)
    column = image_column_of(schema, image_column) if needed else _any_image_column(schema, image_column)
    if isinstance(key, _Row):
        key = None
    if key is None or isinstance(key, str):
        key = key_column_of(schema, key)
    if key is None and isinstance(chosen, Decisions):
        raise UsageError(
            "a streaming data set has no row numbers to go by: name the column of the keys with key=, or "
            "filter the Dataset and stream it with to_iterable_dataset()"
        )
    decide = _Stream(chosen, column, key, verify)
    # Without features a filter sees rows as they are stored, and what it lets pass is decoded after it, or not at all.
    # A cast to undecoded images and back would not do: datasets ignores a cast behind a filter.
    raw = ds.with_format(None)  # an object of its own, with its own information
    raw._info.features = None
    kept = raw.filter(decide, batched=True, batch_size=batch_size)
    kept._info, kept._formatting = ds._info.copy(), ds._formatting
    kept.filter_report = decide.counts.report
    return kept


class _Rows:
    """Decides on rows of a stored data set by their numbers; only the columns needed are read, and none is decoded."""

    def __init__(self, ds: Any, by: Decisions | SafetyFilter, image_column: str | None, key: Key, verify: bool) -> None:
        online = isinstance(by, SafetyFilter)
        self._image = image_column_of(ds.features.arrow_schema, image_column) if online or verify else None
        columns = {self._image} | {key if isinstance(key, str) else None}
        if callable(key) and not isinstance(key, _Row) and not online:
            columns = set(ds.column_names)
        elif columns == {None}:
            columns = {ds.column_names[0]}
        self.rows = undecoded(ds.with_format(None).select_columns(sorted(c for c in columns if c)))
        self._by, self._key, self._verify = by, key, verify
        self.identity = [identity(by), self._image, _name(key), verify]

    def __call__(self, batch: Mapping[str, list[Any]], numbers: list[int]) -> dict[str, Any]:
        images = list(batch[self._image]) if self._image else None
        keys = None if isinstance(self._by, SafetyFilter) else _keys(self._key, batch, numbers)
        return {"reasons": reasons_for(self._by, keys, images)}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "rows"}


class _Stream:
    """Decides on batches of a stream, and counts."""

    def __init__(self, by: Decisions | SafetyFilter, image: str | None, key: Key | None, verify: bool) -> None:
        self._by, self._image, self._key, self._verify = by, image, key, verify
        self._check = ImageCheck(by) if isinstance(by, Decisions) and image and not verify else None
        self.counts = SharedCounts()

    def __call__(self, batch: Mapping[str, list[Any]]) -> list[bool]:
        images = list(batch[self._image]) if self._image else None
        keys = None if self._key is None or isinstance(self._by, SafetyFilter) else _keys(self._key, batch, [])
        bits = reasons_for(self._by, keys, images if self._verify or keys is None else None)
        if self._check is not None and not self._check.done:
            assert keys is not None
            assert images is not None
            # of the first, another image is as good as drifted, so that none passes until there are enough to tell
            bits[(bits == 0) & ~_same(self._check, keys, images)] = np.uint16(Reason.DRIFTED)
        self.counts.add_all(bits)
        if (bits != 0).all() and (report := self.counts.report())["seen"] >= SOON:
            if isinstance(self._by, Decisions):
                require_used(self._by, report)
            else:
                require_readable(report)
        return [not reasons for reasons in bits.tolist()]


def _same(check: ImageCheck, keys: Sequence[str | None], images: Sequence[Any]) -> npt.NDArray[np.bool_]:
    """(N,) bool, False for another image than the one scanned; True where the check has enough, or there is no key."""
    return np.array(
        [
            check.done or key is None or check.same(str(key), encoded(image))
            for key, image in zip(keys, images, strict=True)
        ],
        np.bool_,
    )


def _require_same_images(ds: Any, decisions: Decisions, image_column: str | None, key: Key | None) -> None:
    """`ImageCheck` on some rows from all over a stored data set."""
    column = _any_image_column(ds.features.arrow_schema, image_column)
    if column is None or key is None or not len(ds):
        return
    numbers = spread(len(ds))
    few = ds.with_format(None).select(numbers)
    batch = undecoded(few.select_columns([column, key]) if isinstance(key, str) else few)[:]
    check = ImageCheck(decisions)
    _same(check, _keys(key, batch, numbers), batch[column])
    check.require_same()


def _any_image_column(schema: Any, wanted: str | None) -> str | None:
    """The column of the images; None where none was named and none is found."""
    try:
        return image_column_of(schema, wanted)
    except SourceError:
        if wanted is not None:
            raise
        return None


class _Row:
    """A row's number, after a prefix: the key that a scan gives a row without one."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def __call__(self, row: dict[str, Any]) -> str | None:
        return None  # pragma: no cover - numbers are not in the row


class _Fixed:
    def __init__(self, counts: dict[str, int]) -> None:
        self._counts = counts

    def __call__(self) -> dict[str, int]:
        return dict(self._counts)


class _Sum:
    """Adds up reports."""

    def __init__(self, reports: list[Callable[[], dict[str, int]]]) -> None:
        self._reports = reports

    def __call__(self) -> dict[str, int]:
        total = Counter(dict.fromkeys(("seen", "kept", "excluded", *REASON_NAMES), 0))
        for report in self._reports:
            total.update(report())
        return dict(total)


def _keys(key: Key, batch: Mapping[str, list[Any]], numbers: list[int]) -> list[str | None]:
    if isinstance(key, _Row):
        return [f"{key.prefix}{number}" for number in numbers]
    if isinstance(key, str):
        return list(batch[key])
    names = list(batch)
    rows = (dict(zip(names, values, strict=True)) for values in zip(*(batch[name] for name in names), strict=True))
    return [_called(key, row) for row in rows]


def _called(key: Callable[[dict[str, Any]], str | None], row: dict[str, Any]) -> str | None:
    try:
        return key(row)
    except Exception:  # noqa: BLE001 - a row without a key is excluded as unknown
        return None


def _in_split(split: Any, key: Key | None, name: str) -> Key | None:
    """The key of a split of several: a column's values are keys as they are, row numbers follow the split's name."""
    if key is not None or split.features is None or key_column_of(split.features.arrow_schema):
        return key
    return _Row(f"{name}/")


def identity(by: Decisions | SafetyFilter) -> list[str]:
    """What decides, in a form that changes with everything that decides."""
    if isinstance(by, Decisions):
        return [by.fingerprint]
    return [by.encoder.spec.digest, str(by.encoder.dtype), *by.probes.digests, by.policy.digest, repr(by.options)]


def _name(key: Key) -> str:
    if isinstance(key, str):
        return f"column {key}"
    if isinstance(key, _Row):
        return f"rows {key.prefix}"
    from datasets.fingerprint import Hasher

    digest: str = Hasher.hash(key)
    return digest


def _features() -> Any:
    import datasets

    return datasets.Features({"reasons": datasets.Value("uint16")})
