"""``probes fetch`` and ``probes convert``: LAION's published detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from safetyfilter.cli.app import Application, JsonOption, app
from safetyfilter.cli.output import emit
from safetyfilter.cli.progress import step

probes_app = Application(no_args_is_help=True, help="Published probes.")
app.add_typer(probes_app, name="probes")

FolderOption = Annotated[str | None, typer.Option(help="A folder; the user's cache where left out.")]


@probes_app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="laion-l14, laion-b32 or laion-h14.")],
    to: FolderOption = None,
    json: JsonOption = False,
) -> None:
    """Download one of LAION's published detectors, check that it is the published one, and convert it to a probe."""
    from safetyfilter.score.convert.fetch import fetch_probes

    with step(f"fetching {name}"):
        path = fetch_probes(name, to=to)
    _show(path, use=name if to is None else str(path), as_json=json)


@probes_app.command()
def convert(
    file: Annotated[str, typer.Argument(metavar="FILE", help="LAION's file, downloaded elsewhere.")],
    to: FolderOption = None,
    json: JsonOption = False,
) -> None:
    """Convert a downloaded detector of LAION's to a probe, after a check that it is a published one."""
    from safetyfilter.score.convert.detector import convert_detector

    path = convert_detector(file, to=to)
    _show(path, use=path.stem if to is None else str(path), as_json=json)


def _show(path: Path, *, use: str, as_json: bool) -> None:
    shown = Table(show_header=False)
    shown.add_row("file", str(path))
    shown.add_row("use it", f"--probes {use}")
    emit({"probes": use, "path": str(path)}, as_json=as_json, shown=shown)
