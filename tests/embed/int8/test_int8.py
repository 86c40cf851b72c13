"""int8 on the processor: the same encoder, nearly the same embeddings, and one quantised model wherever it goes."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from safetyfilter import ClipEncoder, EmbedOptions, Policy, zero_shot_probes
from safetyfilter.embed.devices import resolve_dtype
from safetyfilter.embed.int8 import cache as cache_module
from safetyfilter.embed.int8 import own_pictures, quantising
from safetyfilter.embed.int8.cache import kept_tower, quantised_folder
from safetyfilter.embed.int8.quantised import QuantisedTower
from safetyfilter.embed.openvino.modules import in_silence, openvino_module
from safetyfilter.embed.sending import packed_encoder, unpacked_encoder
from safetyfilter.errors import (
    DeviceError,
    EncoderMismatchError,
    MissingExtraError,
    OutputError,
    SelfCheckError,
    UsageError,
    WeightsError,
)
from safetyfilter.standin import ENCODER, PROMPTS, STANDIN_PAIR
from safetyfilter.standin.render import scenes
from tests.conftest import good_images

installed = find_spec("openvino") is not None and find_spec("nncf") is not None  # to import them tells their makers
needs_openvino = pytest.mark.skipif(
    not installed, reason="OpenVINO or NNCF is not installed: pip install 'safetyfilter[openvino]'"
)
IMAGES = list(good_images().values())
WHOLE = EmbedOptions(views="whole", batch_size=8, full_batches=True)
FORKED = """
import os, pickle, sys
import torch
from safetyfilter.errors import UsageError
with open(sys.argv[1], "rb") as file:
    encoder = pickle.load(file)
pixels = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
encoder.forward(pixels)
if (child := os.fork()) == 0:
    try:
        encoder.forward(pixels)
    except UsageError as error:
        os.write(1, str(error).encode())
    finally:
        os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""
"""A program that forks with an encoder in int8, by itself: a fork takes all that a process has but its threads."""

