"""Real parts for the tests: photographs without people, an open_clip model, and the stand-in encoder."""

from __future__ import annotations

import gc
import io
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# Threads that share an operation wait for one another at each: on a busy machine a hundred times as long as they work.
# Read once, when numpy and torch are imported; pipelines set the number of their own threads all the same.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from safetyfilter import EmbedOptions, LinearProbe, ProbeBank
from safetyfilter.signals import PAIR
from safetyfilter.standin.backgrounds import installed_file
from tests.object_storage import ENVIRONMENT, S3, serving

# A test that is slow on a busy machine has not failed.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

PHOTOGRAPHS = ("coffee.png", "chelsea.png", "rocket.jpg", "china.jpg", "flower.jpg")


def photograph(name: str) -> Image.Image:
    """A photograph without people, from the files that scikit-image and scikit-learn install."""
    return _photograph(name).copy()


@cache
def _photograph(name: str) -> Image.Image:
    places = (installed_file("skimage", "data"), installed_file("sklearn", "datasets/images"))
    path = next(place / name for place in places if (place / name).exists())
    with Image.open(path) as image:
        return image.convert("RGB")


def encoded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    """The image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def good_images() -> dict[str, bytes]:
    """The photographs in three formats and several sizes, by file name."""
    return dict(_good_images())


@cache  # a dozen modules take them while they are collected
def _good_images() -> dict[str, bytes]:
    files = {}
    for number, name in enumerate(PHOTOGRAPHS):
        image = photograph(name)
        image.thumbnail(((160, 320, 640)[number % 3],) * 2)
        stem = Path(name).stem
        files[f"{stem}.jpg"] = encoded(image, "JPEG", quality=90)
        files[f"{stem}-2.png"] = encoded(image.resize((96, 64)), "PNG")
        files[f"deep/er/{stem}.webp"] = encoded(image, "WEBP", quality=80)
    return files


def bad_images() -> dict[str, bytes]:
    """Files that hold no readable picture, by file name, with the status each must get."""
    jpeg = encoded(photograph("china.jpg").resize((320, 200)))
    png = encoded(photograph("coffee.png").resize((64, 64)), "PNG")
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + png[24:29]
    huge = png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]
    return {
        "bad/sheared.jpg": jpeg[: len(jpeg) // 2],
        "bad/hollow.jpg": b"",
        "bad/prose.png": b"no picture\n" * 20,
        "bad/giant.png": huge,
        "bad/jottings.md": b"# notes\n",
        "bad/nought.webp": bytes(400),
    }


class Shared:
    """How several workers share the tests, where there are several."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: object) -> object:
        """Give each worker tests that lie together, so that few fixtures are made twice; who is done takes others."""
        from xdist.scheduler import WorkStealingScheduling

        return WorkStealingScheduling(config, log)


FIRST = ("tests/engine/test_ray.py", "tests/standin/test_demo.py")
"""Modules whose fixtures take longest: at the start nobody takes some of their tests over, and makes them again."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect tests without a look for garbage, and keep what then exists out of later looks, which take a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Shared())
    sys.modules.setdefault("rfc3987_syntax", None)  # see `leave_out_grammars`, which is for other processes
    if not hasattr(config, "workerinput"):  # workers have it from this process: the user's own cache is left alone
        cache = tempfile.TemporaryDirectory(prefix="safetyfilter-tests-")
        config.add_cleanup(cache.cleanup)
        os.environ["XDG_CACHE_HOME"] = cache.name
        leave_out_grammars(Path(tempfile.mkdtemp(prefix="imports-", dir=cache.name)))


def leave_out_grammars(folder: Path) -> None:
    """Have jsonschema find no grammars of addresses in the processes that are started.

    They come with Jupyter, and are built while `jsonschema` is imported, which each process of Ray's does: that takes
    two seconds, and nothing asks for them.
    """
    (folder / "rfc3987_syntax.py").write_text('raise ImportError("left out while tests run")\n')
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's cache of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real open_clip model with random weights, small, as a local-dir."""
    return write_tiny_clip(tmp_path_factory.mktemp("tiny-clip"))


def write_tiny_clip(folder: Path) -> Path:
    """Write a real open_clip model with random weights, small, as a local-dir; always the same."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {
        "model_cfg": {
            "embed_dim": 32,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        },
        "preprocess_cfg": {
            "mean": [0.48, 0.46, 0.41],
            "std": [0.27, 0.26, 0.28],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.CLIP(**config["model_cfg"])
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


@pytest.fixture(scope="session")
def encoder(tiny_clip: Path):
    """The small open_clip model, in float32 on the CPU."""
    from safetyfilter import ClipEncoder

    return ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu", precision="fp32")


@pytest.fixture(scope="session")
def probes(encoder) -> ProbeBank:
    """Random probes for both signals, for the small model, each with about half of the photographs on either side."""
    rng = np.random.default_rng(0)
    vectors = encoder.embed([photograph(name) for name in PHOTOGRAPHS], EmbedOptions(views="whole")).vectors
    made, weight = [], np.zeros(32, np.float32)
    for signal in PAIR.names:
        weight = weight + rng.normal(size=32).astype(np.float32) * 40  # correlated, so that some have both signals
        made.append(
            LinearProbe(
                signal=signal, weight=weight, bias=-float(np.median(vectors @ weight)), encoder=encoder.spec.digest
            )
        )
    return ProbeBank(made)


@pytest.fixture(scope="session")
def s3_server():
    """An S3 API on loopback: its address, and what spoils its answers."""
    with serving() as server:
        yield server


@pytest.fixture
def s3(s3_server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A new bucket on the S3 server, to which this process and those that it starts are led by the environment."""
    address, server = s3_server
    fs = pytest.importorskip("s3fs", reason="s3fs is not installed").S3FileSystem
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": address}).items():
        monkeypatch.setenv(name, value)
    fs.clear_instance_cache()
    server.left, server.seen = 0, []
    place = S3(f"test-{zlib.crc32(str(tmp_path).encode()):08x}", server)
    place.fs.mkdir(place.bucket)
    yield place
    server.left = 0
    fs.clear_instance_cache()
