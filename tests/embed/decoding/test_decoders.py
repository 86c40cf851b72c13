"""Decoding in threads and in processes: the same results, and what a crash, a hang or a killed process costs."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safetyfilter import ClipEncoder, EmbedOptions, HashLists, Reason, SafetyFilter, zero_shot_probes
from safetyfilter.batches import OK, STATUS_NAMES, EmbeddingBatch, Floats, ImageInput, Unreadable
from safetyfilter.embed.decoding import exchange as exchanges
from safetyfilter.embed.decoding import processes, starting, stillness
from safetyfilter.embed.decoding.exchange import Exchange
from safetyfilter.embed.decoding.lumas import LumaProcesses
from safetyfilter.embed.decoding.protocol import Asked
from safetyfilter.embed.feeding import slice_size
from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS
from safetyfilter.embed.pictures.lumas import lumas_of
from safetyfilter.errors import EngineError, StorageError, UsageError
from safetyfilter.hashes.pdq import pdq_of
from safetyfilter.standin import PROMPTS
from safetyfilter.standin.backgrounds import photograph
from tests.conftest import bad_images, encoded, good_images

GOOD = [encoded(Image.new("RGB", (48, 40), (40 * number, 90, 10)), "PNG") for number in range(6)]
PATCHED = """
import os, signal, sys
sys.path[:] = sys.argv[2:]
from safetyfilter.embed.pictures import images
from safetyfilter.embed.decoding import server
server.CPU_SECONDS = 0.5
whole = images.ImagePreparer.pictures
def pictures(self, *encoded):
    if b"mark: crash" in encoded[0]:
        os.kill(os.getpid(), signal.SIGSEGV)
    marker = encoded[0].rpartition(b"mark: once ")[2]
    if marker != encoded[0] and not os.path.exists(marker):
        os.close(os.open(marker, os.O_CREAT))
        os.kill(os.getpid(), signal.SIGKILL)
    stopped = encoded[0].rpartition(b"mark: stop once ")[2]
    if b"mark: stop" in encoded[0] and not os.path.exists(stopped):
        os.close(os.open(stopped, os.O_CREAT))
        os.kill(os.getpid(), signal.SIGSTOP)
    while b"mark: asleep" in encoded[0]:
        signal.pause()
    while b"mark: hang" in encoded[0]:
        pass
    if b"mark: fault" in encoded[0]:
        raise KeyError(encoded[0])
    counter = encoded[0].rpartition(b"mark: count ")[2]
    if counter != encoded[0]:
        with open(counter, "ab") as file:
            file.write(b".")
    midway = encoded[0].rpartition(b"mark: midway ")[2]
    for number, picture in enumerate(whole(self, *encoded)):
        if number == 3 and midway != encoded[0] and not os.path.exists(midway):
            os.close(os.open(midway, os.O_CREAT))
            os.kill(os.getpid(), signal.SIGKILL)
        yield picture
images.ImagePreparer.pictures = pictures
lumas = server.lumas_of
def marked(image, limits, turn):
    if b"mark: crash" in image:
        os.kill(os.getpid(), signal.SIGSEGV)
    return lumas(image, limits, turn)
