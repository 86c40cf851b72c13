"""The scan: has an engine score a source and record each part, and decides on all of it at the end."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from typing import Literal

from safetyfilter.decide.fitting import misfits
from safetyfilter.decide.gate_fit import warn_of_gate
from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS
from safetyfilter.engine.base import Engine, Work
from safetyfilter.engine.local import LocalEngine
from safetyfilter.engine.parts import PartJob
from safetyfilter.engine.scorers import scorer_for
from safetyfilter.filter import SafetyFilter
from safetyfilter.progress import Progress, Tally, notebook_progress
from safetyfilter.runs.finishing import decide_scanned, resumed_counts
from safetyfilter.runs.record import RunSetup
from safetyfilter.runs.repeated import mark_repeated
from safetyfilter.runs.run import Run, require_run
from safetyfilter.runs.start import started
from safetyfilter.score.trained_on import warn_of_differences
from safetyfilter.sealed.keys import OfficerKey, nacl_module
from safetyfilter.sources.base import Source, require_source, samples_of
from safetyfilter.sources.wrapped import with_urls

_log = logging.getLogger(__name__)


def scan(
    source: Source,
    out: str | os.PathLike[str],
    safety_filter: SafetyFilter,
    *,
    keep_embeddings: bool = False,
    engine: Engine | None = None,
    secret_from: Run | None = None,
    officer: OfficerKey | None = None,
    progress: Progress | Literal[False] | None = None,
) -> Run:
    """Score and decide on every sample of a source, and leave a run directory.

    A scan that was interrupted goes on where it stopped: a part whose source, encoder and probes are unchanged is not
    done again, and of a part in progress what was scored is kept every minute, and when the scan is stopped.

    Parameters
    ----------
    source : Source
        From `open_source`; images, or stored embeddings, of which the filter's encoder is only the name.
    out : path
        The run directory on this machine: new, empty, or that of the same scan.
    safety_filter : SafetyFilter
        Encoder, probes, policy and how images are prepared.
    keep_embeddings : bool
        Also keep the embeddings of each sample's first picture, in float16.
    engine : Engine or None
        A `LocalEngine`, which is also what None stands for: every GPU of the machine if the encoder is on ``cuda``,
        else its own device; or a `RayEngine`.
    secret_from : Run or None
        A new run is to have the secret of this one, so that the two can be decided together (`apply_policy`); a random
        one where None.
    officer : OfficerKey or None
        Of each sample that is excluded for co-occurrence or as known content, a record with its provenance and digests
        is sealed to this key, which opens none; see `safetyfilter.sealed`. Where None, nothing of the kind is written.
    progress : callable, False or None
        Called as the scan goes on; None for a bar in a notebook and nothing elsewhere, False for no bar.

    Returns
    -------
    Run
        Complete, with counts that add up.

    Raises
    ------
    UsageError, DeviceError
        A path in the place of a source, a device that does not exist, or stored embeddings with lists of known content
        that have no digests of URLs.
    MissingExtraError
        An officer's key was given, and PyNaCl is not installed.
    SourceError
        Stored embeddings have another width than the encoder's, or are not of unit norm; or images came with an encoder
        that is only named.
    OtherRunError, OutputError, SecretError
        See `safetyfilter.runs.start.started`.
    UncertifiedPolicyError
        The filter's policy was calibrated on scores that were made in another way than the scan's, and
        `SafetyFilter.accept_uncertified` is not set. Nothing is scored or written.
    SelfCheckError
        The encoder does not embed generated pictures as it should, or not as it did in this run or at its first use on
        this machine. Nothing is scored by it.
    StorageError
        A sample could not be read though it was tried again. Finished parts are kept.
    """
    require_source(source)
    told: Counter[str] = Counter()

    def report(counts: Mapping[str, int]) -> None:
        told.update(counts)
        if progress:
            progress(counts)

    engine = engine or LocalEngine()
    safety_filter = engine.prepared(safety_filter)
    scorer = scorer_for(source, safety_filter)
    setup = run_setup(safety_filter, stored=scorer.stored, officer=officer)
    safety_filter.require_certified(setup.scoring)
    accepted = bool(misfits(safety_filter.policy.calibration, setup.scoring))
    if safety_filter.needs_urls:
        source = with_urls(source)
    _warn_of_missing(safety_filter, officer, stored=scorer.stored)
    if not scorer.stored:  # of stored embeddings nobody knows how the pictures looked
        warn_of_differences(safety_filter.probes.probes, safety_filter.looks)
        warn_of_gate(safety_filter.policy, safety_filter.gate)
    if secret_from is not None:
        require_run(secret_from)
    secret = secret_from.digester() if secret_from else None
    with (
        notebook_progress(progress, lambda: _tally(source, scorer.stored)) as progress,
        started(out, source=source, setup=setup, policy=safety_filter.policy, secret=secret, officer=officer) as run,
    ):
        parts = source.parts()
        placement = run.place_parts(parts, embeddings=keep_embeddings)
        if placement.stored and not placement.done:
            _log.warning(
                "none of the %d parts that the run has is one of the source as it is now (other files or columns, or "
                "another part_size, --part-size): all of it is scored again",
                placement.stored,
            )
        checkpoints = run.checkpoints(vectors=keep_embeddings)
        checkpoints.keep_only(part.state for part in placement.todo)
        scored = _report_resumed(run, report, placement.done)
        job = PartJob(
            source=source,
            scorer=scorer,
            digester=run.digester(),
            keep_vectors=keep_embeddings,
            max_bytes=safety_filter.options.limits.max_bytes,
            checkpoints=checkpoints,
            sealing=run.sealing(),
        )
        device = "cpu" if scorer.stored else str(safety_filter.encoder.device)
        work = Work(run=run, job=job, parts=placement.todo, numbers=placement.numbers, device=device)
        try:
            with closing(engine.record(work, report)) as recorded:
                for part in recorded:
                    scored += part.counts["seen"]
                    report({name: part.counts[name] for name in ("kept", "excluded")})
        except KeyboardInterrupt:
            _log.warning(
                "stopped: %s scored samples are kept, and the same scan goes on from there",
                f"{scored + checkpoints.samples():,}",
            )
            raise
        _warn_repeated(mark_repeated(run), source)
        run.seal_scores(parts)
        decided = decide_scanned(run, safety_filter.policy, accepted_uncertified=accepted)
        changed = {name: decided.counts[name] - told[name] for name in ("seen", "kept", "excluded", "unscored")}
        if any(changed.values()):  # keys that samples share are known at the end only, and a lost worker's are redone
            report(changed)
        return decided


def _tally(source: Source, stored: bool) -> Tally:
    unit = "embeddings" if stored else "images"
    return Tally(what="scanning", total=samples_of(source), parts=len(source.parts()), unit=unit)


def _warn_repeated(count: int, source: Source) -> None:
    if count:
        _log.warning(
            "%s samples have a key that another sample has too, with other content, and are excluded as unscored "
            "(repeated_key). Keys here are %s. Where they come from a column, name one of unique values with "
            "--key-column (key_column), or rename that column, and rows are called FILE#ROW",
            f"{count:,}",
            source.keys,
        )


def _warn_of_missing(safety_filter: SafetyFilter, officer: OfficerKey | None, *, stored: bool) -> None:
    """Tell what lists can't find here and what records will lack; `MissingExtraError` where none can be sealed."""
    lists = safety_filter.hash_lists
    if stored and lists is not None and (others := sorted(kind for kind in lists.kinds if not kind.of_url)):
        _log.warning(
            "the source holds stored embeddings, whose pictures' bytes nobody has here: of the lists' hashes those of "
            "the kinds %s are not looked at, and all samples count as unchecked",
            ", ".join(others),
        )
    if officer is None:
        return
    nacl_module("public")
    if not stored and find_spec("pdqhash") is None:
        _log.warning(
            "pdqhash is not installed, and sealed records will have no perceptual hash of a picture; to have them, "
            "install safetyfilter[hashes]"
        )


