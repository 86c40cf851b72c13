"""Probes written by text prompts: no training data needed.

The method is CLIP's own zero-shot classifier (Radford et al. 2021, section 3.1.4): prompts are embedded, averaged and
normalised for each side, and the score is the softmax over the two sides at the model's own temperature. For two sides
that softmax is a logistic function of one inner product, and so a linear probe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np

from safetyfilter.batches import Floats
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import ProbeError
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.card import ProbeCard
from safetyfilter.score.linear import LinearProbe
from safetyfilter.score.zero_shot_cache import CacheEntry, TellsTokens
from safetyfilter.signals import PAIR, SignalPair


class TextEncoder(Protocol):
    """An encoder with a text tower, as `zero_shot_probes` needs it."""

    @property
    def spec(self) -> EncoderSpec:
        """Its identity."""

    @property
    def logit_scale(self) -> float:
        """The temperature's inverse."""

    def embed_text(self, texts: Sequence[str]) -> Floats:
        """Return (N, D) float32 of unit L2 norm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPair:
    """Prompts for a signal, and the contrasting prompts for its absence.

    Parameters
    ----------
    present, absent : sequence of str
        At least one each. The two sides should differ in the signal and in nothing else.

    Raises
    ------
    ProbeError
        A side is not a list of texts, or holds none.

    Examples
    --------
    >>> PromptPair(present=["a boat"], absent=["a cup", "a tree"]).absent
    ('a cup', 'a tree')
    """

    present: Sequence[str]
    absent: Sequence[str]

    def __post_init__(self) -> None:
        for side in ("present", "absent"):
            prompts = getattr(self, side)
            if isinstance(prompts, str) or not prompts or not all(isinstance(p, str) and p.strip() for p in prompts):
                raise ProbeError(f"the {side} prompts are {prompts!r}; give a list of at least one text")
            object.__setattr__(self, side, tuple(prompts))


@dataclass(frozen=True, slots=True, eq=False)
class PromptSet(Mapping[str, PromptPair]):
    """Prompts by signal, and the pair of signals that they are for.

    ``prompts | other`` replaces or adds the prompts of some signals and keeps the pair.

    Parameters
    ----------
    prompts : mapping of str to PromptPair
        By signal.
    pair : SignalPair
        The names of the two signals whose co-occurrence excludes a sample.

    Examples
    --------
    >>> shapes = PromptSet(
    ...     {"circle": PromptPair(present=["a circle"], absent=["a line"])},
    ...     SignalPair(explicit="circle", minor="square"),
    ... )
    >>> more = shapes | {"square": PromptPair(present=["a square"], absent=["a line"])}
    >>> list(more), more.pair.names
    (['circle', 'square'], ('circle', 'square'))
    """

    prompts: Mapping[str, PromptPair]
    pair: SignalPair = PAIR

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", dict(self.prompts))

    def __getitem__(self, signal: str) -> PromptPair:
        return self.prompts[signal]

    def __iter__(self) -> Iterator[str]:
        return iter(self.prompts)

    def __len__(self) -> int:
        return len(self.prompts)

    def __or__(self, other: Mapping[str, PromptPair]) -> PromptSet:
        return PromptSet({**self.prompts, **other}, self.pair)


def _ensemble(templates: Sequence[str], subjects: Sequence[str]) -> tuple[str, ...]:
    return tuple(template.format(subject) for template in templates for subject in subjects)


_TEMPLATES = ("a photo of {}", "a picture of {}", "an image of {}", "an illustration of {}", "a drawing of {}")

# The prompts for one signal never touch the other: those for `explicit` say that they are about adults, and those for
# `minor` are about everyday life. Adults doing everyday things contrast with both.
_EXPLICIT = ("explicit adult content", "a nude adult", "adult pornography", "sexual content with adults")
_NOT_EXPLICIT = (
    "a clothed adult",
    "adults in everyday clothes",
    "a landscape",
    "an animal",
    "an object",
    "a building",
    "food",
    "text on a page",
    "an adult at work",
)
_MINOR = (
    "a child",
    "a toddler",
    "a baby",
    "a teenager at school",
    "children playing in a playground",
    "a child reading a book",
    "a school class",
)
_NO_MINOR = (
    "an adult",
    "an elderly person",
    "adults at work",
    "a landscape",
    "an animal",
    "an object",
    "a building",
    "food",
    "text on a page",
)

_LEAST_NORM = 1e-6
"""The least length of a mean of unit vectors that is more than what rounding leaves."""

DEFAULT_PROMPTS = PromptSet(
    {
        "explicit": PromptPair(present=_ensemble(_TEMPLATES, _EXPLICIT), absent=_ensemble(_TEMPLATES, _NOT_EXPLICIT)),
        "minor": PromptPair(present=_ensemble(_TEMPLATES, _MINOR), absent=_ensemble(_TEMPLATES, _NO_MINOR)),
    }
)
"""Prompts by signal; to replace some, pass `DEFAULT_PROMPTS | {"minor": PromptPair(…)}` to `zero_shot_probes`."""


def zero_shot_probes(
    encoder: TextEncoder, prompts: Mapping[str, PromptPair] | None = None, *, cached: bool = True
) -> ProbeBank:
    """Make a probe for each signal from prompts alone.

    A starting point, not an end: prompts are worth far less than probes trained on labelled data, and for ``minor``
    least of all. Choose thresholds on data of your own.

    Parameters
    ----------
    encoder : ClipEncoder
        Embeds the prompts, and is the encoder that the probes belong to.
    prompts : PromptSet or other mapping of str to PromptPair
        By signal; `DEFAULT_PROMPTS` where None. A mapping that names no pair means the real one.
    cached : bool
        Take them from the user's cache where they were made before, and keep them there; only with an encoder that
        tells the tokens of its texts, as ClipEncoder does. `safetyfilter.score.zero_shot_cache` says what the cache
        goes by.

    Returns
    -------
    ProbeBank
        One linear probe for each signal, with the prompts' pair.

    Raises
    ------
    ProbeError
        The mean of a side's embeddings has no direction: the text tower's weights are damaged, or the prompts opposed.

    Examples
    --------
    >>> from safetyfilter import ClipEncoder
    >>> from safetyfilter.standin import ENCODER, PROMPTS
    >>> zero_shot_probes(ClipEncoder.load(ENCODER, device="cpu"), PROMPTS).signals
    ('three', 'seven')
    """
    chosen = DEFAULT_PROMPTS if prompts is None else prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)
    texts = {signal: (pair.present, pair.absent) for signal, pair in chosen.items()}
    entry = CacheEntry.of(encoder, texts) if cached and isinstance(encoder, TellsTokens) else None
    if entry is not None and (found := entry.read()):
        return ProbeBank(found, chosen.pair)
    probes = _made(encoder, texts)
    if entry is not None:
        entry.write(probes)
    return ProbeBank(probes, chosen.pair)


def _made(encoder: TextEncoder, texts: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> list[LinearProbe]:
    created = datetime.now(UTC).date().isoformat()
    card = ProbeCard(method="zero-shot", created=created, encoder=encoder.spec.name)
    embedded: dict[str, Floats] = {}  # several prompts are common to both signals
    probes = []
    for signal, sides in texts.items():
        present, absent = (_direction(encoder, side, embedded) for side in sides)
        probes.append(
            LinearProbe(
                signal=signal,
                weight=encoder.logit_scale * (present - absent),
                bias=0.0,
                encoder=encoder.spec.digest,
                card=card,
            )
        )
    return probes


def _direction(encoder: TextEncoder, prompts: Sequence[str], embedded: dict[str, Floats]) -> Floats:
    """Return (D,) float32 of unit norm, the mean of the prompts' embeddings; those embedded so far are added to."""
    if new := [text for text in dict.fromkeys(prompts) if text not in embedded]:
        embedded.update(zip(new, encoder.embed_text(new), strict=True))
    mean = np.stack([embedded[text] for text in prompts]).mean(axis=0)
    norm = np.linalg.norm(mean)
    if not np.isfinite(norm) or norm < _LEAST_NORM:
        raise ProbeError(
            f"the mean embedding of the prompts from {prompts[0]!r} has no direction (its length is {norm:.3g}); use "
            "other prompts, or an encoder whose text tower is whole"
        )
    direction: Floats = mean / norm
    return direction
