"""``attest`` and ``verify``: a signed statement about a run, and what of it holds."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Column, Table

from safetyfilter.cli.app import JsonOption, app
from safetyfilter.cli.output import emit, titled
from safetyfilter.cli.passphrase import PassphraseFileOption, passphrase_from
from safetyfilter.cli.progress import sample_progress

_STYLES = {True: "green", False: "bold red", None: "yellow"}


@app.command()
def attest(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run directory.", show_default=False)],
    key: Annotated[
        str, typer.Option(metavar="FILE", help="The private keys, from `officer keygen`.", show_default=False)
    ],
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Sign a statement that binds the data, encoder, probes, policy and decisions of RUN together."""
    from safetyfilter.attest.sign import attest_run
    from safetyfilter.runs.run import Run
    from safetyfilter.sealed.keys import key_content
    from safetyfilter.sealed.private_keys import PrivateKeys

    opened = Run.open(run)
    seen = opened.counts["seen"]  # a run that is not finished is told of before a passphrase is asked for
    key_content(key)  # nor where there is no key
    keys = PrivateKeys.open(key, passphrase_from(passphrase_file))
    with sample_progress("reading", seen, unit="samples") as progress:
        statement = attest_run(opened, keys, progress=progress)
    place = str(opened.path / "attestation.json")
    shown = Table("what", Column("is", overflow="fold"), show_header=False)
    shown.add_row("attestation", place)
    shown.add_row("key", keys.public.spoken_fingerprint)
    shown.add_row("rows", f"{opened.counts['seen']:,}, Merkle root {statement.rows}")
    shown.add_row("kept", f"{opened.counts['kept']:,}, Merkle root {statement.kept}")
    result = {
        "run": run,
        "attestation": place,
        "key": keys.public.fingerprint,
        "attested": statement.attested,
        "seen": opened.counts["seen"],
        "kept": opened.counts["kept"],
        "rows_root": statement.rows,
        "kept_root": statement.kept,
    }
    emit(result, as_json=json, shown=shown)


@app.command()
def verify(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run directory.", show_default=False)],
    key: Annotated[str, typer.Option(metavar="FILE.pub", help="The officer's public key.", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Hold RUN against its attestation, without a sample and without the run's secret; exit 1 unless all holds."""
    from safetyfilter.attest.verify import verify_run

    with sample_progress("verifying", None, unit="samples") as progress:
        done = verify_run(run, key, progress=progress)
    shown = Table("what", "state", Column("found", overflow="fold"))
    for claim in done.claims:
        shown.add_row(claim.what, claim.state, claim.found, style=None if claim.holds else _STYLES[claim.holds])
    emit(done.as_dict(), as_json=json, shown=titled(str(done.run), shown))
    done.require()
