"""Runs each command on marked sources, in a process of its own whose output is kept, and provokes errors.

``python -m tests.leaks.everything PLACE`` reads ``PLACE/plan.json``, and writes what it did to ``PLACE/done.json``.
"""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

import safetyfilter as sf
from safetyfilter.cli import main
from safetyfilter.runs import checkpoints
from safetyfilter.storage import retries
from tests.sources.flaky import FlakyFileSystem

DONE: dict[str, Any] = {"statuses": {}, "errors": {}}


class Machine:
    """One process's work at a place."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.plan = json.loads((place / "plan.json").read_text())
        self.encoder = ["--encoder", f"local-dir:{self.plan['model']}", "--device", "cpu", "--precision", "fp32"]

    def command(self, name: str, *arguments: object) -> int:
        """Run a command line, and note its exit status."""
        sys.argv = ["safetyfilter", *map(str, arguments)]
        began = time.process_time()
        try:
            main()
        except SystemExit as ended:
            DONE["statuses"][name] = int(ended.code or 0)
        DONE.setdefault("seconds", {})[name] = time.process_time() - began
        return DONE["statuses"][name]

    def scan(self, name: str, source: object, run: Path, *more: object) -> int:
        """Scan with the small model."""
        given = ["--probes", self.plan["probes"], "--batch-size", 8, *more]
        return self.command(name, "scan", source, "--out", run, *self.encoder, *given)

    def provoke(self, name: str, action: Callable[[], object]) -> None:
        """Run what must fail, and note all that its error says."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever it is, all that it says is looked at
            text = [f"{name}: {type(error).__name__}", *traceback.format_exception(error)]
            link: BaseException | None = error
            while link is not None:
                text += [str(link), repr(link), repr(link.args), *getattr(link, "__notes__", [])]
                link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
            DONE["errors"][name] = "\n".join(text)
        else:
            DONE["errors"][name] = None


CHANGING = ("os.chflags", "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
            "os.setxattr", "os.symlink", "os.truncate", "os.utime")  # fmt: skip
FETCHING = ("ftplib.connect", "http.client.connect", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname",
            "urllib.Request", "webbrowser.open")  # fmt: skip


def watch(sources: Path) -> None:
    """Note what changes a file below a folder or reaches for the network, from now on and to the process's end."""
    events = DONE["events"] = []
    inside = f"{sources}/"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FETCHING:
            events.append(event)
        elif (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            if inside in str(arguments[0]):
                events.append("open for writing")
        elif event in CHANGING and any(inside in str(each) for each in arguments):
            events.append(event)

    sys.addaudithook(hook)


def provoke_watch(sources: Path) -> None:
    """Do each of what is watched for, so that it is seen that it would be seen."""
    DONE["events so far"] = [*DONE["events"]]
    file = sources / "control"
    file.write_text("x")
    file.chmod(0o600)
    file.unlink()
    with socket.socket() as one, suppress(OSError):
        one.connect(("127.0.0.1", 9))


def killed(action: Callable[[], object], after: int) -> int:
    """Run something in a process that kills itself when it has put so many files on the disk; return its signal."""
    child = os.fork()
    if child == 0:
        left = [after]
        sync = os.fsync

        def counted(descriptor: int) -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            sync(descriptor)

        with patch.object(os, "fsync", counted):
            action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def failing(error: Callable[[], Exception], after: int) -> Iterator[None]:
    """Let the storage at ``flaky://`` fail for good after so many reads."""
    FlakyFileSystem.fail(1 << 30, "read", error, after)
    try:
        yield
    finally:
        FlakyFileSystem.fail(0)


def every_kind(machine: Machine, kind: str, about: dict[str, Any]) -> None:
    """Run the commands on a source that read what it holds."""
    source, keys, place = Path(about["place"]), about["keys"], machine.place / "runs" / kind
    place.mkdir(parents=True)
    run = place / "run"
    lists = [each for path in machine.plan["lists"] for each in ("--hash-list", path)]
    url = ["--url-column", "url"] if kind in ("parquet", "datasets", "embeddings") else []
    known = [*lists, "--officer-key", machine.plan["officer"], *url]
    machine.scan(f"{kind}: scan", source, run, "--keep-embeddings", *known)
    machine.command(f"{kind}: decide", "decide", run, "--policy", "strict")
    machine.command(f"{kind}: report", "report", run)
    machine.command(f"{kind}: export", "export", run, "--source", source, "--to", place / "kept", "--format", "keys")
    (machine.place / "asked").write_text("\n".join([*keys, f"{keys[0]}-x"]))
    with redirect_stdout(io.StringIO()):  # which holds the keys that were asked for
        machine.command(f"{kind}: why", "why", run, "--keys", machine.place / "asked")
    if kind == "folder":
        machine.command(f"{kind}: apply", "apply", run, "--to", source, "--out", place / "applied")
    looked_up(machine, kind, run, keys)


def more_of_one(machine: Machine, kind: str, about: dict[str, Any]) -> None:
    """Run the commands that read a run alone, on a run of one kind of source."""
    source, keys, place = Path(about["place"]), about["keys"], machine.place / "runs" / f"more-{kind}"
    place.mkdir(parents=True)
    run = place / "run"
    machine.scan("plain scan", source, run, "--keep-embeddings")
    machine.scan("the same scan", source, run, "--keep-embeddings")
    machine.scan("another scan in one place", source, run, "--views", "multi")
    machine.command("status", "status", run)
    machine.command("decide near", "decide", run, "--policy", "co-occurrence", "--also-near", 0.9)
    labelled(machine, run, keys)
    of_officer(machine, machine.place / "runs" / kind / "run")


def of_officer(machine: Machine, run: Path) -> None:
    """Open sealed records, outside the run."""
    away = machine.place / "officer"
    machine.command("attest", "attest", run, "--key", machine.plan["private"])
    machine.command("verify", "verify", run, "--key", machine.plan["officer"])
    machine.command(
        "officer open", "officer", "open", run, "--key", machine.plan["private"], "--to", away / "all.jsonl"
    )
    machine.command("officer report", "officer", "report", away / "all.jsonl", "--to", away / "drafts")


def labelled(machine: Machine, run: Path, keys: list[str]) -> None:
    """Join labels to a run, whole ones and some that are wrong in each way."""
    place = machine.place / "labels"
    place.mkdir(parents=True)
    truth = [number % 2 == 0 for number in range(len(keys))]
    tables = {
        "whole": {"key": keys, "explicit": truth, "minor": truth[::-1]},
        "twice": {"key": [*keys, keys[0]], "explicit": [*truth, True], "minor": [*truth, True]},
        "unknown": {"key": [f"{key}-x" for key in keys], "explicit": truth, "minor": truth},
        "no labels": {"key": keys, "explicit": keys, "minor": keys},
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), place / f"{name}.parquet")
        machine.command(f"evaluate {name}", "evaluate", run, place / f"{name}.parquet")
    lines = [",".join(row) for row in zip(keys, keys, keys, strict=True)]
    (place / "no labels.csv").write_text("\n".join(["key,explicit,minor", *lines]) + "\n")
    (place / "ragged.csv").write_text("\n".join(["key,explicit,minor", *lines, f"{lines[0]},{lines[1]}"]) + "\n")
    for name in ("no labels", "ragged"):
        machine.command(f"evaluate {name}.csv", "evaluate", run, place / f"{name}.csv")
    machine.command("report with labels", "report", run, "--labels", place / "whole.parquet", "--out",
                    run.with_name("labelled.html"))  # fmt: skip
    for name in ("twice", "no labels"):
        out = place / f"{name}.safetensors"
        machine.command(f"train {name}", "train", run, place / f"{name}.parquet", "--signal", "minor", "--out", out)
    machine.command("calibrate twice", "calibrate", run, place / "twice.parquet", "--out", place / "policy.toml")


