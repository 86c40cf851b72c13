"""The local engine: scans a source on this machine's device, and re-decides a run without an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetyfilter.batches import STANDIN_SIGNALS, SignalTable
from safetyfilter.decide.policy import Policy
from safetyfilter.engine.processes import devices_of, score_on_devices
from safetyfilter.engine.scoring import Progress, score_parts
from safetyfilter.errors import RunError
from safetyfilter.filter import SafetyFilter
from safetyfilter.runs.decisions import index_of
from safetyfilter.runs.run import Run, RunSetup
from safetyfilter.sources import Source


def scan(
    source: Source,
    out: str | Path,
    safety_filter: SafetyFilter,
    *,
    keep_embeddings: bool = False,
    devices: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Run:
    """Score and decide on every sample of a source, and leave a run directory.

    A scan that was interrupted goes on where it stopped: a part whose source, encoder and probes are unchanged is not
    done again.

    Parameters
    ----------
    source : Source
        From `open_source`.
    out : path
        The run directory: new, empty, or that of the same scan.
    safety_filter : SafetyFilter
        Encoder, probes, policy and how images are prepared.
    keep_embeddings : bool
        Also keep the embeddings, in float16.
    devices : sequence of str or None
        A process for each; where None, every GPU of the machine if the encoder is on ``cuda``, else its own device.
    progress : callable or None
        Called as the scan goes on.

    Returns
    -------
    Run
        Complete, with counts that add up.

    Raises
    ------
    OtherRunError, OutputError
        See `Run.start`.
    """
    run = Run.start(out, source=source, setup=run_setup(safety_filter), policy=safety_filter.policy)
    with run.writing():
        digester = run.digester()
        report = progress or _silent
        todo = [p for p in source.parts() if not run.is_scored(p, digester, embeddings=keep_embeddings)]
        used = list(devices or devices_of(safety_filter.encoder.device))[: len(todo)]
        if len(used) > 1:
            score_on_devices(run, source, todo, safety_filter, used, keep_embeddings=keep_embeddings, report=report)
        else:
            score_parts(run, source, todo, safety_filter, keep_embeddings=keep_embeddings, report=report)
        return apply_policy(run, safety_filter.policy, progress=_only_resumed(report, {part.index for part in todo}))


def apply_policy(run: Run, policy: Policy, *, progress: Progress | None = None) -> Run:
    """Apply a policy to a run's stored scores; no image is touched.

    Parameters
    ----------
    run : Run
        With all its parts scored.
    policy : Policy
        In the real signals' names, or in the run's own.
    progress : callable or None
        Called after each part.

    Raises
    ------
    PolicyError
        The policy names a signal that the run has no scores of.
    RunError
        A part has no scores; scan again.
    """
    table = SignalTable.of(run.info["signals"])
    policy = policy.for_table(table) if table else policy
    policy.require(run.info["signals"])
    run.info |= {"complete": False}
    run.write_info()
    total: Counter[str] = Counter()
    for index in range(run.part_count):
        if not run.file("scores", index).exists():
            raise RunError(
                f"part {index} of {run.path} has no scores; run the same scan again, which does only what is missing"
            )
        counts = run.decide_part(index, policy)
        total.update(counts)
        if progress:
            progress({name: counts[name] for name in ("seen", "kept", "excluded", "unscored")} | {"parts": index})
    run.finish(total, policy)
    index_of(run)  # now, so that no training job waits for it
    return run


def run_setup(safety_filter: SafetyFilter) -> RunSetup:
    """What the scores of a scan with this filter depend on."""
    encoder, probes, options = safety_filter.encoder, safety_filter.probes, safety_filter.options
    return RunSetup(
        encoder=encoder.spec.as_dict(),
        stand_in=SignalTable.of(probes.signals) == STANDIN_SIGNALS,
        probes=probes.digests,
        signals=probes.signals,
        views=options.views,
        decode=options.decode,
        precision=str(encoder.dtype).removeprefix("torch."),
    )


def _silent(_: Mapping[str, int]) -> None:
    pass


def _only_resumed(report: Progress, scored: set[int]) -> Progress:
    """Reports the parts that were already there; those just scored were reported batch by batch."""

    def resumed(counts: Mapping[str, int]) -> None:
        if counts["parts"] not in scored:
            report({**counts, "resumed": counts["seen"]})

    return resumed
