"""A compiled image tower gives the tower's embeddings, or is told of once and not used."""

from __future__ import annotations

import logging
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed import encoder as encoder_module
from safetyfilter.embed.cuda.compiled import COMPILER, CompiledTower
from safetyfilter.embed.devices import resolve_compile
from safetyfilter.embed.forward import Forward
from safetyfilter.embed.image_tower import TorchTower
from safetyfilter.embed.sending import packed_encoder, unpacked_encoder
from safetyfilter.errors import UsageError
from tests.embed.models import tower_of

CPU = torch.device("cpu")
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8))
IMAGES = [Image.fromarray(pixels) for pixels in PIXELS.numpy()]


def as_it_is(tower):
    return tower


@pytest.fixture
def tower(encoder: ClipEncoder) -> TorchTower:
    return tower_of(encoder)


@pytest.fixture(scope="module")
def compiling(tiny_clip: Path) -> ClipEncoder:
    """An encoder that compiles, by a compiler that leaves everything as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_module, "CompiledTower", partial(CompiledTower, compiler=as_it_is))
        return ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu", precision="fp32", compile=True)


class Compilers:
    """Compilers of several kinds, and what each has in the warning."""

    @staticmethod
    def fails(tower):
        raise OSError("no gcc here")

    @staticmethod
    def fails_later(tower):
        def run(pixels):
            raise NotImplementedError("an operation")

        return run

    @staticmethod
    def mixes_rows(tower):
        return lambda pixels: tower(pixels).roll(1, 0)

    @staticmethod
    def forgets_new_input(tower):
        seen = []

        def run(pixels):
            seen.append(tower(pixels))
            return seen[0]

        return run

    @staticmethod
    def overflows(tower):
        return lambda pixels: tower(pixels) * torch.tensor([1.0] * 5 + [torch.nan]).view(6, 1)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("fails", "no gcc here"),
        ("fails_later", "an operation"),
        ("mixes_rows", "of cosine 0."),
        ("forgets_new_input", "of cosine 0."),
        ("overflows", "of cosine nan"),
    ],
)
def test_what_can_not_be_compiled_or_is_wrong_is_told_once_and_not_used(tower, kind, said, caplog) -> None:
    expected = tower(PIXELS)
    compiled = CompiledTower(tower, getattr(Compilers, kind))
    with caplog.at_level(logging.WARNING):
        found = [compiled(PIXELS) for _ in range(2)]
    assert all(torch.allclose(each, expected, atol=1e-6) for each in found)
    assert compiled.as_it_is
    assert len(caplog.messages) == 1
    assert said in caplog.messages[0]
    assert "runs as it is" in caplog.messages[0]


def test_a_size_is_compiled_once_and_few_sizes_are(tower, caplog) -> None:
    made = []
    compiled = CompiledTower(tower, lambda each: made.append(each) or each)
    for count in (6, 3, 6, 3, 2, 1, 5, 4, 6):
        assert torch.equal(compiled(PIXELS[:count]), tower(PIXELS[:count]))
    assert len(made) == 4
    assert caplog.messages == [
        "the image tower runs as it is, not compiled, which may be slower: batches come in more than 4 sizes"
    ]


def test_threads_wait_for_one_that_compiles(tower) -> None:
    made = []
    all_here = threading.Barrier(4)

    class Module(torch.nn.Module):
        """As torch's compiler makes one: to ask for its truth is to ask for its length, which is an error."""

        def __len__(self) -> int:
            raise TypeError("no length")

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return tower(pixels)

    compiled = CompiledTower(tower, lambda each: made.append(each) or Module())
    with ThreadPoolExecutor(4, initializer=all_here.wait) as threads:
        found = list(threads.map(compiled, [PIXELS] * 8))
    assert len(made) == 1
    assert all(torch.equal(each, tower(PIXELS)) for each in found)


