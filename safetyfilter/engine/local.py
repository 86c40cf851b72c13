"""The engine of one machine: scores on its devices, and records each part in this process."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from safetyfilter.embed.devices import resolve_device
from safetyfilter.engine.base import Recorded, Work
from safetyfilter.engine.parts import score_parts
from safetyfilter.engine.processes import devices_of, score_on_devices
from safetyfilter.engine.self_check import self_checked
from safetyfilter.filter import SafetyFilter
from safetyfilter.progress import Progress
from safetyfilter.runs.scored_part import ScoredPart


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEngine:
    """Scores in this process, or in one for each of several devices.

    Parameters
    ----------
    devices : sequence of str or None
        A process for each; where None, every GPU of the machine if the encoder is on ``cuda``, else its own device.

    Examples
    --------
    >>> LocalEngine(devices=["cuda:0", "cuda:1"]).devices
    ['cuda:0', 'cuda:1']
    """

    devices: Sequence[str] | None = None

    def prepared(self, safety_filter: SafetyFilter) -> SafetyFilter:
        """Return the filter on the one device that is named; `DeviceError` where a device does not exist."""
        used = [resolve_device(device) for device in self.devices or ()]
        if len(used) == 1 and used[0] != safety_filter.encoder.device:
            return replace(safety_filter, encoder=safety_filter.encoder.on(str(used[0])))
        return safety_filter

    def record(self, work: Work, report: Progress) -> Generator[Recorded, None, None]:
        """Score and record parts, as `Engine.record` says."""
        if work.parts:
            work = self_checked(work)
        with closing(self._scored(work, report)) as scored:
            for part in scored:
                counts = work.run.write(part, work.numbers[part.index])
                if work.job.checkpoints:
                    work.job.checkpoints.remove(part.state)
                yield Recorded(index=part.index, counts=counts)

    def _scored(self, work: Work, report: Progress) -> Generator[ScoredPart, None, None]:
        devices = [str(resolve_device(device)) for device in self.devices or devices_of(torch.device(work.device))]
        devices = devices[: len(work.parts)]
        if len(devices) > 1:
            yield from score_on_devices(work.job, work.parts, devices, report=report)
        else:
            yield from score_parts(work.job, work.parts, report=report)
