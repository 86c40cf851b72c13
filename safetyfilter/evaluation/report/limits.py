"""The limits of the method in plain words, and those that one run has besides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from safetyfilter.decide.gate_fit import gate_misfits
from safetyfilter.runs.record import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit of what the filter can do.

    Attributes
    ----------
    title : str
        A few words, without a full stop.
    text : str
        Sentences.
    """

    title: str
    text: str


LIMITS: tuple[Limit, ...] = (
    Limit(
        title="A classifier misses some",
        text="No threshold finds everything, and a policy is only as good as the probes behind it. Of the items that "
        "the Stanford Internet Observatory suspected in LAION-5B's index in 2023, 92 had a score for explicit content "
        "below 0.95: a cut on one score misses some.",
    ),
    Limit(
        title="The probe for minors is the weak link",
        text="Published detection of minors in pictures is far weaker than that of explicit content: the best "
        "true-positive rate is 75 %, and 94 % with captions. LAION's detectors of explicit content reach accuracies of "
        ".960 and .961 on a balanced set of 3,000 pictures. The rule for both signals misses what either probe misses.",
    ),
    Limit(
        title="Classifiers and hash lists belong together",
        text="Known material is found reliably by hash lists alone; the probes are for what no list knows. Neither "
        "replaces the other. LAION, which republished its data set after removing 2,236 links that matched "
        "such lists, concludes that classifiers alone are not reliable enough.",
    ),
    Limit(
        title="The rule for each picture is a floor",
        text="A model composes what it never saw together. To keep out what it would compose from, all samples with "
        "explicit content, all samples with minors, or both must be excluded; the policy says which of these was done.",
    ),
    Limit(
        title="A decision holds for the bytes that it was made on",
        text="It is bound to a digest of them. A picture that was downloaded again, resized or encoded anew is another "
        "one, of which nothing is known; users of downloading tools report that about 15 % of the files differ when "
        "a data set is downloaded again.",
    ),
    Limit(
        title="Only pictures are looked at, and each by itself",
        text="A member of a sample that is not recognised as a picture, such as an archive or a sound, is not seen. "
        "Small or hidden things in a large picture are missed more often. Nothing is known of what other files, "
        "captions or links would add.",
    ),
    Limit(
        title="An exclusion is not a finding about a sample",
        text="It says that scores reached thresholds, or that a sample could not be scored. Nobody has looked at it "
        "for this. The counts are not counts of unlawful material, and a count of 0 does not mean that there is none.",
    ),
    Limit(
        title="A digest does not say how a probe was made",
        text="Whether the probes were trained on labelled pictures or written by text prompts, and how good they are, "
        "is not in the run's record; their digests are. Zero-shot probes, those of text prompts, are a starting point, "
        "and worth accordingly.",
    ),
    Limit(
        title="A filtered set tells what was left out to whoever holds its source",
        text="The record names no sample, and its rows say nothing without the run's secret. The filtered set itself "
        "says more: compared with the source, its gaps are what was excluded, for whatever reason.",
    ),
    Limit(
        title="What is to be done about a source is a legal question",
        text="The filter deletes nothing and reports to nobody. What is to be done about a source that holds such "
        "material is for its holder, and in many countries there is a duty to report; ask before anybody looks.",
    ),
)
"""The limits of the method, whatever the run: the most important first."""


def limits_of(record: RunRecord) -> tuple[Limit, ...]:
    """Return the limits that a run has by the way it was made, and behind them `LIMITS`.

    Parameters
    ----------
    record : RunRecord
        Of a complete run.
    """
    return (*_of_run(record), *LIMITS)


def _of_run(record: RunRecord) -> Iterator[Limit]:
    setup = record.setup
    if setup.pair.notice:
        yield Limit(title="Other signals stand in for the real ones", text=setup.pair.notice)
    if record.policy.warning:
        yield Limit(title="The rule may exclude next to nothing", text=record.policy.warning)
    if record.source.kind == "embeddings":
        yield Limit(
            title="No picture was seen",
            text="Embeddings were scored that had been stored before. That they are this encoder's, that they are of "
            "the samples they stand for, and how much of each picture they show, is as whoever stored them says. Of "
            "a file of several pictures they may show one.",
        )
    elif setup.views == "center":
        yield Limit(
            title="The centre of each picture was seen",
            text="The encoder's own preprocessing crops a picture that is not of its shape, and what it cut off no "
            "probe can flag.",
        )
    elif setup.gate is not None:
        yield Limit(
            title="Some pictures were looked at closer, and others were not",
            text="The crops of a picture were embedded only where the scores of the whole picture passed the gate "
            f"{setup.gate.text}. What the crops of the others would have shown is not known."
            + "".join(f" {line[0].upper()}{line[1:]}." for line in gate_misfits(record.policy, setup.gate)),
        )
    if not setup.hash_lists and not record.counts.get("known_hash"):
        yield Limit(
            title="No list of known content was used",
            text="No sample of this run was held against such a list. Scan with hash lists, or hold the data set "
            "against them beside this filter.",
        )
    if record.hash_unchecked:
        yield Limit(
            title="Not all samples were held against all lists of known content",
            text=f"{record.hash_unchecked:,} samples are on no list, and could not be held against all of one: they "
            "had no picture that could be read, none with a perceptual hash that says enough, or no URL. They were "
            "decided by their scores alone.",
        )
