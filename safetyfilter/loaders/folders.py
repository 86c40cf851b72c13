"""The samples of torchvision's folders of images, and of subsets of them: their paths, keys and labels."""

from __future__ import annotations

import os
from collections.abc import Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from safetyfilter.loaders.places import absolute, key_below


def attribute_of(dataset: Any, name: str) -> Any:
    """Return an attribute of a data set, or of the one that it is a subset of; None where there is none.

    >>> from torchvision.datasets import FakeData
    >>> attribute_of(Subset(FakeData(size=3, num_classes=2), [0]), "num_classes")
    2
    """
    found = getattr(dataset, name, None)
    return attribute_of(dataset.dataset, name) if found is None and isinstance(dataset, Subset) else found


def aligned(dataset: Any, name: str) -> Any:
    """Return an attribute that holds a value for each sample of a data set; None where there is none.

    A subset has those of its data set, at its own samples.

    Examples
    --------
    >>> from torchvision.datasets import VisionDataset
    >>> class Digits(VisionDataset):
    ...     targets = [7, 8, 9]
    ...     def __len__(self): return 3
    >>> aligned(Subset(Digits(), [2, 0]), "targets"), aligned(Digits(), "samples")
    ([9, 7], None)
    """
    values = getattr(dataset, name, None)
    if values is None and isinstance(dataset, Subset):
        whole = aligned(dataset.dataset, name)
        return None if whole is None else picked(whole, dataset.indices)
    return values if isinstance(values, Sized) and len(values) == len(dataset) else None


def picked(values: Any, numbers: Sequence[int]) -> Any:
    """Return the values at some numbers, as a list or, of an array, as an array.

    >>> picked("abc", [2, 0]), picked(np.array([5, 6]), [1])
    (['c', 'a'], array([6]))
    """
    if isinstance(values, np.ndarray | torch.Tensor):
        return values[np.asarray(numbers, np.int64)]
    return [values[number] for number in numbers]


def folder_paths(dataset: Any) -> list[str] | None:
    """Return the paths of an `ImageFolder`'s or a `DatasetFolder`'s files, sample by sample; None of anything else."""
    samples = aligned(dataset, "samples")
    if not isinstance(samples, list) or not all(isinstance(s, tuple) and isinstance(s[0], str) for s in samples):
        return None
    return [sample[0] for sample in samples]


def folder_keys(dataset: Any, root: str | None) -> list[str | None] | None:
    """Return the keys of such a data set as a scan of its root, or of the one given, has them."""
    paths = folder_paths(dataset)
    given = root if root is not None else attribute_of(dataset, "root")
    if paths is None or not isinstance(given, str | os.PathLike):
        return None
    root = absolute(given)
    return [key_below(os.path.abspath(path), root) for path in paths]  # noqa: PTH100 - links stay as they are
