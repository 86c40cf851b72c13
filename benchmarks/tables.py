"""Passages of the documentation that give committed results: ``python benchmarks/tables.py`` fills them in.

On its page each passage stands between two comments, ``<!-- NAME -->`` and ``<!-- end of NAME -->``. A test compares,
so that no number stands there that is not in the JSON.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_tables import float8, gpu, gpu_scan
from int8_tables import int8, int8_amx
from passage_text import table
from quality_passages import adaptive_cost, adaptive_machine, closer, laion, positions, promises, quality, sizes, small

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
NOT_MEASURED = "Not measured yet on a machine with nothing else to do."


def throughput(result: Mapping[str, Any]) -> str:
    """Images a second of the pipeline, and its rate over that of each other."""
    others = ("bare", "bare_in_threads", "plain_loop", "clip_retrieval", "nemo_curator")
    return table(
        ("model, JPEG size", "images/s", "bare model", "the same in threads", "plain loop", "clip-retrieval",
         "NeMo Curator's stage"),
        [
            (
                f"{case['architecture']}, {case['jpeg_side']} px",
                _number(case["images_per_second"]["pipeline"]),
                *(f"{case['ratios'][name]:.2f}" if (name := f"pipeline_over_{o}") in case["ratios"] else "-"
                  for o in others),
            )
            for case in result["cases"]
        ],
    )  # fmt: skip


def feed(result: Mapping[str, Any]) -> str:
    """The rate at which a model that does nothing is fed, over cores times that of one core's decoding."""
    if "feed" not in result:
        return NOT_MEASURED
    found, when = result["feed"], result["measured"]["feed"]
    ways = ("threads", "processes", "auto")
    lines = table(
        ("JPEG size", "one core alone", "all cores at once", *(f"`{way}`" for way in ways),
         *(f"`{way}` over cores times one" for way in ways), "`auto` over all at once"),
        [
            (
                f"{case['jpeg_side']} px",
                *(_number(case["images_per_second"][name]) for name in ("one_core", "all_cores", *ways)),
                *(f"{case['efficiency'][way]:.2f}" for way in ways),
                f"{case['over_all_cores']['auto']:.2f}",
            )
            for case in found["cases"]
        ],
    )  # fmt: skip
    return f"{lines}\n\nMeasured on {found['cores']} cores of {_article(when['cpu'])}."


def whole_scan(result: Mapping[str, Any]) -> str:
    """The whole scan's rate beside the pipeline's."""
    if "whole_scan" not in result:
        return NOT_MEASURED
    found, when = result["whole_scan"], result["measured"]["scan"]
    rates = found["images_per_second"]
    return (
        f"With {found['architecture']} on {when['cores']} cores of {_article(when['cpu'])}, the scan of "
        f"{found['images']:,} JPEG files of {found['jpeg_side']} pixels, from the\n"
        f"folder to the finished run, goes at {found['scan_over_pipeline']:.2f} of the pipeline's rate on the same "
        f"pictures in memory ({_number(rates['scan'])} and {_number(rates['pipeline'])} images a second)."
    )


def decoding(result: Mapping[str, Any]) -> str:
    """Microseconds from a JPEG's bytes to the model's pixels, and how many times libjpeg-turbo's own time."""
    return table(
        ("photographs", "libjpeg-turbo alone", "this library", "by Pillow", "the library over it", "Pillow over it"),
        [
            (
                f"{case['side']} px, {case['views']}",
                *(f"{case['microseconds'][way]:,.0f}" for way in ("alone", "library", "pillow")),
                *(f"{case['over_alone'][way]:.2f}" for way in ("library", "pillow")),
            )
            for case in result["cases"]
        ],
    )


def decoding_machine(result: Mapping[str, Any]) -> str:
    """The machine that decoding was measured on."""
    environment = result["environment"]
    how = "by the compiled loop" if result["compiled"] else "by torch"
    return "\n".join(
        textwrap.wrap(
            f"Medians on one core of {_article(environment['cpu'])}, in microseconds; simplejpeg "
            f"{environment['versions']['simplejpeg']}, Pillow {environment['versions']['Pillow']}; resized {how}.",
            120,
        )
    )


