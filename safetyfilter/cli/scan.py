"""``scan``."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from safetyfilter.cli.app import (
    POLICY_HELP,
    AcceptOption,
    ColumnOption,
    JsonOption,
    KeyOption,
    RootOption,
    UrlColumnOption,
    app,
)
from safetyfilter.cli.engines import EngineName, engine_for
from safetyfilter.cli.importing import large_imports
from safetyfilter.cli.interruption import resumable
from safetyfilter.cli.output import (
    emit,
    result_of,
    show_note,
    show_warning,
    show_warnings_of_calibration,
)
from safetyfilter.cli.progress import sample_progress, step
from safetyfilter.errors import UsageError

if TYPE_CHECKING:
    from safetyfilter.decide.policy import Policy
    from safetyfilter.embed.clip.named import NamedEncoder
    from safetyfilter.embed.encoder import ClipEncoder
    from safetyfilter.score.bank import ProbeBank

_DEFAULT = "ViT-L-14-quickgelu"


@app.command()
def scan(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="A folder of images, WebDataset tars, Parquet files, a data set saved to disk, or stored embeddings; "
            "or several of them.",
        ),
    ],
    out: Annotated[str, typer.Option(help="The run directory: new, or that of the same scan, which then goes on.")],
    encoder: Annotated[
        str | None,
        typer.Option(
            help="A model that open_clip lists, hf-hub:ORG/REPO, local-dir:FOLDER, or stand-in; of stored embeddings, "
            "the one that they came from.",
            show_default=_DEFAULT,
        ),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            help="A tag that open_clip lists, or a checkpoint file; of stored embeddings also sha256: and the "
            "encoder's digest."
        ),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(
            help="A tag, such as openai, or a path to an open_clip_config file: what images go through before a "
            "checkpoint's weights, where nothing else tells."
        ),
    ] = None,
    probes: Annotated[
        list[str] | None,
        typer.Option(
            help="zero-shot, laion-l14, laion-b32, laion-h14 or a file; may be given more than once, and the higher "
            "score counts.",
            show_default="zero-shot",
        ),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help=POLICY_HELP, show_default="that of the run in OUT, else co-occurrence")
    ] = None,
    engine: Annotated[EngineName, typer.Option(help="local: this machine; ray: a Ray cluster.")] = EngineName.local,
    address: Annotated[
        str | None,
        typer.Option(help="For Ray: auto, or the cluster's address.", show_default="RAY_ADDRESS, else this machine"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="For Ray: how many.", show_default="one for each GPU or machine")
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, max=1, help="For Ray: a share, such as 0.5, or 0.", show_default="1")
    ] = None,
    batch_size: Annotated[str, typer.Option(help="Images a forward pass, or auto.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, fp32, bf16, fp16, int8 (for the CPU) or fp8 (for GPUs from Hopper on).")
    ] = "auto",
    no_compile: Annotated[
        bool,
        typer.Option(
            "--no-compile",
            help="Leave the encoder as it is; on a GPU it is compiled when the first batch comes, in half a minute.",
        ),
    ] = False,
    quantise_on: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="For int8: take the pictures that the encoder is quantised on from here.",
            show_default="those of the scan",
        ),
    ] = None,
    views: Annotated[str, typer.Option(help="whole, center, multi or adaptive.")] = "whole",
    gate: Annotated[
        str | None,
        typer.Option(
            metavar="SIGNAL=SCORE,...",
            help="For adaptive views: the score of the whole picture below which each signal is clearly absent.",
            show_default="by the probes' cards",
        ),
    ] = None,
    decode: Annotated[str, typer.Option(help="fast or exact.")] = "fast",
    hash_list: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="A list of hashes of known content, also KIND=FILE; may be given more than once. What is on one is "
            "excluded, whatever its scores.",
        ),
    ] = None,
    officer_key: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.pub",
            help="Of each sample that is excluded for co-occurrence or as known content, seal a record to this key, "
            "for the officer alone.",
        ),
    ] = None,
    keep_embeddings: Annotated[bool, typer.Option("--keep-embeddings", help="Keep them in float16.")] = False,
    secret_from: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="For a new run: take the secret of RUN, so that `decide` can join the two."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads or processes that decode images, of each worker.", show_default="one for each core"
        ),
    ] = None,
    decoders: Annotated[
        str,
        typer.Option(
            help="threads; processes, so that a decoder that crashes costs one image; or auto: processes for a GPU."
        ),
    ] = "auto",
    limit: Annotated[
        int | None, typer.Option(min=1, help="For a trial: no more than the first N samples, as a run of their own.")
    ] = None,
    part_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Samples that are recorded together, about.", show_default="10,000; embeddings 1,000,000"
        ),
    ] = None,
    normalise: Annotated[
        bool, typer.Option("--normalise", help="Accept stored embeddings of any norm, and divide each by it.")
    ] = False,
    keys: Annotated[
        str | None, typer.Option(help="The file of keys of a .npy array: .parquet, .txt with a key a line, or .npy.")
    ] = None,
    image_column: ColumnOption = None,
    key_column: KeyOption = None,
    url_column: UrlColumnOption = None,
    root: RootOption = None,
    accept_uncertified: AcceptOption = False,
    json: JsonOption = False,
) -> None:
    """Embed and score every sample of SOURCE, and decide what to keep."""
    from safetyfilter.decide.policy import Policy
    from safetyfilter.decide.sentences import cut_warning
    from safetyfilter.evaluation.places import run_at
    from safetyfilter.hashes.lists import HashLists
    from safetyfilter.runs.run import Run
    from safetyfilter.runs.start import check_output
    from safetyfilter.score.gate import Gate
    from safetyfilter.sealed.keys import OfficerKey
    from safetyfilter.sources import open_source

    # Everything that can be wrong is found out before a file is written, the cheap checks first.
    policy_used = None if policy is None else Policy.load(policy)
    if gate is not None and views != "adaptive":
        raise typer.BadParameter("it is for --views adaptive; leave it out", param_hint="'--gate'")
    floors = None if gate is None else Gate.parse(gate)
    batch = _batch_size(batch_size)
    if quantise_on is not None and precision != "int8":
        raise typer.BadParameter("it is for --precision int8; leave it out", param_hint="'--quantise-on'")
    using = engine_for(engine, address=address, workers=workers, gpus_per_worker=gpus_per_worker, device=device)
    check_output(out)
    before = run_at(out)
    of_secret = None if secret_from is None else Run.open(secret_from)
    if of_secret is not None:
        of_secret.digester()  # which must be there
    # what was accepted for the run's own policy need not be accepted again
    accepted = accept_uncertified or (policy is None and before is not None and before.record.accepted_uncertified)
    policy_used = policy_used or (before.policy if before else Policy())  # to go on must not loosen what was decided
    how: dict[str, Any] = {"url_column": url_column, "root": root, "limit": limit, "part_size": part_size, "keys": keys}
    given = {name: value for name, value in how.items() if value is not None}
    opened = open_source(
        source[0] if len(source) == 1 else source, image_column=image_column, key_column=key_column, **given
    )
    check_output(out, opened)
    if precision == "int8" and opened.kind == "embeddings":
        raise UsageError("the source holds stored embeddings, which are scored as they are; leave --precision int8 out")
    own_pictures = None if quantise_on is None else open_source(quantise_on)
    officer = None if officer_key is None else OfficerKey.load(officer_key)
    with step("reading the hash lists"):
        lists = HashLists.load(hash_list) if hash_list else None

    with large_imports():
        from safetyfilter.embed.clip.names import resolved
        from safetyfilter.embed.encoder import ClipEncoder
        from safetyfilter.embed.options import EmbedOptions
        from safetyfilter.engine.in_int8 import in_int8, require_int8
        from safetyfilter.engine.scan import scan as run_scan
        from safetyfilter.filter import SafetyFilter
        from safetyfilter.sources.base import samples_of
        from safetyfilter.standin import ENCODER, STANDIN_PAIR

    decoding: dict[str, Any] = {"decode": decode, "decoders": decoders, "workers": threads}
    options = EmbedOptions(batch_size=batch, views=views, **decoding)  # type: ignore[arg-type]
    files = _probe_files(probes or ["zero-shot"], policy_used)
    stored = opened.kind == "embeddings"
    load: dict[str, Any] = {"preprocess": preprocess, "device": device, "precision": precision}
    load["compile"] = False if no_compile else "auto"
    if precision == "int8":
        require_int8(device)
        load["precision"] = "fp32"
    with step("loading the encoder"):
        named = _named(encoder, pretrained) if stored else None
        loaded = named or ClipEncoder.load(encoder or _DEFAULT, pretrained=pretrained, **load)
    if precision == "int8" and isinstance(loaded, ClipEncoder):
        with step("quantising the encoder on pictures of yours"):
            loaded = in_int8(loaded, own_pictures or opened, before if own_pictures is None else None)
    with step("making the probes"):
        bank = _bank(files, loaded, stand_in=resolved(encoder or _DEFAULT) == ENCODER)
        safety_filter = SafetyFilter(loaded, bank, policy_used, options, normalise, lists, floors, accepted)
    started = time.perf_counter()
    unit = "embeddings" if stored else "images"
    with resumable(), sample_progress("scanning", samples_of(opened), parts=len(opened.parts()), unit=unit) as progress:
        run = run_scan(
            opened,
            out,
            safety_filter,
            keep_embeddings=keep_embeddings,
            engine=using,
            secret_from=of_secret,
            officer=officer,
            progress=progress,
        )
    seconds = time.perf_counter() - started
    for change in run.policy.changes_from(before.policy) if before else []:  # so that none is loosened unseen
        show_warning(change)
    if policy is not None and (warning := cut_warning(policy, run.record.setup.probes)):
        show_warning(warning)
    if policy is not None or run.record.accepted_uncertified:  # what was accepted once is told each time
        show_warnings_of_calibration(run)
    notice = run.record.setup.pair.notice
    if notice:
        show_warning(notice)
    result, table = result_of(run)
    emit(
        {"run": out, **result, "stand_in": STANDIN_PAIR.notice in notice, "seconds": round(seconds, 3)},
        as_json=json,
        shown=table,
    )
    any_scored = run.counts["unscored"] < run.counts["seen"]
    if any_scored and None in files and run.policy.thresholds == Policy().for_pair(run.policy.pair).thresholds:
        show_note(
            f"Zero-shot thresholds are not calibrated: 0.5 is a guess. Next: `safetyfilter calibrate {out} "
            "LABELS.parquet --out policy.toml` with labelled samples of yours (or LABELS.csv), then `safetyfilter "
            f"decide {out} --policy policy.toml`; or train probes with `safetyfilter train`."
        )


def _named(encoder: str | None, pretrained: str | None) -> NamedEncoder | None:
    """The encoder that stored embeddings came from, by name alone; None for one that is at hand, and known when loaded.

    Raises
    ------
    UsageError
        None was named: those of another encoder of the same width would be scored wrongly, and nothing would tell.
    """
    from safetyfilter.embed.clip.named import NamedEncoder
    from safetyfilter.embed.libraries import open_clip
    from safetyfilter.storage import Location

    if encoder is None:
        raise UsageError(
            "the source holds stored embeddings, and they don't tell what encoder they came from: name it, as "
            "--encoder ViT-L-14-quickgelu --pretrained openai for LAION's"
        )
    at_hand = pretrained is not None and not pretrained.startswith("sha256:") and Location.of(pretrained).is_file()
    return None if encoder not in open_clip.list_models() or at_hand else NamedEncoder.named(encoder, pretrained)


def _batch_size(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdigit() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither a whole number from 1 nor auto", param_hint="'--batch-size'")
    return int(text)


def _probe_files(names: list[str], policy: Policy) -> list[ProbeBank | None]:
    """The probes that are files, None for zero-shot ones; checked before an encoder is downloaded for them."""
    from safetyfilter.filter import policy_for
    from safetyfilter.score.bank import ProbeBank

    banks = [None if name == "zero-shot" else ProbeBank.load(name) for name in names]
    if (files := [bank for bank in banks if bank is not None]) and len(files) == len(banks):
        policy_for(policy, reduce(add, files))
    return banks


def _bank(files: list[ProbeBank | None], encoder: ClipEncoder | NamedEncoder, *, stand_in: bool) -> ProbeBank:
    """One bank; with the stand-in encoder its pair says so, whatever the signals are called."""
    from safetyfilter.score.zero_shot import zero_shot_probes
    from safetyfilter.standin import PROMPTS, STANDIN_PAIR

    made = [
        zero_shot_probes(encoder, PROMPTS if stand_in else None) if bank is None else bank.bind(encoder.spec)
        for bank in files
    ]
    bank = reduce(add, made)
    if stand_in and STANDIN_PAIR.notice not in bank.pair.notice:
        notice = f"{STANDIN_PAIR.notice} {bank.pair.notice}".strip()
        bank = replace(bank, pair=replace(bank.pair, notice=notice))
    return bank
