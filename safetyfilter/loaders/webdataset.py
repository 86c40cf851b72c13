"""A stage for webdataset pipelines that lets only kept samples pass."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch.utils.data import get_worker_info

from safetyfilter.batches import Unreadable
from safetyfilter.errors import UsageError
from safetyfilter.loaders.access import Access
from safetyfilter.loaders.deciders import AttestedBy, Decider, RunOrFilter, decider_of
from safetyfilter.loaders.kept import KeptSamples
from safetyfilter.loaders.opened import PerShard
from safetyfilter.sources.kinds import is_tar
from safetyfilter.sources.pictures import PICTURE_EXTENSIONS, Picture, other_pictures
from safetyfilter.sources.tars import image_of

Fields = dict[str, Any]


def safety_filter(
    by: RunOrFilter,
    *,
    root: str | os.PathLike[str] | None = None,
    image_field: str | None = None,
    verify_content: bool = False,
    verify: AttestedBy = None,
    per_shard: PerShard = "auto",
) -> SafetyStage:
    """Return a stage that lets only kept samples pass, in order; put it before ``.decode()``.

    Parameters
    ----------
    by : path, Run, Decisions, ShardedDecisions or SafetyFilter
        A run's directory: a sample is kept if the run knows and keeps it. A filter: what streams past is scored in
        batches of its own batch size.
    root : path or None
        The folder, pattern or tar that was scanned, where it lies now. A sample's key is its shard's path relative to
        it, and its name there: ``SHARD.tar/KEY``. A run needs it.
    image_field : str or None
        The extension of the image; where None, a sample must have exactly one image.
    verify_content : bool
        Also exclude a sample whose encoded pictures are not those that were scored. Without, the first 64 are compared,
        and every sample that holds other pictures than its image.
    verify : path, URL, OfficerKey or None
        An officer's public key: the run has to be attested with it, and its decisions have to be those attested, or
        nothing is loaded; see `verify_run`, and ``docs/attestation.md`` for what is read.
    per_shard : bool or "auto"
        Hold the decisions of the shards alone that samples come from, one after the other, and not those of the whole
        run. ``"auto"`` does so where the whole would take more than half of this machine's memory.

    Raises
    ------
    RunError
        While iterating: as `SafeIterable`.
    AttestationError
        The run is not attested with the key in `verify`, or not as it is now.
    UsageError
        There is no `root` and a run decides. While iterating: the samples are decoded already, or not one of the first
        has an image.

    Returns
    -------
    SafetyStage
        For ``dataset.compose(stage)``, ``dataset | stage`` or `webdataset.DataPipeline`.

    Examples
    --------
    >>> import io, tempfile, webdataset
    >>> from PIL import Image
    >>> import safetyfilter as sf
    >>> from safetyfilter.standin import ENCODER, PROMPTS
    >>> picture = io.BytesIO()
    >>> Image.new("RGB", (64, 48), "teal").save(picture, "PNG")
    >>> folder, place = tempfile.mkdtemp(), tempfile.mkdtemp()
    >>> samples = [{"__key__": "a", "png": picture.getvalue()}, {"__key__": "b", "png": b"no picture"}]
    >>> with webdataset.TarWriter(f"{folder}/0.tar", encoder=False) as tar:
    ...     for sample in samples:
    ...         _ = tar.write(sample)
    >>> encoder = sf.ClipEncoder.load(ENCODER, device="cpu")
    >>> lenient = sf.Policy(thresholds={"explicit": 1, "minor": 1})
    >>> online = sf.SafetyFilter(encoder, sf.zero_shot_probes(encoder, PROMPTS), lenient)
    >>> run = sf.scan(sf.open_source(folder), f"{place}/run", online)
    >>> stage = safety_filter(run, root=folder)
    >>> dataset = webdataset.WebDataset(f"{folder}/0.tar", shardshuffle=False).compose(stage).decode("pil")
    >>> read = [{"__url__": f"{folder}/0.tar", **sample} for sample in samples]  # as webdataset passes them on
    >>> [sample["__key__"] for sample in stage(read)], stage.filter_report()["unscored"]
    (['a'], 1)
    """
    decider = decider_of(by, verify=verify_content, per_shard=per_shard, attested=verify)
    return SafetyStage(decider, root=root, image_field=image_field)


class SafetyStage:
    """A stage of a webdataset pipeline: called with an iterator of samples, it yields those that are kept."""

    def __init__(
        self, decider: Decider, *, root: str | os.PathLike[str] | None = None, image_field: str | None = None
    ) -> None:
        self._kept: KeptSamples[Fields] = KeptSamples(
            decider,
            Access(
                key=None if root is None else ShardKeys(os.fspath(root)),
                image=_ImageOf(image_field),
                others=_OthersOf(image_field),
                image_help="name the image's extension with image_field=, and put the stage before .decode() and "
                ".rename()",
                key_help="give root=, the folder or pattern that was scanned, to which shards' paths are relative",
            ),
        )

    def __call__(self, samples: Iterable[Fields]) -> Iterator[Fields]:
        """Yield the samples that are kept, in order."""
        info = get_worker_info()
        return self._kept.of(samples, workers=info.num_workers if info else 1)

    def __ror__(self, dataset: Any) -> Any:
        return dataset.compose(self) if hasattr(dataset, "compose") else self(dataset)

    def filter_report(self) -> dict[str, int]:
        """Return ``seen``, ``kept``, ``excluded`` and one count a reason, of all passes in all workers so far."""
        return self._kept.counts.report()


class ShardKeys:
    """Gets a sample's key as a scan gives it: its shard's path relative to what was scanned, and its name there.

    Parameters
    ----------
    root : str
        The folder, pattern or tar that was scanned, where it lies now.

    Examples
    --------
    >>> keys = ShardKeys("/data/*.tar")
    >>> keys({"__url__": "/data/0.tar", "__key__": "a"}), keys({"__url__": "/elsewhere/0.tar", "__key__": "a"})
    ('0.tar/a', None)
    """

    def __init__(self, root: str) -> None:
        special = min((at for at in map(root.find, "*?[{") if at >= 0), default=-1)
        if os.path.isdir(_place(root)):  # noqa: PTH112 - whatever its name holds, as in a scan
            pass
        elif special >= 0:
            root = root[:special].rpartition("/")[0] or "."
        elif is_tar(root):
            root = root.rpartition("/")[0] or "."
        self._base = _place(root).rstrip("/") + "/"
        self._last = ("", "")

    def __call__(self, sample: Fields) -> str | None:
        """Return the sample's key; None where its shard is not below the root."""
        url, name = sample["__url__"], sample["__key__"]
        if url != self._last[0]:
            place = _place(str(url))
            shard = place.removeprefix(self._base) if place.startswith(self._base) else ""
            self._last = (url, shard if is_tar(shard) else _without_query(place, shard))
        return f"{self._last[1]}/{name}" if self._last[1] else None


