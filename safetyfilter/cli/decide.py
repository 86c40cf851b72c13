"""``decide``."""

from __future__ import annotations

from typing import Annotated

import typer

from safetyfilter.cli.app import JsonOption, PolicyOption, app
from safetyfilter.cli.output import emit, result_of, show_warning
from safetyfilter.cli.progress import sample_progress


@app.command()
def decide(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run directory.")],
    policy: PolicyOption,
    json: JsonOption = False,
) -> None:
    """Apply another policy to the scores of RUN, without touching an image."""
    from safetyfilter.decide.policy import Policy
    from safetyfilter.decide.sentences import cut_warning
    from safetyfilter.runs.apply import apply_policy
    from safetyfilter.runs.failures import stored_counts
    from safetyfilter.runs.run import Run

    policy_used = Policy.load(policy)
    opened = Run.open(run)
    before = opened.policy
    total = opened.record.counts.get("seen") or stored_counts(opened).samples
    with sample_progress("deciding", total, unit="samples") as progress:
        apply_policy(opened, policy_used, progress=progress)
    for change in opened.policy.changes_from(before):
        show_warning(change)
    if warning := cut_warning(policy, opened.record.setup.probes):
        show_warning(warning)
    result, table = result_of(opened)
    emit({"run": run, **result, "policy": opened.policy.as_dict()}, as_json=json, shown=table)
