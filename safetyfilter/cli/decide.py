"""``decide``."""

from __future__ import annotations

from typing import Annotated

import typer

from safetyfilter.cli.app import POLICY_HELP, AcceptOption, JsonOption, app
from safetyfilter.cli.output import emit, result_of, show_warning, show_warnings_of_calibration
from safetyfilter.cli.progress import sample_progress
from safetyfilter.errors import UsageError


@app.command()
def decide(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="The run directory; further runs of the same source, made with other encoders, are decided by too.",
            show_default=False,
        ),
    ],
    policy: Annotated[
        str | None,
        typer.Option(help=POLICY_HELP, show_default="with --also-near or several runs, that of the first RUN"),
    ] = None,
    also_near: Annotated[
        float | None,
        typer.Option(
            metavar="COSINE",
            help="Also exclude kept samples whose embedding lies within this cosine, from 0.9 to 1, of that of a "
            "co-occurrence exclusion; the run has kept embeddings.",
        ),
    ] = None,
    accept_uncertified: AcceptOption = False,
    json: JsonOption = False,
) -> None:
    """Apply another policy to the scores of RUN, without touching an image.

    Of several runs the decisions are written into the first.
    """
    from safetyfilter.decide.policy import Policy
    from safetyfilter.decide.sentences import cut_warning
    from safetyfilter.runs.apply import apply_policy
    from safetyfilter.runs.failures import stored_counts
    from safetyfilter.runs.run import Run

    if policy is None and also_near is None and len(runs) == 1:
        raise UsageError("there is nothing to decide by; give --policy, --also-near or further runs of the source")
    loaded = None if policy is None else Policy.load(policy)
    first, *others = [Run.open(run) for run in runs]
    before = first.policy
    policy_used = loaded or before
    total = first.record.counts.get("seen") or stored_counts(first).samples
    with sample_progress("deciding", total, unit="samples") as progress:
        apply_policy(
            [first, *others],
            policy_used,
            also_near=also_near,
            accept_uncertified=accept_uncertified,
            progress=progress,
        )
    for change in first.policy.changes_from(before):
        show_warning(change)
    if policy is not None and (
        warning := cut_warning(policy, [digest for one in (first, *others) for digest in one.record.setup.probes])
    ):
        show_warning(warning)
    if loaded is not None:
        show_warnings_of_calibration(first)
    result, table = result_of(first)
    with_what = {"also_near": also_near, "joined": runs[1:]}
    emit({"run": runs[0], **result, **with_what, "policy": first.policy.as_dict()}, as_json=json, shown=table)