server.lumas_of = marked
server.main(int(sys.argv[1]))
"""
"""A server whose processes do as a mark in an image says."""


def embed(encoder: ClipEncoder, images: list[ImageInput], kind: str = "processes", **options: object) -> EmbeddingBatch:
    closer = positive_first if options.get("views") == "adaptive" else None
    how = EmbedOptions(decoders=kind, **{"batch_size": 4, "workers": 2, **options})
    return encoder.embed(images, how, closer=closer)


def positive_first(vectors: Floats) -> np.ndarray:
    """A gate, which picks some of the pictures below."""
    return vectors[:, 0] > 0


def statuses(batch: EmbeddingBatch) -> list[str]:
    return [STATUS_NAMES[code] for code in batch.status]


@pytest.fixture(scope="module", autouse=True)
def marked() -> Iterator[None]:
    """The server of this module is one whose processes do as marks say, and does not outlive it."""
    starting._close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starting, "_BOOT", PATCHED)
        yield
        starting._close()


@pytest.mark.parametrize("views", ["whole", "multi", "adaptive"])
def test_results_are_those_of_threads(encoder: ClipEncoder, views: str) -> None:
    animated = encoded(
        Image.new("RGB", (30, 30), "red"),
        "GIF",
        save_all=True,
        append_images=[Image.new("RGB", (30, 30), colour) for colour in ("green", "blue", "teal", "white", "black")],
    )
    images = [*good_images().values(), *bad_images().values(), animated, Image.new("RGB", (20, 30), "teal")]
    threads, processes = (embed(encoder, images, kind, views=views) for kind in ("threads", "processes"))
    assert statuses(threads) == statuses(processes)
    assert {"ok", "truncated", "not_an_image"} <= set(statuses(processes))
    np.testing.assert_array_equal(threads.vectors, processes.vectors)
    np.testing.assert_array_equal(threads.owners, processes.owners)
    if views == "adaptive":
        closer = (processes.vectors[processes.status == OK] != processes.vectors[processes.status == OK, :1]).any(
            (1, 2)
        )
        assert 0 < closer.sum() < len(closer)
    assert (processes.owners == len(images) - 2).sum() == 5
    for owner in set(threads.owners.tolist()):  # further pictures come in the order in which they are ready
        rows = [np.sort(each.others[each.owners == owner].ravel()) for each in (threads, processes)]
        np.testing.assert_allclose(*rows, atol=1e-6)


@pytest.mark.parametrize("position", [0, 3, 6])
def test_a_crash_of_a_decoder_costs_the_one_image(
    encoder: ClipEncoder, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    images = [*GOOD[:position], GOOD[0] + b"mark: crash", *GOOD[position:]]
    found = embed(encoder, images)
    assert statuses(found) == ["ok"] * position + ["decoder_crashed"] + ["ok"] * (len(GOOD) - position)
    assert np.isnan(found.vectors[position]).all()
    rest = np.delete(found.vectors, position, axis=0)
    np.testing.assert_allclose(rest, embed(encoder, GOOD, "threads").vectors, atol=1e-6)
    assert "processes that decode images ended at one of them" in caplog.text
    assert "mark" not in caplog.text


FIRST = (GOOD * 3)[:16]
"""The first items of a stream are given to threads one by one; of those behind these, one thread is given eight."""


def film(*colours: str) -> bytes:
    frames = [Image.new("RGB", (30, 30), colour) for colour in colours]
    return encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])


def test_a_slice_with_a_crash_in_its_middle_is_otherwise_as_in_threads(encoder: ClipEncoder, tmp_path: Path) -> None:
    """One thread is given all of these at once: what is unreadable, has further pictures, crashes, or is at fault."""
    films = [film("red", "green", "blue", "teal", "white"), film("white", "navy", "black")]
    killed = films[0] + b"mark: midway " + os.fsencode(tmp_path / "killed")
    images = [GOOD[0], films[1], GOOD[1][:-30], GOOD[2] + b"mark: crash", killed, b"none", films[1], GOOD[3]]
    expected = embed(encoder, [*FIRST, *images[:3], b"none", films[0], *images[5:]], "threads", batch_size=8)
    found = embed(encoder, [*FIRST, *images], batch_size=8, workers=1)
    assert slice_size(len(FIRST), 8, 1) == len(images)
    assert (tmp_path / "killed").exists()
    told = statuses(expected)[len(FIRST) :]
    assert statuses(found)[len(FIRST) :] == [*told[:3], "decoder_crashed", *told[4:]]
    np.testing.assert_array_equal(found.owners, expected.owners)  # each further picture came once
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-6)
    np.testing.assert_allclose(found.others, expected.others, atol=1e-6)


def test_only_what_a_process_ended_at_is_decoded_again(encoder: ClipEncoder, tmp_path: Path) -> None:
    marks = [b"", b"", b"mark: crash", b"", b"mark: fault", b""]
    images = [
        image + mark + b"mark: count " + os.fsencode(tmp_path / str(number))
        for number, (image, mark) in enumerate(zip(GOOD, marks, strict=True))
    ]
    found = embed(encoder, [*FIRST, *images], batch_size=8, workers=1)
    assert statuses(found)[len(FIRST) :] == ["ok", "ok", "decoder_crashed", "ok", "internal_error", "ok"]
    times = [path.stat().st_size if (path := tmp_path / str(number)).exists() else None for number in range(6)]
    assert times == [1, 1, None, 1, None, 1]  # what crashes or is at fault does so before it is counted


@pytest.mark.parametrize("at", [0, 16, 19, 22])
@pytest.mark.parametrize("decoder", ["threads", "processes"])
def test_what_came_before_a_fault_of_storage_is_embedded(encoder: ClipEncoder, decoder: str, at: int) -> None:
    def load(number: int) -> tuple[int, bytes | Unreadable]:
        if number == at:
            raise StorageError("can't reach the disk")
        return number, Unreadable("missing") if number == 17 else GOOD[number % len(GOOD)]

    seen: dict[int, str] = {}

    def consume() -> None:
        options = EmbedOptions(decoders=decoder, batch_size=8, workers=1)
        for records, batch in encoder.embed_stream(range(24), load, options):
            seen.update(zip(records, statuses(batch), strict=True))

    with pytest.raises(StorageError, match="can't reach the disk"):
        consume()
    assert seen == {number: "missing" if number == 17 else "ok" for number in range(at)}


def test_what_is_no_image_at_all_is_a_fault_and_costs_the_others_nothing(encoder: ClipEncoder) -> None:
    images: list[ImageInput] = [GOOD[0], 7, "nowhere.png", Image.new("RGB", (30, 20)), GOOD[1]]  # type: ignore[list-item]
    for decoder in ("threads", "processes"):
        assert statuses(embed(encoder, images, decoder)) == ["ok", "internal_error", "missing", "ok", "ok"]


def test_images_that_were_not_handed_over_are_not_taken_as_done(
    encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file says of the request before that all was done; so only one that was written says anything."""
    put, requests = Exchange.put, []

    def full(self: Exchange, asked: list[Asked]) -> None:
        requests.append(len(asked))
        if len(requests) == 6:
            raise OSError("no space left")
        put(self, asked)

    monkeypatch.setattr(Exchange, "put", full)
    found = embed(encoder, FIRST[:8], batch_size=2, workers=1)
    assert statuses(found) == ["ok"] * 8
    np.testing.assert_allclose(found.vectors, embed(encoder, FIRST[:8], "threads").vectors, atol=1e-6)
    assert requests == [1, 1, 1, 1, 2, 2, 1, 1]


