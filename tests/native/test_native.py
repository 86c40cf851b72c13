"""The compiled loops: what they give is what Python gives, and without a compiler nothing changes but the speed."""

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from safetyfilter.native import build, functions
from safetyfilter.native.functions import Native, native


@pytest.fixture
def loops() -> Native:
    found = native()
    if found is None:
        pytest.skip("no C compiler that makes the loops is on this machine")
    return found


@pytest.fixture
def anew() -> Iterator[None]:
    """The loops are asked for as in a new process."""
    for cached in (build._compiled, functions.native):
        cached.cache_clear()
    yield
    for cached in (build._compiled, functions.native):
        cached.cache_clear()


def unit_rows(count: int, width: int, dtype: type) -> np.ndarray:
    rows = np.random.default_rng(width).standard_normal((count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("width", [1, 7, 16, 63, 64, 65, 512, 768])
@pytest.mark.parametrize("signals", [1, 2, 3])
def test_scores_are_those_of_double_precision(loops: Native, dtype: type, width: int, signals: int) -> None:
    rows = unit_rows(100, width, dtype)
    rng = np.random.default_rng(0)
    weights, biases = rng.standard_normal((signals, width)).astype(np.float32), rng.standard_normal(signals)
    scores, norms = loops.score(rows, weights, biases)
    exact = rows.astype(np.float64)
    assert np.abs(scores - 1 / (1 + np.exp(-(exact @ weights.T + biases)))).max() < 3e-7
    np.testing.assert_allclose(norms, np.linalg.norm(exact, axis=1), rtol=1e-6)
    one_by_one = np.concatenate([loops.score(row[None], weights, biases)[0] for row in rows])
    np.testing.assert_array_equal(scores, one_by_one)  # a score does not depend on what is scored along with it


def test_a_row_counts_as_if_divided_by_its_norm(loops: Native) -> None:
    rows, weights = unit_rows(10, 48, np.float32), unit_rows(2, 48, np.float32)
    scaled = rows * np.linspace(0.1, 9, 10, dtype=np.float32)[:, None]
    expected, _ = loops.score(rows, weights, np.zeros(2))
    found, norms = loops.score(scaled, weights, np.zeros(2), normalise=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(norms, np.linspace(0.1, 9, 10), rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_the_norm(loops: Native, value: float) -> None:
    rows = unit_rows(3, 20, np.float16)
    rows[1, 7] = value
    scores, norms = loops.score(rows, unit_rows(1, 20, np.float32), np.zeros(1))
    assert np.isfinite(norms).tolist() == [True, False, True]
    assert np.isfinite(scores[[0, 2]]).all()


@pytest.mark.parametrize("secret", [b"s", b"s" * 32, bytes(range(64))])
def test_digests_are_those_of_hashlib(loops: Native, secret: bytes) -> None:
    rng = np.random.default_rng(1)
    messages = [rng.bytes(int(length)) for length in (*range(140), *rng.integers(0, 1000, 100), 0)]
    offsets = np.cumsum([0, *map(len, messages)]).astype(np.int64)
    data = np.frombuffer(b"".join(messages), np.uint8)
    found = loops.digests(data, offsets, secret=secret, person=b"sf-key")
    expected = [hashlib.blake2b(m, digest_size=16, key=secret, person=b"sf-key").digest() for m in messages]
    assert [digest.tobytes() for digest in found] == expected


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("compiler", ["false", "no-such-compiler", "echo", '"gcc'])
def test_a_compiler_that_fails_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, compiler: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    with caplog.at_level(logging.WARNING):
        assert native() is None
        assert native() is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "slower functions take their place" in caplog.text


INTERRUPTED = """
import signal, threading, time
from pathlib import Path
from safetyfilter.native.functions import native
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what runs behind it ignore interruptions
made = []
thread = threading.Thread(target=lambda: made.append(native()))
try:
    thread.start()
    while thread.is_alive():
        time.sleep(0.01)
    raise SystemExit("the compiler was done before it was interrupted")
except KeyboardInterrupt:
    Path("go").touch()
thread.join()
print("interrupted, and then", "compiled" if made[0] else "slower")
"""


@pytest.mark.usefixtures("loops")
def test_an_interruption_while_it_is_compiled_takes_no_loops_from_a_process_that_goes_on(tmp_path: Path) -> None:
    compiler = next(path for name in ("cc", "gcc", "clang") if (path := shutil.which(name)))
    script = tmp_path / "compiler"
    script.write_text(f'#!/bin/sh\ntouch started\nwhile [ ! -e go ]; do sleep 0.1; done\nexec {compiler} "$@"\n')
    script.chmod(0o755)
    environment = os.environ | {"CC": str(script), "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not (tmp_path / "started").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, and Jupyter
        said, complained = process.communicate(timeout=300)
    finally:
        process.kill()
    assert (process.returncode, said, complained) == (0, "interrupted, and then compiled\n", "")


@pytest.mark.usefixtures("anew")
def test_no_compiler_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert native() is None
    assert "install gcc or clang" in caplog.text


@pytest.mark.usefixtures("anew")
def test_no_folder_for_temporary_files_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/no-such-folder")
    assert native() is None
    assert "slower functions take their place" in caplog.text


@pytest.mark.usefixtures("anew")
def test_loops_that_give_something_else_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loops: Native
) -> None:
    functions.native.cache_clear()
    monkeypatch.setattr(Native, "digests", lambda self, data, offsets, **_: np.zeros((len(offsets) - 1, 16), np.uint8))
    assert native() is None
    assert "wrong results" in caplog.text