def loader(result: Mapping[str, Any]) -> str:
    """Rates of filtered loaders over unfiltered ones, lookups and memory."""
    ratios, found = result["ratios"], result["lookups"]
    return table(
        ("measured", "result"),
        [
            ("map-style loader by decisions, over unfiltered", f"{ratios['decisions_over_unfiltered']:.2f}"),
            ("the same with content checks", f"{ratios['content_checks_over_unfiltered']:.2f}"),
            ("iterable loader by decisions, over unfiltered", f"{ratios['iterable_decisions_over_unfiltered']:.2f}"),
            ("the same with content checks", f"{ratios['iterable_content_checks_over_unfiltered']:.2f}"),
            ("online with the stand-in encoder, over a scan", f"{ratios['online_over_scan']:.2f}"),
            ("a million lookups, one by one", f"{found['million_one_by_one_median_s']:.2f} s"),
            ("a million lookups, batched", f"{found['million_batched_median_s']:.2f} s"),
            ("opening 10 million decisions", f"{1000 * found['opened_s']:.0f} ms"),
            (f"memory of {found['workers']} workers together", f"{found['workers_together_mb']:.0f} MB"),
        ],
    )


def lookups(result: Mapping[str, Any]) -> str:
    """Decisions of very many samples, as a whole and shard by shard."""
    found = result["lookups"]
    whole, shards = found["whole"], found["shards"]
    count = found["samples"]

    def both(what: Callable[[Mapping[str, float]], str]) -> tuple[str, str]:
        return what(whole), what(shards)

    return table(
        (f"{count:,} samples", "the whole", "shard by shard"),
        [
            (
                "on the disk, bytes a sample",
                f"{found['whole_bytes_per_sample']:.1f}",
                f"{found['part_bytes_per_sample'] + found['table_bytes'] / count:.1f}",
            ),
            ("a worker's memory", *both(lambda way: f"{way['memory_bytes'] / 1e6:,.0f} MB")),
            ("the same, bytes a sample of the run", *both(lambda way: f"{way['memory_bytes'] / count:.2f}")),
            (
                "decisions at hand",
                f"{found['whole_bytes_per_sample'] * count / 1e6:,.0f} MB",
                f"{shards['held_bytes'] / 1e6:.1f} MB",
            ),
            ("opening", *both(lambda way: f"{1000 * way['opened_cpu_s']:.0f} ms")),
            ("lookups a second, first pass", *both(lambda way: _millions(way["lookups_per_cpu_s"]))),
            ("second pass", *both(lambda way: _millions(way["again_per_cpu_s"]))),
            ("in shards at hand", *both(lambda way: _millions(way["at_hand_per_cpu_s"]))),
        ],
    )


def machine(result: Mapping[str, Any]) -> str:
    """The machine that the throughput was measured on."""
    found = result["environment"]
    return f"Measured on {found['cores']} cores of {_article(found['cpu'])} with {found['instructions']}."


def other_machine(result: Mapping[str, Any]) -> str:
    """The same in short, from a machine whose processor runs the model faster."""
    found = result["environment"]
    case = next(c for c in result["cases"] if c["ratios"].items() <= result["ratios"].items())
    ratios = case["ratios"]
    return (
        f"On {found['cores']} cores of {_article(found['cpu'])} with {found['instructions']}, which embeds "
        f"{_number(case['images_per_second']['bare'])} images a second with {case['architecture']},\n"
        f"what decoding takes weighs more: {ratios['pipeline_over_bare']:.2f} of the bare model's rate at "
        f"{case['jpeg_side']} pixels, {ratios['pipeline_over_plain_loop']:.1f} times the plain loop's\n"
        f"and {ratios['pipeline_over_clip_retrieval']:.1f} times clip-retrieval's."
    )


def parity(result: Mapping[str, Any]) -> str:
    """The difference that fast decoding makes."""
    found = result["decode_parity"]
    same = round(found["decisions"] * found["decisions_same"])
    return (
        "Beside exact decoding, the stand-in encoder's embeddings of photographs of 256 to 2048 pixels and of\n"
        f"stand-in pictures have a cosine of at least {found['cosine_min']:.4f},\n"
        f"and {same:,} of {found['decisions']:,} decisions are the same."
    )


