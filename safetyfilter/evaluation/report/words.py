"""Sentences on how a set was filtered, for the texts that go with a published data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from safetyfilter.batches import FAILURES, REASON_NAMES
from safetyfilter.evaluation.report.provenance import provenance
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.html_table import share_text
from safetyfilter.runs.record import RunRecord

REASON_WORDS = {
    "co_occurrence": "both signals are present",
    "explicit": "the first of the two signals is present, and the policy excludes it by itself",
    "minor": "the second of the two signals is present, and the policy excludes it by itself",
    "other_signal": "a further signal is present that the policy excludes by itself",
    "known_hash": "the picture's bytes, its looks (PDQ) or its URL are on a list of known content",
    "unscored": "the sample could not be decoded, embedded or scored",
    "drifted": "the pictures were not those that were scored",
    "unknown": "the run whose decisions were applied does not have these bytes",
    "near_excluded": "a near-duplicate of a sample that is excluded for both signals",
}
"""The meaning of each reason, whatever the signals are called."""


VIEW_WORDS = {
    "center": "their centre, as the encoder's own preprocessing crops it",
    "whole": "the whole, squashed to the input",
    "multi": "the whole and four overlapping crops, each squashed to the input",
    "adaptive": "the whole, and of those that its gate picks four overlapping crops, each squashed to the input",
}
"""The parts of a picture that the encoder sees, by the name of the views."""


def listed(values: list[str]) -> str:
    """Return values in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)


