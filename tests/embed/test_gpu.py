"""On a CUDA device: the same embeddings in the same order, compiled and in float8 too, and memory that is short."""

import logging
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from safetyfilter import ClipEncoder, EmbedOptions, SafetyFilter, open_source, scan
from safetyfilter.batches import Unreadable
from safetyfilter.embed.cuda.compiled import CompiledTower
from safetyfilter.embed.cuda.graphs import Graph
from safetyfilter.embed.sending import packed_encoder, unpacked_encoder
from safetyfilter.engine.processes import devices_of
from tests.conftest import PHOTOGRAPHS, bad_images, encoded, good_images, photograph
from tests.writers import write_files

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none"),
]


needs_float8 = pytest.mark.skipif(
    find_spec("torchao") is None or not torch.cuda.is_available() or torch.cuda.get_device_capability() < (9, 0),
    reason="needs torchao, and a GPU of compute capability 9.0 or later",
)
compiles = pytest.mark.filterwarnings("default")  # torch's compiler warns of what concerns it alone


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return [encoded(photograph(name).resize((300 + 7 * turn, 260))) for turn in range(20) for name in PHOTOGRAPHS]


@pytest.mark.parametrize("views", ["center", "whole", "multi"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_embeds_as_the_processor_does(tiny_clip: Path, encoder: ClipEncoder, files, views, precision) -> None:
    on_device = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda", precision=precision, compile=False)
    options = EmbedOptions(views=views, batch_size=16)
    mixed = [*files[:40], b"no image", *files[40:]]
    found, expected = on_device.embed(mixed, options), encoder.embed(mixed, options)
    assert dict(found.failures) == dict(expected.failures) == {40: "not_an_image"}
    good = np.arange(len(mixed)) != 40
    assert (found.vectors * expected.vectors).sum(axis=-1)[good].min() > (0.9999 if precision == "fp32" else 0.995)


def test_short_memory_halves_the_batch_and_loses_nothing(files) -> None:
    torch.manual_seed(0)
    encoder = ClipEncoder(
        open_clip.create_model("ViT-B-32", pretrained=None),
        architecture="ViT-B-32",
        device="cuda",
        precision="fp32",
        compile=False,
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
    encoder = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda", precision="bf16", compile=False)
    tower = sum(p.numel() * 2 for p in encoder.image_tower.parameters())
    on_processor = encoder.embed_text(["a wall", "a plain"])
    assert torch.cuda.memory_allocated() - before < 2 * tower + 2**20
    encoder.text_tower_to_device()
    np.testing.assert_allclose(encoder.embed_text(["a wall", "a plain"]), on_processor, atol=1e-3)
    assert torch.cuda.memory_allocated() - before > 4 * 49408 * 32


def test_a_scan_decides_as_on_the_processor(tmp_path: Path, tiny_clip: Path, encoder: ClipEncoder, probes) -> None:
    folder = write_files(tmp_path / "pictures", good_images() | bad_images())
    on_device = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda", precision="fp32", compile=False)
    runs = [
        scan(open_source(folder), tmp_path / name, SafetyFilter(one, probes))
        for name, one in (("gpu", on_device), ("cpu", encoder))
    ]
    assert runs[0].counts == runs[1].counts


def test_an_error_in_the_stream_surfaces(tiny_clip: Path, files) -> None:
    encoder = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda", compile=False)

    def items():
        yield from files[:5]
        raise RuntimeError("the storage went away")

    def load(item: bytes) -> tuple[None, bytes | Unreadable]:
        return None, item

    with pytest.raises(RuntimeError, match="went away"):
        list(encoder.embed_stream(items(), load))


def test_every_device_of_the_machine_is_used() -> None:
    assert devices_of(torch.device("cuda")) == [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def test_it_compiles_by_itself(tiny_clip: Path) -> None:
    assert isinstance(ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda")._tower, CompiledTower)


@pytest.mark.slow
@compiles
@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp8", marks=needs_float8)])
def test_compiled_it_gives_nearly_the_same(tiny_clip: Path, encoder: ClipEncoder, files, precision, caplog) -> None:
    options = EmbedOptions(batch_size=16)
    with caplog.at_level(logging.WARNING, logger="safetyfilter"):
        compiled = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda", precision=precision, compile=True)
        found = compiled.embed(files, options).vectors  # 100 files, the last batch smaller
    assert [record.message for record in caplog.records if record.name.startswith("safetyfilter")] == []
    assert not compiled._tower.as_it_is
    assert [type(run) for run in compiled._tower._runs.values()] == [Graph]
    least = 0.995 if precision == "bf16" else 0.98
    assert (found * encoder.embed(files, options).vectors).sum(axis=1).min() > least
    np.testing.assert_allclose(compiled.embed(files[::-1], options).vectors[::-1], found, atol=2e-3)


def test_a_graph_gives_each_caller_its_own(tiny_clip: Path, files) -> None:
    """Threads with streams of their own, whose batches differ, get what they would get one after the other."""
    encoder = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda", precision="bf16", compile=False)
    pixels = torch.randint(0, 256, (24, 8, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tower = CompiledTower(encoder._tower, lambda each: each)
    expected = torch.stack([encoder.forward(each.cuda()) for each in pixels]).cpu()
    tower(pixels[0].cuda())  # while a graph is recorded, nothing else may use the device

    def embedded(each: torch.Tensor) -> torch.Tensor:
        with torch.cuda.stream(torch.cuda.Stream()):
            return tower(each.cuda()).cpu()

    with ThreadPoolExecutor(4) as threads:
        found = torch.stack(list(threads.map(embedded, pixels)))
    assert not tower.as_it_is
    assert (found * expected).sum(dim=-1).min() > 0.999
    assert [type(run) for run in tower._runs.values()] == [Graph]


def test_short_memory_while_a_graph_is_recorded_halves_the_batch(files) -> None:
    torch.manual_seed(0)
    encoder = ClipEncoder(
        open_clip.create_model("ViT-B-32", pretrained=None),
        architecture="ViT-B-32",
        device="cuda",
        precision="fp32",
        compile=False,
    )
    expected = encoder.embed(files, EmbedOptions(batch_size=2)).vectors
    encoder._tower = CompiledTower(encoder._tower, lambda each: each)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 500 * 2**20) / total)
        found = encoder.embed(files, EmbedOptions(batch_size=len(files))).vectors
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (found * expected).sum(axis=1).min() > 0.9999


def test_convolutions_have_their_weights_in_the_order_of_pixels(tiny_clip: Path) -> None:
    encoder = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda", compile=False)
    for each in (encoder, unpacked_encoder(packed_encoder(encoder), "cuda")):
        assert each.image_tower.conv1.weight.is_contiguous(memory_format=torch.channels_last)


@needs_float8
def test_float8_gives_nearly_the_same_here_and_where_it_is_sent(tiny_clip: Path, encoder: ClipEncoder, files) -> None:
    float8 = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda", precision="fp8", compile=False)
    found = float8.embed(files).vectors
    assert 0.98 < (found * encoder.embed(files).vectors).sum(axis=1).min() < 0.999999
    again = unpacked_encoder(packed_encoder(float8), "cuda")
    np.testing.assert_allclose(again.embed(files).vectors, found, atol=1e-3)


def test_the_device_decodes_nearly_the_same_pixels(tiny_clip: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_jpegs

    found = gpu_jpegs.device_decoding(
        ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda", compile=False), 256, 16, 1
    )
    assert found["pixels_differ_by"] < 3
    assert found["cosine_min"] > 0.98