def overhead(result: Mapping[str, Any]) -> str:
    """A scan's own time a sample, now and before, by source."""
    return table(
        ("source", "with embeddings kept", "microseconds a sample", "in version 0.1.0"),
        [
            (
                row["source"],
                "yes" if row["embeddings"] else "no",
                *(f"{row['microseconds'][name][0]:.0f}" for name in ("this", "other")),
            )
            for row in result["rows"]
        ],
    )


def scan(result: Mapping[str, Any]) -> str:
    """Rates of stored embeddings, beside reading the file and scikit-learn."""
    rates, seconds = result["rows_per_second"], result["seconds"]
    names = {
        "read": "reading the file, `numpy.fromfile`",
        "scoring": "scores of two linear probes",
        "scan": "scan, to written parts",
        "whole_scan": "scan, to its end",
        "plain": "scores without a compiler",
        "sklearn": "scikit-learn, twice",
        "laion_l14": "LAION's L/14 detector" if result["laion_l14_is_published"] else "a network of its shape",
        "decide": "deciding again, to written parts",
        "decide_and_index": "deciding again, with the index",
        "cold_read": "reading the file, not in the cache",
        "cold_scoring": "scores, not in the cache",
    }

    def over(name: str, other: str) -> str:
        return f"{rates[name] / rates[other]:.2f}" if seconds[name] and name != other else "-"

    found = result["environment"]
    lines = table(
        ("", "million rows a second", "times reading", "times scikit-learn"),
        [
            (title, f"{rates[name] / 1e6:.2f}", over(name, "cold_read" if name.startswith("cold") else "read"),
             over(name, "sklearn"))
            for name, title in names.items()
        ],
    )  # fmt: skip
    memory = " and ".join(f"{held:,} MB with {int(rows):,} rows" for rows, held in result["memory_mb"].items())
    compiled = "" if result["compiled"] else ", without a C compiler"
    if result["load"] > 2 * found["cores"]:
        compiled += f", while other programs used the same cores (load {result['load']:.0f})"
    return (
        f"Measured on {found['cores']} cores of {_article(found['cpu'])}{compiled}, with {result['rows']:,} rows "
        f"({result['gigabytes']} GB).\n\n{lines}\n\n"
        f"A scanning process held at most {memory}, its modules and mapped pages among them."
    )


def laion_in_short(result: Mapping[str, Any]) -> str:
    """The same in a sentence."""
    hours = {name: f"{value:.2g}" for name, value in result["laion_5b_machine_hours"].items()}
    cores = result["environment"]["cores"]
    return textwrap.fill(
        f"By extrapolation from a measurement, LAION's 5.8 billion stored embeddings take {hours['whole_scan']} "
        f"machine-hours to scan and {hours['decide']} to decide again under another policy, on a machine of {cores} "
        "cores; machines share the work ([how it was measured](docs/embeddings.md#speed)).",
        120,
    )


def laion_hours(result: Mapping[str, Any]) -> str:
    """The machine-hours that these rates would need for LAION's rows, said to be an extrapolation."""
    hours = {name: f"{value:.2g}" for name, value in result["laion_5b_machine_hours"].items()}
    needed = result["rows_per_second"]["scoring"] * result["width"] * 2 / 1e9
    cores = result["environment"]["cores"]
    return (
        "By extrapolation from the rates above, and not by measurement, LAION's 5.8 billion rows (8.9 TB) take\n"
        f"{hours['scoring']} machine-hours to score, {hours['scan']} to scan into written parts, "
        f"{hours['whole_scan']} to scan to the end and {hours['decide']} to decide again,\n"
        f"on a machine of {cores} cores like this one. To score at that rate it needs {needed:.1f} GB a second; "
        "slower\nstorage sets the rate itself. Machines share the work by parts (`--engine ray`)."
    )