def samples(count: int) -> str:
    """Return a count of samples.

    >>> samples(1), samples(3_000)
    ('1 sample', '3,000 samples')
    """
    return f"{count:,} sample{'' if count == 1 else 's'}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Words:
    """Sentences on a run. The words are ours, and all that came from data goes through `quote`.

    Attributes
    ----------
    summary : RunSummary
        The run in counts.
    quote : callable
        A value from the run's record -> the value as it stands in a sentence of the format that is written.
    """

    summary: RunSummary
    quote: Callable[[str], str]

    @property
    def record(self) -> RunRecord:
        """The content of the run's ``run.json``."""
        return self.summary.record

    @property
    def stored(self) -> bool:
        """True where embeddings were scored that had been stored before."""
        return self.record.source.kind == "embeddings"

    @property
    def pair(self) -> str:
        """The names of the two signals."""
        return listed([self.quote(name) for name in self.record.setup.pair.names])

    @property
    def software(self) -> str:
        """The library with its version."""
        return f"safetyfilter {self.quote(self.record.versions.get('safetyfilter', 'of a version not on record'))}"

    def versions(self) -> str:
        """Return the versions of what the library computes with."""
        others = {name: version for name, version in self.record.versions.items() if name != "safetyfilter"}
        return listed(
            [f"{self.quote(name)} {self.quote(version)}" for name, version in others.items()] or ["nothing else"]
        )

    def what(self) -> str:
        """Return what was done, in short."""
        looked = (
            "the stored embedding of every sample was scored"
            if self.stored
            else "every picture of every sample was embedded by an image encoder, and the embedding scored"
        )
        return (
            f"This data set was filtered by a run of {self.software}: {looked} by probes for the signals {self.pair}. "
            "Every sample was excluded in which both signals are present, or which could not be scored."
        )

    def counts(self) -> str:
        """Return the numbers of samples seen, kept and excluded."""
        counts = self.record.counts
        seen, kept, excluded = counts["seen"], counts["kept"], counts["excluded"]
        of_kept, of_excluded = (f" ({share_text(count, seen)})" if seen else "" for count in (kept, excluded))
        return (
            f"Of {samples(seen)} seen, {kept:,}{of_kept} were kept and {excluded:,}{of_excluded} excluded. A sample "
            "may be excluded for several reasons."
        )

    def reasons(self) -> list[tuple[str, int]]:
        """Return the counts by reason: the rule's, that of unscored samples, and all others that occur."""
        counts = {name: self.record.counts[name] for name in REASON_NAMES}
        return [(name, count) for name, count in counts.items() if count or name in ("co_occurrence", "unscored")]

    def encoder(self) -> str:
        """Return the encoder's identity."""
        spec = self.record.setup.encoder
        weights = (
            "weights that were not seen, only named"
            if spec.only_named
            else f"weights of the SHA-256 {self.quote(spec.weights_sha256)}"
        )
        return (
            f"{self.quote(spec.name)}, with {weights}; the digest of its whole identity is {self.quote(spec.digest)}."
        )

    def preprocessing(self) -> str:
        """Return how pictures are prepared for the encoder."""
        setup, spec = self.record.setup, self.record.setup.encoder
        height, width = spec.image_size
        own = (
            f"The encoder takes {height} by {width} pixels, of the mean {_numbers(spec.mean)} and the standard "
            f"deviation {_numbers(spec.std)}; its own resizing is {self.quote(spec.resize_mode)} with "
            f"{self.quote(spec.interpolation)} interpolation, filled with {spec.fill_color}. It gives embeddings of "
            f"{spec.width:,} numbers, taken at the length 1."
        )
        if self.stored:
            return f"{own} The embeddings were stored before ({self.quote(setup.decode)}): the run saw no picture."
        views = f" ({VIEW_WORDS[setup.views]})" if setup.views in VIEW_WORDS else ""
        return (
            f"{own} Views of the pictures: {self.quote(setup.views)}{views}; decoding: {self.quote(setup.decode)}; "
            f"precision: {self.quote(setup.precision)}; version of the preparation: {setup.preparation}. The highest "
            "score of each signal counts, over a sample's pictures, their frames, renderings and views."
        )

    def probes(self) -> str:
        """Return the probes' digests and the signals that they score."""
        setup = self.record.setup
        digests = listed([self.quote(probe) for probe in setup.probes])
        return f"For the signals {listed([self.quote(signal) for signal in setup.signals])}, by digest: {digests}."

    def rule(self) -> str:
        """Return the thresholds, the rule, and what the policy excludes besides."""
        policy = self.record.policy
        thresholds = listed([f"{self.quote(signal)} from {value!r} on" for signal, value in policy.thresholds.items()])
        besides = [
            f"{self.quote(signal)} from {policy.exclude_at.get(signal, policy.thresholds[signal])!r} on"
            for signal in sorted(policy.exclude)
        ]
        return (
            f"Scores lie between 0 and 1, and a signal is present from its threshold on: {thresholds}. A sample in "
            f"which {self.pair} are both present is excluded. "
            + (
                f"Excluded by itself is also {listed(besides)}."
                if besides
                else "No signal excludes a sample by itself."
            )
        )

    def beyond(self) -> Iterator[str]:
        """Yield what decisions rest on besides the policy and the run's own scores."""
        beyond = self.record.decided_with
        if beyond.near is not None:
            yield (
                "Excluded too are samples whose embedding lies near that of a sample with both signals, from a cosine "
                f"of {beyond.near!r} on."
            )
        if beyond.runs:
            others = listed([self.quote(scores) for scores in beyond.runs])
            yield (
                "The scores of several runs of this source were joined: the highest of each signal counts, and a "
                f"sample that one of them has no scores of is excluded. The encoders and probes of the others are on "
                f"record in their runs, whose scores have the digests {others}."
            )
        if self.record.applied_from:
            yield (
                "The decisions were made on another copy of the data set and applied to this one by the bytes of the "
                f"pictures; other bytes are excluded as unknown. Those decisions have the digest "
                f"{self.quote(self.record.applied_from)}."
            )

    def thresholds(self) -> str:
        """Return where the thresholds come from and what is guaranteed."""
        found = provenance(self.record, spread=self.summary.score_spread, quote=self.quote)
        return " ".join([found.origin, found.guarantee, *found.bounds, *found.rests_on, *found.notes, *found.warnings])

    def unscored(self) -> str:
        """Return what became of samples that could not be scored."""
        count = self.record.counts["unscored"]
        causes = sorted(self.summary.failures.items(), key=lambda item: (-item[1], item[0]))
        counted = [f"{FAILURES[name]}, {found:,}" for name, found in causes]
        if rest := max(0, count - sum(self.summary.failures.values())):
            counted.append(f"no score that the policy takes, {rest:,}")
        return (
            "A sample that can't be decoded, embedded or scored is excluded, since nothing is known of it: "
            f"{samples(count)}." + (f" By cause: {'; '.join(counted)}." if counted else "")
        )

    def bound(self) -> str:
        """Return what a decision is bound to."""
        if self.stored:
            return (
                "A decision is bound to a digest of the sample's key. The run saw no picture, so nothing in it tells "
                "whether a picture is the one that was embedded."
            )
        return (
            "A decision is bound to a digest of the sample's key and one of the encoded bytes of its pictures, both "
            "made with a secret that is not published. Bytes that changed since are not those that were decided on; "
            "an export leaves them out."
        )

    def maintenance(self) -> str:
        """Return how the filtered set is to be kept up."""
        return (
            "Pictures that are added or changed have to be scanned; other thresholds can be applied to the scores on "
            "record. A set that was filtered anew has another digest of its decisions; that of this one is "
            f"{self.quote(self.record.decisions_digest)}."
        )

    def digests(self) -> list[tuple[str, str]]:
        """Return the digests by which the run's record can be told, each with its name."""
        record = self.record
        return [
            ("the decisions and all that they rest on", self.quote(record.decisions_digest)),
            ("the scores", self.quote(record.scores)),
            ("the setup", self.quote(record.setup.digest)),
            ("the policy", self.quote(record.policy.digest)),
        ]

    def validity(self) -> str:
        """Return what this text is about, and when it holds for a data set."""
        return (
            f"This describes a run that was started on {self.quote(self.record.created)}. It holds for a data set that "
            "was exported from this run and not changed since."
        )


def _numbers(values: tuple[float, ...]) -> str:
    return f"({', '.join(map(repr, values))})"
