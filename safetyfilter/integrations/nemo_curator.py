"""A stage of NeMo Curator's image pipeline that passes on no picture that a filter excludes.

It needs NeMo Curator (1.4.0 was tested), which is installed apart: ``pip install 'nemo-curator[image-cuda12]==1.4.0'``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from nemo_curator.stages.base import ProcessingStage
from nemo_curator.stages.resources import Resources
from nemo_curator.tasks import ImageBatch, ImageObject
from PIL import Image

from safetyfilter.batches import REASON_NAMES, ReasonBits, count_decisions
from safetyfilter.errors import UsageError
from safetyfilter.filter import SafetyFilter
from safetyfilter.integrations.deciding import Pictures, SampleDecider
from safetyfilter.integrations.given import Agreement, GivenEmbeddings

Use: TypeAlias = "Literal['embeddings', 'pictures']"
_COUNTS = ("seen", "kept", "excluded", *REASON_NAMES)
_log = logging.getLogger(__name__)


@dataclass
class SafetyFilterStage(ProcessingStage[ImageBatch, ImageBatch]):  # type: ignore[misc]
    """Decides on each picture of a batch, and passes on a batch of those that are kept.

    No score and no reason is written to a picture or to a log: there are counts alone, in the metrics that Curator
    keeps for each task, which `counts_of` adds up. A batch of which nothing is kept is passed on empty, with its
    counts.

    Parameters
    ----------
    load : callable
        Returns the `SafetyFilter`; called in each worker. `FilterRecipe.load` is one that is small to send.
    use : str
        ``embeddings``: decide on `ImageObject.embedding`, from Curator's own stage, which sees CLIP's centre crop
        alone; they are compared with the filter's encoder first, for which the first pictures have to be there.
        ``pictures``: embed `ImageObject.image_data` by the filter's encoder, with its own views, by default the whole
        picture.
    agreement : Agreement
        The comparison.
    num_gpus_per_worker : float
        The share of a GPU, where there is one.

    Raises
    ------
    UsageError
        `use` is something else; a batch has no embedding; or no picture came to compare embeddings with.
    EncoderMismatchError
        The embeddings are not those of the filter's encoder.
    """

    load: Callable[[], SafetyFilter]
    use: Use = "embeddings"
    agreement: Agreement = field(default_factory=Agreement)
    num_gpus_per_worker: float = 0.25
    name: str = "safety_filter"

    def __post_init__(self) -> None:
        if self.use not in get_args(Literal["embeddings", "pictures"]):
            raise UsageError(f"use is {self.use!r}; choose embeddings or pictures")
        self.resources = Resources(gpus=self.num_gpus_per_worker) if torch.cuda.is_available() else Resources()
        self._decide: Callable[[list[ImageObject]], ReasonBits] | None = None

    def inputs(self) -> tuple[list[str], list[str]]:
        """Return what a task has to have: ``data``."""
        return ["data"], []

    def outputs(self) -> tuple[list[str], list[str]]:
        """Return what a task then has: ``data``."""
        return ["data"], []

    def setup(self, _worker_metadata: Any = None) -> None:
        """Load the filter, once a worker."""
        safety_filter = self.load()
        if self.use == "pictures":
            decider = SampleDecider(safety_filter)
            self._decide = lambda images: decider.reasons([_pictures_of(image) for image in images])
            return
        given = GivenEmbeddings(safety_filter, self.agreement)
        self._decide = lambda images: given.reasons([image.embedding for image in images], _PicturesOf(images))
        _log.warning(
            "embeddings that another stage made are decided on: NeMo Curator's see CLIP's centre crop alone, and "
            "nothing of a picture beyond it; use='pictures' embeds the whole picture"
        )

    def process(self, task: ImageBatch) -> ImageBatch:
        """Return the pictures of a batch that are kept, in their order."""
        if self._decide is None:
            self.setup()
        assert self._decide is not None
        images = list(task.data)
        try:
            bits = self._decide(images)
        except Exception as error:  # noqa: BLE001 - a logger may write a traceback, with the pictures in its variables
            raise error.with_traceback(None) from None
        counts = count_decisions(bits)
        so_far = getattr(self, "_custom_metrics", None) or {}  # of other tasks that the same call is given
        self._log_metrics({name: counts[name] + so_far.get(name, 0) for name in _COUNTS})
        return ImageBatch(
            data=[image for image, excluded in zip(images, bits.tolist(), strict=True) if not excluded],
            dataset_name=task.dataset_name,
            _metadata=task._metadata,
            _stage_perf=task._stage_perf,
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_decide": None}  # each worker loads its own


def counts_of(tasks: Iterable[Any], name: str = "safety_filter") -> dict[str, int]:
    """Return ``seen``, ``kept``, ``excluded`` and one count for each reason, over the tasks that a pipeline returned.

    Parameters
    ----------
    tasks : iterable of Task
        As `Pipeline.run` returns them; None, which it returns for none, counts nothing.
    name : str
        The stage's name.
    """
    stages = {id(stage): stage for task in tasks or () for stage in task._stage_perf if stage.stage_name == name}
    return {count: round(sum(stage.custom_metrics.get(count, 0) for stage in stages.values())) for count in _COUNTS}


class _PicturesOf(Sequence[Image.Image | None]):
    """The pictures of a batch, each made when it is asked for: few of them are compared."""

    def __init__(self, images: list[ImageObject]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: Any) -> Any:
        return _picture_of(self._images[number])


def _pictures_of(image: ImageObject) -> Pictures:
    picture = _picture_of(image)
    return () if picture is None else (picture,)


def _picture_of(image: ImageObject) -> Image.Image | None:
    """The picture of Curator's pixels; None where there are none, or such as no picture has."""
    pixels = image.image_data
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or not pixels.size:
        return None
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        return None
    return Image.fromarray(pixels)