def cluster(result: Mapping[str, Any]) -> str:
    """Images a second by engine, and how busy the machine was otherwise."""
    rates, first, machine = result["images_per_second"], result["first_part_s"], result["environment"]
    names = {"one_worker": "Ray, one worker", "two_workers": "Ray, two workers", "local": "local engine, same cores"}
    lines = [
        (title, _number(rates[name]), f"{rates[name] / rates['one_worker']:.2f}", f"{first[name]:.0f} s")
        for name, title in names.items()
    ]
    prose = (
        f"{result['architecture']}, JPEGs of {result['jpeg_side']} pixels, {machine['cores']} cores of "
        f"{_article(machine['cpu'])}. When it began, {machine['load_at_start']:.1f} other processes ran on average: "
        "two workers can be twice as fast as one only where two cores are free."
    )
    head = ("engine", "images/s", "over one worker", "first part after")
    return f"{textwrap.fill(prose, 120)}\n\n{table(head, lines)}"


_LAION_IMAGES, _LAION_BYTES = 5.8e9, 240e12
"""LAION-5B's published copy at 384 pixels."""
_ROW_BYTES = 4 * 16 + 2 * 4
"""Two digests in the scores and two in the decisions, which don't compress, and two float32 scores."""
_COMPARED_BYTES = 37
"""A sample's record where repeated keys are looked for; `safetyfilter.runs.repeated`."""


def moved(result: Mapping[str, Any]) -> str:
    """Bytes of pictures as they are stored, and as they are prepared."""
    stored, pixels = _LAION_BYTES / _LAION_IMAGES, result["decoding"]["pixel_bytes"]
    prose = (
        f"A prepared picture has {pixels:,} bytes (224 x 224 x 3), and an image of LAION-5B at 384 pixels "
        f"{stored:,.0f} (published: 240 TB). Apart, {_LAION_IMAGES * pixels / 1e12:,.0f} TB would cross the network "
        "for 5.8 billion images beside the 240 TB that are read, and five times as much with `--views multi`; and an "
        "image's further pictures, such as frames, would need a way of their own."
    )
    return textwrap.fill(prose, 120)


def on_paper(result: Mapping[str, Any]) -> str:
    """Machines, hours and bytes for 5.8 billion images."""
    nodes, gpus = 8, 8
    measured = json.loads((RESULTS / "gpu.json").read_text(encoding="utf-8"))
    a_gpu = round(measured["sections"]["pipeline_384_compiled"]["images_per_second"]["pipeline"])
    core_s, per_image = result["decoding"]["core_ms"] / 1000, _LAION_BYTES / _LAION_IMAGES
    hours, rate = _LAION_IMAGES / a_gpu / 3600, gpus * a_gpu
    cores, gigabits, all_gigabytes = rate * core_s, rate * per_image * 8 / 1e9, nodes * rate * per_image / 1e9
    lines = [
        ("bytes read", "LAION-5B at 384 pixels, published", "240 TB"),
        ("rate of a GPU", f"ViT-L-14, measured: an {measured['environment']['device']}", f"{a_gpu:,} images/s"),
        ("hours of one GPU", f"5.8e9 / {a_gpu:,} / 3600", f"{hours:,.0f}"),
        (f"hours of {nodes} machines", f"{hours:,.0f} / ({nodes} x {gpus} GPUs)", f"{hours / nodes / gpus:,.1f}"),
        (
            "decoding an image",
            f"measured: a core of {_article(result['environment']['cpu'])}",
            f"{1000 * core_s:.1f} ms",
        ),
        ("cores that decode, a machine", f"{gpus} x {a_gpu:,} x {1000 * core_s:.1f} ms", f"{cores:,.1f}"),
        ("reading, a machine", f"{gpus} x {a_gpu:,} x {per_image:,.0f} bytes", f"{gigabits:.1f} Gbit/s"),
        ("reading, all machines", f"{nodes} times that", f"{all_gigabytes:.1f} GB/s"),
        ("bytes written", f"{_ROW_BYTES} a sample", f"{_LAION_IMAGES * _ROW_BYTES / 1e9:,.0f} GB"),
        ("compared at the end", f"{_COMPARED_BYTES} a sample", f"{_LAION_IMAGES * _COMPARED_BYTES / 1e9:,.0f} GB"),
    ]
    prose = (
        f"The GPUs saturate first where a machine has {cores:,.0f} cores for {gpus} of them, {gigabits:.1f} Gbit/s of "
        f"network, and storage that gives {all_gigabytes:.1f} GB/s to all machines. With fewer cores decoding does, "
        "then the network. What comes after the last part is the work of one machine, which needs room "
        "for what is compared: a run for each of the data set's own pieces (LAION-5B comes in three) keeps it in "
        "bounds."
    )
    return f"{table(('', 'from', 'on paper'), lines)}\n\n{textwrap.fill(prose, 120)}"


