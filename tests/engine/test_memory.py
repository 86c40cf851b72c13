"""A scan's memory does not grow with the number of images."""

import subprocess
import sys
from pathlib import Path

import webdataset

from tests.conftest import encoded, photograph

FEW, MANY = 500, 5_000
_SCAN = """
import resource, sys
from safetyfilter import ClipEncoder, EmbedOptions, ProbeBank, SafetyFilter, open_source, scan

folder, clip, probes = sys.argv[1:]
encoder = ClipEncoder.load(f"local-dir:{clip}", device="cpu", precision="fp32")
options = EmbedOptions(views="whole", batch_size=32, workers=2)
safe = SafetyFilter(encoder, ProbeBank.load(probes), options=options)
for pattern in ("few.tar", "*.tar"):
    run = scan(open_source(f"{folder}/{pattern}", part_size=500), f"{folder}/run-{len(pattern)}", safe)
    assert run.counts["unscored"] == 0
    print(run.counts["seen"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
"""


def test_ten_times_the_images_in_the_same_memory(tmp_path: Path, tiny_clip: Path, probes) -> None:
    probes.save(tmp_path / "probes.safetensors")
    # what follows a picture's end is no part of it, and makes it worth noticing where it is kept
    images = [encoded(photograph("china.jpg").resize((96 + n, 64))) + bytes(16_000) for n in range(10)]
    names = ["few", *(f"more-{number}" for number in range(MANY // FEW - 1))]
    for name in names:
        with webdataset.TarWriter(str(tmp_path / f"{name}.tar"), encoder=False) as tar:
            for number in range(FEW):
                tar.write({"__key__": f"{number:06d}", "jpg": images[number % 10]})
    arguments = [str(path) for path in (tmp_path, tiny_clip, tmp_path / "probes.safetensors")]
    done = subprocess.run([sys.executable, "-c", _SCAN, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (few, before), (many, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (few, many) == (FEW, MANY)
    assert after - before < 0.1 * before  # in KiB
    assert (after - before) * 1024 / (MANY - FEW) < 5_000  # a third of an image's bytes
