"""A private file appears whole or not at all, for its owner alone, and replaces nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from safetyfilter.errors import OutputError
from safetyfilter.storage import creating_private, writing


@pytest.fixture(params=["without a name until it is whole", "under another name until it is whole"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param.startswith("under"):
        monkeypatch.setattr(writing, "_nameless", lambda folder: None)


@pytest.mark.usefixtures("_either_way")
def test_only_its_owner_may_read_it_from_the_first_byte(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with creating_private(tmp_path / "records") as file:
            file.write(b"whole")
            assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
            assert not (tmp_path / "records").exists()
    finally:
        os.umask(before)
    assert (tmp_path / "records").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "records").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["records"]


@pytest.mark.usefixtures("_either_way")
def test_nothing_is_left_of_what_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with creating_private(tmp_path / "records") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize(
    "make", [lambda path: path.write_text("mine"), lambda path: path.symlink_to("nowhere"), lambda path: path.mkdir()]
)
@pytest.mark.parametrize("late", [False, True])
def test_nothing_is_replaced(tmp_path: Path, make: Callable[[Path], object], late: bool) -> None:
    place = tmp_path / "records"

    def write() -> None:
        if not late:
            make(place)
        with creating_private(place) as file:
            file.write(b"other")
            if late:
                make(place)

    with pytest.raises(OutputError, match="is there already and is not replaced; give another name"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["records"]
    assert place.is_symlink() or place.is_dir() or place.read_text() == "mine"


@pytest.mark.usefixtures("_either_way")
def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="No such file or directory; make room or choose a writable place"),
        creating_private(tmp_path / "none" / "records"),
    ):
        pass


def test_without_hard_links_it_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, target: object) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(writing, "_nameless", lambda folder: None)
    monkeypatch.setattr(Path, "hardlink_to", refused)
    with creating_private(tmp_path / "records") as file:
        file.write(b"whole")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


def test_a_process_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    descriptor = writing._nameless(tmp_path)
    if descriptor is None:
        pytest.skip("this file system has no files without a name")
    os.close(descriptor)
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom safetyfilter.storage import creating_private\n"
        "with creating_private(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half' * 100_000)\n    file.flush()\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "records")])
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