def hash_costs(result: Mapping[str, Any]) -> str:
    """A picture's processor time for lists of known hashes, beside a scan's."""
    cases, found = result["cases"], result["environment"]
    rows = {
        "decoding and embedding it": ("embed",),
        "decoding alone": ("decode",),
        "MD5, SHA-1, SHA-256 and SHA-512, and looking them up": ("digests",),
        "PDQ in all eight positions": ("pdq",),
        "PDQ in one position": ("pdq_upright",),
        "of either, decoding": ("pdq_decode",),
        "looking up eight among ten million": ("look_up",),
        "`pdqhash` by itself, one position, decoded before": ("pdqhash",),
    }
    lines = [(title, *(f"{sum(case['ms'][n] for n in names):.1f}" for case in cases)) for title, names in rows.items()]
    lines += [
        ("the four digests' share of a scan, %", *(f"{100 * case['digests_share']:.1f}" for case in cases)),
        ("PDQ's share, looking up included, %", *(f"{100 * case['pdq_share']:.0f}" for case in cases)),
    ]
    first, last = cases[0]["ms"], cases[-1]
    threads = last["two_threads_over_one"]
    prose = (
        f"Milliseconds of processor time a picture, JPEGs, on {found['cores']} cores of {_article(found['cpu'])}. The "
        f"scan embeds with {result['architecture']}, the fastest of the usual models, on the processor; with slower "
        "ones the shares are as much smaller. Where a GPU embeds, decoding is what is left for the processors, and PDQ "
        f"takes {(first['pdq'] + first['look_up']) / first['decode']:.1f} times as long as that for pictures of "
        f"{cases[0]['jpeg_side']} pixels and a list of ten million, so that it needs as many more cores. Two threads "
        f"hash {threads['pdq']:.1f} times as many pictures of {last['jpeg_side']} pixels as one does, and "
        f"{threads['pdqhash']:.1f} times as many with `pdqhash` by itself, which keeps other threads waiting."
    )
    head = ("", *(f"{case['jpeg_side']} px" for case in cases))
    return f"{textwrap.fill(prose, 120)}\n\n{table(head, lines)}"


def hash_loading(result: Mapping[str, Any]) -> str:
    """Seconds and memory that large lists take."""
    rows = [("MD5 digests", result["digests_loaded"]), ("PDQ hashes, with their index", result["pdq_loaded"])]
    return table(
        ("a list of", "seconds to load", "MB held", "MB at most meanwhile"),
        [
            (f"{found['hashes'] / 1e6:.0f} million {name}", f"{found['seconds']:.1f}", f"{found['mb']:,.0f}",
             f"{found['peak_mb']:,.0f}")
            for name, found in rows
        ],
    )  # fmt: skip


def hash_copies(result: Mapping[str, Any]) -> str:
    """The share of copies that perceptual hashes find, by what was done to them."""
    kinds = result["copies"]

    def shares(what: str) -> tuple[str, ...]:
        return tuple(
            f"{100 * copies[name] / copies['hashed']:.0f} %" if copies["hashed"] else "-"
            for kind in kinds.values()
            for copies in (kind["copies"][what],)
            for name in ("found", "found_upright")
        )

    lines = [(what, *shares(what)) for what in next(iter(kinds.values()))["copies"]]
    head = ("copy", *(title for kind in kinds for title in (f"{kind}, found", "in one position")))
    counted = " and ".join(f"{kind['listed']} {name}" for name, kind in kinds.items())
    left_out = sum(kind["unchecked"] for kind in kinds.values())
    unlisted = [kind["unlisted"] for kind in kinds.values()]
    prose = (
        f"Listed were {counted} ({left_out} of quality under 50 were left out), and each was copied in every way; "
        f"copies are JPEGs of quality 90 where nothing else is said. Of {sum(one['hashed'] for one in unlisted)} other "
        f"pictures, {sum(one['found'] for one in unlisted)} were taken for listed ones, and "
        f"{sum(one['unchecked'] for one in unlisted)} were of too little quality to tell."
    )
    return f"{textwrap.fill(prose, 120)}\n\n{table(head, lines)}"