def test_large_requests_do_not_keep_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, asked = Exchange(), [Asked(0, (b"12345", b"678"))]
    for most, kept in ((8, 1 + 8), (7, 0)):
        monkeypatch.setattr(exchanges, "KEPT_BYTES", most)
        exchange.put(asked)
        exchange.tidy(asked)
        assert os.fstat(exchange.fd).st_size == kept


def test_what_perceptual_hashes_are_taken_of_is_decoded_likewise(caplog: pytest.LogCaptureFixture) -> None:
    animated = encoded(Image.new("L", (30, 900)), "GIF", save_all=True, append_images=[Image.new("L", (30, 900), 200)])
    decoded = LumaProcesses(DEFAULT_LIMITS)
    try:
        for image in (*GOOD, animated):
            here = list(lumas_of(image, DEFAULT_LIMITS))
            there = decoded(image, DEFAULT_LIMITS)
            assert [luma.tobytes() for luma in here] == [luma.tobytes() for luma in there]
            assert [luma.shape for luma in here] == [luma.shape for luma in there]
        with pytest.raises(Unreadable, match="truncated"):
            decoded(GOOD[0][:-20], DEFAULT_LIMITS)
        with pytest.raises(Unreadable, match="decoder_crashed"):
            decoded(GOOD[0] + b"mark: crash", DEFAULT_LIMITS)
        assert len(decoded(animated, DEFAULT_LIMITS)) == 2
    finally:
        decoded.close()
    assert "mark" not in caplog.text


