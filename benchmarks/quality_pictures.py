"""The quality benchmark's stand-in pictures: usual ones, small and edge-placed objects, each embedded in every view.

All are real JPEG files. A three and a seven share a picture in the test split alone, which `render` sees to.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import EmbeddingBatch
from safetyfilter.embed.encoder import ClipEncoder
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.embed.pictures.views import Views
from safetyfilter.standin.pictures import DIGITS, Picture, pictures
from safetyfilter.standin.render import PAIR, SPLITS, Scene, draw_digits, render

Place = Literal["small", "edge", "along"]
VIEWS: tuple[Views, ...] = get_args(Views)
SMALL = (0.12, 0.2)
"""Height of a small digit, as a share of the short side."""
EDGE = (0.08, 0.15)
"""Where an edge-placed digit's middle lies, as a share of the long side from either end; nearer it would be cut off."""
ALONG = (EDGE[0], 1 - EDGE[0])
_WIDE_SCALE = (0.3, 0.45)
_OTHERS = tuple(digit for digit in range(10) if digit not in PAIR)
_CHUNK = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Embedded pictures and what they show.

    Attributes
    ----------
    views : mapping of str to EmbeddingBatch
        For each way of looking, (N, D) vectors, or (N, 5, D) of several views.
    present : mapping of str to ndarray
        (N,) bool for each signal.
    digits : ndarray
        (N,) how many digits each picture shows.
    where : ndarray
        (N,) the middle of a lone digit as a share of the width; NaN elsewhere.
    """

    views: Mapping[str, EmbeddingBatch]
    present: Mapping[str, npt.NDArray[np.bool_]]
    digits: npt.NDArray[np.int64]
    where: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.where)

    @property
    def both(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, True where both signals are present."""
        both: npt.NDArray[np.bool_] = np.logical_and.reduce(list(self.present.values()))
        return both

    def counts(self) -> dict[str, int]:
        """How many pictures there are, with each signal and with both."""
        return {
            "pictures": len(self),
            **{signal: int(there.sum()) for signal, there in self.present.items()},
            "both": int(self.both.sum()),
        }


def usual(
    encoder: ClipEncoder,
    count: int,
    split: str,
    seed: int,
    *,
    pairs: bool | Literal["only"],
    views: tuple[Views, ...] = VIEWS,
) -> Pictures:
    """Scenes as the demo has them."""
    return _embedded(encoder, ((picture, np.nan) for picture in pictures(count, split, seed, pairs=pairs)), views)


def joined(one: Pictures, other: Pictures) -> Pictures:
    """The pictures of both, one behind the other, in the views that the first has."""
    views = {
        view: EmbeddingBatch(vectors=np.concatenate([batch.vectors, other.views[view].vectors]), encoder=batch.encoder)
        for view, batch in one.views.items()
    }
    present = {signal: np.concatenate([there, other.present[signal]]) for signal, there in one.present.items()}
    return Pictures(
        views=views,
        present=present,
        digits=np.concatenate([one.digits, other.digits]),
        where=np.concatenate([one.where, other.where]),
    )


def placed(encoder: ClipEncoder, counts: Mapping[Place, int], seed: int) -> dict[Place, Pictures]:
    """Test pictures whose digits are small, lie at both ends of a wide picture, or alone anywhere along one.

    Half of the small and of the edge-placed ones hold both signals.
    """
    jobs = [
        (place, seed, start, min(_CHUNK, count - start))
        for place, count in counts.items()
        for start in range(0, count, _CHUNK)
    ]
    drawn: dict[Place, list[tuple[Picture, float]]] = {place: [] for place in counts}
    # spawn: torch has threads by now, and a forked process could wait for one of them forever
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        for job, chunk in zip(jobs, pool.map(_render, jobs), strict=True):
            drawn[job[0]] += chunk
    return {place: _embedded(encoder, chunk, VIEWS) for place, chunk in drawn.items()}


def draw(rng: np.random.Generator, place: Place) -> tuple[Scene, float]:
    """One test picture, and where its lone digit lies along the width."""
    pair = bool(rng.random() < 0.5)
    if place == "small":
        size = int(rng.integers(96, 161)), int(rng.integers(96, 161))
        digits = draw_digits(rng, pairs="only" if pair else False)
        return render(rng, split="test", digits=digits, size=size, scale=SMALL), np.nan
    short = int(rng.integers(72, 129))
    if place == "along":
        digits = ((*PAIR, int(rng.choice(_OTHERS)))[int(rng.integers(3))],)
        across = (float(rng.uniform(*ALONG)),)
    else:
        # Without the pair at most one of it, as often as in the usual pictures.
        lone = [PAIR[0]] if (luck := rng.random()) < 0.3 else [PAIR[1]] if luck < 0.6 else []
        chosen = [*PAIR] if pair else [*lone, *rng.choice(_OTHERS, size=2 - len(lone)).tolist()]
        digits = tuple(int(digit) for digit in rng.permutation(chosen))
        across = (float(rng.uniform(*EDGE)), 1 - float(rng.uniform(*EDGE)))
    center = tuple((x, float(rng.uniform(0.3, 0.7))) for x in across)
    scene = render(rng, split="test", digits=digits, size=(2 * short, short), scale=_WIDE_SCALE, center=center)
    return scene, across[0] if place == "along" else np.nan


def _render(job: tuple[Place, int, int, int]) -> list[tuple[Picture, float]]:
    place, seed, start, count = job
    found = []
    for index in range(start, start + count):
        rng = np.random.default_rng([seed, SPLITS.index("test"), 1 + get_args(Place).index(place), index])
        scene, where = draw(rng, place)
        encoded = io.BytesIO()
        scene.image.save(encoded, "JPEG", quality=90)
        found.append((Picture(jpeg=encoded.getvalue(), caption=scene.caption, digits=scene.digits), where))
    return found


def _embedded(encoder: ClipEncoder, rendered: Iterable[tuple[Picture, float]], views: tuple[Views, ...]) -> Pictures:
    drawn = list(rendered)
    files = [picture.jpeg for picture, _ in drawn]
    batches = {view: encoder.embed(files, EmbedOptions(views=view)) for view in views}
    if failed := {view: batch.failures for view, batch in batches.items() if batch.failures}:
        raise RuntimeError(f"rendered pictures could not be embedded: {failed}")
    present = {signal: np.array([digit in picture.digits for picture, _ in drawn]) for signal, digit in DIGITS.items()}
    return Pictures(
        views=batches,
        present=present,
        digits=np.array([len(picture.digits) for picture, _ in drawn]),
        where=np.array([where for _, where in drawn]),
    )