SIGNALLED = """
import gc, os, pickle, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
with open(sys.argv[1], "rb") as file:
    sent = file.read()
first, second = pickle.loads(sent), pickle.loads(sent)
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""
"""A program in which two towers go in the order in which they came, and then a signal comes."""


@pytest.fixture(scope="module", autouse=True)
def cache(own_cache: Path) -> Path:
    return own_cache


@pytest.fixture(scope="module")
def int8(encoder: ClipEncoder) -> ClipEncoder:
    """The small model in int8."""
    if not installed:
        pytest.skip("OpenVINO or NNCF is not installed: pip install 'safetyfilter[openvino]'")
    return encoder.quantised(IMAGES)


def test_embeddings_are_nearly_those_of_float32(int8: ClipEncoder, encoder: ClipEncoder) -> None:
    full, batch = encoder.embed(IMAGES, WHOLE).vectors, int8.embed(IMAGES, WHOLE)
    assert batch.vectors.dtype == np.float32
    assert not batch.failures
    np.testing.assert_allclose(np.linalg.norm(batch.vectors, axis=1), 1, atol=1e-5)
    cosines = (batch.vectors * full).sum(axis=1)
    assert 0.99 < cosines.min() < cosines.max() < 0.999999  # it is another model


def test_it_is_the_same_encoder(int8: ClipEncoder, encoder: ClipEncoder) -> None:
    assert int8.spec == encoder.spec
    assert (int8.dtype, str(int8.device), encoder.quantised_tower) == (torch.int8, "cpu", None)
    assert "dtype=int8" in repr(int8)
    np.testing.assert_array_equal(int8.embed_text(["a boat"]), encoder.embed_text(["a boat"]))
    assert encoder.image_tower is not None
    with pytest.raises(UsageError, match="is in int8"):
        _ = int8.image_tower


def test_a_picture_gets_the_same_whatever_comes_along_with_it(int8: ClipEncoder) -> None:
    together = int8.embed(IMAGES, WHOLE).vectors
    np.testing.assert_array_equal(int8.embed(IMAGES[::-1], WHOLE).vectors[::-1], together)
    np.testing.assert_array_equal(int8.embed(IMAGES[3:5], WHOLE).vectors, together[3:5])


def test_it_goes_to_other_processes_and_machines(int8: ClipEncoder, tmp_path: Path, monkeypatch) -> None:
    expected = int8.embed(IMAGES, WHOLE).vectors
    packed = packed_encoder(int8)
    for again in (pickle.loads(pickle.dumps(int8)), int8.on("cpu")):
        assert (again.spec, again.dtype, again.quantised_tower) == (int8.spec, torch.int8, int8.quantised_tower)
        np.testing.assert_array_equal(again.embed(IMAGES, WHOLE).vectors, expected)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # of another machine
    np.testing.assert_array_equal(unpacked_encoder(packed, "cpu").embed(IMAGES, WHOLE).vectors, expected)
    with pytest.raises(WeightsError, match=f"{int8.quantised_tower.digest[:12]} is not in {tmp_path}"):
        int8.on("cpu")


def test_captions_go_with_it(int8: ClipEncoder) -> None:
    again = unpacked_encoder(packed_encoder(int8), "cpu")
    words = again.embed_text(["a boat"])
    again.text_tower_to_device()
    np.testing.assert_array_equal(again.embed_text(["a boat"]), words)


def test_a_model_that_went_wrong_is_not_kept(
    int8: ClipEncoder, encoder: ClipEncoder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_pictures, "quantise", lambda *_: int8.quantised_tower)
    monkeypatch.setattr(own_pictures, "Int8Tower", lambda made: lambda pixels: encoder.forward(pixels).flip(1))
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    with pytest.raises(SelfCheckError, match=r"in int8 gives other embeddings than in float32: .* 0\.9 is asked"):
        encoder.quantised(IMAGES[2:])
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == kept


def test_it_is_made_once_of_the_same_pictures(int8: ClipEncoder, tiny_clip: Path, monkeypatch, caplog) -> None:
    def never(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(own_pictures, "quantise", never)
    again = ClipEncoder.load(
        f"local-dir:{tiny_clip}", device="cpu", precision="int8", quantise_on=[b"no picture", *IMAGES]
    )
    assert again.quantised_tower == int8.quantised_tower
    given = ClipEncoder.load(
        f"local-dir:{tiny_clip}", device="cpu", precision="int8", quantise_on=kept_tower(int8.quantised_tower.digest)
    )
    assert given.quantised_tower == int8.quantised_tower
    with caplog.at_level(logging.WARNING), pytest.raises(AssertionError, match="made again"):
        ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu", precision="int8", quantise_on=IMAGES[1:])
    assert f"quantised on {len(IMAGES) - 1} pictures" in caplog.text


@pytest.mark.parametrize("damage", ["shortened", "changed", "of another name", "no tower", "others may write"])
def test_a_damaged_file_is_told(int8: ClipEncoder, damage: str, tmp_path: Path, monkeypatch) -> None:
    tower = int8.quantised_tower
    content = (quantised_folder() / f"{tower.digest}.safetensors").read_bytes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    quantised_folder().mkdir(parents=True, mode=0o700)
    place = quantised_folder() / f"{tower.digest}.safetensors"
    match damage:
        case "shortened":
            place.write_bytes(content[:-1])
        case "changed":
            place.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "of another name":
            place.write_bytes(QuantisedTower(encoder=tower.encoder, model=tower.model, weights=b"").to_bytes())
        case "no tower":
            place.write_bytes(b"no tower")
        case _:
            place.write_bytes(content)
            place.chmod(0o666)
    with pytest.raises(WeightsError, match="quantise again"):
        kept_tower(tower.digest)


def test_the_tower_of_another_encoder_is_refused(int8: ClipEncoder, encoder: ClipEncoder) -> None:
    other = QuantisedTower(encoder="ab" * 32, model=b"", weights=b"")
    with pytest.raises(EncoderMismatchError, match="abababababab"):
        encoder.quantised(other)


@needs_openvino
@pytest.mark.parametrize("pictures", [[], [b"no picture"]], ids=["none", "unreadable"])
def test_it_needs_pictures(encoder: ClipEncoder, pictures: list[bytes]) -> None:
    with pytest.raises(UsageError, match="no picture to quantise on"):
        encoder.quantised(pictures)


def test_pictures_and_int8_go_together(tiny_clip: Path) -> None:
    name = f"local-dir:{tiny_clip}"
    for wrong in ({"precision": "int8"}, {"precision": "fp32", "quantise_on": IMAGES}):
        with pytest.raises(UsageError, match="go together"):
            ClipEncoder.load(name, device="cpu", **wrong)
    with pytest.raises(UsageError, match="then call `quantised`"):
        ClipEncoder(open_clip.create_model(name), architecture="tiny", device="cpu", precision="int8")
    with pytest.raises(UsageError, match="float32 weights"):
        ClipEncoder.load(name, device="cpu", precision="bf16").quantised(IMAGES)


def test_a_gpu_offers_no_int8(int8: ClipEncoder) -> None:
    with pytest.raises(DeviceError, match="int8 is for the processor, not for cuda"):
        resolve_dtype("int8", torch.device("cuda"))
    with pytest.raises(DeviceError, match="int8 is for the processor, not for meta"):
        int8.on("meta")
    with pytest.raises(DeviceError, match="int8 is for the processor, not for meta"):
        unpacked_encoder(packed_encoder(int8), "meta")


def ended(program: str, encoder: ClipEncoder, folder: Path) -> subprocess.CompletedProcess[str]:
    """A program that was given an encoder's file, when it has ended."""
    (folder / "encoder").write_bytes(pickle.dumps(encoder))
    command = [sys.executable, "-X", "faulthandler", "-c", program, str(folder / "encoder")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_forked_process_is_told_and_does_not_wait_for_ever(int8: ClipEncoder, tmp_path: Path) -> None:
    done = ended(FORKED, int8, tmp_path)
    assert done.returncode == 0, done
    assert "start worker processes by spawn" in done.stdout


def test_a_signal_is_handled_when_towers_are_gone(int8: ClipEncoder, tmp_path: Path) -> None:
    done = ended(SIGNALLED, int8, tmp_path)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done


@pytest.mark.parametrize("missing", ["openvino", "nncf"])
def test_a_missing_extra_is_told_before_weights_are_loaded(missing: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=f"{missing} is not installed: .*openvino"):
        ClipEncoder.load("local-dir:/nowhere", device="cpu", precision="int8", quantise_on=IMAGES)


def test_a_model_of_another_openvino_is_told(int8: ClipEncoder, encoder: ClipEncoder) -> None:
    graph = b"<net name='later' version='99'></net>"
    later = QuantisedTower(encoder=encoder.spec.digest, model=graph, weights=b"\0" * 64, made_by={"openvino": "2099.1"})
    with pytest.raises(WeightsError, match=r"can't read .*; quantise again, or .* made it \(openvino 2099.1\)"):
        encoder.quantised(later)


@pytest.mark.parametrize("single", ["pictures", b"GIF89a", Path("pictures")])
def test_a_single_picture_is_not_taken_for_many(int8: ClipEncoder, encoder: ClipEncoder, single: object) -> None:
    with pytest.raises(UsageError, match="several images are expected"):
        encoder.quantised(single)


@pytest.mark.parametrize("kind", ["others may write", "a link"])
def test_a_cache_that_can_not_be_used_is_told_before_there_is_work(
    int8: ClipEncoder, encoder: ClipEncoder, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("quantised first")

    monkeypatch.setattr(own_pictures, "quantise", never)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    quantised_folder().parent.mkdir(mode=0o700)
    if kind == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        quantised_folder().symlink_to(tmp_path / "elsewhere")
    else:
        quantised_folder().mkdir()
        quantised_folder().chmod(0o770)
    with pytest.raises(OutputError, match="make the folder this user's own"):
        encoder.quantised(IMAGES)


@needs_openvino
def test_no_room_for_temporary_files_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(openvino_module(), "serialize", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OutputError, match=rf"to {tmp_path}, .* make room there, or name another folder by TMPDIR"):
        quantising._serialised(None)


def test_a_full_disk_is_told(int8: ClipEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_module, "write_own", full)
    with pytest.raises(OutputError, match="No space left on device; make room, or name another cache"):
        cache_module.keep_tower(int8.quantised_tower, "key")


@needs_openvino
def test_nothing_is_printed_or_changed(encoder: ClipEncoder, capfd, monkeypatch, tmp_path: Path) -> None:
    kind = logging.getLoggerClass()
    with in_silence():
        pass
    assert logging.getLoggerClass() is kind
    assert "openvino_telemetry" not in sys.modules
    assert capfd.readouterr() == ("", "")


@needs_openvino
def test_few_decisions_are_others_than_in_float32() -> None:
    """The benchmark measures it on thousands of pictures; here nothing may be far off."""
    full = ClipEncoder.load(ENCODER, device="cpu", precision="fp32")
    seen = [scene.image for scene in scenes(32, split="train", seed=1, pairs=False)]
    shown = [scene.image for scene in scenes(200, split="test", seed=2, pairs=True)]
    shown += [scene.image for scene in scenes(100, split="test", seed=2, pairs="only")]
    probes, options = zero_shot_probes(full, PROMPTS), EmbedOptions(views="whole")
    scores = [probes.score(each.embed(shown, options)) for each in (full, full.quantised(seen))]
    policy = Policy(
        thresholds={signal: float(np.quantile(scores[1][signal][200:], 0.02)) for signal in STANDIN_PAIR.names},
        pair=STANDIN_PAIR,
    )
    kept, kept_in_int8 = (policy.decide(each).keep for each in scores)
    assert (~kept[200:]).sum() > 80
    assert (kept != kept_in_int8).mean() <= 0.01
    assert (kept_in_int8 & ~kept)[200:].sum() <= 1


LISTENING = """
import sys

def heard(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.sendto")):
        print(event, file=sys.stderr)

sys.addaudithook(heard)
from safetyfilter.embed.openvino.modules import in_silence
with in_silence():
    import nncf, openvino
    from openvino.tools.ovc import telemetry_utils
    telemetry_utils.init_ovc_telemetry().send_event("a", "b", "c")
    nncf.telemetry.wrapper.telemetry.send_event("a", "b", "c")
    print(sys.modules.get("openvino_telemetry"))
"""


@needs_openvino
def test_nothing_is_reported_over_the_network() -> None:
    done = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "None\n")
