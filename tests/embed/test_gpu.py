"""On a CUDA device: the same embeddings in the same order, memory that is really short, and a text tower left out."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from safetyfilter import ClipEncoder, EmbedOptions, SafetyFilter, open_source, scan
from safetyfilter.batches import Unreadable
from safetyfilter.engine.processes import devices_of
from tests.conftest import PHOTOGRAPHS, bad_images, encoded, good_images, photograph
from tests.writers import write_files

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none"),
]


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return [encoded(photograph(name).resize((300 + 7 * turn, 260))) for turn in range(20) for name in PHOTOGRAPHS]


@pytest.mark.parametrize("views", ["center", "whole", "multi"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_embeds_as_the_processor_does(tiny_clip: Path, encoder: ClipEncoder, files, views, precision) -> None:
    on_device = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda", precision=precision)
    options = EmbedOptions(views=views, batch_size=16)
    mixed = [*files[:40], b"no image", *files[40:]]
    found, expected = on_device.embed(mixed, options), encoder.embed(mixed, options)
    assert dict(found.failures) == dict(expected.failures) == {40: "not_an_image"}
    good = np.arange(len(mixed)) != 40
    assert (found.vectors * expected.vectors).sum(axis=-1)[good].min() > (0.9999 if precision == "fp32" else 0.995)


def test_short_memory_halves_the_batch_and_loses_nothing(files) -> None:
    torch.manual_seed(0)
    encoder = ClipEncoder(
        open_clip.create_model("ViT-B-32", pretrained=None), architecture="ViT-B-32", device="cuda", precision="fp32"
    )
    expected = encoder.embed(files, EmbedOptions(batch_size=2)).vectors
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 250 * 2**20) / total)
        found = encoder.embed(files, EmbedOptions(batch_size=len(files))).vectors
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (found * expected).sum(axis=1).min() > 0.9999


def test_the_text_tower_takes_no_device_memory_until_captions_do(tiny_clip: Path) -> None:
    before = torch.cuda.memory_allocated()
    encoder = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda", precision="bf16")
    tower = sum(p.numel() * 2 for p in encoder.image_tower.parameters())
    on_processor = encoder.embed_text(["a wall", "a plain"])
    assert torch.cuda.memory_allocated() - before < 2 * tower + 2**20
    encoder.text_tower_to_device()
    np.testing.assert_allclose(encoder.embed_text(["a wall", "a plain"]), on_processor, atol=1e-3)
    assert torch.cuda.memory_allocated() - before > 4 * 49408 * 32


def test_a_scan_decides_as_on_the_processor(tmp_path: Path, tiny_clip: Path, encoder: ClipEncoder, probes) -> None:
    folder = write_files(tmp_path / "pictures", good_images() | bad_images())
    on_device = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda", precision="fp32")
    runs = [
        scan(open_source(folder), tmp_path / name, SafetyFilter(one, probes))
        for name, one in (("gpu", on_device), ("cpu", encoder))
    ]
    assert runs[0].counts == runs[1].counts


def test_an_error_in_the_stream_surfaces(tiny_clip: Path, files) -> None:
    encoder = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda")

    def items():
        yield from files[:5]
        raise RuntimeError("the storage went away")

    def load(item: bytes) -> tuple[None, bytes | Unreadable]:
        return None, item

    with pytest.raises(RuntimeError, match="went away"):
        list(encoder.embed_stream(items(), load))


def test_every_device_of_the_machine_is_used() -> None:
    assert devices_of(torch.device("cuda")) == [f"cuda:{number}" for number in range(torch.cuda.device_count())]