def test_a_filter_with_a_list_of_perceptual_hashes_outlives_a_crash(encoder: ClipEncoder, tmp_path: Path) -> None:
    listed, crashing = (encoded(photograph("coffee"), "JPEG", quality=quality) for quality in (90, 60))
    (tmp_path / "listed.txt").write_text(pdq_of(listed)[0].hash.hex())
    options = EmbedOptions(decoders="processes", batch_size=4, workers=2)
    lists = HashLists.load([f"pdq={tmp_path / 'listed.txt'}"])
    safe = SafetyFilter(encoder, zero_shot_probes(encoder, PROMPTS), options=options, hash_lists=lists)
    result = safe([listed, crashing + b"mark: crash", GOOD[0]])
    assert [Reason.KNOWN_HASH in Reason(reasons) for reasons in result.reasons] == [True, False, False]
    assert result.scores.failures[1] == "decoder_crashed"


def test_one_that_is_killed_once_costs_nothing(encoder: ClipEncoder, tmp_path: Path) -> None:
    killed = GOOD[0] + b"mark: once " + os.fsencode(tmp_path / "killed")
    assert statuses(embed(encoder, [*GOOD, killed])) == ["ok"] * (len(GOOD) + 1)
    assert (tmp_path / "killed").exists()


def test_a_picture_may_take_so_much_time_of_a_processor(encoder: ClipEncoder) -> None:
    assert statuses(embed(encoder, [GOOD[0], GOOD[1] + b"mark: hang", GOOD[2]])) == ["ok", "decoder_crashed", "ok"]


@pytest.fixture
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds without any work of any process are enough."""
    monkeypatch.setattr(stillness, "LOOK_S", 0.1)
    monkeypatch.setattr(stillness, "STILL_LOOKS", 20)


@pytest.mark.usefixtures("short_looks")
def test_one_that_stands_still_holds_nothing_up(encoder: ClipEncoder, tmp_path: Path) -> None:
    stopped = GOOD[0] + b"mark: stop once " + os.fsencode(tmp_path / "stopped")
    assert statuses(embed(encoder, [*GOOD, stopped])) == ["ok"] * (len(GOOD) + 1)  # by the next process
    assert (tmp_path / "stopped").exists()
    asleep = GOOD[1] + b"mark: asleep"
    assert statuses(embed(encoder, [GOOD[0], asleep, *GOOD[2:]])) == ["ok", "decoder_crashed", *["ok"] * 4]


@pytest.mark.usefixtures("short_looks")
def test_a_server_that_stands_still_ends_the_stream(encoder: ClipEncoder) -> None:
    embed(encoder, GOOD)
    assert starting._server is not None
    os.kill(starting._server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(EngineError, match="can't be started; decode in threads"):
            embed(encoder, GOOD)
    finally:
        os.kill(starting._server.pid, signal.SIGCONT)
    assert statuses(embed(encoder, GOOD)) == ["ok"] * len(GOOD)


def test_one_that_works_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stillness, "LOOK_S", 0.01)
    monkeypatch.setattr(stillness, "STILL_LOOKS", 50)
    script = """
import os, time
until = time.process_time() + 3
while time.process_time() < until:
    pass
os.write(1, bytes([0, 0, 0, 4]) + b"done")
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        connection = Connection(os.dup(process.stdout.fileno()), writable=False)
        assert stillness.received(connection, [process.pid]) == b"done"  # six times as long as one may stand still


