"""The preprocessing that weights were trained with: read from configurations, tags and what users say."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from safetyfilter.embed.clip.configuration import read_configuration
from safetyfilter.embed.libraries import open_clip
from safetyfilter.embed.pictures.views import INTERPOLATIONS, RESIZE_MODES
from safetyfilter.errors import UsageError, WeightsError

PreprocessInput: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | None"
"""A tag that open_clip lists, an ``open_clip_config.json``, or a mapping with the fields of `Preprocessing`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """The steps from a picture to a model's input, but for its size, as open_clip's configurations name them.

    The defaults are open_clip's own, for what a configuration leaves out.

    Attributes
    ----------
    mean, std : tuple of float
        Per channel, on pixel values in [0, 1].
    interpolation : str
        ``bicubic`` or ``bilinear``.
    resize_mode : str
        ``shortest``, ``longest`` or ``squash``.
    fill_color : int
        From 0 to 255; fills what ``longest`` leaves empty.

    Raises
    ------
    WeightsError
        A value is not one of these.

    Examples
    --------
    >>> Preprocessing(std=(0.5, 0.5, 0)).mean
    Traceback (most recent call last):
        ...
    safetyfilter.errors.WeightsError: the preprocessing's std is (0.5, 0.5, 0); give three numbers above 0
    """

    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    def __post_init__(self) -> None:
        for name, least in (("mean", None), ("std", 0)):
            values = getattr(self, name)
            fits = isinstance(values, list | tuple) and len(values) == 3 and all(map(_is_finite, values))
            if not fits or (least is not None and min(values) <= least):
                above = "" if least is None else f" above {least}"
                raise WeightsError(f"the preprocessing's {name} is {values!r}; give three numbers{above}")
            object.__setattr__(self, name, tuple(map(float, values)))
        for name, allowed in (("interpolation", INTERPOLATIONS), ("resize_mode", RESIZE_MODES)):
            if getattr(self, name) not in allowed:
                raise WeightsError(
                    f"the preprocessing's {name} is {getattr(self, name)!r}; give {' or '.join(allowed)}"
                )
        if not _is_finite(self.fill_color) or self.fill_color != int(self.fill_color) or not 0 <= self.fill_color < 256:
            raise WeightsError(
                f"the preprocessing's fill_color is {self.fill_color!r}; give a whole number from 0 to 255"
            )
        object.__setattr__(self, "fill_color", int(self.fill_color))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing in a configuration, whose other fields are left alone.

        >>> Preprocessing.of({"mean": [0, 0, 0], "size": 224}).mean
        (0.0, 0.0, 0.0)
        """
        if values.get("mode", "RGB") != "RGB":
            raise WeightsError(f"the preprocessing's mode is {values['mode']!r}; models that take RGB are supported")
        names = cls.__dataclass_fields__
        return cls(**{name: value for name, value in values.items() if name in names and value is not None})

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items() if name != "fill_color" or value)


def preprocessing_said(said: str | os.PathLike[str] | Mapping[str, Any], architecture: str) -> Preprocessing:
    """Return the preprocessing that a user named: by a tag, a configuration file or a mapping.

    Raises
    ------
    UsageError
        No such tag, or one that stands for several; fields that are unknown.
    WeightsError
        The file or the values can't be used.

    Examples
    --------
    >>> preprocessing_said("openai", "ViT-B-32") == Preprocessing()
    True
    """
    if isinstance(said, Mapping):
        if unknown := sorted(set(said) - set(Preprocessing.__dataclass_fields__)):
            raise UsageError(
                f"the preprocessing has no {', '.join(unknown)}; give "
                f"{', '.join(Preprocessing.__dataclass_fields__)}, or some of them"
            )
        return Preprocessing.of(said)
    if isinstance(said, os.PathLike) or said.endswith(".json"):
        found = read_configuration(said).preprocessing
        if found is None:
            raise WeightsError(f"{os.fspath(said)} has no preprocess_cfg; name a tag, or give mean, std and the like")
        return Preprocessing.of(found)
    if listed := open_clip.get_pretrained_cfg(architecture, said):
        return Preprocessing.of(listed)
    kinds = {
        Preprocessing.of(open_clip.get_pretrained_cfg(name, said))
        for name in open_clip.list_pretrained_models_by_tag(said)
    }
    if len(kinds) != 1:
        raise UsageError(
            f"the preprocessing {said!r} is "
            + ("that of several, which differ" if kinds else "not a tag that open_clip lists")
            + "; give a tag (openai for CLIP's own), an open_clip_config.json or a mapping with mean, std, "
            "interpolation and resize_mode"
        )
    return kinds.pop()


def agreed_preprocessing(architecture: str, *, quick_gelu: bool) -> Preprocessing:
    """Return the preprocessing that all of an architecture's tags share.

    Those with another activation count only where there is none with this one.

    Raises
    ------
    WeightsError
        It has no tag, or they differ.

    Examples
    --------
    >>> agreed_preprocessing("ViT-B-16-SigLIP", quick_gelu=False).resize_mode
    'squash'
    """
    listed = {
        tag: open_clip.get_pretrained_cfg(architecture, tag)
        for tag in open_clip.list_pretrained_tags_by_model(architecture)
    }
    same = {tag: cfg for tag, cfg in listed.items() if bool(cfg.get("quick_gelu", False)) == quick_gelu}
    tags = {tag: Preprocessing.of(cfg) for tag, cfg in (same or listed).items()}
    if len(kinds := set(tags.values())) == 1:
        return kinds.pop()
    why = (
        f"the tags of {architecture} differ ({'; '.join(f'{tag}: {kind}' for tag, kind in tags.items())})"
        if tags
        else f"open_clip lists no tag of {architecture}"
    )
    raise WeightsError(
        f"the preprocessing that they were trained with is not known: {why}. Name it with `preprocess`: a tag such as "
        f"{next(iter(tags), 'openai')!r}, or a mapping with mean, std, interpolation and resize_mode; or put the "
        "model's open_clip_config.json beside the file"
    )


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False