def fuzz(result: Mapping[str, Any]) -> str:
    """Mutated files by what reads them."""
    total = result["total"]
    lines = [
        (
            name,
            f"{one['cases']:,}",
            f"{one['rejected']:,}",
            f"{one['accepted']:,}",
            str(one["faults"]),
            _number(one["slowest_ms"]),
            f"{one['peak_mb']:.0f}",
        )
        for name, one in result["targets"].items()
    ]
    whole = ("**all**", *(f"{total[name]:,}" for name in ("cases", "rejected", "accepted", "faults")), "", "")
    head = ("target", "cases", "refused", "accepted", "faults", "slowest, ms", "most memory more, MB")
    versions = ", ".join(f"{name} {found}" for name, found in result["versions"].items() if found)
    prose = textwrap.fill(f"Measured with {versions}; Python {result['python']}.", 120)
    return f"{table(head, [*lines, whole])}\n\n{prose}"


def soak(result: Mapping[str, Any]) -> str:
    """A scan under faults."""
    counts = result["counts"]
    return table(
        (f"{result['minutes']:.0f} minutes", ""),
        [
            ("rounds, each a scan from its first sample to its last", f"{counts['rounds']:,}"),
            ("samples, of which broken", f"{counts['samples']:,}, {counts['broken']:,}"),
            ("attempts at these scans", f"{counts['attempts']:,}"),
            ("ended by SIGKILL at a random moment", f"{counts['kills']:,}"),
            ("ended by a full disk", f"{counts['full_disk']:,}"),
            ("ended by storage that failed five times on end", f"{counts['storage_failed']:,}"),
            ("faults of storage in attempts that came to their own end", f"{counts['storage_faults']:,}"),
            ("memory: last quarter of the rounds, less the second", f"{result['growth_mb']:.1f} MB"),
            ("faults found", str(len(result["faults"]))),
        ],
    )


def startup(result: Mapping[str, Any]) -> str:
    """Seconds until commands answer, and until the first image is embedded; memory of loading."""
    seconds, machine = result["seconds"], result["environment"]
    commands = [("`import safetyfilter`" if name == "import" else f"`{name}`", f"{seconds[name]:.2f} s")
                for name in ("import", "--help", "status", "why", "decide")]  # fmt: skip
    first = [
        (f"{model}, from the command to the first image, {way}", f"{took:.1f} s")
        for model, ways in result["first_image_s"].items()
        for way, took in ways.items()
    ]
    imported = [
        (f"importing the encoder, over importing torch and open_clip: {what}", f"{result['ratios'][name]:.2f}")
        for what, name in (("seconds", "import_seconds_over_bare"), ("memory", "import_peak_bytes_over_bare"))
    ]
    held = [
        (f"loading {name}: memory at most, over the file", f"{one['over_file']:.2f}")
        for name, one in result["memory"].items()
    ]
    prose = (
        f"On {machine['cores']} cores of {_article(machine['cpu'])}, each in a process of its own, all files in the "
        "system's memory; checkpoints with random weights. The first image comes with a whole batch, filled up. When "
        f"it began, {machine['load_at_start']:.1f} other processes ran on average: what takes seconds takes "
        "longer where cores are busy."
    )
    return f"{textwrap.fill(prose, 120)}\n\n{table(('', ''), [*commands, *first, *imported, *held])}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A passage of a page, the file of results that it comes from, and the function that writes it."""

    page: str
    results: str
    write: Callable[[Mapping[str, Any]], str]

    def text(self) -> str:
        """The passage as the committed results have it."""
        return self.write(json.loads((RESULTS / self.results).read_text(encoding="utf-8")))


