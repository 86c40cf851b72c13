"""The passages of the documentation that give what a GPU was measured to do."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from passage_text import table

WAYS = {
    "open_clip": "as open_clip has it",
    "eager": "as it is",
    "contiguous": "weights in the other order",
    "graph": "a graph of kernels",
    "compiled": "compiled, which is `auto`",
    "fp8": "float8",
    "fp8_compiled": "float8, compiled",
}
PIPELINES = {
    "pipeline_384": ("as it is", "384 px"),
    "pipeline_384_compiled": ("compiled", "384 px"),
    "pipeline_1024_compiled": ("compiled", "1024 px"),
    "pipeline_384_fp8": ("float8, compiled", "384 px"),
}


def gpu(result: Mapping[str, Any]) -> str:
    """Rates of each way to run an image tower, of the pipeline beside it, and of decoding by the device."""
    sections, environment = result["sections"], result["environment"]
    towers = sections["towers"]
    ways = table(
        (f"{towers['model']} on ready pixels", "images/s", "over as it is", "first batch", "error beside float32"),
        [
            (
                name,
                f"{towers['images_per_second'][way]:,.0f}",
                f"{towers['over_eager'][way]:.2f}",
                f"{towers['first_batch_s'][way]:.1f} s",
                f"{100 * towers['beside_fp32'][way]['error_over_spread']:.1f} %",
            )
            for way, name in WAYS.items()
        ],
    )
    pipelines = table(
        ("pipeline from JPEG bytes", "images/s", "over the model alone"),
        [
            (
                f"{way}, {side}",
                f"{sections[name]['images_per_second']['pipeline']:,.0f}",
                f"{sections[name]['pipeline_over_bare']:.3f}",
            )
            for name, (way, side) in PIPELINES.items()
        ],
    )
    versions, share = environment["versions"], _share(result)
    begin = (
        f"Medians on an {environment['device']} with {environment['cores']} cores of a processor with "
        f"{environment['instructions']}; torch {versions['torch']}, torchao {versions['torchao']}, batches of "
        f"{towers['batch']}, bfloat16 but for float8, random weights. The error is the mean distance from float32's "
        "embeddings over their mean distance from each other."
    )
    end = (
        f"Compiled, that is {100 * share:.0f} % of the rate at which the device multiplied large matrices in the same "
        "run, by the operations that open_clip's own tower has. "
        f"It takes {sections['memory']['peak_mib'] / 1024:.1f} GiB of device memory at the most, and its weights "
        f"{sections['memory']['weights_mib'] / 1024:.1f} GiB. nvJPEG decodes pictures of 384 pixels at "
        f"{sections['jpegs_384']['nvjpeg_over_cores']:.2f} times the rate of all cores, and of 1024 pixels at "
        f"{sections['jpegs_1024']['nvjpeg_over_cores']:.2f} times."
    )
    return "\n\n".join((textwrap.fill(begin, 120), ways, pipelines, textwrap.fill(end, 120)))


def _share(result: Mapping[str, Any]) -> float:
    towers = result["sections"]["towers"]
    return float(towers["images_per_second"]["compiled"] * towers["flops"] / result["matrix_rate_flops"])


def gpu_scan(result: Mapping[str, Any]) -> str:
    """The whole scan beside the pipeline."""
    said = [
        f"{case['architecture']} at {case['images_per_second']['scan']:,.0f} pictures of {case['jpeg_side']} pixels a "
        f"second from a folder, where the pipeline alone gives {case['images_per_second']['pipeline']:,.0f} from memory"
        for case in result["cases"]
    ]
    how = "compiled" if all(case["compiled"] for case in result["cases"]) else "not compiled"
    text = (
        f"On the same machine, with models that were {how}, a scan of {result['cases'][0]['images']:,} to "
        f"{result['cases'][-1]['images']:,} pictures, its start and its end included, went with "
        f"{'; and with '.join(said)}."
    )
    return textwrap.fill(text, 120)


def float8(result: Mapping[str, Any]) -> str:
    """The decisions that float8 changes."""
    flips = result["sections"]["fp8_flips"]
    begin = (
        f"Of {flips['decisions']:,} pictures, with thresholds that were calibrated on float8's scores of "
        f"{flips['calibrated_on']:,} more. The transformer had learnt from {flips['learnt_from']:,} pictures to a "
        f"cosine of {flips['cosine_with_the_stand_in']:.3f} with the stand-in; float8 moved its embeddings by "
        f"{100 * flips['error_over_spread']['fp8']:.1f} % of their distance from the mean of all, and bfloat16 by "
        f"{100 * flips['error_over_spread']['bf16']:.1f} %."
    )
    rows = [
        (
            f"{100 * float(rate):.0f} %",
            f"{100 * row['excluded_share']:.0f} %",
            f"{100 * row['decisions_same_in_bf16']:.2f} %",
            f"{100 * row['decisions_same']:.2f} %",
            f"{row['pairs_kept']} of {row['excluded_pairs']:,}",
        )
        for rate, row in flips["by_max_miss_rate"].items()
    ]
    head = (
        "most misses",
        "pictures excluded",
        "decisions as in float32: bfloat16",
        "float8",
        "pairs excluded in float32 and kept in float8",
    )
    return f"{textwrap.fill(begin, 120)}\n\n{table(head, rows)}"
