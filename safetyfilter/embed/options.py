"""The options of embedding: batch size, views, decoding and limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import torch

from safetyfilter.embed.pictures.headers import DecodeLimits
from safetyfilter.embed.pictures.views import VIEW_COUNTS, Views
from safetyfilter.errors import UsageError

Decode: TypeAlias = Literal["fast", "exact"]
Decoders: TypeAlias = Literal["auto", "threads", "processes"]

_AUTO = {"cpu": (2.8e11, 8, 256), "cuda": (4e13, 64, 1024)}
"""Operations of a forward pass that make its overhead small, and the least and the most images it has then.

On two cores, ViT-B-32 embeds as many images a second in batches of 32 as in larger ones, and ViT-L-14 in batches of 8.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """Options of how images are prepared and batched.

    Parameters
    ----------
    batch_size : int or "auto"
        Images a forward pass; halved when the device runs out of memory. ``auto`` goes by how much work the model has
        with an image.
    views : str
        ``center``: CLIP's own crop; ``whole``: the whole picture, squashed to the model's input; ``multi``: whole and
        four overlapping crops; ``adaptive``: the whole, and the four crops of those pictures that a gate picks by the
        embedding of the whole. The others have that embedding in the place of each crop's.
    decode : str
        ``fast``: JPEG decoded at the smallest DCT scale that still exceeds the model's input; ``exact``: open_clip's
        transform bit for bit for upright pictures in RGB and in grey of 8 bits (`ImagePreparer` says what of others).
    workers : int or None
        Decoding threads, or processes; as many as there are cores where None.
    decoders : str
        ``threads``: images are decoded in threads of this process, which a crash of a decoder ends; ``processes``: in
        processes of their own, where it costs the one image; ``auto``: in processes for a GPU, which threads can't
        feed, and in threads for a CPU.
    limits : DecodeLimits
        The largest input a decoder may see.
    full_batches : bool
        Every forward pass has the same number of images, the last of a stream filled up with black ones. An embedding
        then does not depend, to the last bit, on how many images came along with it: a scan that was interrupted comes
        to what it would have come to. For few images at a time it is a waste.

    Raises
    ------
    UsageError
        A value is not one of those allowed.
    """

    batch_size: int | Literal["auto"] = "auto"
    views: Views = "center"
    decode: Decode = "fast"
    workers: int | None = None
    decoders: Decoders = "auto"
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    full_batches: bool = False

    def __post_init__(self) -> None:
        if self.batch_size != "auto" and (not isinstance(self.batch_size, int) or self.batch_size < 1):
            raise UsageError(f"batch_size is {self.batch_size!r}; give a whole number from 1, or 'auto'")
        for name, value, allowed in (
            ("views", self.views, tuple(VIEW_COUNTS)),
            ("decode", self.decode, get_args(Decode)),
            ("decoders", self.decoders, get_args(Decoders)),
        ):
            if value not in allowed:
                raise UsageError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers is {self.workers}; give a whole number from 1, or None for the cores")

    @property
    def adaptive(self) -> bool:
        """True where a gate decides which pictures are looked at closer."""
        return self.views == "adaptive"

    @property
    def views_at_once(self) -> int:
        """The number of views of each picture that go through the model at once.

        >>> EmbedOptions(views="multi").views_at_once, EmbedOptions(views="adaptive").views_at_once
        (5, 1)
        """
        return 1 if self.adaptive else VIEW_COUNTS[self.views]

    def decodes_in_processes(self, device: torch.device) -> bool:
        """Return True where images for a model on a device are decoded in processes of their own.

        >>> EmbedOptions().decodes_in_processes(torch.device("cpu"))
        False
        """
        return self.decoders == "processes" or (self.decoders == "auto" and device.type == "cuda")

    def resolve_batch_size(self, device: torch.device, flops: float) -> int:
        """Return the number of images in a forward pass.

        Parameters
        ----------
        device : torch.device
            Where the model is.
        flops : float
            The model's floating-point operations for one view of an image.

        Examples
        --------
        >>> [EmbedOptions().resolve_batch_size(torch.device("cpu"), flops) for flops in (1e8, 9e9, 2e11)]
        [256, 32, 8]
        """
        if self.batch_size != "auto":
            return self.batch_size
        work, least, most = _AUTO["cuda" if device.type == "cuda" else "cpu"]
        images = work / (flops * self.views_at_once)
        return min(most, max(least, 1 << max(0, round(math.log2(images)))))
