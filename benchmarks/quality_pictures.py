"""The quality benchmark's stand-in pictures: usual ones, small and edge-placed objects, each embedded in every view.

All are real JPEG files. A three and a seven share a picture in the test split alone, which `render` sees to. The whole
picture is the first of the five views of ``multi``, and embedded along with them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import EmbeddingBatch
from safetyfilter.embed.encoder import ClipEncoder
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.embed.pictures.views import Views
from safetyfilter.standin.backgrounds import Split
from safetyfilter.standin.pictures import DIGITS
from safetyfilter.standin.render import PAIR, SPLITS, Scene, draw_digits, render
from safetyfilter.standin.rendered import Picture, pictures

Place = Literal["small", "edge", "along"]
VIEWS: tuple[Views, ...] = ("center", "whole", "multi")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedder:
    """Draws pictures and embeds them, or takes what it embedded before.

    Attributes
    ----------
    encoder : ClipEncoder
        Embeds.
    keep : Path or None
        A folder for the embeddings, which are read from there another time; None keeps nothing.
    """

    encoder: ClipEncoder
    keep: Path | None = None

    def usual(
        self,
        count: int,
        split: Split,
        seed: int,
        *,
        pairs: bool | Literal["only"],
        views: tuple[Views, ...] = VIEWS,
    ) -> Pictures:
        """Scenes as the demo has them."""
        name = f"{split}-{seed}-{count}-{pairs}"
        return self._kept(name, views, lambda: _lone(pictures(count, split, seed, pairs=pairs)))

    def placed(self, counts: Mapping[Place, int], seed: int) -> dict[Place, Pictures]:
        """Test pictures whose digits are small, lie at both ends of a wide picture, or alone anywhere along one.

        Half of the small and of the edge-placed ones hold both signals.
        """
        return {
            place: self._kept(f"{place}-{seed}-{count}", VIEWS, partial(_drawn, place, count, seed))
            for place, count in counts.items()
        }

    def _kept(
        self, name: str, views: tuple[Views, ...], draw: Callable[[], Iterable[tuple[Picture, float]]]
    ) -> Pictures:
        digest = self.encoder.spec.digest
        path = None if self.keep is None else self.keep / f"{name}-{'-'.join(views)}-{digest[:12]}.npz"
        if path is not None and path.exists():
            return _read(path, digest)
        found = _embedded(self.encoder, draw(), views)
        if path is not None:
            _write(path, found)
        return found


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


def _lone(drawn: Iterable[Picture]) -> Iterator[tuple[Picture, float]]:
    return ((picture, np.nan) for picture in drawn)


def _drawn(place: Place, count: int, seed: int) -> list[tuple[Picture, float]]:
    jobs = [(place, seed, start, min(_CHUNK, count - start)) for start in range(0, count, _CHUNK)]
    # spawn: torch has threads by now, and a forked process could wait for one of them forever
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        return [one for chunk in pool.map(_render, jobs) for one in chunk]


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
    looked = [view for view in views if view != "whole" or "multi" not in views]
    batches = {view: encoder.embed(files, EmbedOptions(views=view)) for view in looked}
    if failed := {view: batch.failures for view, batch in batches.items() if batch.failures}:
        raise RuntimeError(f"rendered pictures could not be embedded: {failed}")
    present = {signal: np.array([digit in picture.digits for picture, _ in drawn]) for signal, digit in DIGITS.items()}
    return Pictures(
        views=_with_whole(batches),
        present=present,
        digits=np.array([len(picture.digits) for picture, _ in drawn]),
        where=np.array([where for _, where in drawn]),
    )


def _with_whole(batches: Mapping[str, EmbeddingBatch]) -> dict[str, EmbeddingBatch]:
    """The batches, and the whole picture by itself where it is the first of several views."""
    if "multi" not in batches:
        return dict(batches)
    several = batches["multi"]
    return {**batches, "whole": EmbeddingBatch(vectors=several.vectors[:, 0], encoder=several.encoder)}


def _write(path: Path, pictures: Pictures) -> None:
    views = [view for view in pictures.views if view != "whole" or "multi" not in pictures.views]
    kept = {view: pictures.views[view].vectors for view in views}
    present = {f"present_{signal}": there for signal, there in pictures.present.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(part, digits=pictures.digits, where=pictures.where, **kept, **present)
    part.replace(path)


def _read(path: Path, encoder: str) -> Pictures:
    with np.load(path, allow_pickle=False) as kept:
        batches = {view: EmbeddingBatch(vectors=kept[view], encoder=encoder) for view in VIEWS if view in kept.files}
        return Pictures(
            views=_with_whole(batches),
            present={signal: kept[f"present_{signal}"] for signal in DIGITS},
            digits=kept["digits"],
            where=kept["where"],
        )
