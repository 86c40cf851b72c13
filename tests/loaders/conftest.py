"""Stand-in pictures, pairs among them, as a folder, tars and a data set, each with a run that knows the truth."""

from __future__ import annotations

import io
from collections.abc import Iterator

import datasets
import numpy as np
import pytest
import torch
import webdataset

from safetyfilter import ClipEncoder, EmbedOptions, Policy, SafetyFilter, open_source, scan, zero_shot_probes
from safetyfilter.standin import ENCODER, PROMPTS, STANDIN_PAIR
from safetyfilter.standin.render import PAIR, scenes
from tests.loaders.training import Pictures, decide_by_truth

COUNT, SHARD = 96, 24


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread for the model that is trained: several would wait for each other at each of its tiny operations."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def online() -> SafetyFilter:
    """The stand-in encoder and probes, under the usual policy."""
    encoder = ClipEncoder.load(ENCODER, device="cpu", precision="fp32")
    return SafetyFilter(
        encoder, zero_shot_probes(encoder, PROMPTS), Policy(), EmbedOptions(views="whole", batch_size=16, workers=2)
    )


@pytest.fixture(scope="session")
def pictures(tmp_path_factory, online: SafetyFilter) -> Pictures:
    place = tmp_path_factory.mktemp("pictures")
    drawn = [
        *scenes(COUNT // 2, split="test", seed=5, pairs=False, size=(64, 64)),
        *scenes(COUNT // 2, split="test", seed=6, pairs="only", size=(64, 64)),
    ]
    order = np.random.default_rng(0).permutation(COUNT)
    drawn = [drawn[number] for number in order]
    present = np.array([[digit in scene.digits for digit in PAIR] for scene in drawn])
    damaged = np.zeros(COUNT, np.bool_)
    damaged[[3, 50]] = True
    contents = []
    for number, scene in enumerate(drawn):
        buffer = io.BytesIO()
        scene.image.save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue()[:200] if damaged[number] else buffer.getvalue())
    keys = tuple(f"{number:03d}.jpg" for number in range(COUNT))
    (place / "folder").mkdir()
    for key, content in zip(keys, contents, strict=True):
        (place / "folder" / key).write_bytes(content)
    (place / "tars" / "deep").mkdir(parents=True)
    for shard in range(COUNT // SHARD):
        with webdataset.TarWriter(str(place / "tars" / "deep" / f"{shard}.tar"), encoder=False) as tar:
            for number in range(shard * SHARD, (shard + 1) * SHARD):
                tar.write({"__key__": f"{number:03d}", "jpg": contents[number], "txt": b"a caption"})
    features = datasets.Features({"image": datasets.Image(), "name": datasets.Value("string")})
    rows = {"image": [{"bytes": content, "path": None} for content in contents], "name": list(keys)}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(place / "saved")
    for kind in ("folder", "tars", "saved"):
        source = open_source(place / kind, part_size=SHARD)
        run = scan(source, place / f"{kind}-run", online)
        decide_by_truth(run, source, present)
        assert run.counts["co_occurrence"] == (present.all(axis=1) & ~damaged).sum() > 40
        assert run.counts["unscored"] == damaged.sum() == 2
    return Pictures(
        folder=place / "folder",
        tars=place / "tars",
        saved=place / "saved",
        keys=keys,
        both=present.all(axis=1),
        damaged=damaged,
        **{f"{kind}_run": place / f"{kind}-run" for kind in ("folder", "tars", "saved")},
    )


@pytest.fixture(scope="session")
def catching(online: SafetyFilter, pictures: Pictures) -> SafetyFilter:
    """A filter whose thresholds lie just below what any of the pairs here scores, so that it catches each of them."""
    readable = [number for number in range(COUNT) if not pictures.damaged[number]]
    scores = online([pictures.content(number) for number in readable]).scores
    both = pictures.both[readable]
    return online.with_policy(
        Policy(
            thresholds={signal: max(0.0, float(scores[signal][both].min()) - 1e-4) for signal in STANDIN_PAIR.names},
            pair=STANDIN_PAIR,
        )
    )
