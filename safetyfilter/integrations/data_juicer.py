"""An operator of Data-Juicer that keeps no sample with a picture that a filter excludes.

It needs Data-Juicer (1.6.1 was tested), which is installed apart: ``pip install py-data-juicer==1.6.1``. Data-Juicer
finds the operator by itself, as ``image_safety_filter``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data_juicer.core.data import NestedDataset
from data_juicer.ops.base_op import NON_STATS_FILTERS, OPERATORS, Filter
from data_juicer.utils.ray_utils import is_ray_mode
from PIL import Image

from safetyfilter.batches import REASON_NAMES, ImageInput, Unreadable, count_decisions
from safetyfilter.errors import UsageError
from safetyfilter.integrations.recipe import FilterRecipe
from safetyfilter.sources.paths import PathRule, checked_root

if TYPE_CHECKING:
    from safetyfilter.integrations.deciding import Pictures, SampleDecider

_NAME = "image_safety_filter"
_log = logging.getLogger(__name__)


# Registered among those without statistics: Data-Juicer writes statistics to files, sample by sample.
@NON_STATS_FILTERS.register_module(_NAME)
@OPERATORS.register_module(_NAME)
class ImageSafetyFilter(Filter):  # type: ignore[misc]
    """Keeps a sample of which every picture can be scored and none is excluded.

    All pictures of a sample are scored, and the highest score of each signal counts, as in a scan. A sample without a
    picture is excluded as `unscored`, and so is one with a video, which no probe sees. It runs in one process, which
    decodes on all cores, and not in Data-Juicer's Ray mode. No statistic is kept and nothing is traced: both would tell
    samples apart by what was found in them. Cached results are not used, since files may have changed.

    Parameters
    ----------
    encoder, pretrained, policy, device, precision, views : str
        As of `FilterRecipe`.
    probes, hash_lists : list of str
        The same.
    gate : str or None
        The same.
    accept_uncertified : bool
        The same.
    image_root : str or None
        The folder that pictures lie in which samples name by path; a path that leads out of it is not opened. Pictures
        that samples hold as bytes need none.
    **options
        As of every Filter of Data-Juicer: `image_key`, `image_bytes_key`, `batch_size` and the like.

    Raises
    ------
    UsageError
        `reversed_range` or `stats_export_path` is given, which would keep or list what is to be excluded; or
        Data-Juicer is in Ray mode.
    """

    _batched_op = True
    _supported_exec_modes = ("default",)

    def __init__(  # a recipe in YAML has one list of names
        self,
        encoder: str = "ViT-L-14-quickgelu",
        pretrained: str | None = None,
        probes: Sequence[str] = ("zero-shot",),
        policy: str | None = None,
        hash_lists: Sequence[str] = (),
        views: str = "whole",
        gate: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        accept_uncertified: bool = False,
        image_root: str | None = None,
        **options: Any,
    ) -> None:
        for name in ("reversed_range", "stats_export_path"):
            if options.get(name):
                raise UsageError(
                    f"{_NAME} takes no {name}: it would keep, or list, what is to be excluded; leave it out"
                )
        if is_ray_mode():
            raise UsageError(
                f"{_NAME} does not run in Ray mode; use executor_type: default, or scan the pictures first"
            )
        # Where a filter fails and that is skipped, Data-Juicer 1.6.1 keeps the first samples of the batch, or all.
        super().__init__(**(options | {"skip_op_error": False}))
        self.recipe = FilterRecipe(
            encoder=encoder,
            pretrained=pretrained,
            probes=(probes,) if isinstance(probes, str) else tuple(probes),
            policy=policy,
            hash_lists=(hash_lists,) if isinstance(hash_lists, str) else tuple(hash_lists),
            views=views,  # type: ignore[arg-type]  # checked when it is loaded
            gate=gate,
            device=device,
            precision=precision,
            accept_uncertified=accept_uncertified,
        )
        self.rule = PathRule(root=checked_root(image_root))
        self.counts: Counter[str] = Counter()
        self._decider: SampleDecider | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_decider": None}  # which is loaded again where it is needed

    def filter_report(self) -> dict[str, int]:
        """Return ``seen``, ``kept``, ``excluded`` and one count for each reason, over all data sets so far."""
        return {name: self.counts[name] for name in ("seen", "kept", "excluded", *REASON_NAMES)}

    def compute_stats_batched(self, samples: Any, *_: Any, **__: Any) -> Any:
        """Return the samples as they came: this operator keeps no statistics."""
        return samples

    def process_batched(self, samples: Mapping[str, Sequence[Any]], *_: Any, **__: Any) -> list[bool]:
        """Return True for each sample that is kept.

        Raises
        ------
        UsageError
            There is no column of pictures.
        """
        columns = [samples[name] for name in (self.image_key, self.image_bytes_key) if name in samples]
        if not columns:
            raise UsageError(
                f"the data set has neither a column {self.image_key!r} nor {self.image_bytes_key!r}; name the one that "
                "holds each sample's pictures with image_key (their paths) or image_bytes_key"
            )
        if self._decider is None:
            from safetyfilter.integrations.deciding import SampleDecider

            self._decider = SampleDecider(self.recipe.load())
        names = (self.image_key, self.image_bytes_key, self.video_key)
        rows = [{name: samples[name][number] for name in names if name in samples} for number in range(len(columns[0]))]
        bits = self._decider.reasons([self._pictures(row) for row in rows])
        self.counts += count_decisions(bits)
        return [bool(kept) for kept in bits == 0]

    def run(self, dataset: Any, *, exporter: Any = None, tracer: Any = None, reduce: bool = True) -> Any:
        """Return the samples of a data set that are kept; the data set itself where nothing is to be left out.

        Parameters
        ----------
        dataset : Dataset
            Of Hugging Face's or of Data-Juicer's own kind.
        exporter, tracer : object
            Not used: they write what was found in samples, or the samples that are left out.
        reduce : bool
            Leave out what is excluded; Data-Juicer's analyser, which asks for statistics alone, turns it off.

        Raises
        ------
        UsageError
            No picture of the data set could be read.
        """
        if not reduce:
            return dataset
        before = self.counts.copy()
        try:
            kept = NestedDataset(dataset).filter(
                self.process, batch_size=self.batch_size, load_from_cache_file=False, desc=f"{_NAME}_process"
            )
        except Exception as error:  # noqa: BLE001 - Data-Juicer logs a traceback with the samples in its variables
            raise error.with_traceback(None) from None
        found = self.counts.copy()
        found.subtract(before)
        if (found["seen"], found["kept"]) != (len(dataset), len(kept)):
            raise RuntimeError(
                f"of {len(dataset)} samples {found['seen']} were decided on and {found['kept']} kept, and {len(kept)} "
                "came back; this is a fault, report it"
            )
        if found["seen"] and found["unscored"] == found["seen"]:
            raise UsageError(
                f"not one of {found['seen']} samples has pictures that can be read; name the folder in which they lie "
                "with image_root, and the columns with image_key and image_bytes_key"
            )
        _log.info("%s: %s", _NAME, ", ".join(f"{name} {found[name]}" for name in found if found[name]))
        return kept

    def _pictures(self, sample: Mapping[str, Any]) -> Pictures:
        """All pictures that a sample holds, or why one of them can't be had."""
        try:
            return tuple(self._each(sample))
        except Unreadable as failure:
            return failure

    def _each(self, sample: Mapping[str, Any]) -> Iterator[ImageInput]:
        if sample.get(self.video_key):
            raise Unreadable("not_an_image")
        named, stored = (_several(sample.get(name)) for name in (self.image_key, self.image_bytes_key))
        yield from (self._one(value) for value in stored)
        for number, value in enumerate(named):
            # Beside its bytes, a path that is not absolute is no more than the name that a file had once.
            if isinstance(value, str) and number < len(stored) and not value.startswith("/"):
                continue
            yield self._one(value)

    def _one(self, value: Any) -> ImageInput:
        if isinstance(value, Mapping):  # as datasets stores a picture
            value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
        if isinstance(value, bytes | bytearray | memoryview | Image.Image):
            return value
        return self.rule.place(value)


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