def test_a_fault_is_told_without_its_words(encoder: ClipEncoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        found = embed(encoder, [GOOD[0] + b"mark: fault", GOOD[1]])
    assert statuses(found) == ["internal_error", "ok"]
    assert "KeyError" in caplog.text
    assert "mark" not in caplog.text


def test_processes_that_end_at_every_image_end_the_stream(
    encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "MOST_CRASHES", 3)
    monkeypatch.setattr(processes, "SOUND", GOOD[0] + b"mark: crash")  # nothing is sound to such processes
    with pytest.raises(EngineError, match="each of the last 3 images and at a sound one; decode in threads"):
        embed(encoder, [image + b"mark: crash" for image in GOOD])


def test_however_many_crash_the_others_are_decoded(encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MOST_CRASHES", 1)
    found = embed(encoder, [*(image + b"mark: crash" for image in GOOD[:4]), GOOD[4]])
    assert statuses(found) == ["decoder_crashed"] * 4 + ["ok"]


def test_crashes_leave_no_descriptor_open(encoder: ClipEncoder) -> None:
    images = iter([*(image + b"mark: crash" for image in GOOD * 2), *GOOD])
    options = EmbedOptions(decoders="processes", batch_size=1, workers=1)
    stream = encoder.embed_stream(images, lambda image: (None, image), options)
    opened = [sum(1 for _ in Path("/proc/self/fd").iterdir()) for _ in stream]
    assert max(opened) - min(opened) <= 4  # one or two processes at a time, however many ended


def test_the_sound_image_is_one() -> None:
    decoded = LumaProcesses(DEFAULT_LIMITS)
    try:
        assert [luma.tolist() for luma in decoded(processes.SOUND, DEFAULT_LIMITS)] == [[[0]]]
    finally:
        decoded.close()


def test_a_signal_that_the_program_ignores_still_ends_decoding(tiny_clip: Path) -> None:
    script = f"""
import signal, sys
signal.signal(signal.SIGPROF, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGPROF}})
from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed.decoding import starting
starting._BOOT = sys.argv[1]
encoder = ClipEncoder.load("local-dir:{tiny_clip}", device="cpu", precision="fp32")
options = EmbedOptions(decoders="processes", batch_size=4, workers=2)
print(encoder.embed([bytes.fromhex(image) for image in sys.argv[2:]], options).failures)
"""
    images = [(GOOD[1] + b"mark: hang").hex(), GOOD[2].hex()]
    command = [sys.executable, "-c", script, PATCHED, *images]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "{0: 'decoder_crashed'}\n"), done


@pytest.mark.parametrize("boot", ["import sys; sys.exit(3)", "import nothing_of_that_name"])
def test_a_server_that_does_not_start_is_an_error(
    encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch, boot: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(starting, "_server", None)
        patch.setattr(starting, "_BOOT", boot)
        with pytest.raises(EngineError, match="can't be started; decode in threads"):
            embed(encoder, GOOD)
        starting._close()


def test_a_server_that_was_killed_is_started_again(encoder: ClipEncoder) -> None:
    embed(encoder, GOOD)
    assert starting._server is not None
    starting._server._process.kill()
    starting._server._process.wait()
    assert statuses(embed(encoder, GOOD)) == ["ok"] * len(GOOD)


def test_nothing_is_left_open(encoder: ClipEncoder) -> None:
    def opened() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    embed(encoder, GOOD)
    _wait(lambda: not any(thread.name.startswith("decode") for thread in threading.enumerate()))
    before = opened()
    for _ in range(3):
        embed(encoder, GOOD)
        stream = encoder.embed_stream(
            iter(range(100)), lambda number: (number, GOOD[0]), EmbedOptions(decoders="processes", batch_size=4)
        )
        next(stream)
        stream.close()
    _wait(lambda: not any(thread.name.startswith("decode") for thread in threading.enumerate()))
    _wait(lambda: opened() <= before)


def test_processes_end_with_the_one_that_started_them(tiny_clip: Path) -> None:
    script = f"""
import itertools, sys
from safetyfilter import ClipEncoder, EmbedOptions, HashLists, Reason, SafetyFilter, zero_shot_probes
encoder = ClipEncoder.load("local-dir:{tiny_clip}", device="cpu", precision="fp32")
image = bytes.fromhex(sys.argv[1])
options = EmbedOptions(decoders="processes", batch_size=4, workers=2)
for _ in encoder.embed_stream(itertools.count(), lambda number: (number, image), options):
    print("going", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script, GOOD[0].hex()], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "going\n"
        family = _descendants(process.pid)
        assert len(family) >= 3  # the server, and two that decode
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
    _wait(lambda: not any(map(_alive, family)))


def test_other_kinds_are_refused() -> None:
    with pytest.raises(UsageError, match="decoders is 'fibres'; choose one of auto, threads, processes"):
        EmbedOptions(decoders="fibres")  # type: ignore[arg-type]


def _descendants(pid: int) -> list[int]:
    own = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    tasks = [int(each.name) for each in Path(f"/proc/{pid}/task").iterdir()]
    own = sorted(
        {int(each) for task in tasks for each in Path(f"/proc/{pid}/task/{task}/children").read_text().split()}
    )
    return own + [further for each in own for further in _descendants(each)]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)