PASSAGES: dict[str, Passage] = {
    "moved": Passage(page="cluster.md", results="cluster.json", write=moved),
    "cluster": Passage(page="cluster.md", results="cluster.json", write=cluster),
    "on paper": Passage(page="cluster.md", results="cluster.json", write=on_paper),
    "loader": Passage(page="loaders.md", results="loader.json", write=loader),
    "lookups": Passage(page="loaders.md", results="lookups.json", write=lookups),
    "throughput": Passage(page="speed.md", results="throughput.json", write=throughput),
    "feed": Passage(page="speed.md", results="throughput.json", write=feed),
    "whole scan": Passage(page="speed.md", results="throughput.json", write=whole_scan),
    "machine": Passage(page="speed.md", results="throughput.json", write=machine),
    "other machine": Passage(page="speed.md", results="throughput_amx.json", write=other_machine),
    "parity": Passage(page="speed.md", results="throughput.json", write=parity),
    "scan": Passage(page="embeddings.md", results="scan.json", write=scan),
    "laion hours": Passage(page="embeddings.md", results="scan.json", write=laion_hours),
    "laion in short": Passage(page="../README.md", results="scan.json", write=laion_in_short),
    "decoding": Passage(page="speed.md", results="decoding.json", write=decoding),
    "decoding machine": Passage(page="speed.md", results="decoding.json", write=decoding_machine),
    "gpu": Passage(page="speed.md", results="gpu.json", write=gpu),
    "gpu scan": Passage(page="speed.md", results="gpu_scan.json", write=gpu_scan),
    "float8": Passage(page="precision.md", results="gpu.json", write=float8),
    "int8 amx": Passage(page="precision.md", results="int8_amx.json", write=int8_amx),
    "int8": Passage(page="precision.md", results="int8.json", write=int8),
    "overhead": Passage(page="speed.md", results="overhead.json", write=overhead),
    "start-up": Passage(page="speed.md", results="startup.json", write=startup),
    "fuzz": Passage(page="security-tests.md", results="fuzz.json", write=fuzz),
    "soak": Passage(page="security-tests.md", results="soak.json", write=soak),
    "sizes": Passage(page="quality.md", results="quality.json", write=sizes),
    "quality": Passage(page="quality.md", results="quality.json", write=quality),
    "small": Passage(page="quality.md", results="quality.json", write=small),
    "promises": Passage(page="quality.md", results="quality.json", write=promises),
    "closer": Passage(page="quality.md", results="quality.json", write=closer),
    "adaptive cost": Passage(page="quality.md", results="adaptive.json", write=adaptive_cost),
    "adaptive machine": Passage(page="quality.md", results="adaptive.json", write=adaptive_machine),
    "positions": Passage(page="quality.md", results="quality.json", write=positions),
    "laion": Passage(page="quality.md", results="quality.json", write=laion),
    "hash costs": Passage(page="hash-lists.md", results="hashes.json", write=hash_costs),
    "hash loading": Passage(page="hash-lists.md", results="hashes.json", write=hash_loading),
    "hash copies": Passage(page="hash-lists.md", results="hashes.json", write=hash_copies),
}
"""All passages, by name."""

PAGES = tuple(dict.fromkeys(passage.page for passage in PASSAGES.values()))
"""The pages that hold passages, by their paths from ``docs/``."""


def passages_of(page: str) -> list[str]:
    """The names of a page's passages."""
    return [name for name, passage in PASSAGES.items() if passage.page == page]


def filled(text: str, names: Iterable[str]) -> str:
    """A page's text with the passages of these names as the results have them."""
    for name in names:
        passage = PASSAGES[name].text()
        between = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)", re.DOTALL)
        text, found = between.subn(lambda match, passage=passage: f"{match[1]}\n{passage}\n{match[2]}", text)
        if found != 1:
            raise ValueError(f"the page has {found} places for {name}; put <!-- {name} --> and its end there, once")
    return text


def _article(name: str) -> str:
    return f"{'an' if name[:1].upper() in 'AEIO' else 'a'} {name}"


def _millions(value: float) -> str:
    return f"{value / 1e6:.2f} million"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


if __name__ == "__main__":
    for page in PAGES:
        path = DOCS / page
        path.write_text(filled(path.read_text(encoding="utf-8"), passages_of(page)), encoding="utf-8")
