"""The passage of the documentation that gives what int8 gains and changes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from passage_text import table

NAMES = {
    "torch_fp32": "torch, float32",
    "torch_bf16": "torch, bfloat16",
    "openvino_fp32": "OpenVINO, float32",
    "openvino_bf16": "OpenVINO, bfloat16",
    "openvino_int8": "OpenVINO, int8",
}
PROBES = {"trained": "trained probes", "zero_shot": "zero-shot probes"}


def int8(result: Mapping[str, Any]) -> str:
    """Rates in each precision, and decisions that are others."""
    environment, cases, flips = result["environment"], result["cases"], result["flips"]
    runs = list(cases[0]["images_per_second"])
    lines = [
        f"Measured on {environment['cores']} cores of {environment['cpu']} (instructions: "
        f"{environment['instructions']}), OpenVINO {environment['versions']['openvino'].split('-')[0]}; medians, "
        "images for each second of a processor's time:"
    ]
    text = "\n".join(textwrap.wrap(lines[0], 120)) + "\n\n"
    head = ["", *(case["encoder"] for case in cases)]
    rows = [[NAMES[run], *(f"{case['images_per_cpu_second'][run]:,.1f}" for case in cases)] for run in runs]
    rows += [
        [f"int8 over torch's {name}", *(f"{case['ratios'][f'int8_over_{key}']:.2f}" for case in cases)]
        for key, name in (("fp32", "float32"), ("bf16", "bfloat16"))
        if f"int8_over_{key}" in cases[0]["ratios"]
    ]
    text += table(head, rows) + "\n\n"
    some = next(iter(flips["probes"].values()))
    text += "\n".join(
        textwrap.wrap(
            f"Of {some['decisions']:,} stand-in pictures, quantised on {flips['quantised_on']} others and with "
            f"thresholds that were calibrated on int8's scores of {flips['calibrated_on']:,} more:",
            120,
        )
    )
    head = ["", "decisions as in float32", "pairs excluded in float32 and kept in int8"]
    rows = [
        [
            PROBES[name],
            f"{100 * row['decisions_same']:.2f} %",
            f"{row['pairs_kept']} of {row['excluded_pairs']:,}",
        ]
        for name, row in flips["probes"].items()
    ]
    return f"{text}\n\n{table(head, rows)}"


def int8_amx(result: Mapping[str, Any]) -> str:
    """Rates of one model on a processor that multiplies 8 bits natively."""
    environment, case = result["environment"], result["cases"][0]
    rates = ", ".join(f"{NAMES[run]} {rate:,.1f}" for run, rate in case["images_per_cpu_second"].items())
    ratios = case["ratios"]
    text = (
        f"On {environment['cores']} of the {environment['machine_cores']} virtual cores of an {environment['cpu']} "
        f"with {environment['instructions']}, images of {case['encoder']} for each second of a processor's time: "
        f"{rates}. int8 is {ratios['int8_over_bf16']:.2f} times as fast as torch's bfloat16, and OpenVINO's bfloat16 "
        f"{ratios['openvino_bf16_over_torch_bf16']:.2f} times."
    )
    return textwrap.fill(text, 120)
