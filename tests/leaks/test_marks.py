"""No mark of a sample is found in what a scan and all commands after it leave behind, say, log or raise."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from plotly.offline import get_plotlyjs

from safetyfilter import ProbeBank, Run
from safetyfilter.sealed import private_keys
from tests.leaks.decoding import layers
from tests.leaks.marked import KINDS, SHARD, Marked
from tests.leaks.needles import Finder

ROOT = Path(__file__).parents[2]
KILLED_AFTER = (13, 16)
"""The files that a scan has put on the disk when it is killed."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the process that ran everything has left behind.

    Attributes
    ----------
    place : Path
        Where its runs are.
    sources : dict of str to Marked
        The sources by kind.
    said : bytes
        All that it wrote to a terminal as standard error: progress, log, warnings and errors.
    printed : bytes
        Its standard output.
    done : dict
        The commands' exit statuses, and what the errors said that were provoked.
    finder : Finder
        Looks for all marks at once.
    unchanged : bool
        True where each file of the sources is the one that was written, with its times.
    """

    place: Path
    sources: dict[str, Marked]
    said: bytes
    printed: bytes
    done: dict[str, Any]
    finder: Finder
    unchanged: bool

    def of_samples(self, *pieces: bytes) -> set[str]:
        """Return the marks in some pieces; the name of a shard, a table or a folder may stand there."""
        return {name for name in self.finder.found_in(pieces) if SHARD not in name}


def finder_of(sources: dict[str, Marked]) -> Finder:
    texts, contents = {}, {}
    for kind, source in sources.items():
        texts |= {f"{kind}: {what}": text for what, text in source.texts.items()}
        contents |= {f"{kind}: {what}": content for what, content in source.contents.items()}
        texts |= {f"{kind}: {SHARD} {what}": text for what, text in source.shards.items()}
    return Finder.of(texts, contents)


def lists_of(place: Path, sources: Iterable[Marked]) -> list[str]:
    """Lists on which some pictures and addresses of each source are, and some that are of nothing."""
    md5, urls = [hashlib.md5(b"other").hexdigest()], [hashlib.sha256(b"other").hexdigest()]
    for source in sources:
        pictures = [source.contents.get(f"picture {number}") for number in (1, 2, 6)]
        md5 += [hashlib.md5(picture).hexdigest() for picture in pictures if picture is not None]
        urls.append(hashlib.sha256(source.contents["address 7"]).hexdigest())
    (place / "md5.txt").write_text("\n".join(md5))
    (place / "urls.txt").write_text("\n".join(urls))
    return [str(place / "md5.txt"), f"url-sha256={place / 'urls.txt'}"]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path, probes: ProbeBank) -> Trial:
    pytest.importorskip("nacl", reason="PyNaCl is not installed")
    place = tmp_path_factory.mktemp("everything")
    sources = {kind: write(place / "sources" / kind) for kind, write in KINDS.items()}
    probes.save(place / "probes.safetensors")
    (place / "officer").mkdir()
    with patch.object(private_keys, "OPERATIONS", 1), patch.object(private_keys, "MEMORY_BYTES", 1 << 13):
        private_keys.write_keys(place / "officer.key", "a phrase for tests")
    before = states_in(place / "sources")
    plan = {
        "model": str(tiny_clip),
        "probes": str(place / "probes.safetensors"),
        "lists": lists_of(place, sources.values()),
        "private": str(place / "officer.key"),
        "officer": str(place / "officer.key.pub"),
        "killed after": KILLED_AFTER,
        "sources": {
            kind: {"place": str(source.place), "keys": source.keys, "mark": source.texts["key 0"]}
            for kind, source in sources.items()
        },
    }
    (place / "plan.json").write_text(json.dumps(plan))
    said, printed = heard([sys.executable, "-m", "tests.leaks.everything", str(place)], place)
    assert (place / "done.json").exists(), said.decode(errors="replace")[-5000:]
    return Trial(
        place=place,
        sources=sources,
        said=said,
        printed=printed,
        done=json.loads((place / "done.json").read_text()),
        finder=finder_of(sources),
        unchanged=states_in(place / "sources") == before,
    )


def states_in(place: Path) -> dict[str, tuple[int, int, int]]:
    """The inode, size and time of change of each file, and of each folder."""
    states = {str(path): path.lstat() for path in place.rglob("*")}
    return {name: (state.st_ino, state.st_size, state.st_ctime_ns) for name, state in states.items()}


def heard(arguments: list[str], place: Path) -> tuple[bytes, bytes]:
    """Run a process whose standard error is a terminal, and return what it wrote there and on its standard output."""
    terminal, its_end = pty.openpty()
    said: list[bytes] = []

    def listen() -> None:
        while True:
            try:
                said.append(os.read(terminal, 1 << 16))
            except OSError:  # the other end is closed
                return

    listener = threading.Thread(target=listen)
    listener.start()
    environment = os.environ | {
        "COLUMNS": "1000",  # so that no mark is divided by the end of a line
        "TERM": "xterm",
        "TMPDIR": str(place),
        "PYTHONWARNINGS": "default",
        "SAFETYFILTER_OFFICER_PASSPHRASE": "a phrase for tests",
    }
    try:
        done = subprocess.run(
            arguments, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=its_end
        )
    finally:
        os.close(its_end)
        listener.join()
        os.close(terminal)
    return b"".join(said), done.stdout


def test_the_commands_did_what_they_were_to_do(trial: Trial) -> None:
    statuses, errors = trial.done["statuses"], trial.done["errors"]
    right = {name for name, status in statuses.items() if status == 0}
    assert right >= {f"{kind}: {name}" for kind in KINDS for name in ("scan", "decide", "report", "export", "why")}
    assert right >= {"folder: apply", "the same scan", "decide near", "report with labels", "attest", "verify"}
    assert {name for name, status in statuses.items() if status == -9} == {f"killed after {n}" for n in KILLED_AFTER}
    assert not [name for name, status in statuses.items() if status not in (0, 1, -9)]
    assert {name for name in statuses if "fault" in name or "twice" in name or "no labels" in name}.isdisjoint(right)
    assert [name for name, text in errors.items() if text is None] == []
    left = left_by(trial.place / "runs" / "killed")
    assert any(name.endswith(".tmp") for name in left)
    assert any(name.startswith(".unfinished-") and not name.endswith(".tmp") for name in left)
    for kind in KINDS:
        run = Run.open(trial.place / "runs" / kind / "run")
        assert run.counts["unscored"] > 0
        assert run.counts["known_hash"] > 0
        assert (Path(run.path) / "sealed").is_dir()


def left_by(place: Path) -> list[str]:
    return [path.name for path in place.rglob("*")]


def test_no_file_of_a_run_has_a_mark(trial: Trial) -> None:
    library = get_plotlyjs().encode()
    files = [path for path in (trial.place / "runs").rglob("*") if path.is_file() and path.name != "kept"]
    assert len(files) > 50
    names = "\n".join(left_by(trial.place / "runs"))
    assert not trial.finder.found_in(layers(names.encode()))
    for path in files:
        found = trial.finder.found_in(layers(path.read_bytes().replace(library, b"")))
        assert not found, path.relative_to(trial.place)


def test_nothing_that_is_said_has_a_mark(trial: Trial) -> None:
    assert b"DEBUG" in trial.said
    assert b"scanning" in trial.said
    for line in trial.said.splitlines():
        assert not trial.of_samples(line), line.decode(errors="replace")
    assert not trial.of_samples(*layers(trial.said))
    assert not trial.of_samples(*layers(trial.printed))


def test_no_error_has_a_mark(trial: Trial) -> None:
    for name, text in trial.done["errors"].items():
        assert not trial.of_samples(text.encode()), (name, text)


@pytest.mark.parametrize("kind", ["folder", "webdataset", "datasets"])
def test_a_list_of_what_is_kept_does_hold_keys(trial: Trial, kind: str) -> None:
    """It is an export, and no part of a run: the marks would be found there as well."""
    assert trial.of_samples((trial.place / "runs" / kind / "kept").read_bytes())


def test_no_command_changes_a_source_or_reaches_for_the_network(trial: Trial) -> None:
    assert trial.done["events so far"] == []
    assert trial.unchanged
    assert {"open for writing", "os.chmod", "os.remove", "socket.connect"} <= set(trial.done["events"])


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_said_names_a_row(trial: Trial, kind: str) -> None:
    """Neither a log nor a result nor a report lists the samples of a run, be it by their digests alone."""
    run = Run.open(trial.place / "runs" / kind / "run")
    table = run.read_scores()
    digests = {*table["key_digest"].to_pylist(), *table["content_digest"].to_pylist()} - {None}
    needles = {form: "a digest" for each in digests for form in (each[:8], each.hex()[:16].encode())}
    finder = Finder(needles)
    report = (Path(run.path) / "report.html").read_bytes().replace(get_plotlyjs().encode(), b"")
    assert not finder.found_in([*layers(report), trial.said, trial.printed])
    assert finder.found((Path(run.path) / "index" / "decisions.bin").read_bytes())