def run_setup(safety_filter: SafetyFilter, *, stored: bool = False, officer: OfficerKey | None = None) -> RunSetup:
    """Return everything that a run of this filter depends on besides the source.

    Parameters
    ----------
    safety_filter : SafetyFilter
        The filter.
    stored : bool
        Embeddings are scored that the source stores.
    officer : OfficerKey or None
        The key that records are sealed to.
    """
    encoder, probes, options = safety_filter.encoder, safety_filter.probes, safety_filter.options
    lists = safety_filter.hash_lists
    tower = getattr(encoder, "quantised_tower", None)
    setup = RunSetup(
        encoder=encoder.spec,
        pair=probes.pair,
        probes=probes.digests,
        signals=probes.signals,
        views=options.views,
        decode=options.decode,
        precision=str(getattr(encoder, "dtype", "")).removeprefix("torch."),
        limits=options.limits,
        hash_lists=tuple(sorted(set(lists.digests))) if lists is not None else (),
        officer=officer.fingerprint if officer is not None else "",
        quantised=tower.digest if tower is not None else "",
        gate=safety_filter.gate,
    )
    if not stored:
        return setup
    decode = "normalised" if safety_filter.normalise else "as stored"
    return replace(
        setup, views="stored", decode=decode, precision="float32", limits=DEFAULT_LIMITS, quantised="", gate=None
    )


def _report_resumed(run: Run, report: Progress, done: Sequence[int]) -> int:
    """Report the parts that are there already, decide on them where another policy did, and return their samples."""
    samples = 0
    for number in done:
        counts = resumed_counts(run, number)
        samples += counts["seen"]
        report({n: counts[n] for n in ("seen", "kept", "excluded", "unscored")} | {"resumed": counts["seen"]})
    return samples
