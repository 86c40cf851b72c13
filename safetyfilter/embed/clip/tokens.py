"""A tokenizer that is made when the first text comes: images alone need none, nor what it takes to make one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch

from safetyfilter.embed.clip.towers import first_line
from safetyfilter.embed.libraries import open_clip
from safetyfilter.errors import MissingExtraError, WeightsError


class LazyTokenizer:
    """The tokenizer of a model, by open_clip's own naming.

    Parameters
    ----------
    model : str
        A listed architecture, ``hf-hub:ORG/REPO`` or ``local-dir:FOLDER``.
    cache_dir : path or None
        Where downloads go.

    Examples
    --------
    >>> LazyTokenizer("ViT-B-32")(["a boat"]).shape
    torch.Size([1, 77])
    """

    def __init__(self, model: str, cache_dir: str | os.PathLike[str] | None = None) -> None:
        self._model, self._cache_dir = model, None if cache_dir is None else os.fspath(cache_dir)
        self._made: Callable[[Sequence[str]], torch.Tensor] | None = None

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Return (N, L) int64 tokens."""
        return self.make()(texts)

    def make(self) -> Callable[[Sequence[str]], torch.Tensor]:
        """Return the tokenizer itself.

        Raises
        ------
        MissingExtraError
            It needs transformers, which is not installed.
        WeightsError
            Its files can't be downloaded, found or read.
        """
        if self._made is None:
            try:
                self._made = open_clip.get_tokenizer(self._model, cache_dir=self._cache_dir)
            except ImportError as error:
                raise MissingExtraError("transformers", "text") from error
            except Exception as error:  # transformers, the hub and the network each raise their own kinds
                raise WeightsError(
                    f"can't load the tokenizer of {self._model}, which texts need: {first_line(error)}. Without a "
                    "network, give its files beside the weights as `local-dir:FOLDER`, or use trained probes, which "
                    "need no text"
                ) from error
        return self._made