def test_short_memory_makes_batches_smaller_and_is_no_fault_of_the_compiler(tower, caplog) -> None:
    def needs_memory(tower):
        def run(pixels):
            if len(pixels) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return tower(pixels)

        return run

    made = []
    compiled = CompiledTower(tower, lambda each: made.append(each) or needs_memory(each))
    for _ in range(2):  # two streams, each with batches of its own
        found = Forward(compiled, torch.device("meta"), 6, full=True)(PIXELS)
        assert torch.allclose(found, tower(PIXELS), atol=1e-6)
    assert not compiled.as_it_is
    assert len(made) == 3  # for 6, 3 and 2 images, and for none of them again
    assert [message.split(";")[0] for message in caplog.messages] == ["out of memory"] * 4  # to 3, and to 2


def test_nothing_compiled_goes_to_another_process(tower) -> None:
    compiled = CompiledTower(tower, as_it_is)
    compiled(PIXELS)
    again = pickle.loads(pickle.dumps(compiled))
    assert not again._runs
    assert torch.equal(again(PIXELS), compiled(PIXELS))
    assert pickle.loads(pickle.dumps(CompiledTower(tower)))._compiler.keywords == COMPILER.keywords


def test_few_images_are_not_compiled_for_unless_they_are_filled_up(
    compiling: ClipEncoder, encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling._tower, "_runs", {})  # those of other tests stay as they are
    few, options = IMAGES[:3], EmbedOptions(batch_size=5, workers=1)
    batch = compiling.embed(few, options)
    assert not compiling._tower._runs
    assert (batch.vectors * encoder.embed(few).vectors).sum(axis=1).min() > 0.99999
    compiling.embed(few, replace(options, full_batches=True))
    assert set(compiling._tower._runs) == {(5, 32, 32, 3)}


def test_an_encoder_that_compiles_has_batches_of_one_size(compiling: ClipEncoder, encoder: ClipEncoder) -> None:
    batch = compiling.embed(IMAGES, EmbedOptions(batch_size=4, workers=1))
    assert set(compiling._tower._runs) == {(4, 32, 32, 3)}
    assert (batch.vectors * encoder.embed(IMAGES).vectors).sum(axis=1).min() > 0.99999
    assert compiling.spec == encoder.spec
    assert (compiling.full_batches, encoder.full_batches) == (True, False)


def test_it_can_be_sent_and_looked_into(compiling: ClipEncoder, encoder: ClipEncoder) -> None:
    assert isinstance(compiling.image_tower, torch.nn.Module)
    again = unpacked_encoder(packed_encoder(compiling), "cpu")
    again.text_tower_to_device()
    np.testing.assert_allclose(again.embed_text(["a boat"]), encoder.embed_text(["a boat"]), atol=1e-6)
    np.testing.assert_array_equal(again.embed(IMAGES).vectors, compiling.embed(IMAGES).vectors)
    assert compiling.on("cpu")._tower.full_batches


def test_auto_compiles_on_a_gpu_alone(encoder: ClipEncoder) -> None:
    assert type(encoder._tower) is TorchTower
    assert resolve_compile("auto", torch.bfloat16, torch.device("cuda"))
    assert not resolve_compile(False, torch.bfloat16, torch.device("cuda"))


def test_what_can_not_be_asked_for(tiny_clip) -> None:
    name = f"local-dir:{tiny_clip}"
    with pytest.raises(UsageError, match="compile is 'yes'; give True, False or 'auto'"):
        ClipEncoder.load(name, device="cpu", compile="yes")
    with pytest.raises(UsageError, match="int8 is OpenVINO's"):
        ClipEncoder.load(name, device="cpu", precision="int8", quantise_on=[b""], compile=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a processor by g++, and there is none")
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_torchs_compiler_gives_the_same(caplog) -> None:
    visual = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))  # the less there is, the less it takes
    tower = TorchTower(visual, (0.5,) * 3, (0.5,) * 3, dtype=torch.float32, device=CPU)
    compiled = CompiledTower(tower)
    with caplog.at_level(logging.WARNING, logger="safetyfilter"):
        found = compiled(PIXELS[:, :2, :2])
    assert [record.message for record in caplog.records if record.name.startswith("safetyfilter")] == []
    assert not compiled.as_it_is
    assert torch.allclose(found, tower(PIXELS[:, :2, :2]), atol=1e-5)
