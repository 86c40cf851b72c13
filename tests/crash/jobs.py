"""Work on a run in a process of its own, which may be killed; the process is forked from one that has run nothing."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from safetyfilter import (
    ClipEncoder,
    EmbedOptions,
    LinearProbe,
    Policy,
    ProbeBank,
    Run,
    SafetyFilter,
    apply_policy,
    export,
    open_source,
    scan,
)
from safetyfilter.hashes.lists import HashLists
from safetyfilter.sealed.private_keys import PrivateKeys
from safetyfilter.signals import PAIR
from safetyfilter.storage import holding
from tests.conftest import write_tiny_clip
from tests.crash.operations import Operations
from tests.crash.power import PowerLosses

SECRET = "5e" * 32


def officer_keys() -> PrivateKeys:
    """The keys of the officer to whom records are sealed, always the same."""
    return PrivateKeys(sealing=b"s" * 32, signing_seed=b"v" * 32)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work on a run.

    Attributes
    ----------
    action : str
        A name in `ACTIONS`.
    run, source : str
        Their places.
    to : str
        The place of an export, or of what a command says to standard error.
    embeddings, captions, sealed : bool
        Embeddings are kept; probes take captions too; records of exclusions are sealed to `OFFICER`.
    hash_list : str
        The name of a list of known content; none is read where it is empty.
    batch_size : int
        Images in a forward pass.
    part_size : int or None
        Files in a part of a folder.
    checkpoints : int
        The least samples of a checkpoint, of which one is made after each batch; 0 for the library's own pace.
    policy : str
        The name of a preset.
    format : str or None
        That of an export.
    below : str
        The folder whose file operations are counted; none are where it is empty.
    kill_at, half
        As in `Operations`.
    states : str
        A folder for what a loss of power might leave of the folder `below`; empty where that is of no interest.
    own_secret : bool
        The run makes its own secret and number, as any run does; else they are always the same.
    file_limit : int or None
        The most bytes that a file may have.
    cache : str
        The user's cache, where not their own.
    command : tuple of str
        The words of a command line.
    gate : str
        A pipe from which the process reads once it holds the run, and before it goes on; it says "holding" then.
    environment : tuple of pairs
        Variables and their values.
    lease_s : float
        Seconds after which a hold on object storage lapses; 0 for the library's own.
    """

    action: str = "scan"
    run: str
    source: str = ""
    to: str = ""
    embeddings: bool = False
    captions: bool = False
    sealed: bool = False
    hash_list: str = ""
    batch_size: int = 1
    part_size: int | None = None
    checkpoints: int = 0
    policy: str = "co-occurrence"
    format: str | None = None
    below: str = ""
    kill_at: int | None = None
    half: bool = False
    states: str = ""
    own_secret: bool = False
    file_limit: int | None = None
    cache: str = ""
    command: tuple[str, ...] = ()
    gate: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    lease_s: float = 0


def perform(job: Job, connection: Connection, barrier: Barrier | None = None) -> None:
    """Do a job, and send what came of it: the operations that were counted, and an error's name and words, or None."""
    os.environ.update(job.environment)
    if job.lease_s:
        holding.exclusive.__wrapped__.__kwdefaults__["limit_s"] = job.lease_s  # type: ignore[attr-defined]
    if job.own_secret:
        os.environ.pop("SAFETYFILTER_SECRET", None)
    else:
        os.environ["SAFETYFILTER_SECRET"] = SECRET
    if job.cache:
        os.environ["XDG_CACHE_HOME"] = job.cache
    if job.file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_limit, resource.RLIM_INFINITY))
    if job.checkpoints:
        _checkpoint_often(job.checkpoints)
    if job.gate:
        _wait_at(job.gate, connection)
    losses = PowerLosses(Path(job.below), Path(job.states)) if job.states else None
    operations = Operations(job.below, job.kill_at, half=job.half, before=losses and losses.before)
    if job.below:
        operations.install()
    error = None
    if barrier is not None:
        barrier.wait(300)
    try:
        ACTIONS[job.action](job)
    except Exception as raised:  # noqa: BLE001 - for the test to judge
        error = type(raised).__name__, str(raised)
    if losses:
        losses.write("the end")
    connection.send((operations.done, error))


@cache
def _encoder() -> ClipEncoder:
    with tempfile.TemporaryDirectory() as folder:
        encoder = ClipEncoder.load(f"local-dir:{write_tiny_clip(Path(folder))}", device="cpu", precision="fp32")
        encoder.embed_text([""])  # whose tokenizer is made from the folder too
    return encoder


@cache
def _probes(captions: bool) -> ProbeBank:
    encoder, rng = _encoder(), np.random.default_rng(0)
    width = encoder.spec.width * (2 if captions else 1)
    weight = rng.normal(size=width).astype(np.float32) * 8
    return ProbeBank(
        LinearProbe(
            signal=signal,
            weight=weight + rng.normal(size=width).astype(np.float32) * 8,
            bias=0.0,
            encoder=encoder.spec.digest,
            inputs="image+caption" if captions else "image",
        )
        for signal in PAIR.names
    )


def safety_filter(job: Job) -> SafetyFilter:
    """The filter of a scan: a small model that open_clip makes, and probes that know nothing."""
    options = EmbedOptions(views="whole", batch_size=job.batch_size, workers=2)
    lists = HashLists.load([job.hash_list]) if job.hash_list else None
    return SafetyFilter(_encoder(), _probes(job.captions), Policy.preset(job.policy), options, hash_lists=lists)


def _scan(job: Job) -> None:
    source = open_source(job.source, part_size=job.part_size) if job.part_size else open_source(job.source)
    officer = officer_keys().public if job.sealed else None
    scan(source, job.run, safety_filter(job), keep_embeddings=job.embeddings, officer=officer)


def _wait_at(gate: str, connection: Connection) -> None:
    """Wait at a gate after a run's record is first written."""
    write: Any = Run.write_record
    waited: list[str] = []

    def written(*given: Any) -> None:
        write(*given)
        if not waited:
            connection.send("holding")
            waited.append(Path(gate).read_text())

    Run.write_record = written  # type: ignore[method-assign]


def _checkpoint_often(least: int) -> None:
    from safetyfilter.runs import checkpoints

    original: Any = Run.checkpoints
    checkpoints.LEAST = least
    Run.checkpoints = lambda *given, **options: replace(original(*given, **options), interval_s=0.0)  # type: ignore[method-assign]


def _decide(job: Job) -> None:
    apply_policy(Run.open(job.run), Policy.preset(job.policy))


def _export(job: Job) -> None:
    export(Run.open(job.run), open_source(job.source), job.to, format=job.format)


def _command(job: Job) -> None:
    from safetyfilter.cli.main import main

    sys.argv[1:] = job.command
    with Path(job.to).open("w") as said:
        os.dup2(said.fileno(), sys.stderr.fileno())
    main()


ACTIONS: Mapping[str, Callable[[Job], None]] = {
    "scan": _scan,
    "decide": _decide,
    "export": _export,
    "command": _command,
}