def looked_up(machine: Machine, kind: str, run: Path, keys: list[str]) -> None:
    """Ask a run from Python, in ways that fail."""
    opened = sf.Run.open(run)
    others = [f"{key}-x" for key in keys]
    machine.provoke(f"{kind}: labels of others", lambda: opened.align_labels(pa.table({"key": others})))
    decisions = sf.Decisions.of(opened)
    machine.provoke(f"{kind}: a key that is not text", lambda: decisions.reasons([keys[0], [keys[1]]]))  # type: ignore[list-item]
    rows = datasets.Dataset.from_dict({"key": others, "image": [key.encode() for key in others]})
    machine.provoke(f"{kind}: data of others", lambda: [*sf.filter_dataset(rows, opened, key="key")])
    machine.provoke(f"{kind}: samples of others", lambda: [*sf.SafeIterable(others, opened, key=lambda key: key)])
    machine.provoke(
        f"{kind}: a sample without its key", lambda: [*sf.SafeIterable([{"k": key} for key in keys], opened)]
    )


def storage_faults(machine: Machine, kind: str, source: Path, mark: str) -> None:
    """Let the storage of a source fail, with errors that name a sample."""
    errors: dict[str, Callable[[], Exception]] = {
        "operating system": lambda: OSError(5, "Input/output error", f"/data/{mark}.jpg"),
        "client": lambda: TimeoutError(f'no answer from "https://s3.example/bucket/{mark}.jpg?signature={mark}"'),
    }
    for name, error in errors.items():
        with failing(error, after=0 if kind == "folder" else 3):
            machine.provoke(f"{kind}: fault of the {name}", lambda: _read_all(f"flaky://{source}"))
    with failing(errors["client"], after=3):
        machine.scan(f"{kind}: fault", f"flaky://{source}", machine.place / "runs" / kind / "fault")


def _read_all(place: str) -> None:
    source = sf.open_source(place)
    for part in source.parts():
        for sample in source.samples(part, captions=True):
            sample.read(1 << 20)


def hard_ends(machine: Machine, source: Path) -> None:
    """Scans that are killed, each at another file: nothing has run in this process before, so that it may fork."""
    place = machine.place / "runs" / "killed"
    place.mkdir(parents=True)
    for after in machine.plan["killed after"]:
        run = place / f"run-{after}"
        ended = killed(lambda run=run: machine.scan("killed", source, run, "--keep-embeddings"), after)  # type: ignore[misc]
        DONE["statuses"][f"killed after {after}"] = ended


def checkpoint_often() -> None:
    """Keep what is scored after each batch, and of few samples too."""
    original: Any = sf.Run.checkpoints
    checkpoints.LEAST = 8
    sf.Run.checkpoints = lambda *given, **more: replace(original(*given, **more), interval_s=0.0)  # type: ignore[method-assign]


def main_of(place: Path) -> None:
    """Do all of it."""
    logging.basicConfig(level=logging.DEBUG, format="%(name)s %(levelname)s %(message)s", stream=sys.stderr)
    retries.FIRST_WAIT_S = 0.0
    checkpoint_often()
    machine = Machine(place)
    sources = machine.plan["sources"]
    watch(place / "sources")
    hard_ends(machine, Path(sources["folder"]["place"]))
    for kind, about in sources.items():
        every_kind(machine, kind, about)
        storage_faults(machine, kind, Path(about["place"]), about["mark"])
    more_of_one(machine, "folder", sources["folder"])
    provoke_watch(place / "sources")
    (place / "done.json").write_text(json.dumps(DONE))


if __name__ == "__main__":
    main_of(Path(sys.argv[1]))