def _place(url: str) -> str:
    """Return a URL or path in one spelling: absolute where it is local."""
    local = url.removeprefix("file://").removeprefix("file:")
    return url if "://" in local or local.startswith("pipe:") else os.path.abspath(local)  # noqa: PTH100


def _without_query(place: str, shard: str) -> str:
    """Return a shard's name without what a URL has behind it, such as a version or a signature, if a tar's is left."""
    cut = min((at for at in map(shard.find, "?#") if at >= 0), default=len(shard))
    return shard[:cut] if "://" in place and is_tar(shard[:cut]) else shard


class _ImageOf:
    """Gets a sample's encoded image, chosen as a scan chooses it."""

    def __init__(self, field: str | None) -> None:
        self._field = field

    def __call__(self, sample: Mapping[str, Any]) -> Any:
        fields = _fields(sample)
        return fields[_image_name(fields, self._field)]


class _OthersOf:
    """Gets the other pictures of a sample, as a scan sees them; those that are decoded already are an error."""

    def __init__(self, field: str | None) -> None:
        self._field = field

    def __call__(self, sample: Mapping[str, Any]) -> tuple[Picture, ...]:
        fields = _fields(sample)
        for name, value in fields.items():
            _require_encoded(name, value)
        image = _image_name(fields, self._field)
        return () if self._field is None else other_pictures(fields, image)  # else it is the only one


def _fields(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sample.items() if not name.startswith("__")}


def _image_name(fields: Mapping[str, Any], wanted: str | None) -> str:
    name, failure = image_of(fields, wanted)
    if failure is not None:
        raise Unreadable(failure)
    _require_encoded(name, fields[name], image=True)
    return name


def _require_encoded(name: str, value: Any, *, image: bool = False) -> None:
    is_picture = image or name.rpartition(".")[2].lower() in PICTURE_EXTENSIONS
    if is_picture and not isinstance(value, bytes | bytearray | memoryview):
        raise UsageError(
            f"a picture is a {type(value).__name__}, not encoded bytes; put the stage before .decode() and .rename()"
        )
