"""``demo``: the whole job on stand-ins, without a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from safetyfilter.cli.app import JsonOption, app
from safetyfilter.cli.importing import large_imports
from safetyfilter.cli.output import counts_table, emit
from safetyfilter.cli.progress import sample_progress


@app.command()
def demo(
    out: Annotated[str | None, typer.Option(help="A new or empty directory.", show_default="safetyfilter-demo")] = None,
    json: JsonOption = False,
) -> None:
    """Do the whole job on harmless stand-ins: a three for one signal, a seven for the other."""
    with large_imports():
        from safetyfilter.standin.demo import run_demo

    result = run_demo(out or _new("safetyfilter-demo"), step=sample_progress)
    emit(result, as_json=json)
    if not json:
        _show(result)


def _new(name: str) -> Path:
    """A directory of this name that is not there yet."""
    names = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    return next(path for path in map(Path, names) if not path.exists())


def _show(result: Mapping[str, Any]) -> None:
    console = Console(markup=False)
    paths = result["paths"]
    counts = {name: result[name] for name in ("seen", "kept", "excluded")} | result["reasons"]
    console.print(counts_table("The stand-in data set", counts))
    figures = Table(title="On pictures, handwriting and backgrounds that no training saw", title_justify="left")
    figures.add_column("measured")
    figures.add_column("result", justify="right")
    for signal, value in result["auc"].items():
        figures.add_row(
            f"AUC for a {signal}: trained probe (zero-shot)", f"{value:.3f} ({result['zero_shot_auc'][signal]:.3f})"
        )
    figures.add_row(
        "pictures holding both that were excluded",
        f"{result['pairs_excluded']} of {result['pairs']} ({result['rule_recall']:.1%})",
    )
    figures.add_row(
        "other pictures that were excluded",
        f"{result['others_excluded']} of {result['others']} ({result['rule_wrongly_excluded']:.1%})",
    )
    console.print(figures)
    console.print(
        f"Everything lies below {Path(paths['run']).parent}: pictures/ in, cleaned/ out, and the record of "
        f"the run in run/. It took {result['seconds']:.0f} seconds.\nThe probes never saw a three and a "
        "seven in one picture; the stand-in encoder scores nothing real.\n",
        highlight=False,
    )
    console.print(
        "Next, each a command that works here; put a folder of your own in the place of the second's:", style="bold"
    )
    for command in (
        f"safetyfilter decide {paths['run']} --policy {paths['strict_policy']}",
        f"safetyfilter scan {paths['validation']} --out {paths['run']}-folder --encoder stand-in "
        f"--probes {paths['probes']} --policy {paths['policy']}",
        f"safetyfilter export {paths['run']} --source {paths['pictures']} --to {paths['run']}-keys.txt --format keys",
        f"safetyfilter report {paths['run']}",
    ):
        console.print(f"  {command}", soft_wrap=True, highlight=False)
    console.print(
        "For real scores leave out --encoder, --probes and --policy: the default encoder is CLIP ViT-L/14, "
        "whose weights (1.7 GB) are downloaded once.",
        highlight=False,
    )
