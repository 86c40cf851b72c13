"""``officer keygen``, ``officer open`` and ``officer report``: the sealed records, for the officer alone."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from safetyfilter.cli.app import Application, JsonOption, app
from safetyfilter.cli.output import emit, show_error, show_note, show_warning
from safetyfilter.cli.passphrase import PassphraseFileOption, passphrase_from
from safetyfilter.cli.progress import step

officer_app = Application(no_args_is_help=True, help="The officer's keys, and the sealed records that they open.")
app.add_typer(officer_app, name="officer")


@officer_app.command()
def keygen(
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="A new file for the private keys; the public key goes to OUT.pub.")
    ],
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Make the officer's keys: OUT stays with the officer, OUT.pub goes to the machines that scan."""
    from safetyfilter.sealed.private_keys import require_new, write_keys

    require_new(out)  # before a passphrase is asked for
    passphrase = passphrase_from(passphrase_file, new=True)
    with step("making keys"):
        public = write_keys(out, passphrase)
    show_note("Nobody can open the records without the passphrase and OUT: keep a copy of each, apart from the other.")
    shown = Table(show_header=False)
    shown.add_row("private keys", out)
    shown.add_row("public key", f"{out}.pub")
    shown.add_row("fingerprint", public.spoken_fingerprint)
    result = {"private_keys": out, "public_key": f"{out}.pub", "fingerprint": public.fingerprint}
    emit(result, as_json=json, shown=shown)


@officer_app.command(name="open")
def open_(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run directory.", show_default=False)],
    key: Annotated[str, typer.Option(metavar="FILE", help="The private keys.", show_default=False)],
    to: Annotated[str, typer.Option(metavar="OUT.jsonl", help="A new file outside RUN.", show_default=False)],
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Save what can be opened where something is missing or altered; exit 1.")
    ] = False,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
) -> None:
    """Decrypt the sealed records of RUN to a new file that its owner alone can read."""
    from safetyfilter.runs.run import Run
    from safetyfilter.runs.sealed_records import save_records
    from safetyfilter.sealed.keys import key_content
    from safetyfilter.sealed.private_keys import PrivateKeys

    opened = Run.open(run)
    key_content(key)  # there must be one before a passphrase is asked for
    keys = PrivateKeys.open(key, passphrase_from(passphrase_file))
    with step("opening sealed records"):
        saved = save_records(opened, keys, to, damaged=damaged)
    show_warning(
        f"{saved.path} is in the clear: keep it from everyone but the officer. Open no file or URL that it names; "
        "a record is a suspicion, not a finding. docs/what-now.md says what to do next."
    )
    if notice := opened.record.setup.pair.notice:
        show_warning(notice)
    shown = Table(show_header=False)
    shown.add_row("opened records", saved.path)
    shown.add_row("records", f"{saved.records:,}")
    result = {"run": run, "opened": saved.path, "records": saved.records, "faults": list(saved.faults)}
    emit(result, as_json=json, shown=shown)
    if saved.faults:
        show_error(f"not all sealed records could be opened: {'; '.join(saved.faults)}; restore them from a copy")
        raise typer.Exit(1)


@officer_app.command(name="report")
def report_(
    records: Annotated[str, typer.Argument(metavar="OUT.jsonl", help="What `officer open` wrote.", show_default=False)],
    to: Annotated[str, typer.Option(metavar="FOLDER", help="A new folder.", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Draft reports to a hotline, as JSON and XML, for a person to check, fill in and send; sends and opens nothing."""
    from safetyfilter.sealed.hotline import draft_reports
    from safetyfilter.sealed.opened import read_records

    drafts = draft_reports(read_records(records), to)
    if drafts.without_url:
        show_warning(
            f"{drafts.without_url:,} records have no URL. A record without provenance helps nobody: say where the data "
            "set comes from."
        )
    show_note("Nothing was sent. Each draft says what is to be filled in; take legal advice before you send one.")
    shown = Table(show_header=False)
    shown.add_row("drafts", drafts.folder)
    shown.add_row("reports", f"{drafts.drafts:,}")
    for name, count in drafts.records.items():
        shown.add_row(f"records of {name}", f"{count:,}")
    result = {
        "folder": drafts.folder,
        "reports": drafts.drafts,
        "records": dict(drafts.records),
        "without_url": drafts.without_url,
    }
    emit(result, as_json=json, shown=shown)
