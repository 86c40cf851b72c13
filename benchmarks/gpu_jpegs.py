"""JPEG files decoded by the device itself, beside the library's own way: speed, and what becomes of the pixels."""

from __future__ import annotations

import statistics
import warnings
from typing import Any

import numpy as np
import torch
from common import alternating, jpegs, ratio, timed
from torch.nn import functional as F

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed.threads import cores

AT_ONCE = 128


def device_decoding(encoder: ClipEncoder, side: int, count: int, repetitions: int) -> dict[str, Any]:
    """Files a second down to the model's input, by nvJPEG and the device's own resizing, and by all cores as here.

    The latter is the rate of one core times their number, of which the pipeline reaches nearly all.

    Both squash the whole picture. nvJPEG's pixels are not libjpeg-turbo's, and a tensor is not resized as Pillow
    resizes: so the embeddings are compared too.
    """
    from torchvision.io import ImageReadMode, decode_jpeg

    files = jpegs(count, side)
    encoded = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    prepare, size = encoder.preparer(EmbedOptions(views="whole")), encoder.spec.image_size

    def on_device() -> torch.Tensor:
        made = []
        for start in range(0, count, AT_ONCE):
            for planes in decode_jpeg(encoded[start : start + AT_ONCE], mode=ImageReadMode.RGB, device=encoder.device):
                resized = F.interpolate(planes[None].float(), size, mode="bicubic", antialias=True)
                made.append(resized.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1))
        pixels = torch.cat(made)
        torch.cuda.synchronize()
        return pixels

    some = files[: max(1, count // cores())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision means to give decoding up
        seconds = alternating(
            {"nvjpeg": timed(on_device), "cores": timed(lambda: [prepare(file) for file in some])}, repetitions
        )
        theirs = on_device()
    a_file = {
        "nvjpeg": [value / count for value in seconds["nvjpeg"]],
        "cores": [value / len(some) / cores() for value in seconds["cores"]],
    }
    ours = torch.from_numpy(np.concatenate([prepare(file)[0] for file in files])).to(encoder.device)
    cosines = (encoder.forward(theirs[:AT_ONCE]) * encoder.forward(ours[:AT_ONCE])).sum(1)
    return {
        "jpeg_side": side,
        "files_per_second": {name: round(1 / statistics.median(values), 1) for name, values in a_file.items()},
        "nvjpeg_over_cores": ratio(a_file, "nvjpeg", "cores"),
        "pixels_differ_by": round(float((theirs.float() - ours.float()).abs().mean()), 3),
        "cosine_min": round(float(cosines.min()), 5),
    }
